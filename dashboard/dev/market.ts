// A made-up market for looking at the page: seeded, so that two visits see the same day.

import { tradingDays } from "../src/data/calendar";
import type { CandleSeries, Maybe, SessionDay, Signal, TickSeries } from "../src/data/types";

export const TODAY = "2026-07-06";
/** When the demo begins: Monday, 11:42:10 in New York. */
export const BEGIN_MS = Date.parse("2026-07-06T15:42:10.250Z");
export const TICKERS = [
  ["QQQ", 612.4],
  ["SPY", 684.1],
  ["AAPL", 271.3],
  ["MSFT", 533.8],
  ["NVDA", 208.6],
  ["AMZN", 246.9],
  ["TSLA", 441.2],
  ["AMD", 233.5],
  ["META", 742.7],
  ["IWM", 247.15],
] as const;
const SECOND_MS = 1000;

function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function seedOf(text: string): number {
  let hash = 2166136261;
  for (const letter of text) hash = Math.imul(hash ^ letter.charCodeAt(0), 16777619);
  return hash;
}

export const DAYS: SessionDay[] = tradingDays("2025-06-01", "2026-08-07").map((day) => ({
  ...day,
  has_data: day.kind !== "holiday" && day.date >= "2026-06-01" && day.date <= TODAY,
}));

export interface Ticks {
  ts: number[];
  price: number[];
  volume: number[];
}

const made = new Map<string, Ticks>();

/** A whole day of seconds; pre-market and after hours trade thinly. */
export function ticksOf(ticker: string, date: string): Ticks {
  const key = `${ticker} ${date}`;
  const known = made.get(key);
  if (known !== undefined) return known;
  const day = DAYS.find((each) => each.date === date);
  const ticks: Ticks = { ts: [], price: [], volume: [] };
  if (day?.pre_open_ms == null || day.open_ms === null || day.post_close_ms === null) return ticks;
  const draw = random(seedOf(key));
  const base = TICKERS.find(([name]) => name === ticker)?.[1] ?? 100;
  let price = base * (1 + (draw() - 0.5) * 0.02);
  let drift = 0;
  for (let at = day.pre_open_ms; at < day.post_close_ms; at += SECOND_MS) {
    const regular = at >= day.open_ms && at < (day.close_ms ?? 0);
    if (draw() > (regular ? 0.93 : 0.05)) continue;
    drift = drift * 0.997 + (draw() - 0.5) * 0.0000011;
    const pull = (base / price - 1) * 0.00012;
    price *= 1 + drift + pull + (draw() - 0.5) * 0.00022 * (regular ? 1 : 0.8);
    ticks.ts.push(at + Math.floor(draw() * 900));
    ticks.price.push(Math.round(price * 100) / 100);
    ticks.volume.push(Math.ceil(draw() ** 3 * 900 * (regular ? 1 : 0.2)));
  }
  made.set(key, ticks);
  return ticks;
}

/** How many of the ticks are in the past. */
export function countUntil(ticks: Ticks, nowMs: number): number {
  const index = ticks.ts.findIndex((ts) => ts > nowMs);
  return index < 0 ? ticks.ts.length : index;
}

interface Averages {
  sma9: Maybe[];
  vwap: Maybe[];
}

function averagesOf(closes: number[], volumes: number[], ts: number[], openMs: number): Averages {
  const sma9 = closes.map((_, index) =>
    index < 8 ? null : closes.slice(index - 8, index + 1).reduce((sum, each) => sum + each, 0) / 9,
  );
  let value = 0;
  let volume = 0;
  const vwap = closes.map((close, index) => {
    if ((ts[index] ?? 0) >= openMs && (ts[index - 1] ?? 0) < openMs) value = volume = 0;
    value += close * (volumes[index] ?? 0);
    volume += volumes[index] ?? 0;
    return volume === 0 ? null : value / volume;
  });
  return { sma9, vwap };
}

const session = (date: string) => {
  const day = DAYS.find((each) => each.date === date);
  if (day?.pre_open_ms == null || day.kind === "holiday") return null;
  return {
    kind: day.kind,
    pre_open_ms: day.pre_open_ms,
    open_ms: day.open_ms ?? 0,
    close_ms: day.close_ms ?? 0,
    post_close_ms: day.post_close_ms ?? 0,
  };
};

export function tickSeries(ticker: string, date: string, nowMs: number): TickSeries {
  const ticks = ticksOf(ticker, date);
  const count = countUntil(ticks, nowMs);
  const [ts, price, volume] = [ticks.ts, ticks.price, ticks.volume].map((each) =>
    each.slice(0, count),
  ) as [number[], number[], number[]];
  const head = { ticker, date, epoch_ms: 1, last_seq: count, complete: date < TODAY };
  return {
    ...head,
    timeframe: "tick",
    session: session(date),
    ts_ms: ts,
    price,
    volume,
    ...averagesOf(price, volume, ts, session(date)?.open_ms ?? 0),
  };
}

const LENGTH_MS = { "1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000 };

export function candleSeries(
  ticker: string,
  date: string,
  timeframe: keyof typeof LENGTH_MS,
  nowMs: number,
): CandleSeries {
  const ticks = ticksOf(ticker, date);
  const bounds = session(date);
  const length = LENGTH_MS[timeframe];
  const series: CandleSeries = {
    ticker,
    date,
    timeframe,
    epoch_ms: 1,
    last_seq: 1,
    complete: date < TODAY,
    session: bounds,
    ts_ms: [],
    open: [],
    high: [],
    low: [],
    close: [],
    volume: [],
    revision: [],
    sma9: [],
    vwap: [],
    extras: {},
  };
  const openMs = bounds?.open_ms ?? 0;
  const closeMs = bounds?.close_ms ?? 0;
  for (let index = 0; index < countUntil(ticks, nowMs); index++) {
    const at = ticks.ts[index] as number;
    const from = at >= closeMs ? closeMs : at >= openMs ? openMs : (bounds?.pre_open_ms ?? 0);
    const start = from + Math.floor((at - from) / length) * length;
    const price = ticks.price[index] as number;
    const last = series.ts_ms.length - 1;
    if (series.ts_ms[last] !== start) {
      series.ts_ms.push(start);
      for (const column of ["open", "high", "low", "close"] as const) series[column].push(price);
      series.volume.push(ticks.volume[index] as number);
      series.revision.push(0);
    } else {
      series.high[last] = Math.max(series.high[last] as number, price);
      series.low[last] = Math.min(series.low[last] as number, price);
      series.close[last] = price;
      series.volume[last] = (series.volume[last] as number) + (ticks.volume[index] as number);
    }
  }
  const volumes = series.volume.map((each) => each ?? 0);
  Object.assign(series, averagesOf(series.close, volumes, series.ts_ms, openMs));
  let ema = Number.NaN;
  series.extras["ema20"] = series.close.map((close) => {
    ema = Number.isNaN(ema) ? close : ema + (close - ema) * (2 / 21);
    return ema;
  });
  series.extras["rsi14"] = series.close.map((close, index) =>
    index < 14 ? null : 50 + Math.tanh((close / (series.close[index - 14] as number) - 1) * 250) * 40,
  );
  return series;
}

export function signalsOf(ticker: string, date: string, nowMs: number): Signal[] {
  const series = candleSeries(ticker, date, "1m", nowMs);
  const signals: Signal[] = [];
  const bounds = session(date);
  let before = 0;
  series.ts_ms.forEach((ts, index) => {
    const [sma9, vwap] = [series.sma9[index] ?? null, series.vwap[index] ?? null];
    if (sma9 === null || vwap === null || bounds === null) return;
    if (ts < bounds.open_ms || ts >= bounds.close_ms) return;
    const relation = Math.sign(sma9 - vwap);
    if (before !== 0 && relation !== 0 && relation !== before) {
      const nth = signals.length;
      signals.push({
        id: `${ticker}:1m:${ts}`,
        revision: nth === 1 ? 1 : 0,
        state: nth === 1 ? "superseded" : "active",
        late: nth === 2,
        ticker,
        timeframe: "1m",
        ts_ms: ts,
        kind: "cross",
        direction: relation > 0 ? "up" : "down",
        price: series.close[index] as number,
        sma9,
        vwap,
      });
    }
    if (relation !== 0) before = relation;
  });
  return signals;
}
