import { describe, expect, it } from "vitest";

import { CandleStore, TickStore, lowerBound } from "./series";
import type { Candle, CandleSeries } from "./types";

function times(store: TickStore | CandleStore): number[] {
  return Array.from(store.ts.subarray(0, store.count));
}

function candle(ts_ms: number, close: number, more: Partial<Candle> = {}): Candle {
  return {
    ts_ms,
    open: close,
    high: close,
    low: close,
    close,
    volume: 10,
    sma9: null,
    vwap: null,
    ...more,
  };
}

describe("TickStore", () => {
  it("appends and grows beyond its first capacity", () => {
    const store = new TickStore(2);
    for (let i = 0; i < 5000; i++) store.put(i * 1000, 100 + i, Number.NaN, i);
    expect(store.count).toBe(5000);
    expect(store.price[4999]).toBe(5099);
    expect(store.lastTs).toBe(4_999_000);
  });

  it("keeps null as NaN", () => {
    const store = new TickStore();
    store.append([1, 2], [10, 11], [null, 10.5], [null, null]);
    expect(store.sma9[0]).toBeNaN();
    expect(store.sma9[1]).toBe(10.5);
    expect(store.vwap[1]).toBeNaN();
  });

  it("takes a repeated tick once, and keeps the volume that only the snapshot knows", () => {
    const store = new TickStore();
    store.put(1000, 10, 1, 1, 300);
    store.put(1000, 10, 1, 1);
    expect(store.count).toBe(1);
    expect(store.volume[0]).toBe(300);
  });

  it("puts a late tick where it belongs, over the edge of its capacity too", () => {
    const store = new TickStore(3);
    for (const ts of [1000, 3000, 4000]) store.put(ts, ts, ts, ts);
    store.put(2000, 2000, 2000, 2000);
    expect(times(store)).toEqual([1000, 2000, 3000, 4000]);
    expect(Array.from(store.price.subarray(0, 4))).toEqual([1000, 2000, 3000, 4000]);
  });

  it("finds the tick at or before a time", () => {
    const store = new TickStore();
    for (const ts of [1000, 2000, 3000]) store.put(ts, 1, 1, 1);
    expect([500, 1000, 1500, 3000, 9000].map((ts) => store.indexAt(ts))).toEqual([-1, 0, 0, 2, 2]);
  });

  it("loads a snapshot over what was there", () => {
    const store = new TickStore();
    store.put(9000, 1, 1, 1);
    store.load({
      ticker: "QQQ",
      date: "2026-01-05",
      timeframe: "tick",
      epoch_ms: 1,
      last_seq: 1,
      complete: false,
      session: null,
      ts_ms: [1, 2],
      price: [10, 11],
      volume: [5, null],
      sma9: [null, 1],
      vwap: [1, 2],
    });
    expect(times(store)).toEqual([1, 2]);
    expect(store.volume[1]).toBeNaN();
  });
});

describe("CandleStore", () => {
  it("replaces a candle by its later revision and not by an earlier one", () => {
    const store = new CandleStore();
    store.upsert(candle(60_000, 10));
    store.upsert(candle(120_000, 11));
    expect(store.upsert(candle(60_000, 12, { revision: 2 }))).toBe(true);
    expect(store.upsert(candle(60_000, 13, { revision: 1 }))).toBe(false);
    expect(Array.from(store.close.subarray(0, 2))).toEqual([12, 11]);
    expect(store.count).toBe(2);
  });

  it("tells from where on it has changed", () => {
    const store = new CandleStore();
    for (const ts of [1, 2, 3]) store.upsert(candle(ts * 60_000, ts));
    store.changedFrom = Number.POSITIVE_INFINITY;
    store.upsert(candle(120_000, 9, { revision: 1 }));
    expect(store.changedFrom).toBe(1);
  });

  it("drops the open candle when its final one comes, and takes none for a closed minute", () => {
    const store = new CandleStore();
    store.upsert(candle(60_000, 10));
    expect(store.setProvisional(candle(120_000, 10.5))).toBe(true);
    expect(store.provisional?.close).toBe(10.5);
    store.upsert(candle(120_000, 11));
    expect(store.provisional).toBeNull();
    expect(store.setProvisional(candle(120_000, 10.7))).toBe(false);
    expect(store.provisional).toBeNull();
  });

  it("takes extras as they turn up, NaN before", () => {
    const store = new CandleStore(2);
    store.upsert(candle(60_000, 10));
    store.upsert(candle(120_000, 10, { extras: { ema9: 9.5 } }));
    store.upsert(candle(180_000, 10, { extras: { ema9: null, rsi14: 50 } }));
    expect(store.extras).toEqual(["ema9", "rsi14"]);
    expect(Array.from(store.extra("ema9").subarray(0, 3))).toEqual([Number.NaN, 9.5, Number.NaN]);
    expect(Array.from(store.extra("rsi14").subarray(0, 3))).toEqual([Number.NaN, Number.NaN, 50]);
  });

  it("loads a corrected day: candles that are not in it no longer hold", () => {
    const store = new CandleStore();
    for (const ts of [1, 2, 3]) store.upsert(candle(ts * 60_000, ts));
    const series: CandleSeries = {
      ticker: "QQQ",
      date: "2026-01-05",
      timeframe: "1m",
      epoch_ms: 1,
      last_seq: 9,
      complete: false,
      session: null,
      ts_ms: [60_000, 180_000],
      open: [1, 3],
      high: [1, 3],
      low: [1, 3],
      close: [1, 3],
      volume: [1, null],
      revision: [1, 1],
      sma9: [null, null],
      vwap: [1, 1],
      extras: { ema9: [null, 3] },
    };
    store.load(series);
    expect(times(store)).toEqual([60_000, 180_000]);
    expect(store.extra("ema9")[1]).toBe(3);
    expect(store.changedFrom).toBe(0);
  });
});

it("finds lower bounds", () => {
  const values = Float64Array.of(1, 3, 5, 0);
  expect([0, 1, 2, 5, 6].map((wanted) => lowerBound(values, 3, wanted))).toEqual([0, 0, 1, 2, 3]);
});
