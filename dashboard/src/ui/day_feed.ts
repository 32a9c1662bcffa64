// One ticker's day: the snapshot, then what comes live, in a store that the chart draws from.
//
// Promises: a newer request wins over an older one whose answer is late; a lost position or a
// corrected day is fetched again into the same store, so that the view stays where it is; a failure
// of such a silent fetch is tried again, that of the first one is shown.

import { offsetMsOn } from "../data/newyork";
import { CandleStore, TickStore } from "../data/series";
import { SourceError, type DataSource, type Subscription } from "../data/source";
import type { Gap, Series, Timeframe } from "../data/types";
import type { Showing } from "../chart/engine";
import { createStore } from "./store";

export interface Wanted {
  ticker: string;
  date: string;
  timeframe: Timeframe;
  /** The day is the running one. */
  live: boolean;
}

export type Load =
  | { state: "loading" }
  | { state: "ready" }
  | { state: "waiting" }
  | { state: "empty"; reason: string }
  | { state: "error"; message: string };

export interface DayEvents {
  onShow(showing: Showing): void;
  onChange(): void;
  onGaps(gaps: readonly Gap[]): void;
  onUnauthorized(): void;
}

const GAPS_EVERY_MS = 30_000;
const RETRY_FIRST_MS = 1_000;
const RETRY_MAX_MS = 15_000;

export class DayFeed {
  readonly load = createStore<Load>({ state: "loading" });
  readonly extras = createStore<readonly string[]>([]);
  readonly gaps = createStore<readonly Gap[]>([]);
  showing: Showing | null = null;
  private wanted: Wanted | null = null;
  private abort = new AbortController();
  private subscription: Subscription | null = null;
  private gapsTimer = 0;
  private retryTimer = 0;
  private retryMs = RETRY_FIRST_MS;

  constructor(
    private readonly source: DataSource,
    private readonly events: DayEvents,
  ) {}

  open(wanted: Wanted): void {
    this.stop();
    this.wanted = wanted;
    this.load.set({ state: "loading" });
    this.setGaps([]);
    void this.fetch(wanted, false);
    this.refreshGaps();
  }

  /** Shows a day of which is known that it has nothing. */
  openEmpty(reason: string): void {
    this.stop();
    this.wanted = null;
    this.showing = null;
    this.setGaps([]);
    this.load.set({ state: "empty", reason });
  }

  retry(): void {
    if (this.wanted !== null) this.open(this.wanted);
  }

  stop(): void {
    this.abort.abort();
    this.abort = new AbortController();
    this.subscription?.close();
    this.subscription = null;
    window.clearInterval(this.gapsTimer);
    window.clearTimeout(this.retryTimer);
    this.retryMs = RETRY_FIRST_MS;
  }

  private async fetch(wanted: Wanted, silent: boolean): Promise<void> {
    const { signal } = this.abort;
    try {
      const { ticker, date, timeframe } = wanted;
      const series = await this.source.series(ticker, date, timeframe, signal);
      if (signal.aborted) return;
      this.retryMs = RETRY_FIRST_MS;
      this.take(wanted, series, silent);
      if (wanted.live) this.subscribe(wanted, series);
    } catch (error) {
      if (!signal.aborted) this.failed(wanted, error, silent);
    }
  }

  private take(wanted: Wanted, series: Series, silent: boolean): void {
    const known = silent ? this.showing?.store : undefined;
    const store = known ?? (series.timeframe === "tick" ? new TickStore() : new CandleStore());
    if (store instanceof CandleStore && series.timeframe !== "tick") store.load(series);
    if (store instanceof TickStore && series.timeframe === "tick") store.load(series);
    this.extras.set(store instanceof CandleStore ? [...store.extras] : []);
    if (known !== undefined) return this.events.onChange();
    const { ticker, date, timeframe, live } = wanted;
    const offsetMs = offsetMsOn(date);
    this.showing = { ticker, date, timeframe, live, store, offsetMs, session: series.session };
    if (store.count > 0) this.load.set({ state: "ready" });
    else this.load.set(live ? { state: "waiting" } : { state: "empty", reason: "nothing recorded" });
    this.events.onShow(this.showing);
  }

  private subscribe(wanted: Wanted, series: Series): void {
    const { ticker, date, timeframe } = wanted;
    const last = series.ts_ms.at(-1);
    const position = {
      ticker,
      date,
      epoch_ms: series.epoch_ms,
      from_seq: series.last_seq,
      ...(last === undefined ? {} : { last_ts_ms: last }),
    };
    const request =
      timeframe === "tick"
        ? ({ channel: "ticks", ...position } as const)
        : ({ channel: "candles", timeframe, ...position } as const);
    this.subscription?.close();
    this.subscription = this.source.subscribe(request, {
      onTicks: (batch) => {
        this.change((store) => {
          if (!(store instanceof TickStore)) return;
          store.append(batch.ts_ms, batch.price, batch.sma9, batch.vwap);
        });
      },
      onCandles: (candles) => {
        this.change((store) => {
          if (store instanceof CandleStore) candles.forEach((candle) => store.upsert(candle));
        });
      },
      onProvisional: (candle) => {
        this.change((store) => {
          if (store instanceof CandleStore) store.setProvisional(candle);
        });
      },
      onCorrected: (corrected) => {
        if (corrected === date) void this.fetch(wanted, true);
      },
      onResync: () => void this.fetch(wanted, true),
      onError: (message) => console.warn("live:", message),
    });
  }

  private change(apply: (store: Showing["store"]) => void): void {
    if (this.showing === null) return;
    apply(this.showing.store);
    const { store } = this.showing;
    if (this.load.get().state === "waiting" && store.count > 0) this.load.set({ state: "ready" });
    if (store instanceof CandleStore && store.extras.length > this.extras.get().length) {
      this.extras.set([...store.extras]);
    }
    this.events.onChange();
  }

  private failed(wanted: Wanted, error: unknown, silent: boolean): void {
    if (error instanceof SourceError && error.status === 401) return this.events.onUnauthorized();
    if (!silent) {
      const message = error instanceof Error ? error.message : String(error);
      this.load.set({ state: "error", message });
      return;
    }
    const { signal } = this.abort;
    this.retryTimer = window.setTimeout(() => {
      if (!signal.aborted) void this.fetch(wanted, true);
    }, this.retryMs);
    this.retryMs = Math.min(this.retryMs * 2, RETRY_MAX_MS);
  }

  private refreshGaps(): void {
    const { wanted } = this;
    if (wanted === null) return;
    void this.fetchGaps(wanted);
    if (!wanted.live) return;
    this.gapsTimer = window.setInterval(() => void this.fetchGaps(wanted), GAPS_EVERY_MS);
  }

  private async fetchGaps(wanted: Wanted): Promise<void> {
    const { signal } = this.abort;
    try {
      const gaps = await this.source.gaps(wanted.date, wanted.ticker, signal);
      if (!signal.aborted) this.setGaps(gaps);
    } catch (error) {
      // The chart is good without them, and they are asked for again soon.
      if (!signal.aborted) console.warn("gaps:", error);
    }
  }

  private setGaps(gaps: readonly Gap[]): void {
    this.gaps.set(gaps);
    this.events.onGaps(gaps);
  }
}
