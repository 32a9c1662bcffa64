// A day of seconds, the same in every run: price, its mean of nine, and the day's average by
// volume.

import type { Signal, Session } from "../src/data/types";

export const POINTS = 23_400;
export const OPEN_MS = Date.parse("2026-01-05T14:30:00Z");

export const SESSION: Session = {
  kind: "full",
  pre_open_ms: OPEN_MS - 9_000_000,
  open_ms: OPEN_MS,
  close_ms: OPEN_MS + 23_400_000,
  post_close_ms: OPEN_MS + 37_800_000,
};

export interface Point {
  ts: number;
  price: number;
  sma9: number;
  vwap: number;
}

/** A small generator of even numbers in [0, 1), seeded. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** `count` points, one a second; more than a day goes on into the evening. */
export function makePoints(count: number): Point[] {
  const random = generator(7);
  const closes: number[] = [];
  const points: Point[] = [];
  let price = 500;
  let money = 0;
  let shares = 0;
  for (let i = 0; i < count; i++) {
    price += (random() + random() + random() - 1.5) * 0.08;
    const volume = 100 + Math.floor(random() * 900);
    closes.push(price);
    if (closes.length > 9) closes.shift();
    money += price * volume;
    shares += volume;
    points.push({
      ts: OPEN_MS + i * 1000,
      price: Math.round(price * 100) / 100,
      sma9: closes.reduce((sum, each) => sum + each, 0) / closes.length,
      vwap: money / shares,
    });
  }
  return points;
}

/** Sixty crosses over the day. */
export function makeSignals(points: readonly Point[]): Signal[] {
  return Array.from({ length: 60 }, (_, i): Signal => {
    const point = points[200 + i * 380] as Point;
    return {
      id: `QQQ:1m:${point.ts}`,
      revision: 0,
      state: "active",
      late: false,
      ticker: "QQQ",
      timeframe: "1m",
      ts_ms: point.ts,
      kind: "cross",
      direction: i % 2 === 0 ? "up" : "down",
      price: point.price,
      sma9: point.sma9,
      vwap: point.vwap,
    };
  });
}
