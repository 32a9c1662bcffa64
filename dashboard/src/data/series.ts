/**
 * A day's numbers in typed arrays, in order of time, each time at most once.
 *
 * The chart draws from these arrays directly. A missing value is NaN. Appending at the end is a few
 * writes; what comes out of order (a correction, a repeated batch) finds its place by binary
 * search. `version` grows with every change, `count` says how much of the arrays is in use.
 */

import type { Candle, CandleSeries, Maybe, TickSeries } from "./types";

const FIRST_CAPACITY = 1024;

/** The first index whose value is not below `wanted`, among the first `count`. */
export function lowerBound(values: Float64Array, count: number, wanted: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as number) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

function number(value: Maybe | undefined): number {
  return value ?? Number.NaN;
}

/** Columns of equal length with one of them, `ts`, in strictly rising order. */
class Columns {
  count = 0;
  version = 0;
  /** Columns by name; replaced when they grow, so do not keep them. */
  readonly columns: Record<string, Float64Array> = {};
  private capacity: number;

  constructor(names: readonly string[], capacity = FIRST_CAPACITY) {
    this.capacity = capacity;
    for (const name of ["ts", ...names]) this.columns[name] = new Float64Array(capacity);
  }

  column(name: string): Float64Array {
    const found = this.columns[name];
    if (found === undefined) throw new Error(`no column ${name}`);
    return found;
  }

  get ts(): Float64Array {
    return this.columns["ts"] as Float64Array;
  }

  get lastTs(): number {
    return this.count > 0 ? (this.ts[this.count - 1] as number) : Number.NaN;
  }

  addColumn(name: string): void {
    if (name in this.columns) return;
    this.columns[name] = new Float64Array(this.capacity).fill(Number.NaN);
  }

  reserve(wanted: number): void {
    if (wanted <= this.capacity) return;
    while (this.capacity < wanted) this.capacity *= 2;
    for (const name in this.columns) {
      const grown = new Float64Array(this.capacity);
      grown.set((this.columns[name] as Float64Array).subarray(0, this.count));
      this.columns[name] = grown;
    }
  }

  /** Makes room for a row at `ts` and returns its index, and whether a row was there already. */
  slot(ts: number): { index: number; found: boolean } {
    if (this.count === 0 || ts > this.lastTs) {
      this.reserve(this.count + 1);
      this.count += 1;
      return { index: this.count - 1, found: false };
    }
    const index = lowerBound(this.ts, this.count, ts);
    if (this.ts[index] === ts) return { index, found: true };
    this.reserve(this.count + 1);
    for (const name in this.columns) {
      (this.columns[name] as Float64Array).copyWithin(index + 1, index, this.count);
    }
    this.count += 1;
    return { index, found: false };
  }

  clear(): void {
    this.count = 0;
    this.version += 1;
  }

  /** The last index whose time is not after `ts`; -1 if there is none. */
  indexAt(ts: number): number {
    const index = lowerBound(this.ts, this.count, ts);
    return index < this.count && this.ts[index] === ts ? index : index - 1;
  }
}

/** Ticks: time, price, volume (NaN for live ones, which come without), sma9, vwap. */
export class TickStore extends Columns {
  constructor(capacity?: number) {
    super(["price", "volume", "sma9", "vwap"], capacity);
  }

  get price(): Float64Array {
    return this.column("price");
  }
  get volume(): Float64Array {
    return this.column("volume");
  }
  get sma9(): Float64Array {
    return this.column("sma9");
  }
  get vwap(): Float64Array {
    return this.column("vwap");
  }

  /** Replaces everything by a snapshot, whose times are in order. */
  load(series: TickSeries): void {
    this.clear();
    this.reserve(series.ts_ms.length);
    this.append(series.ts_ms, series.price, series.sma9, series.vwap, series.volume);
  }

  append(
    ts: ArrayLike<number>,
    price: ArrayLike<Maybe>,
    sma9: ArrayLike<Maybe>,
    vwap: ArrayLike<Maybe>,
    volume?: ArrayLike<Maybe>,
  ): void {
    for (let i = 0; i < ts.length; i++) {
      this.put(
        ts[i] as number,
        number(price[i]),
        number(sma9[i]),
        number(vwap[i]),
        number(volume?.[i]),
      );
    }
  }

  put(ts: number, price: number, sma9: number, vwap: number, volume = Number.NaN): void {
    const { index, found } = this.slot(ts);
    this.ts[index] = ts;
    this.price[index] = price;
    this.sma9[index] = sma9;
    this.vwap[index] = vwap;
    // A live tick repeats one of the snapshot without its volume: keep what is known.
    if (!found || !Number.isNaN(volume)) this.volume[index] = volume;
    this.version += 1;
  }
}

const CANDLE_COLUMNS = ["open", "high", "low", "close", "volume", "sma9", "vwap", "revision"];

/** Closed candles, and beside them the one that is still being made. */
export class CandleStore extends Columns {
  extras: string[] = [];
  /** The open candle, of which nothing is final; null when the last one is closed. */
  provisional: Candle | null = null;
  /** The lowest index changed since the chart last looked; it sets this back to Infinity. */
  changedFrom = Number.POSITIVE_INFINITY;

  constructor(capacity?: number) {
    super(CANDLE_COLUMNS, capacity);
  }

  get open(): Float64Array {
    return this.column("open");
  }
  get high(): Float64Array {
    return this.column("high");
  }
  get low(): Float64Array {
    return this.column("low");
  }
  get close(): Float64Array {
    return this.column("close");
  }
  get volume(): Float64Array {
    return this.column("volume");
  }
  get sma9(): Float64Array {
    return this.column("sma9");
  }
  get vwap(): Float64Array {
    return this.column("vwap");
  }
  get revision(): Float64Array {
    return this.column("revision");
  }

  extra(name: string): Float64Array {
    return this.column(`extra:${name}`);
  }

  /** Replaces everything by a snapshot, whose times are in order. */
  load(series: CandleSeries): void {
    this.clear();
    this.provisional = null;
    this.reserve(series.ts_ms.length);
    const names = Object.keys(series.extras);
    for (let i = 0; i < series.ts_ms.length; i++) {
      const extras: Record<string, Maybe> = {};
      for (const name of names) extras[name] = series.extras[name]?.[i] ?? null;
      this.upsert({
        ts_ms: series.ts_ms[i] as number,
        open: series.open[i] as number,
        high: series.high[i] as number,
        low: series.low[i] as number,
        close: series.close[i] as number,
        volume: number(series.volume[i]),
        sma9: series.sma9[i] ?? null,
        vwap: series.vwap[i] ?? null,
        extras,
        revision: series.revision[i] ?? 0,
      });
    }
    this.changedFrom = 0;
  }

  /** Takes a closed candle, unless a later revision of it is known; says whether it was taken. */
  upsert(candle: Candle): boolean {
    const revision = candle.revision ?? 0;
    const { index, found } = this.slot(candle.ts_ms);
    if (found && (this.revision[index] as number) > revision) return false;
    this.ts[index] = candle.ts_ms;
    this.open[index] = candle.open;
    this.high[index] = candle.high;
    this.low[index] = candle.low;
    this.close[index] = candle.close;
    this.volume[index] = number(candle.volume);
    this.sma9[index] = number(candle.sma9);
    this.vwap[index] = number(candle.vwap);
    this.revision[index] = revision;
    this.setExtras(index, candle.extras ?? {});
    if (this.provisional !== null && this.provisional.ts_ms <= candle.ts_ms)
      this.provisional = null;
    this.changedFrom = Math.min(this.changedFrom, index);
    this.version += 1;
    return true;
  }

  /** Takes the open candle; one that is closed already stays as it is. */
  setProvisional(candle: Candle): boolean {
    if (this.count > 0 && candle.ts_ms <= this.lastTs) return false;
    this.provisional = candle;
    this.version += 1;
    return true;
  }

  private setExtras(index: number, extras: Record<string, Maybe>): void {
    for (const name in extras) {
      if (!this.extras.includes(name)) {
        this.extras.push(name);
        this.addColumn(`extra:${name}`);
      }
    }
    for (const name of this.extras) this.extra(name)[index] = number(extras[name]);
  }
}
