/** Rows of the database as PostgREST writes them, and what the page makes of them; pure. */

import type {
  BarTimeframe,
  Candle,
  CandleSeries,
  Gap,
  Maybe,
  Session,
  Signal,
  TickerRow,
  TickSeries,
} from "./types";

/** A numeric comes as a number, from some versions as a string. */
type Numeric = number | string | null;

export interface TickRow {
  timestamp: string;
  price: Numeric;
  volume: Numeric;
}

export interface IndicatorRow {
  timestamp: string;
  sma9: Numeric;
  vwap: Numeric;
}

export interface CandleRow extends IndicatorRow {
  open: Numeric;
  high: Numeric;
  low: Numeric;
  close: Numeric;
  volume: Numeric;
  extras: Record<string, Maybe> | null;
  revision: number;
}

export interface SignalRow extends Omit<Signal, "ts_ms" | "price" | "sma9" | "vwap"> {
  timestamp: string;
  price: Numeric;
  sma9: Numeric;
  vwap: Numeric;
}

export interface GapRow extends Omit<Gap, "from_ms" | "to_ms"> {
  started_at: string;
  ended_at: string;
}

export function numberOf(value: Numeric): Maybe {
  if (value === null) return null;
  const number = Number(value);
  return Number.isNaN(number) ? null : number;
}

/** Milliseconds of a timestamp; the database's microseconds beyond them are not used. */
export function timeOf(text: string): number {
  return Date.parse(text);
}

type Common = Pick<TickSeries, "ticker" | "date" | "epoch_ms" | "last_seq" | "complete"> & {
  session: Session | null;
};

const NOTHING: Common = {
  ticker: "",
  date: "",
  epoch_ms: 0,
  last_seq: 0,
  complete: false,
  session: null,
};

/** Ticks with the values that were computed at them; one without has none. Both are in order. */
export function tickSeries(
  common: Common | null,
  ticks: readonly TickRow[],
  values: readonly IndicatorRow[],
): TickSeries {
  const series: TickSeries = {
    ...(common ?? NOTHING),
    timeframe: "tick",
    ts_ms: [],
    price: [],
    volume: [],
    sma9: [],
    vwap: [],
  };
  let next = 0;
  for (const tick of ticks) {
    const ts = timeOf(tick.timestamp);
    while (next < values.length && timeOf((values[next] as IndicatorRow).timestamp) < ts) next += 1;
    const value = values[next];
    const same = value !== undefined && timeOf(value.timestamp) === ts;
    series.ts_ms.push(ts);
    series.price.push(numberOf(tick.price) ?? Number.NaN);
    series.volume.push(numberOf(tick.volume));
    series.sma9.push(same ? numberOf(value.sma9) : null);
    series.vwap.push(same ? numberOf(value.vwap) : null);
  }
  return series;
}

export function candleOf(row: CandleRow): Candle {
  return {
    ts_ms: timeOf(row.timestamp),
    open: numberOf(row.open) ?? Number.NaN,
    high: numberOf(row.high) ?? Number.NaN,
    low: numberOf(row.low) ?? Number.NaN,
    close: numberOf(row.close) ?? Number.NaN,
    volume: numberOf(row.volume) ?? Number.NaN,
    sma9: numberOf(row.sma9),
    vwap: numberOf(row.vwap),
    extras: row.extras ?? {},
    revision: row.revision,
  };
}

export function candleSeries(
  common: Common,
  timeframe: BarTimeframe,
  rows: readonly CandleRow[],
): CandleSeries {
  const candles = rows.map(candleOf);
  const names = new Set(candles.flatMap((candle) => Object.keys(candle.extras ?? {})));
  const column = <K extends keyof Candle>(name: K): Candle[K][] =>
    candles.map((each) => each[name]);
  return {
    ...common,
    timeframe,
    ts_ms: column("ts_ms"),
    open: column("open"),
    high: column("high"),
    low: column("low"),
    close: column("close"),
    volume: column("volume"),
    sma9: column("sma9"),
    vwap: column("vwap"),
    revision: candles.map((candle) => candle.revision ?? 0),
    extras: Object.fromEntries(
      [...names].map((name) => [name, candles.map((candle) => candle.extras?.[name] ?? null)]),
    ),
  };
}

export function signalOf(row: SignalRow): Signal {
  const { timestamp, ...rest } = row;
  return {
    ...rest,
    ts_ms: timeOf(timestamp),
    price: numberOf(row.price) ?? Number.NaN,
    sma9: numberOf(row.sma9) ?? Number.NaN,
    vwap: numberOf(row.vwap) ?? Number.NaN,
  };
}

export function gapOf(row: GapRow): Gap {
  const { started_at, ended_at, ...rest } = row;
  return { ...rest, from_ms: timeOf(started_at), to_ms: timeOf(ended_at) };
}

export function emptyTicker(ticker: string): TickerRow {
  return {
    ticker,
    last: null,
    ts_ms: null,
    change: null,
    change_percent: null,
    previous_close: null,
    date: null,
    sparkline: [],
  };
}

/** `newest` holds the latest candles, the newest first. */
export function tickerRow(
  ticker: string,
  date: string,
  newest: readonly CandleRow[],
  previousClose: Maybe,
): TickerRow {
  const closes = newest.map((row) => numberOf(row.close) ?? Number.NaN).reverse();
  const last = closes[closes.length - 1] as number;
  const change = previousClose === null ? null : last - previousClose;
  return {
    ticker,
    last,
    date,
    previous_close: previousClose,
    change,
    sparkline: closes,
    ts_ms: timeOf((newest[0] as CandleRow).timestamp),
    change_percent: change === null || !previousClose ? null : (100 * change) / previousClose,
  };
}
