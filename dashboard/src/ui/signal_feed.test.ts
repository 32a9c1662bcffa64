import { describe, expect, it } from "vitest";

import type { Signal } from "../data/types";
import { merged } from "./signal_feed";

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

describe("signals", () => {
  it("stay in order of time, however they come", () => {
    const found = merged([signal(5)], [signal(3), signal(9)]);
    expect(found.map((each) => each.ts_ms / 60_000)).toEqual([3, 5, 9]);
  });

  it("are what their highest revision says", () => {
    const taken = signal(5, { revision: 2, state: "superseded" });
    expect(merged([signal(5)], [taken])[0]?.state).toBe("superseded");
    expect(merged([taken], [signal(5, { revision: 1 })])[0]?.state).toBe("superseded");
  });

  it("are not doubled when they come again", () => {
    expect(merged([signal(5)], [signal(5), signal(5)])).toHaveLength(1);
  });
});
