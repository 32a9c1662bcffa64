/**
 * The default source: snapshots over HTTP, what comes after them over one WebSocket.
 *
 * Each subscription keeps the position it has reached. After a break it goes on from there, so
 * nothing is missing and nothing is shown twice; where the gateway no longer has that position it
 * says `resync`, and whoever subscribed takes a new snapshot.
 */

import { Latency } from "./latency";
import { LiveSocket } from "./live_socket";
import type { SocketLike, SocketParts } from "./live_socket";
import type {
  BeatListener,
  ConnectionPhase,
  ConnectionStatus,
  DataSource,
  SignalQuery,
  SubscribeHandlers,
  SubscribeRequest,
  Subscription,
} from "./source";
import { SourceError } from "./source";
import type {
  Clock,
  Gap,
  Health,
  HeartbeatMessage,
  LiveMessage,
  Me,
  Positions,
  Series,
  Sessions,
  Signals,
  TickerRow,
  Timeframe,
} from "./types";

const API = "/api/v1";

export interface GatewayOptions {
  /** Where the gateway is; empty for where the page came from. */
  base: string;
  fetcher?: typeof fetch;
  openSocket?: (url: string) => SocketLike;
  now?: () => number;
  random?: () => number;
  later?: (callback: () => void, ms: number) => () => void;
  /** Where the page is; for tests. */
  pageUrl?: string;
}

type Query = Record<string, string | undefined>;

/** What belongs to one request besides its path. */
interface Asking {
  query?: Query;
  body?: object;
  signal?: AbortSignal | undefined;
  cache?: RequestCache;
}

interface Entry {
  request: SubscribeRequest;
  handlers: SubscribeHandlers;
  /** Set by `resync`: this one gets nothing more. */
  ended: boolean;
}

export class GatewaySource implements DataSource {
  readonly kind = "gateway";
  readonly brokerLoginUrl: string;
  private readonly base: string;
  private readonly pageUrl: string;
  private readonly fetcher: typeof fetch;
  private readonly now: () => number;
  private readonly openSocket: (url: string) => SocketLike;
  private readonly socket: LiveSocket;
  private readonly latency = new Latency();
  private readonly entries = new Map<number, Entry>();
  private readonly statusListeners = new Set<(status: ConnectionStatus) => void>();
  private readonly beatListeners = new Set<BeatListener>();
  private known: { today: string; version: string | undefined } = { today: "", version: undefined };
  private nextId = 1;
  private hz: number | null = null;
  private phase: ConnectionPhase = "connecting";
  private retryAtMs: number | null = null;
  private started = false;

  constructor(options: GatewayOptions) {
    this.base = options.base.replace(/\/+$/, "");
    this.brokerLoginUrl = `${this.base}/schwab`;
    this.pageUrl = options.pageUrl ?? globalThis.location?.href ?? "http://127.0.0.1/";
    this.fetcher = options.fetcher ?? ((...request) => fetch(...request));
    this.now = options.now ?? (() => Date.now());
    this.openSocket = options.openSocket ?? ((url) => new WebSocket(url) as unknown as SocketLike);
    const parts: SocketParts = {
      connect: () => this.connect(),
      now: this.now,
      random: options.random ?? Math.random,
      later: options.later ?? later,
    };
    this.socket = new LiveSocket(parts, {
      onOpen: () => this.opened(),
      onMessage: (message) => this.received(message),
      onPhase: (phase, retryAtMs) => {
        this.phase = phase;
        this.retryAtMs = retryAtMs;
        this.tellStatus();
      },
    });
  }

  private async liveToken(): Promise<string | null> {
    try {
      return (await this.call<{ token: string }>("POST", "/live-token", { body: {} })).token;
    } catch (error) {
      // A public market lets everybody listen, and gives tokens to those who logged in.
      if (error instanceof SourceError && error.status === 401) return null;
      throw error;
    }
  }

  // --- HTTP ------------------------------------------------------------------------------------

  async me(): Promise<Me> {
    const me = await this.get<Me>("/me");
    // Whoever may listen again does so at once.
    if (this.started && (me.authenticated || me.public_market)) this.socket.retryNow();
    return me;
  }

  async login(password: string): Promise<void> {
    await this.call("POST", "/login", { body: { password } });
    this.socket.retryNow();
  }

  async logout(): Promise<void> {
    await this.call("POST", "/logout", { body: {} });
    this.socket.pause();
  }

  async tickers(signal?: AbortSignal): Promise<TickerRow[]> {
    return (await this.get<{ tickers: TickerRow[] }>("/tickers", { signal })).tickers;
  }

  async sessions(from?: string, to?: string, signal?: AbortSignal): Promise<Sessions> {
    const found = await this.get<Sessions>("/sessions", { query: { from, to }, signal });
    this.known = { today: found.today, version: found.version };
    return found;
  }

  series(
    ticker: string,
    date: string,
    timeframe: Timeframe,
    signal?: AbortSignal,
    fresh = false,
  ): Promise<Series> {
    // With the version that is known, the browser may keep a day that is over.
    const { today, version } = this.known;
    const query = { ticker, date, timeframe, version: date < today ? version : undefined };
    return this.get("/series", { query, signal, cache: fresh ? "reload" : "default" });
  }

  signals(query: SignalQuery, signal?: AbortSignal): Promise<Signals> {
    return this.get("/signals", { query: { ...query }, signal });
  }

  async gaps(date: string, ticker?: string, signal?: AbortSignal): Promise<Gap[]> {
    const query = { date, ticker };
    return (await this.get<{ gaps: Gap[] }>("/gaps", { query, signal })).gaps;
  }

  async clock(signal?: AbortSignal): Promise<Clock> {
    const sentMs = this.now();
    const clock = await this.get<Clock>("/clock", { signal });
    const receivedMs = this.now();
    this.latency.add(sentMs, receivedMs, clock.wall_ms);
    this.tellStatus();
    this.tellBeat(clock, receivedMs - (receivedMs - sentMs) / 2);
    return clock;
  }

  async health(signal?: AbortSignal): Promise<Health> {
    // A sick gateway answers 503 with the same body, which is what is asked for.
    const response = await this.fetch("GET", "/health", { signal });
    if (response.ok || response.status === 503) {
      const body = (await response.json()) as Partial<Health>;
      if (body.checks !== undefined) return body as Health;
    }
    throw await errorOf(response);
  }

  csvUrl(table: "series" | "signals" | "gaps", query: Record<string, string>): string {
    return this.url(`/${table}.csv`, query);
  }

  // --- Live ------------------------------------------------------------------------------------

  subscribe(request: SubscribeRequest, handlers: SubscribeHandlers): Subscription {
    const id = this.nextId++;
    // A copy: the position in it moves on.
    const entry: Entry = { request: structuredClone(request), handlers, ended: false };
    this.entries.set(id, entry);
    if (this.socket.open) this.sendSub(id, entry);
    else this.start();
    return {
      close: () => {
        if (this.entries.delete(id) && !entry.ended) this.socket.send({ op: "unsub", id });
      },
    };
  }

  onStatus(listener: (status: ConnectionStatus) => void): () => void {
    this.statusListeners.add(listener);
    listener(this.status());
    return () => this.statusListeners.delete(listener);
  }

  onBeat(listener: BeatListener): () => void {
    this.beatListeners.add(listener);
    return () => this.beatListeners.delete(listener);
  }

  setRate(hz: number): void {
    this.hz = hz;
    this.socket.send({ op: "rate", hz });
  }

  retryNow(): void {
    this.socket.retryNow();
  }

  close(): void {
    this.entries.clear();
    this.socket.stop();
  }

  // --- Within ----------------------------------------------------------------------------------

  private start(): void {
    if (this.started) return;
    this.started = true;
    this.socket.start();
  }

  private async connect(): Promise<SocketLike> {
    const url = new URL(this.url("/live", {}), this.pageUrl);
    if (url.origin !== new URL(this.pageUrl).origin) {
      // Another origin's cookie is not sent along with an upgrade; a token of one use stands in.
      const token = await this.liveToken();
      if (token !== null) url.searchParams.set("token", token);
    }
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return this.openSocket(url.href);
  }

  private opened(): void {
    if (this.hz !== null) this.socket.send({ op: "rate", hz: this.hz });
    for (const [id, entry] of this.entries) if (!entry.ended) this.sendSub(id, entry);
    // A first measure at once: heartbeats bring theirs only after ten seconds.
    this.clock().catch(() => undefined); // The socket works, and the heartbeats will tell.
  }

  private sendSub(id: number, entry: Entry): void {
    const { request } = entry;
    const fields: Record<string, unknown> = { ...request };
    // What the gateway need not know.
    delete fields["date"];
    delete fields["last_ts_ms"];
    this.socket.send({ op: "sub", id, ...fields });
  }

  private received(message: LiveMessage): void {
    switch (message.op) {
      case "hello":
      case "subscribed":
        return;
      case "heartbeat":
        this.heartbeat(message);
        return;
      case "quotes":
        for (const { request, handlers } of this.entries.values()) {
          if (request.channel === "quotes") handlers.onQuotes?.(message.quotes);
        }
        return;
      default:
        this.receivedFor(message);
    }
  }

  private receivedFor(
    message: Exclude<LiveMessage, { op: "hello" | "subscribed" | "heartbeat" | "quotes" }>,
  ): void {
    const entry = message.id === undefined ? undefined : this.entries.get(message.id);
    if (entry === undefined || entry.ended) return; // Closed while it was under way.
    const { handlers, request } = entry;
    if (message.op === "resync") {
      entry.ended = true;
      handlers.onResync?.(message.reason);
    } else if (message.op === "error") {
      handlers.onError?.(message.message);
    } else if (message.op === "provisional") {
      handlers.onProvisional?.(message.candle);
    } else if (message.op === "corrected") {
      // Moves nothing: the candles of earlier frames come after it.
      handlers.onCorrected?.(message.date, message.seq);
    } else {
      advance(request, message);
      if (message.op === "ticks") handlers.onTicks?.(message);
      else if (message.op === "candles") handlers.onCandles?.(message.candles);
      else handlers.onSignals?.(message.signals);
    }
  }

  private heartbeat(message: HeartbeatMessage): void {
    this.socket.send({ op: "pong", n: message.n });
    const receivedMs = this.now();
    const rttMs = message.rtt_ms ?? null;
    // The round trip is of the heartbeat before; over a few of them that makes no difference.
    if (rttMs !== null) this.latency.add(receivedMs - rttMs, receivedMs, message.wall_ms);
    this.tellStatus();
    this.tellBeat(message, receivedMs - (this.latency.rttMs ?? 0) / 2);
  }

  private status(): ConnectionStatus {
    return {
      phase: this.phase,
      rttMs: this.latency.rttMs,
      lastMessageMs: this.socket.lastMessageMs,
      offsetMs: this.latency.offsetMs,
      retryAtMs: this.retryAtMs,
    };
  }

  private tellStatus(): void {
    const status = this.status();
    for (const listener of this.statusListeners) listener(status);
  }

  private tellBeat(beat: Parameters<BeatListener>[0], atMs: number): void {
    for (const listener of this.beatListeners) listener(beat, atMs);
  }

  private url(path: string, query: Query = {}): string {
    const pairs = Object.entries(query).filter(
      (pair): pair is [string, string] => pair[1] !== undefined,
    );
    const text = new URLSearchParams(pairs).toString();
    return `${this.base}${API}${path}${text === "" ? "" : `?${text}`}`;
  }

  private get<T>(path: string, asking: Asking = {}): Promise<T> {
    return this.call<T>("GET", path, asking);
  }

  private async call<T>(method: string, path: string, asking: Asking): Promise<T> {
    const response = await this.fetch(method, path, asking);
    if (!response.ok) throw await errorOf(response);
    if (response.status === 204) return undefined as T;
    return (await response.json()) as T;
  }

  private async fetch(method: string, path: string, asking: Asking): Promise<Response> {
    const { query, body, signal, cache = "default" } = asking;
    try {
      return await this.fetcher(this.url(path, query), {
        method,
        cache,
        credentials: this.base === "" ? "same-origin" : "include",
        headers: body === undefined ? {} : { "content-type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new SourceError(0, "unreachable", "The gateway cannot be reached.");
    }
  }
}

/** Moves a subscription's position to that of what it has just got. */
function advance(request: SubscribeRequest, message: { seq: number; partition?: number }): void {
  if (request.channel === "signals") {
    const positions: Positions = request.from_seq;
    const partition = String(message.partition ?? 0);
    positions[partition] = Math.max(positions[partition] ?? 0, message.seq);
  } else if (request.channel === "ticks" || request.channel === "candles") {
    request.from_seq = Math.max(request.from_seq, message.seq);
  }
}

async function errorOf(response: Response): Promise<SourceError> {
  const seconds = Number(response.headers.get("retry-after"));
  const retryMs = seconds > 0 ? seconds * 1000 : null;
  try {
    const { error } = (await response.json()) as {
      error: { code: string; message: string; parameter?: string };
    };
    return new SourceError(
      response.status,
      error.code,
      error.message,
      error.parameter ?? null,
      retryMs,
    );
  } catch {
    // Not the gateway's own words: something between here and there answered.
    return new SourceError(
      response.status,
      "http",
      `The gateway answered ${response.status}.`,
      null,
      retryMs,
    );
  }
}

function later(callback: () => void, ms: number): () => void {
  const timer = setTimeout(callback, ms);
  return () => clearTimeout(timer);
}
