/**
 * The signals of one day, all tickers: the snapshot, then what comes; the highest revision of each
 * holds.
 */

import { backoffMs } from "./backoff";
import { addDays, midnightMs } from "./newyork";
import type { DataSource, Subscription } from "./source";
import type { Signal } from "./types";

export interface SignalEvents {
  /** All signals of the day in order of time; `fresh` are those that came live just now. */
  onSignals(signals: readonly Signal[], fresh: readonly Signal[]): void;
  onError?(error: unknown): void;
}

/** Keeps the highest revision of each signal, in order of time. */
export class SignalBook {
  private readonly byId = new Map<string, Signal>();
  private sorted: Signal[] | null = null;

  /** Takes a signal; says whether it is new or newer than what was known. */
  take(signal: Signal): boolean {
    const known = this.byId.get(signal.id);
    if (known !== undefined && known.revision >= signal.revision) return false;
    this.byId.set(signal.id, signal);
    this.sorted = null;
    return true;
  }

  list(): readonly Signal[] {
    this.sorted ??= [...this.byId.values()].sort(
      (a, b) => a.ts_ms - b.ts_ms || (a.id < b.id ? -1 : 1),
    );
    return this.sorted;
  }
}

export class SignalFeed {
  private readonly source: DataSource;
  private readonly date: string;
  private readonly live: boolean;
  private readonly events: SignalEvents;
  private book = new SignalBook();
  private readonly stop = new AbortController();
  private subscription: Subscription | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private attempt = 0;
  /** Resyncs since something came live; each waits longer than the one before. */
  private resyncs = 0;

  constructor(source: DataSource, date: string, live: boolean, events: SignalEvents) {
    this.source = source;
    this.date = date;
    this.live = live;
    this.events = events;
    void this.load();
  }

  close(): void {
    this.stop.abort();
    this.subscription?.close();
    if (this.timer !== null) clearTimeout(this.timer);
  }

  private async load(): Promise<void> {
    try {
      const snapshot = await this.source.signals({ date: this.date }, this.stop.signal);
      if (this.stop.signal.aborted) return;
      this.attempt = 0;
      this.subscription?.close();
      this.book = new SignalBook();
      for (const signal of snapshot.signals) this.book.take(signal);
      this.events.onSignals(this.book.list(), []);
      if (this.live) this.subscribe(snapshot.epoch_ms, snapshot.last_seq);
    } catch (error) {
      if (this.stop.signal.aborted) return;
      this.events.onError?.(error);
      this.loadLater(this.attempt++);
    }
  }

  private loadLater(attempt: number): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.load(), backoffMs(attempt, Math.random()));
  }

  private subscribe(epoch_ms: number, from_seq: Record<string, number>): void {
    const from = midnightMs(this.date);
    const to = midnightMs(addDays(this.date, 1));
    this.subscription = this.source.subscribe(
      { channel: "signals", ticker: "*", date: this.date, epoch_ms, from_seq },
      {
        onSignals: (signals) => {
          this.resyncs = 0;
          const fresh = signals.filter(
            (signal) => signal.ts_ms >= from && signal.ts_ms < to && this.book.take(signal),
          );
          if (fresh.length > 0) this.events.onSignals(this.book.list(), fresh);
        },
        onResync: () => {
          if (this.resyncs++ === 0) void this.load();
          else this.loadLater(this.resyncs - 2);
        },
      },
    );
  }
}
