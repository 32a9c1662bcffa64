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

/** Which snapshot will do: one past the cache, one that has reached a position. */
interface Wanted {
  fresh?: boolean;
  leastSeq?: number;
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
    const { leastSeq = 0, attempts = 0 } = wanted;
    if (series.last_seq >= leastSeq || attempts >= CORRECTED_ATTEMPTS) return;
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
      onResync: () => void this.load({ fresh: true }),
      onCorrected: (day: string, seq: number) => {
        if (day === date) void this.load({ fresh: true, leastSeq: seq });
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
