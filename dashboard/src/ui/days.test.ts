import { describe, expect, it } from "vitest";

import type { SessionDay } from "../data/types";
import { addMonths, adjacentDay, latestDay, longDate, monthWeeks, whyEmpty } from "./days";

const day = (date: string, kind: SessionDay["kind"] = "full", name: string | null = null) => ({
  date,
  kind,
  name,
  pre_open_ms: null,
  open_ms: null,
  close_ms: null,
  post_close_ms: null,
  has_data: kind !== "holiday" && date < "2026-07-08",
});

const DAYS: SessionDay[] = [
  day("2026-07-01"),
  day("2026-07-02"),
  day("2026-07-03", "holiday", "Independence Day"),
  day("2026-07-06"),
  day("2026-07-07"),
  day("2026-07-08"),
];

describe("neighbouring days", () => {
  it("leap over weekends and holidays", () => {
    expect(adjacentDay(DAYS, "2026-07-02", 1, "2026-07-08")).toBe("2026-07-06");
    expect(adjacentDay(DAYS, "2026-07-06", -1, "2026-07-08")).toBe("2026-07-02");
  });

  it("can be found from a day that is none", () => {
    expect(adjacentDay(DAYS, "2026-07-04", 1, "2026-07-08")).toBe("2026-07-06");
    expect(adjacentDay(DAYS, "2026-07-03", -1, "2026-07-08")).toBe("2026-07-02");
  });

  it("end with today and with the first day known", () => {
    expect(adjacentDay(DAYS, "2026-07-07", 1, "2026-07-07")).toBeNull();
    expect(adjacentDay(DAYS, "2026-07-01", -1, "2026-07-08")).toBeNull();
  });
});

describe("the first day shown", () => {
  it("is today's session, or the latest one with data on a day without", () => {
    expect(latestDay(DAYS, "2026-07-08")).toBe("2026-07-08");
    expect(latestDay(DAYS, "2026-07-05")).toBe("2026-07-02");
    expect(latestDay(DAYS, "2026-07-11")).toBe("2026-07-07");
  });
});

describe("an empty day", () => {
  it("says why", () => {
    expect(whyEmpty(DAYS[2] ?? null, "2026-07-03", "2026-07-08")).toBe(
      "No session: Independence Day",
    );
    expect(whyEmpty(null, "2026-07-05", "2026-07-08")).toBe("No session: Sunday");
    expect(whyEmpty(null, "2026-07-10", "2026-07-08")).toBe("This day is still to come");
    expect(whyEmpty(DAYS[0] ?? null, "2026-07-01", "2026-07-08")).toBeNull();
  });
});

describe("a month", () => {
  const weeks = monthWeeks("2026-07", DAYS, "2026-07-07");

  it("has whole weeks from Sunday on", () => {
    expect(weeks).toHaveLength(5);
    expect(weeks[0]?.[0]?.date).toBe("2026-06-28");
    expect(weeks[4]?.[6]?.date).toBe("2026-08-01");
  });

  it("offers sessions only, and none to come", () => {
    const selectable = weeks.flat().filter((cell) => cell.selectable);
    expect(selectable.map((cell) => cell.date.slice(8))).toEqual(["01", "02", "06", "07"]);
  });

  it("names holidays in full", () => {
    const label = weeks.flat().find((cell) => cell.date === "2026-07-03")?.label;
    expect(label).toBe("Friday, July 3, 2026, closed, Independence Day");
  });

  it("begins on a Sunday when the month does", () => {
    expect(monthWeeks("2026-02", DAYS, "2026-07-07")).toHaveLength(4);
  });

  it("follows another over the year's end", () => {
    expect(addMonths("2026-01", -1)).toBe("2025-12");
    expect(addMonths("2025-12", 1)).toBe("2026-01");
    expect(longDate("2026-01-05")).toBe("Monday, January 5, 2026");
  });
});
