/**
 * The one interface between the page and whatever it reads from.
 *
 * `gateway.ts` is the default and pushes; `supabase.ts` polls. Components know neither.
 */

import type {
  Candle,
  Clock,
  Config,
  Gap,
  Health,
  HeartbeatMessage,
  Me,
  Positions,
  Quote,
  Series,
  Sessions,
  Signal,
  Signals,
  TickerRow,
  TicksMessage,
  Timeframe,
} from "./types";

/** Why a request was not answered; `message` can be shown as it is. */
export class SourceError extends Error {
  readonly status: number;
  readonly code: string;
  readonly parameter: string | null;
  readonly retryAfterMs: number | null;

  constructor(
    status: number,
    code: string,
    message: string,
    parameter: string | null = null,
    retryAfterMs: number | null = null,
  ) {
    super(message);
    this.name = "SourceError";
    this.status = status;
    this.code = code;
    this.parameter = parameter;
    this.retryAfterMs = retryAfterMs;
  }
}

/** What one live subscription asks for; positions come from the snapshot before it. */
export type SubscribeRequest =
  | {
      channel: "ticks";
      ticker: string;
      date: string;
      epoch_ms: number;
      from_seq: number;
      last_ts_ms?: number;
    }
  | {
      channel: "candles";
      ticker: string;
      date: string;
      timeframe: Timeframe;
      epoch_ms: number;
      from_seq: number;
      last_ts_ms?: number;
    }
  | { channel: "signals"; ticker: "*"; date: string; epoch_ms: number; from_seq: Positions }
  | { channel: "quotes" };

/** Called as things come; each is optional, and none may throw. */
export interface SubscribeHandlers {
  onTicks?(batch: Omit<TicksMessage, "op" | "id" | "seq">): void;
  onCandles?(candles: Candle[]): void;
  onProvisional?(candle: Candle): void;
  /** A day was computed anew: load it again until its `last_seq` has reached `seq`. */
  onCorrected?(date: string, seq: number): void;
  onSignals?(signals: Signal[]): void;
  onQuotes?(quotes: Record<string, Quote>): void;
  /**
   * The position is lost: fetch the snapshot again, then subscribe anew. Nothing comes until then.
   */
  onResync?(reason: string): void;
  onError?(message: string): void;
}

export interface Subscription {
  close(): void;
}

export type ConnectionPhase =
  "connecting" | "open" | "reconnecting" | "polling" | "closed";

export interface ConnectionStatus {
  phase: ConnectionPhase;
  /** Round trip, the median of the lowest; null before the first measurement. */
  rttMs: number | null;
  /** Local time of the last message of any kind; null before the first. */
  lastMessageMs: number | null;
  /** What to add to this machine's wall clock to get the server's. */
  offsetMs: number;
  /** When the next attempt to connect is due (local time), while reconnecting. */
  retryAtMs: number | null;
}

export interface SignalQuery {
  date: string;
  ticker?: string;
  timeframe?: string;
}

/** The broker's time as last heard: at local time `atMs` it was `brokerMs`, running at `speed`. */
export type BeatListener = (
  beat: Pick<HeartbeatMessage, "wall_ms" | "broker_ms" | "speed">,
  atMs: number,
) => void;

export interface DataSource {
  readonly kind: "gateway" | "supabase";
  /** The page of the weekly login to the broker; null where there is nobody to ask for it. */
  readonly brokerLoginUrl: string | null;
  me(): Promise<Me>;
  login(password: string): Promise<void>;
  logout(): Promise<void>;
  tickers(signal?: AbortSignal): Promise<TickerRow[]>;
  sessions(from?: string, to?: string, signal?: AbortSignal): Promise<Sessions>;
  /** A day that is over may come from the browser's cache, unless it has to be `fresh`. */
  series(
    ticker: string,
    date: string,
    timeframe: Timeframe,
    signal?: AbortSignal,
    fresh?: boolean,
  ): Promise<Series>;
  signals(query: SignalQuery, signal?: AbortSignal): Promise<Signals>;
  gaps(date: string, ticker?: string, signal?: AbortSignal): Promise<Gap[]>;
  clock(signal?: AbortSignal): Promise<Clock>;
  health(signal?: AbortSignal): Promise<Health>;
  subscribe(request: SubscribeRequest, handlers: SubscribeHandlers): Subscription;
  /** Calls back at once and on every change; returns how to stop. */
  onStatus(listener: (status: ConnectionStatus) => void): () => void;
  /** Calls back whenever the server told the time; returns how to stop. */
  onBeat(listener: BeatListener): () => void;
  /** How many flushes a second are wanted; a hidden tab asks for fewer. */
  setRate(hz: number): void;
  /** Where the server hands out this table as CSV; null where the page has to make it itself. */
  csvUrl(table: "series" | "signals" | "gaps", query: Record<string, string>): string | null;
  /** Tries again at once instead of waiting for the back-off. */
  retryNow(): void;
  close(): void;
}

/** Reads `config.json` beside the page; everything empty (same origin) if there is none. */
export async function loadConfig(fetcher: typeof fetch = fetch): Promise<Config> {
  const empty: Config = { gateway: "", supabase_url: "", supabase_anon_key: "" };
  try {
    const response = await fetcher("./config.json", { cache: "no-cache" });
    if (!response.ok) return empty;
    return { ...empty, ...((await response.json()) as Partial<Config>) };
  } catch {
    return empty; // A page without settings talks to where it came from.
  }
}

/** The source that the settings name; supabase-js is loaded only where it is the one. */
export async function openSource(config: Config): Promise<DataSource> {
  if (config.supabase_url && !config.gateway) {
    const { SupabaseSource } = await import("./supabase");
    return SupabaseSource.open(config.supabase_url, config.supabase_anon_key);
  }
  const { GatewaySource } = await import("./gateway");
  return new GatewaySource({ base: config.gateway });
}
