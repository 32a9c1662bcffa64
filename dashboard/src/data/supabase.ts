/**
 * The page without any server of ours: it reads Supabase's tables with the anon key, and polls.
 *
 * supabase-js is loaded only when this source is opened. Tables are read in pages of 1,000 rows,
 * the most that the service hands out at once, each page beginning after the last key of the one
 * before. In market hours what is new is asked for every 60 s.
 */

import type { SupabaseClient } from "@supabase/supabase-js";

import { phaseAt } from "./clock";
import { tradingDays } from "./calendar";
import { addDays, dateAt, midnightMs } from "./newyork";
import { SourceError } from "./source";
import type { BeatListener, ConnectionStatus, DataSource, SignalQuery } from "./source";
import type { SubscribeHandlers, SubscribeRequest, Subscription } from "./source";
import {
  candleOf,
  candleSeries,
  gapOf,
  numberOf,
  signalOf,
  tickSeries,
  timeOf,
  emptyTicker,
  tickerRow,
} from "./supabase_rows";
import { dayBounds, equal, iso, previousSession, sessionOf } from "./supabase_days";
import type { CandleRow, GapRow, IndicatorRow, SignalRow, TickRow } from "./supabase_rows";
import type {
  Candle,
  Clock,
  Gap,
  Health,
  Me,
  Series,
  Sessions,
  Signals,
  TickerRow,
  Timeframe,
} from "./types";

export const PAGE_ROWS = 1000;
export const POLL_MS = 60_000;
const AFTER_CLOSE_MS = 5 * POLL_MS;
const OVERLAP_MS = 2 * POLL_MS;
/** More than any day has; a table that goes on beyond it is not what it seems. */
const PAGES_MAX = 200;
const TICKERS_MAX = 100;
const SPARKLINE = 60;

interface Filter {
  table: string;
  columns: string;
  equal: Record<string, string>;
  /** The column that pages go along, rising; its name and bounds, the upper one excluded. */
  along: string;
  from: string;
  to: string;
}

interface Poll {
  request: SubscribeRequest;
  handlers: SubscribeHandlers;
  afterMs: number;
}

export class SupabaseSource implements DataSource {
  readonly kind = "supabase";
  readonly brokerLoginUrl = null;
  private readonly client: SupabaseClient;
  private readonly now: () => number;
  private readonly polls = new Set<Poll>();
  private readonly listeners = new Set<(status: ConnectionStatus) => void>();
  private readonly beats = new Set<BeatListener>();
  private timer: ReturnType<typeof setInterval> | null = null;
  private status: ConnectionStatus = {
    phase: "connecting",
    rttMs: null,
    lastMessageMs: null,
    offsetMs: 0,
    retryAtMs: null,
  };
  private polling = false;
  /** When the market was last seen open. */
  private openMs = Number.NEGATIVE_INFINITY;

  constructor(client: SupabaseClient, now: () => number = Date.now) {
    this.client = client;
    this.now = now;
  }

  static async open(url: string, anonKey: string): Promise<SupabaseSource> {
    const { createClient } = await import("@supabase/supabase-js");
    // Nobody logs in here, so nothing is to be kept in the browser's storage.
    return new SupabaseSource(
      createClient(url, anonKey, {
        auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
      }),
    );
  }

  me(): Promise<Me> {
    return Promise.resolve({
      auth: "none",
      authenticated: true,
      public_market: true,
      source: "supabase",
      simulated: false,
      version: "",
    });
  }

  login(): Promise<void> {
    return Promise.reject(new SourceError(404, "no_login", "This page reads public data only."));
  }

  logout(): Promise<void> {
    return Promise.resolve();
  }

  /** One question a ticker: the next one after the last, until there is none. */
  async tickers(signal?: AbortSignal): Promise<TickerRow[]> {
    const names: string[] = [];
    while (names.length < TICKERS_MAX) {
      const rows = await this.ask<{ ticker: string }>(
        (client) =>
          client
            .from("candles")
            .select("ticker")
            .gt("ticker", names[names.length - 1] ?? "")
            .order("ticker")
            .limit(1),
        signal,
      );
      const next = rows[0]?.ticker;
      if (next === undefined) break;
      names.push(next);
    }
    return Promise.all(names.map((name) => this.ticker(name, signal)));
  }

  async sessions(from?: string, to?: string, signal?: AbortSignal): Promise<Sessions> {
    const today = dateAt(this.now());
    const first = from ?? addDays(today, -400);
    const days = tradingDays(first, to ?? addDays(today, 30));
    const recorded = await this.recordedDays(first, signal);
    return { today, days: days.map((day) => ({ ...day, has_data: recorded.has(day.date) })) };
  }

  async series(
    ticker: string,
    date: string,
    timeframe: Timeframe,
    signal?: AbortSignal,
  ): Promise<Series> {
    const session = sessionOf(date);
    const complete = date < dateAt(this.now());
    const common = { ticker, date, epoch_ms: 0, last_seq: 0, complete, session };
    const bounds = dayBounds(date);
    if (timeframe !== "tick") {
      return candleSeries(common, timeframe, await this.candles(ticker, timeframe, bounds, signal));
    }
    const [ticks, values] = await Promise.all(this.tickPages(ticker, bounds, signal));
    return tickSeries(common, ticks, values);
  }

  async signals(query: SignalQuery, signal?: AbortSignal): Promise<Signals> {
    const rows = await this.pages<SignalRow>(
      {
        table: "signals",
        along: "timestamp",
        ...dayBounds(query.date),
        columns: "id,revision,state,late,ticker,timeframe,timestamp,kind,direction,price,sma9,vwap",
        equal: equal({ ticker: query.ticker, timeframe: query.timeframe }),
      },
      (row) => row.timestamp,
      (row) => row.id,
      signal,
    );
    return { epoch_ms: 0, last_seq: {}, signals: rows.map(signalOf) };
  }

  async gaps(date: string, ticker?: string, signal?: AbortSignal): Promise<Gap[]> {
    const rows = await this.pages<GapRow>(
      {
        table: "gaps",
        along: "started_at",
        ...dayBounds(date),
        columns: "id,ticker,series,started_at,ended_at,cause,state,reason",
        equal: equal({ ticker }),
      },
      (row) => row.started_at,
      (row) => row.id,
      signal,
    );
    return rows.map(gapOf);
  }

  clock(): Promise<Clock> {
    const wall_ms = this.now();
    const date = dateAt(wall_ms);
    const { phase, next } = phaseAt(tradingDays(date, addDays(date, 7)), wall_ms);
    return Promise.resolve({
      broker_ms: wall_ms,
      wall_ms,
      speed: 1,
      source: "supabase",
      simulated: false,
      date,
      phase,
      next,
    });
  }

  /** The operations' tables are not public: what can be said is whether the data can be read. */
  async health(signal?: AbortSignal): Promise<Health> {
    const startedMs = this.now();
    try {
      const rows = await this.ask<{ timestamp: string }>(
        (client) =>
          client
            .from("candles")
            .select("timestamp")
            .order("timestamp", { ascending: false })
            .limit(1),
        signal,
      );
      const newest = rows[0] === undefined ? "no candles" : `newest candle ${rows[0].timestamp}`;
      const detail = `${this.now() - startedMs} ms, ${newest}`;
      return {
        status: "ok",
        checks: [{ name: "supabase", ok: true, detail }],
        services: [],
        lanes: [],
      };
    } catch (error) {
      const detail = error instanceof Error ? error.message : "not reached";
      return {
        status: "down",
        checks: [{ name: "supabase", ok: false, detail }],
        services: [],
        lanes: [],
      };
    }
  }

  subscribe(request: SubscribeRequest, handlers: SubscribeHandlers): Subscription {
    const last = "last_ts_ms" in request ? request.last_ts_ms : undefined;
    const date = "date" in request ? request.date : dateAt(this.now());
    const poll: Poll = { request, handlers, afterMs: last ?? midnightMs(date) - 1 };
    this.polls.add(poll);
    this.timer ??= setInterval(() => void this.pollAll(), POLL_MS);
    this.setStatus({ phase: "polling" });
    return { close: () => void this.polls.delete(poll) };
  }

  onStatus(listener: (status: ConnectionStatus) => void): () => void {
    this.listeners.add(listener);
    listener(this.status);
    return () => this.listeners.delete(listener);
  }

  onBeat(listener: BeatListener): () => void {
    this.beats.add(listener);
    const wall_ms = this.now();
    listener({ wall_ms, broker_ms: wall_ms, speed: 1 }, wall_ms);
    return () => this.beats.delete(listener);
  }

  setRate(): void {
    // Polled: nothing comes more often than it is asked for.
  }

  csvUrl(): null {
    return null;
  }

  retryNow(): void {
    void this.pollAll(true);
  }

  close(): void {
    this.polls.clear();
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.setStatus({ phase: "closed" });
  }

  /** Asks for what is new, in market hours only; called by the timer. */
  async pollAll(always = false): Promise<void> {
    if (this.polling || (!always && !(await this.isDue()))) return;
    this.polling = true;
    const startedMs = this.now();
    try {
      for (const poll of this.polls) await this.poll(poll);
      const nowMs = this.now();
      this.setStatus({
        phase: "polling",
        lastMessageMs: nowMs,
        retryAtMs: null,
        rttMs: this.polls.size > 0 ? (nowMs - startedMs) / this.polls.size : null,
      });
      for (const beat of this.beats) beat({ wall_ms: nowMs, broker_ms: nowMs, speed: 1 }, nowMs);
    } catch {
      // Said by the badge; the next poll is the next attempt.
      this.setStatus({ phase: "reconnecting", retryAtMs: this.now() + POLL_MS });
    } finally {
      this.polling = false;
    }
  }

  /** In market hours, and a little longer: the last candles are stored when it has closed. */
  private async isDue(): Promise<boolean> {
    if ((await this.clock()).phase !== "closed") {
      this.openMs = this.now();
      return true;
    }
    return this.now() - this.openMs < AFTER_CLOSE_MS;
  }

  // --- Within ----------------------------------------------------------------------------------

  private async poll(poll: Poll): Promise<void> {
    const { request, handlers } = poll;
    if (request.channel === "ticks") {
      // A little of what is known again: a tick can be stored before its averages are.
      const afterMs = Math.max(poll.afterMs - OVERLAP_MS, midnightMs(request.date) - 1);
      const bounds = dayBounds(request.date, afterMs);
      const [ticks, values] = await Promise.all(this.tickPages(request.ticker, bounds));
      if (!this.polls.has(poll)) return; // Closed while it was under way.
      const series = tickSeries(null, ticks, values);
      if (series.ts_ms.length > 0) handlers.onTicks?.(series);
      poll.afterMs = series.ts_ms[series.ts_ms.length - 1] ?? poll.afterMs;
    } else if (request.channel === "candles") {
      // All of the day: a correction changes candles that are known already.
      const rows = await this.candles(request.ticker, request.timeframe, dayBounds(request.date));
      if (!this.polls.has(poll)) return;
      const candles: Candle[] = rows.map(candleOf);
      if (candles.length > 0) handlers.onCandles?.(candles);
    } else if (request.channel === "signals") {
      const { signals } = await this.signals({ date: request.date });
      if (!this.polls.has(poll)) return;
      if (signals.length > 0) handlers.onSignals?.(signals);
    } else if (request.channel === "quotes") {
      const rows = await this.tickers();
      if (!this.polls.has(poll)) return;
      handlers.onQuotes?.(
        Object.fromEntries(
          rows.map((row) => [
            row.ticker,
            { last: row.last, ts_ms: row.ts_ms, bid: null, ask: null },
          ]),
        ),
      );
    }
  }

  private candles(
    ticker: string,
    timeframe: string,
    bounds: { from: string; to: string },
    signal?: AbortSignal,
  ): Promise<CandleRow[]> {
    return this.pages<CandleRow>(
      {
        table: "candles",
        along: "timestamp",
        ...bounds,
        equal: { ticker, timeframe },
        columns: "timestamp,open,high,low,close,volume,sma9,vwap,extras,revision",
      },
      (row) => row.timestamp,
      null,
      signal,
    );
  }

  private tickPages(
    ticker: string,
    bounds: { from: string; to: string },
    signal?: AbortSignal,
  ): [Promise<TickRow[]>, Promise<IndicatorRow[]>] {
    const common = { along: "timestamp", ...bounds, equal: { ticker } };
    return [
      this.pages<TickRow>(
        { table: "equity_data", columns: "timestamp,price,volume", ...common },
        (row) => row.timestamp,
        null,
        signal,
      ),
      this.pages<IndicatorRow>(
        { table: "indicators", columns: "timestamp,sma9,vwap", ...common },
        (row) => row.timestamp,
        null,
        signal,
      ),
    ];
  }

  /**
   * All rows of a filter, page by page. Where several rows can share the key (`id` given), a page
   * begins with the last key again and what is known already is left out.
   */
  private async pages<Row>(
    filter: Filter,
    key: (row: Row) => string,
    id: ((row: Row) => string) | null,
    signal?: AbortSignal,
  ): Promise<Row[]> {
    const all: Row[] = [];
    const known = new Set<string>();
    let after: string | null = null;
    for (let page = 0; page < PAGES_MAX; page++) {
      const rows: Row[] = await this.ask<Row>((client) => {
        let query = client.from(filter.table).select(filter.columns);
        for (const [name, value] of Object.entries(filter.equal)) query = query.eq(name, value);
        query =
          after === null || id !== null
            ? query.gte(filter.along, after ?? filter.from)
            : query.gt(filter.along, after);
        query = query.lt(filter.along, filter.to).order(filter.along);
        return (id === null ? query : query.order("id")).limit(PAGE_ROWS);
      }, signal);
      const fresh = id === null ? rows : rows.filter((row) => !known.has(id(row)));
      for (const row of fresh) {
        all.push(row);
        if (id !== null) known.add(id(row));
      }
      if (rows.length < PAGE_ROWS || fresh.length === 0) return all;
      after = key(rows[rows.length - 1] as Row);
    }
    throw new SourceError(0, "too_much", `${filter.table} has more rows than a day can have.`);
  }

  private async ticker(name: string, signal?: AbortSignal): Promise<TickerRow> {
    const recent = (before: string, count: number): Promise<CandleRow[]> =>
      this.ask<CandleRow>(
        (client) =>
          client
            .from("candles")
            .select("timestamp,close")
            .eq("ticker", name)
            .eq("timeframe", "1m")
            .lt("timestamp", before)
            .order("timestamp", { ascending: false })
            .limit(count),
        signal,
      );
    const newest = await recent(iso(this.now()), SPARKLINE);
    const last = newest[0];
    if (last === undefined) return emptyTicker(name);
    const date = dateAt(timeOf(last.timestamp));
    const previous = previousSession(date);
    const before = previous === null ? [] : await recent(iso(previous.close_ms), 1);
    return tickerRow(name, date, newest, numberOf(before[0]?.close ?? null));
  }

  /** Days with data, told from the hour candles of the first ticker: a page holds eleven weeks. */
  private async recordedDays(from: string, signal?: AbortSignal): Promise<Set<string>> {
    const first = await this.ask<{ ticker: string }>(
      (client) => client.from("candles").select("ticker").order("ticker").limit(1),
      signal,
    );
    const ticker = first[0]?.ticker;
    if (ticker === undefined) return new Set();
    const rows = await this.pages<{ timestamp: string }>(
      {
        table: "candles",
        columns: "timestamp",
        equal: { ticker, timeframe: "1h" },
        along: "timestamp",
        from: iso(midnightMs(from)),
        to: iso(this.now()),
      },
      (row) => row.timestamp,
      null,
      signal,
    );
    return new Set(rows.map((row) => dateAt(timeOf(row.timestamp))));
  }

  private async ask<Row>(
    build: (
      client: SupabaseClient,
    ) => { abortSignal(signal: AbortSignal): PromiseLike<Answer> } & PromiseLike<Answer>,
    signal?: AbortSignal,
  ): Promise<Row[]> {
    const query = build(this.client);
    const { data, error, status } = await (signal === undefined
      ? query
      : query.abortSignal(signal));
    if (error !== null) {
      throw new SourceError(status ?? 0, error.code ?? "supabase", `Supabase: ${error.message}`);
    }
    return (data ?? []) as Row[];
  }

  private setStatus(change: Partial<ConnectionStatus>): void {
    this.status = { ...this.status, ...change };
    for (const listener of this.listeners) listener(this.status);
  }
}

interface Answer {
  data: unknown;
  error: { message: string; code?: string } | null;
  status?: number;
}
