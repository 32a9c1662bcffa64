// The day on the screen as components see it: how its loading stands, its gaps, its extras.
//
// The feed below keeps the numbers right; this says what to show while there are none.

import type { Showing } from "../chart/engine";
import { DayFeed, type DayRequest } from "../data/day_feed";
import { offsetMsOn } from "../data/newyork";
import { CandleStore } from "../data/series";
import type { DataSource } from "../data/source";
import type { Gap, Series } from "../data/types";
import { createStore } from "./store";

export type Load =
  | { state: "loading" }
  | { state: "ready" }
  | { state: "waiting" }
  | { state: "empty"; reason: string }
  | { state: "error"; message: string; again: boolean };

export interface DayViewEvents {
  onShow(showing: Showing): void;
  onChange(): void;
  onGaps(gaps: readonly Gap[]): void;
  onUnauthorized(): void;
}

const GAPS_EVERY_MS = 30_000;
const GAPS_AGAIN_MS = 5_000;

export class DayView {
  readonly load = createStore<Load>({ state: "loading" });
  readonly extras = createStore<readonly string[]>([]);
  /** Null until they are known. */
  readonly gaps = createStore<readonly Gap[] | null>(null);
  showing: Showing | null = null;
  private feed: DayFeed | null = null;
  private abort = new AbortController();
  private gapsTimer = 0;

  constructor(
    private readonly source: DataSource,
    private readonly events: DayViewEvents,
  ) {}

  open(request: DayRequest): void {
    this.close();
    this.load.set({ state: "loading" });
    this.setGaps(null);
    this.feed = new DayFeed(this.source, request, {
      onLoaded: (series) => this.loaded(request, series),
      onChange: () => this.changed(),
      onError: (error, retryMs) => {
        if (error.status === 401) return this.events.onUnauthorized();
        // What is on the screen stays; the badge tells of the connection.
        if (this.showing !== null) return;
        this.load.set({ state: "error", message: error.message, again: retryMs !== null });
      },
    });
    void this.fetchGaps(request);
  }

  /** Shows a day of which is known that it has nothing. */
  openEmpty(reason: string): void {
    this.close();
    this.setGaps([]);
    this.load.set({ state: "empty", reason });
  }

  retry(): void {
    this.load.set({ state: "loading" });
    this.feed?.retry();
  }

  close(): void {
    this.feed?.close();
    this.feed = null;
    this.showing = null;
    this.extras.set([]);
    this.abort.abort();
    this.abort = new AbortController();
    window.clearTimeout(this.gapsTimer);
  }

  private loaded(request: DayRequest, series: Omit<Series, "ts_ms">): void {
    const store = this.feed?.store;
    if (store === undefined) return;
    const isFirst = this.showing === null;
    const offsetMs = offsetMsOn(request.date);
    this.showing ??= { ...request, store, offsetMs, session: series.session };
    const empty = { state: "empty", reason: "Nothing was recorded" } as const;
    const nothing = request.live ? ({ state: "waiting" } as const) : empty;
    this.load.set(store.count > 0 ? { state: "ready" } : nothing);
    if (isFirst) this.events.onShow(this.showing);
    this.changed();
  }

  private changed(): void {
    const store = this.showing?.store;
    if (store === undefined) return;
    if (this.load.get().state === "waiting" && store.count > 0) this.load.set({ state: "ready" });
    if (store instanceof CandleStore && store.extras.length > this.extras.get().length) {
      this.extras.set([...store.extras]);
    }
    this.events.onChange();
  }

  private async fetchGaps(request: DayRequest): Promise<void> {
    const { signal } = this.abort;
    try {
      const gaps = await this.source.gaps(request.date, request.ticker, signal);
      if (signal.aborted) return;
      this.setGaps(gaps);
      if (request.live) this.fetchGapsLater(request, GAPS_EVERY_MS);
    } catch (error) {
      if (signal.aborted) return;
      console.warn("gaps:", error); // The chart is good without them, and they are asked for again.
      this.fetchGapsLater(request, GAPS_AGAIN_MS);
    }
  }

  private fetchGapsLater(request: DayRequest, ms: number): void {
    this.gapsTimer = window.setTimeout(() => void this.fetchGaps(request), ms);
  }

  private setGaps(gaps: readonly Gap[] | null): void {
    this.gaps.set(gaps);
    this.events.onGaps(gaps ?? []);
  }
}
