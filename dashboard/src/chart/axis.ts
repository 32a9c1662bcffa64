/**
 * Where a time lies on the chart's x axis, which counts slots.
 *
 * Ticks get one slot a second over the whole day, so a time's place is a straight line and needs no
 * table. Candles get one slot each; those of the segments' ends may be cut short (an hour candle of
 * 09:00 ends at 09:30), so a time's place is looked up.
 */

import type { LineData, UTCTimestamp, WhitespaceData } from "lightweight-charts";

import { CandleStore } from "../data/series";
import type { TickStore } from "../data/series";
import type { BarTimeframe, Session } from "../data/types";

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;

export const TIMEFRAME_MS: Record<BarTimeframe, number> = {
  "1m": MINUTE_MS,
  "5m": 5 * MINUTE_MS,
  "15m": 15 * MINUTE_MS,
  "1h": 60 * MINUTE_MS,
};

/** The chart knows no zones: it gets New York's wall clock as if it were UTC. */
export function seconds(tsMs: number, offsetMs: number): UTCTimestamp {
  return ((tsMs + offsetMs) / SECOND_MS) as UTCTimestamp;
}

/** Slots by their starts in rising order; `endMs` is where the last one ends. */
export class Axis {
  readonly starts: Float64Array;
  readonly endMs: number;
  /** Set when all slots are equally long: then no table is needed. */
  readonly stepMs: number | null;

  constructor(starts: Float64Array, endMs: number, stepMs: number | null) {
    if (starts.length === 0) throw new Error("an axis needs a slot");
    this.starts = starts;
    this.endMs = endMs;
    this.stepMs = stepMs;
  }

  get length(): number {
    return this.starts.length;
  }

  get startMs(): number {
    return this.starts[0] as number;
  }

  equals(other: Axis): boolean {
    return (
      this.stepMs === other.stepMs &&
      this.endMs === other.endMs &&
      this.length === other.length &&
      this.starts.every((start, i) => start === other.starts[i])
    );
  }

  /** The slot that holds `ts`, or the nearest end of the axis. */
  slotAt(ts: number): number {
    if (this.stepMs !== null) {
      const slot = Math.floor((ts - this.startMs) / this.stepMs);
      return Math.min(Math.max(slot, 0), this.length - 1);
    }
    let low = 0;
    let high = this.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.starts[middle] as number) <= ts) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  has(ts: number): boolean {
    return this.starts[this.slotAt(ts)] === ts;
  }

  /**
   * The place of `ts` between slots: a slot's start is its whole number. Goes on beyond the ends.
   */
  xOf(ts: number): number {
    if (this.stepMs !== null) return (ts - this.startMs) / this.stepMs;
    const slot = this.slotAt(ts);
    return slot + (ts - (this.starts[slot] as number)) / this.lengthOf(slot);
  }

  tsOf(x: number): number {
    if (this.stepMs !== null) return this.startMs + x * this.stepMs;
    const slot = Math.min(Math.max(Math.floor(x), 0), this.length - 1);
    return (this.starts[slot] as number) + (x - slot) * this.lengthOf(slot);
  }

  private lengthOf(slot: number): number {
    const end = slot + 1 < this.length ? (this.starts[slot + 1] as number) : this.endMs;
    return Math.max(end - (this.starts[slot] as number), 1);
  }
}

/** One slot a second from `fromMs` to `toMs`. */
export function tickAxis(fromMs: number, toMs: number): Axis {
  const first = Math.floor(fromMs / SECOND_MS) * SECOND_MS;
  const count = Math.max(Math.ceil((toMs - first) / SECOND_MS), 2);
  const starts = new Float64Array(count);
  for (let i = 0; i < count; i++) starts[i] = first + i * SECOND_MS;
  return new Axis(starts, first + count * SECOND_MS, SECOND_MS);
}

/** The slots of a day of ticks: the session's, or what there is where there is none. */
export function dayAxis(session: Session | null, store: TickStore | CandleStore): Axis {
  if (session !== null) return tickAxis(session.pre_open_ms, session.post_close_ms);
  if (store.count === 0) return tickAxis(0, SECOND_MS);
  // An hour ahead, so that not every tick needs another axis.
  return tickAxis(store.ts[0] as number, store.lastTs + 60 * MINUTE_MS);
}

/** When candles begin: the closed ones, and the one that is still being made. */
export function candleTimes(store: TickStore | CandleStore): number[] {
  const times = Array.from(store.ts.subarray(0, store.count));
  if (store instanceof CandleStore && store.provisional !== null)
    times.push(store.provisional.ts_ms);
  return times;
}

/** Whether all that has come lies on the axis. Ticks beside a known session may lie beyond it. */
export function hasSlots(
  axis: Axis,
  showing: { session: Session | null; store: TickStore | CandleStore },
): boolean {
  const { session, store } = showing;
  if (store instanceof CandleStore) {
    for (let i = Math.min(store.changedFrom, store.count); i < store.count; i++) {
      if (!axis.has(store.ts[i] as number)) return false;
    }
    return store.provisional === null || axis.has(store.provisional.ts_ms);
  }
  if (session !== null || store.count === 0) return true;
  return (store.ts[0] as number) >= axis.startMs && store.lastTs < axis.endMs;
}

/** What the hidden series gets: empty slots, but for the first and the last. */
export function slotData(
  axis: Axis,
  offsetMs: number,
): (WhitespaceData<UTCTimestamp> | LineData<UTCTimestamp>)[] {
  const last = axis.length - 1;
  return Array.from(axis.starts, (start, slot) => {
    const time = seconds(start, offsetMs);
    // Without a value in it, the chart would not scroll to the day's end.
    return slot === 0 || slot === last ? { time, value: 1 } : { time };
  });
}

/** The starts of a day's candles: aligned to each segment's start, cut at its end. */
function sessionStarts(session: Session, stepMs: number): number[] {
  const bounds = [session.pre_open_ms, session.open_ms, session.close_ms, session.post_close_ms];
  const starts: number[] = [];
  for (let segment = 0; segment + 1 < bounds.length; segment++) {
    const end = bounds[segment + 1] as number;
    for (let ts = bounds[segment] as number; ts < end; ts += stepMs) starts.push(ts);
  }
  return starts;
}

/**
 * One slot for each candle that the day can have, and for each of `known` that it should not have.
 */
export function candleAxis(
  session: Session | null,
  timeframe: BarTimeframe,
  known: ArrayLike<number>,
): Axis {
  const stepMs = TIMEFRAME_MS[timeframe];
  const all = new Set(session === null ? [] : sessionStarts(session, stepMs));
  for (let i = 0; i < known.length; i++) all.add(known[i] as number);
  if (all.size === 0) all.add(0);
  const starts = Float64Array.from(all).sort();
  const last = starts[starts.length - 1] as number;
  return new Axis(starts, Math.max(session?.post_close_ms ?? 0, last + 1), null);
}
