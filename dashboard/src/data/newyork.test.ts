import { afterEach, describe, expect, it, vi } from "vitest";

import {
  addDays,
  dateAt,
  formatDate,
  formatDateTime,
  formatSpan,
  formatTime,
  midnightMs,
  offsetMsAt,
  offsetMsOn,
} from "./newyork";

const HOUR_MS = 3_600_000;
const at = (text: string): number => Date.parse(text);

describe("the offset", () => {
  it("follows daylight saving on both Sundays of 2026", () => {
    expect(offsetMsAt(at("2026-03-08T06:59:59.999Z"))).toBe(-5 * HOUR_MS);
    expect(offsetMsAt(at("2026-03-08T07:00:00Z"))).toBe(-4 * HOUR_MS);
    expect(offsetMsAt(at("2026-11-01T05:59:59.999Z"))).toBe(-4 * HOUR_MS);
    expect(offsetMsAt(at("2026-11-01T06:00:00Z"))).toBe(-5 * HOUR_MS);
  });

  it("is one for each trading day", () => {
    const hours = ["2026-03-06", "2026-03-09", "2026-10-30", "2026-11-02"].map(
      (date) => offsetMsOn(date) / HOUR_MS,
    );
    expect(hours).toEqual([-5, -4, -4, -5]);
  });
});

describe("formatting", () => {
  it("writes the wall clock with milliseconds", () => {
    const ts = at("2026-01-05T14:30:00.007Z");
    expect(formatTime(ts, "milli")).toBe("09:30:00.007");
    expect(formatTime(ts)).toBe("09:30:00");
    expect(formatTime(ts, "minute", offsetMsOn("2026-01-05"))).toBe("09:30");
  });

  it("takes fractions of a millisecond, as an extrapolated clock has them", () => {
    expect(formatTime(at("2026-01-05T14:30:00.007Z") + 0.9, "milli")).toBe("09:30:00.007");
  });

  it("keeps the New York date after midnight UTC", () => {
    const evening = at("2026-01-06T00:59:59Z");
    expect(dateAt(evening)).toBe("2026-01-05");
    expect(formatDateTime(evening)).toBe("2026-01-05 19:59:59.000");
  });

  it("names days and spans", () => {
    expect(formatDate("2026-01-05")).toBe("Mon, Jan 5, 2026");
    expect([999, 65_000, 3_840_000, 90_000_000, -5].map(formatSpan)).toEqual([
      "0 s",
      "1 min 05 s",
      "1 h 04 min",
      "1 d 1 h",
      "0 s",
    ]);
  });
});

describe("days", () => {
  it("begin at New York's midnight, also when the clocks change", () => {
    expect(new Date(midnightMs("2026-01-05")).toISOString()).toBe("2026-01-05T05:00:00.000Z");
    expect(new Date(midnightMs("2026-07-06")).toISOString()).toBe("2026-07-06T04:00:00.000Z");
    expect(midnightMs("2026-03-09") - midnightMs("2026-03-08")).toBe(23 * HOUR_MS);
    expect(midnightMs("2026-11-02") - midnightMs("2026-11-01")).toBe(25 * HOUR_MS);
  });

  it("are counted by the calendar", () => {
    expect(addDays("2026-02-28", 1)).toBe("2026-03-01");
    expect(addDays("2026-01-01", -1)).toBe("2025-12-31");
  });
});

describe("whatever the viewer's zone", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it.each(["Asia/Tokyo", "Europe/Berlin", "America/Los_Angeles", "Pacific/Chatham"])(
    "%s",
    (zone) => {
      vi.stubEnv("TZ", zone);
      expect(new Date("2026-01-05T14:30:00Z").getHours() === 9).toBe(false);
      expect(formatDateTime(at("2026-01-05T14:30:00Z"))).toBe("2026-01-05 09:30:00.000");
      expect(formatDate("2026-01-05")).toBe("Mon, Jan 5, 2026");
      expect(addDays("2026-03-08", 1)).toBe("2026-03-09");
    },
  );
});
