import { describe, expect, it } from "vitest";

import type { Signal } from "../data/types";
import { newsOf } from "./signal_list";

const signal = (minute: number, change: Partial<Signal> = {}): Signal => ({
  id: `QQQ:1m:${minute * 60_000}`,
  revision: 0,
  state: "active",
  late: false,
  ticker: "QQQ",
  timeframe: "1m",
  ts_ms: minute * 60_000,
  kind: "cross",
  direction: "up",
  price: 1,
  sma9: 1,
  vwap: 1,
  ...change,
});

describe("news", () => {
  it("is a signal that was not there", () => {
    expect(newsOf([signal(3)], [signal(3, { revision: 1 }), signal(5)])).toEqual([signal(5)]);
  });

  it("is nothing that a correction brought or took back", () => {
    const fresh = [signal(5, { late: true }), signal(6, { state: "superseded" })];
    expect(newsOf([], fresh)).toEqual([]);
  });
});
