// The small pure parts: waits, round trips, the clock, the address, CSV, the calendar by rule.

import { describe, expect, it } from "vitest";

import { BACKOFF_MAX_MS, backoffMs } from "./backoff";
import { tradingDays } from "./calendar";
import { BrokerClock, neighbour, phaseAt, sessionOn } from "./clock";
import { csvCell, seriesCsv, signalsCsv } from "./csv";
import { Latency, median } from "./latency";
import { readUrl, writeUrl } from "./url";

describe("backoff", () => {
  it("grows, is jittered by half, and has a limit", () => {
    expect([0, 1, 2, 3].map((attempt) => backoffMs(attempt, 0.999_999))).toEqual([
      500, 1000, 2000, 4000,
    ]);
    expect(backoffMs(0, 0)).toBe(250);
    expect(backoffMs(50, 0.999_999)).toBe(BACKOFF_MAX_MS);
    expect(backoffMs(5, 0)).toBe(BACKOFF_MAX_MS / 2);
  });
});

describe("latency", () => {
  it("goes by the quickest answers: slow ones say nothing about the clocks", () => {
    const latency = new Latency();
    for (const rtt of [10, 12, 14, 11, 13]) latency.add(1000, 1000 + rtt, 1000 + rtt / 2 + 250);
    // The answer waited on its way back, which looks like another offset.
    latency.add(1000, 3000, 1005 + 250);
    expect(latency.rttMs).toBe(12);
    expect(latency.offsetMs).toBe(250);
  });

  it("forgets what is long ago", () => {
    const latency = new Latency();
    latency.add(0, 1, 0);
    for (let i = 0; i < 24; i++) latency.add(0, 50, 25);
    expect(latency.rttMs).toBe(50);
  });

  it("has no figure before the first answer", () => {
    expect(new Latency().rttMs).toBeNull();
    expect(new Latency().offsetMs).toBe(0);
    expect(median([4, 1, 3, 2])).toBe(2.5);
  });
});

describe("the broker's clock", () => {
  it("goes on at the speed last heard", () => {
    const clock = new BrokerClock();
    expect(clock.nowMs(5)).toBeNull();
    clock.set(1_000_000, 100, 0);
    expect(clock.nowMs(50)).toBe(1_005_000);
  });

  it("waits out a small correction and follows a jump back", () => {
    const clock = new BrokerClock();
    clock.set(10_000, 1, 0);
    expect(clock.nowMs(1000)).toBe(11_000);
    clock.set(10_950, 1, 1000);
    expect(clock.nowMs(1010)).toBe(11_000);
    expect(clock.nowMs(1100)).toBe(11_050);
    clock.set(1000, 1, 1200);
    expect(clock.nowMs(1200)).toBe(1000);
  });
});

describe("the trading day", () => {
  const days = tradingDays("2025-11-26", "2025-12-02");
  const at = (text: string): number => Date.parse(text);

  it("has phases, short ones on a half day", () => {
    expect(phaseAt(days, at("2025-11-26T14:29:59Z")).phase).toBe("pre");
    expect(phaseAt(days, at("2025-11-26T14:30:00Z"))).toEqual({
      phase: "regular",
      next: { phase: "post", at_ms: at("2025-11-26T21:00:00Z") },
    });
    // Thanksgiving; the half day after it opens next.
    expect(phaseAt(days, at("2025-11-27T16:00:00Z"))).toEqual({
      phase: "closed",
      next: { phase: "pre", at_ms: at("2025-11-28T12:00:00Z") },
    });
    expect(phaseAt(days, at("2025-11-28T18:00:00Z")).phase).toBe("post");
    expect(phaseAt(days, at("2025-11-28T22:00:00Z")).phase).toBe("closed");
    expect(phaseAt([], 0)).toEqual({ phase: "closed", next: null });
  });

  it("steps over the holiday and the weekend", () => {
    expect(neighbour(days, "2025-11-26", 1)).toBe("2025-11-28");
    expect(neighbour(days, "2025-12-01", -1)).toBe("2025-11-28");
    expect(neighbour(days, "2025-11-26", -1)).toBeNull();
    expect(sessionOn(days, "2025-11-27")).toBeNull();
    expect(sessionOn(days, "2025-11-28")?.kind).toBe("half");
  });
});

describe("the calendar by rule", () => {
  const of = (year: number, kind: string): string[] =>
    tradingDays(`${year}-01-01`, `${year}-12-31`)
      .filter((day) => day.kind === kind)
      .map((day) => day.date);

  it("knows the holidays and half days of a year", () => {
    expect(of(2026, "holiday")).toEqual([
      "2026-01-01",
      "2026-01-19",
      "2026-02-16",
      "2026-04-03",
      "2026-05-25",
      "2026-06-19",
      "2026-07-03",
      "2026-09-07",
      "2026-11-26",
      "2026-12-25",
    ]);
    expect(of(2026, "half")).toEqual(["2026-11-27", "2026-12-24"]);
    expect(of(2025, "half")).toEqual(["2025-07-03", "2025-11-28", "2025-12-24"]);
  });

  it("does not make up for a New Year's Day on a Saturday", () => {
    expect(of(2021, "holiday")).not.toContain("2021-12-31");
    expect(of(2022, "holiday")).toContain("2022-06-20");
  });
});

describe("the address", () => {
  it("is read and written alike", () => {
    const search =
      "?t=BRK.B&d=2026-01-05&tf=5m&style=line&x=ema9%2Crsi14&from=1767623400000&to=1767627000000";
    const state = readUrl(search);
    expect(state).toEqual({
      ticker: "BRK.B",
      date: "2026-01-05",
      timeframe: "5m",
      style: "line",
      extras: ["ema9", "rsi14"],
      view: { from_ms: 1_767_623_400_000, to_ms: 1_767_627_000_000 },
      page: "chart",
    });
    expect(writeUrl(state)).toBe(search);
  });

  it("takes every ticker that the stack takes", () => {
    for (const ticker of ["$SPX", "BAC^L", "BRK/B", "BF-B"]) {
      const search = writeUrl({ ...readUrl(""), ticker });
      expect(readUrl(search).ticker).toBe(ticker);
    }
  });

  it("leaves out what makes no sense", () => {
    expect(readUrl("?t=<script>&d=2026-02-30&tf=2m&style=x&x=DROP&from=9&to=3&p=admin")).toEqual({
      ticker: null,
      date: null,
      timeframe: null,
      style: null,
      extras: [],
      view: null,
      page: "chart",
    });
    expect(writeUrl(readUrl(""))).toBe("");
  });
});

describe("CSV", () => {
  it("quotes what needs it, and lets no spreadsheet run a cell", () => {
    expect([`a"b`, "a,b", "=1+1", "-5 points", -5, null, Number.NaN, true].map(csvCell)).toEqual([
      `"a""b"`,
      `"a,b"`,
      "'=1+1",
      "'-5 points",
      "-5",
      "",
      "",
      "true",
    ]);
  });

  it("begins with both clocks", () => {
    const text = seriesCsv({
      ticker: "QQQ",
      date: "2026-01-05",
      timeframe: "tick",
      epoch_ms: 0,
      last_seq: 0,
      complete: true,
      session: null,
      ts_ms: [Date.parse("2026-01-05T14:30:00.5Z")],
      price: [500.25],
      volume: [null],
      sma9: [null],
      vwap: [500.1],
    });
    expect(text).toBe(
      "timestamp,new_york,price,volume,sma9,vwap\r\n" +
        "2026-01-05T14:30:00.500Z,2026-01-05 09:30:00.500,500.25,,,500.1\r\n",
    );
    expect(signalsCsv([]).startsWith("timestamp,new_york,id,ticker,")).toBe(true);
  });
});
