/**
 * One day of one series: the snapshot, then what comes after it, into one store.
 *
 * Promises that nothing between the two is missing or doubled: the live part begins at the very
 * position that the snapshot states, and where that is no longer possible (`resync`), or the day
 * was computed anew (`corrected`), it begins again with a snapshot, the old numbers staying up
 * meanwhile.
 */

import { backoffMs } from "./backoff";
import { addDays, midnightMs } from "./newyork";
import { CandleStore, TickStore } from "./series";
import type { DataSource, Subscription } from "./source";
import { SourceError } from "./source";
import type { Series, Timeframe } from "./types";

/** How often a corrected day is asked for until the database has all of it. */
const CORRECTED_ATTEMPTS = 20;

export interface DayRequest {
  ticker: string;
  date: string;
  timeframe: Timeframe;
  /** Whether to go on with what comes; a day that is over has nothing to come. */
  live: boolean;
}

export interface DayEvents {
  /** A snapshot is in the store, the first or a later one. */
  onLoaded(series: Omit<Series, "ts_ms">): void;
  /** Something came live and is in the store. */
  onChange(): void;
  /** There is no snapshot. It is tried again when that may help, and `retry` tries at once. */
  onError(error: SourceError, retryMs: number | null): void;
  /** Values of a later day have come: the page may go on to it. */
  onNextDay?(): void;
}

/** Which snapshot will do, and how often it was asked for in vain. */
interface Wanted {
  /** Past the browser's cache. */
  fresh?: boolean;
  attempts?: number;
}

export interface FeedParts {
  random(): number;
  later(callback: () => void, ms: number): () => void;
}

const DEFAULT_PARTS: FeedParts = {
  random: Math.random,
  later: (callback, ms) => {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};

export class DayFeed {
  readonly request: DayRequest;
  readonly store: TickStore | CandleStore;
  private readonly source: DataSource;
  private readonly events: DayEvents;
  private readonly parts: FeedParts;
  private readonly dayEndMs: number;
  private subscription: Subscription | null = null;
  private loading: AbortController | null = null;
  private cancelRetry: (() => void) | null = null;
  private attempt = 0;
  private closed = false;
  /** The newest correction: snapshots before it are shown, and asked for again. */
  private leastSeq = 0;
  /** Resyncs since something came live; each waits longer than the one before. */
  private resyncs = 0;

  constructor(
    source: DataSource,
    request: DayRequest,
    events: DayEvents,
    parts: FeedParts = DEFAULT_PARTS,
  ) {
    this.source = source;
    this.request = request;
    this.events = events;
    this.parts = parts;
    this.store = request.timeframe === "tick" ? new TickStore(32_768) : new CandleStore();
    this.dayEndMs = midnightMs(addDays(request.date, 1));
    void this.load({});
  }

  /** Tries again at once. */
  retry(): void {
    this.attempt = 0;
    void this.load({});
  }

  close(): void {
    this.closed = true;
    this.loading?.abort();
    this.cancelRetry?.();
    this.subscription?.close();
    this.subscription = null;
  }

  /** Takes the snapshot that is wanted, then subscribes from where it ends. */
  private async load(wanted: Wanted): Promise<void> {
    if (this.closed) return;
    this.cancelRetry?.();
    this.loading?.abort();
    const loading = new AbortController();
    this.loading = loading;
    const { ticker, date, timeframe } = this.request;
    let series: Series;
    try {
      series = await this.source.series(ticker, date, timeframe, loading.signal, wanted.fresh);
    } catch (error) {
      if (!loading.signal.aborted) this.failed(error, wanted);
      return;
    }
    if (loading.signal.aborted) return;
    this.attempt = 0;
    this.take(series);
    const { attempts = 0 } = wanted;
    if (series.last_seq >= this.leastSeq || attempts >= CORRECTED_ATTEMPTS) return;
    // The correction is on the bus and not yet in the database.
    this.cancelRetry = this.parts.later(
      () => void this.load({ ...wanted, attempts: attempts + 1 }),
      backoffMs(attempts, this.parts.random()),
    );
  }

  private take(series: Series): void {
    // What the old subscription brought after this snapshot, the new one brings again.
    this.subscription?.close();
    this.subscription = null;
    const { store } = this;
    if (store instanceof CandleStore) {
      if (series.timeframe !== "tick") store.load(series);
    } else if (series.timeframe === "tick") {
      store.load(series);
    }
    this.events.onLoaded(series);
    if (this.request.live && !this.closed) this.subscribe(series);
  }

  private subscribe(series: Series): void {
    const { ticker, date, timeframe } = this.request;
    const { store } = this;
    const common = {
      ticker,
      date,
      epoch_ms: series.epoch_ms,
      from_seq: series.last_seq,
      ...(store.count > 0 ? { last_ts_ms: store.lastTs } : {}),
    };
    const again = {
      onResync: () => this.resync(),
      onCorrected: (day: string, seq: number) => {
        // A snapshot from before the correction makes the server tell of it once more.
        if (day !== date || seq <= this.leastSeq) return;
        this.leastSeq = seq;
        void this.load({ fresh: true });
      },
    };
    this.subscription =
      store instanceof CandleStore
        ? this.source.subscribe(
            { channel: "candles", timeframe, ...common },
            {
              ...again,
              onCandles: (candles) => this.changed(candles, (candle) => store.upsert(candle)),
              onProvisional: (candle) => this.changed([candle], () => store.setProvisional(candle)),
            },
          )
        : this.source.subscribe(
            { channel: "ticks", ...common },
            {
              ...again,
              onTicks: ({ ts_ms, price, sma9, vwap }) => {
                this.changed(
                  ts_ms.map((ts, i) => ({ ts_ms: ts, i })),
                  ({ ts_ms: ts, i }) =>
                    store.put(ts, price[i] as number, sma9[i] ?? Number.NaN, vwap[i] ?? Number.NaN),
                );
              },
            },
          );
  }

  private resync(): void {
    // Of another incarnation of the stream, perhaps: its numbers are others.
    this.leastSeq = 0;
    const load = (): void => void this.load({ fresh: true });
    if (this.resyncs++ === 0) return load();
    this.cancelRetry?.();
    this.cancelRetry = this.parts.later(load, backoffMs(this.resyncs - 2, this.parts.random()));
  }

  private changed<T extends { ts_ms: number }>(
    items: readonly T[],
    put: (item: T) => unknown,
  ): void {
    let taken = false;
    let later = false;
    for (const item of items) {
      if (item.ts_ms >= this.dayEndMs) {
        later = true;
      } else {
        put(item);
        taken = true;
      }
    }
    if (taken || later) this.resyncs = 0;
    if (taken) this.events.onChange();
    if (later) this.events.onNextDay?.();
  }

  private failed(cause: unknown, wanted: Wanted): void {
    const error =
      cause instanceof SourceError
        ? cause
        : new SourceError(0, "unexpected", "The answer could not be read.");
    // Asking the same again mends neither a wrong question nor a missing login.
    const hopeless = error.status >= 400 && error.status < 500 && error.status !== 429;
    const waitMs = hopeless
      ? null
      : Math.max(error.retryAfterMs ?? 0, backoffMs(this.attempt, this.parts.random()));
    this.attempt += 1;
    if (waitMs !== null) {
      this.cancelRetry = this.parts.later(() => void this.load({ ...wanted, attempts: 0 }), waitMs);
    }
    this.events.onError(error, waitMs);
  }
}
