/** For tests: a gateway that answers from a table, and sockets whose other end is the test. */

import { GatewaySource } from "./gateway";
import type { SocketLike } from "./live_socket";
import type { Signal } from "./types";

/** A socket whose other end is the test. */
export class FakeSocket implements SocketLike {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  readonly sent: Record<string, unknown>[] = [];
  readonly url: string;
  closed = false;

  constructor(url: string) {
    this.url = url;
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.closed = true;
  }

  open(): void {
    this.onopen?.(undefined as never);
    this.say({
      op: "hello",
      version: 1,
      heartbeat_ms: 5000,
      hz: 10,
      source: "demo",
      simulated: true,
    });
  }

  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  subs(): Record<string, unknown>[] {
    return this.sent.filter((message) => message["op"] === "sub");
  }
}

/**
 * A gateway that answers from a table, a clock that stands until told, and timers to go with it.
 */
export class World {
  nowMs = 1_000_000;
  readonly sockets: FakeSocket[] = [];
  readonly asked: string[] = [];
  /** What each of them said of the browser's cache. */
  readonly caches: (RequestCache | undefined)[] = [];
  readonly answers = new Map<string, () => Response>();
  private timers: { atMs: number; callback: () => void }[] = [];
  readonly source: GatewaySource;

  constructor(base = "", pageUrl = "http://127.0.0.1:8080/") {
    this.answer("/clock", () => ({
      broker_ms: 5_000_000,
      wall_ms: this.nowMs,
      speed: 1,
      source: "demo",
      simulated: true,
      date: "2026-01-05",
      phase: "regular",
      next: null,
    }));
    this.source = new GatewaySource({
      base,
      pageUrl,
      now: () => this.nowMs,
      random: () => 0.999_999,
      later: (callback, ms) => this.later(callback, ms),
      openSocket: (url) => {
        const socket = new FakeSocket(url);
        this.sockets.push(socket);
        return socket;
      },
      fetcher: (input, init) => this.fetch(String(input), init?.cache),
    });
  }

  later(callback: () => void, ms: number): () => void {
    const timer = { atMs: this.nowMs + ms, callback };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((other) => other !== timer);
    };
  }

  answer(
    path: string,
    body: () => unknown,
    status = 200,
    headers: Record<string, string> = {},
  ): void {
    this.answers.set(path, () => new Response(JSON.stringify(body()), { status, headers }));
  }

  /** How each request for a path wanted the browser's cache. */
  cachesOf(path: string): (RequestCache | undefined)[] {
    return this.caches.filter((_, i) => this.asked[i]?.includes(path));
  }

  /** Lets time pass, and what is due happen. */
  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const due = this.timers
        .filter((timer) => timer.atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.nowMs = Math.max(due.atMs, this.nowMs);
      this.timers = this.timers.filter((timer) => timer !== due);
      due.callback();
      await settle();
    }
    this.nowMs = untilMs;
    await settle();
  }

  get socket(): FakeSocket {
    return this.sockets[this.sockets.length - 1] as FakeSocket;
  }

  private fetch(url: string, cache?: RequestCache): Promise<Response> {
    this.asked.push(url);
    this.caches.push(cache);
    const path = new URL(url, "http://gateway").pathname.replace("/api/v1", "");
    const made = this.answers.get(path);
    return made === undefined
      ? Promise.reject(new TypeError("failed to fetch"))
      : Promise.resolve(made());
  }
}

/** Lets promises that are already settled have their say. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
  await new Promise((resolve) => setTimeout(resolve, 0));
}

export const OPEN_MS = Date.parse("2026-01-05T14:30:00Z");

export function tickSeries(count: number, lastSeq: number, epochMs = 7): object {
  const ts = Array.from({ length: count }, (_, i) => OPEN_MS + i * 1000);
  return {
    ticker: "QQQ",
    date: "2026-01-05",
    timeframe: "tick",
    epoch_ms: epochMs,
    last_seq: lastSeq,
    complete: false,
    session: null,
    ts_ms: ts,
    price: ts.map((_, i) => 500 + i),
    volume: ts.map(() => 100),
    sma9: ts.map(() => null),
    vwap: ts.map(() => 500),
  };
}

export function candleSeries(lastSeq: number, closes: number[]): object {
  const same = closes.map(() => 1);
  return {
    ticker: "QQQ",
    date: "2026-01-05",
    timeframe: "1m",
    epoch_ms: 7,
    last_seq: lastSeq,
    complete: false,
    session: null,
    ts_ms: closes.map((_, i) => OPEN_MS + i * 60_000),
    open: closes,
    high: closes,
    low: closes,
    close: closes,
    volume: same,
    revision: same,
    sma9: closes,
    vwap: closes,
    extras: {},
  };
}

export function ticks(id: number, seq: number, ...indexes: number[]): object {
  return {
    op: "ticks",
    id,
    seq,
    ts_ms: indexes.map((i) => OPEN_MS + i * 1000),
    price: indexes.map((i) => 500 + i),
    sma9: indexes.map(() => null),
    vwap: indexes.map(() => 500),
  };
}

export function signal(n: number, revision = 0, direction: "up" | "down" = "up"): Signal {
  const ts_ms = OPEN_MS + n * 60_000;
  return {
    id: `QQQ:1m:${ts_ms}`,
    revision,
    state: "active",
    late: false,
    ticker: "QQQ",
    timeframe: "1m",
    ts_ms,
    kind: "cross",
    direction,
    price: 500,
    sma9: 501,
    vwap: 500,
  };
}
