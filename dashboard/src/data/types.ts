/**
 * What the page reads, as it travels: the gateway's JSON and its live messages.
 *
 * Times are epoch milliseconds (UTC) and end in `_ms`; dates are New York trading days,
 * `YYYY-MM-DD`. Names keep the wire's spelling, so that what is seen on the wire can be searched
 * for here.
 */

export const TIMEFRAMES = ["tick", "1m", "5m", "15m", "1h"] as const;
export type Timeframe = (typeof TIMEFRAMES)[number];
export type BarTimeframe = Exclude<Timeframe, "tick">;

/** A number, or null where the value is not defined. */
export type Maybe = number | null;

export interface TickerRow {
  ticker: string;
  last: Maybe;
  ts_ms: Maybe;
  change: Maybe;
  change_percent: Maybe;
  previous_close: Maybe;
  date: string | null;
  sparkline: number[];
}

/** The bounds of one trading day. */
export interface Session {
  kind: "full" | "half";
  pre_open_ms: number;
  open_ms: number;
  close_ms: number;
  post_close_ms: number;
}

export interface SessionDay {
  date: string;
  kind: "full" | "half" | "holiday";
  name: string | null;
  pre_open_ms: Maybe;
  open_ms: Maybe;
  close_ms: Maybe;
  post_close_ms: Maybe;
  has_data: boolean;
}

export interface Sessions {
  today: string;
  /** Another one after any correction; absent where nobody counts them. */
  version?: string;
  days: SessionDay[];
}

interface SeriesCommon {
  ticker: string;
  date: string;
  epoch_ms: number;
  last_seq: number;
  complete: boolean;
  session: Session | null;
  ts_ms: number[];
  sma9: Maybe[];
  vwap: Maybe[];
}

export interface TickSeries extends SeriesCommon {
  timeframe: "tick";
  price: number[];
  volume: Maybe[];
}

export interface CandleSeries extends SeriesCommon {
  timeframe: BarTimeframe;
  open: number[];
  high: number[];
  low: number[];
  close: number[];
  volume: Maybe[];
  revision: number[];
  extras: Record<string, Maybe[]>;
}

export type Series = TickSeries | CandleSeries;

/** One candle as the live channel sends it; other sources may leave the last three out. */
export interface Candle {
  ts_ms: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  sma9: Maybe;
  vwap: Maybe;
  extras?: Record<string, Maybe>;
  source?: string;
  revision?: number;
}

export interface Signal {
  id: string;
  revision: number;
  state: "active" | "superseded";
  late: boolean;
  ticker: string;
  timeframe: string;
  ts_ms: number;
  kind: string;
  direction: "up" | "down";
  price: number;
  sma9: number;
  vwap: number;
}

/** Positions by partition, as the signals channel counts them. */
export type Positions = Record<string, number>;

export interface Signals {
  epoch_ms: number;
  last_seq: Positions;
  signals: Signal[];
}

export interface Gap {
  id: string;
  ticker: string;
  series: string;
  from_ms: number;
  to_ms: number;
  cause: string;
  state: "open" | "filled" | "unfillable";
  /** Why an unfillable one is; empty otherwise. */
  reason: string;
}

export interface HealthCheck {
  name: string;
  ok: boolean;
  detail: string;
}

export interface ServiceRow {
  service: string;
  instance: string;
  status: string;
  at_ms: number;
  batches: Maybe;
  records: Maybe;
  errors: Maybe;
  processing_ms: Maybe;
  lag: Maybe;
  restarts: number;
}

export interface Lane {
  stream: string;
  partition: number;
  seq: Maybe;
  end_seq: Maybe;
  lag: Maybe;
}

export interface Health {
  status: "ok" | "degraded" | "down";
  checks: HealthCheck[];
  services: ServiceRow[];
  lanes: Lane[];
}

export type Phase = "pre" | "regular" | "post" | "closed";

export interface Clock {
  broker_ms: Maybe;
  wall_ms: number;
  speed: number;
  source: string;
  simulated: boolean;
  /** Null before the first frame, as `broker_ms` and `phase` are. */
  date: string | null;
  phase: Phase | null;
  next: { phase: Phase; at_ms: number } | null;
}

export interface Me {
  auth: "none" | "password";
  authenticated: boolean;
  public_market: boolean;
  source: string;
  simulated: boolean;
  version: string;
}

export interface Quote {
  last: Maybe;
  ts_ms: Maybe;
  bid: Maybe;
  ask: Maybe;
}

/** The page's own settings, read from `config.json` beside it. */
export interface Config {
  gateway: string;
  supabase_url: string;
  supabase_anon_key: string;
}

// --- Live messages -------------------------------------------------------------------------------

export interface HelloMessage {
  op: "hello";
  version: number;
  heartbeat_ms: number;
  hz: number;
  source: string;
  simulated: boolean;
}

export interface TicksMessage {
  op: "ticks";
  id: number;
  seq: number;
  ts_ms: number[];
  price: number[];
  sma9: Maybe[];
  vwap: Maybe[];
}

export interface CandlesMessage {
  op: "candles";
  id: number;
  seq: number;
  candles: Candle[];
}

export interface SignalsMessage {
  op: "signals";
  id: number;
  seq: number;
  partition: number;
  signals: Signal[];
}

export interface HeartbeatMessage {
  op: "heartbeat";
  n: number;
  wall_ms: number;
  broker_ms: Maybe;
  speed: number;
  /** The round trip of the heartbeat that was answered last. */
  rtt_ms?: Maybe;
}

export interface CorrectedMessage {
  op: "corrected";
  id: number;
  /** Load the day anew until its snapshot has reached this position. */
  seq: number;
  date: string;
  revision: number;
}

export type LiveMessage =
  | HelloMessage
  | { op: "subscribed"; id: number }
  | TicksMessage
  | CandlesMessage
  | CorrectedMessage
  | { op: "provisional"; id: number; candle: Candle }
  | SignalsMessage
  | { op: "quotes"; quotes: Record<string, Quote> }
  | HeartbeatMessage
  | { op: "resync"; id: number; reason: string }
  | { op: "error"; id?: number; message: string };
