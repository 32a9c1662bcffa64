// The signals of one day, of every ticker: those known, then those that come.

import { SourceError, type DataSource, type Subscription } from "../data/source";
import type { Signal, Signals } from "../data/types";
import { createStore } from "./store";

export interface SignalEvents {
  onChange(signals: readonly Signal[]): void;
  /** A signal of now, which was not known before; never one that a correction brought. */
  onNew(signal: Signal): void;
}

export type SignalsState = "loading" | "ready" | "error";

const RETRY_MS = 5_000;

/** The signals with others put in: the highest revision of an id is the truth. */
export function merged(known: readonly Signal[], others: readonly Signal[]): Signal[] {
  const byId = new Map(known.map((signal) => [signal.id, signal]));
  for (const signal of others) {
    const before = byId.get(signal.id);
    if (before === undefined || signal.revision >= before.revision) byId.set(signal.id, signal);
  }
  return [...byId.values()].sort((a, b) => a.ts_ms - b.ts_ms || (a.id < b.id ? -1 : 1));
}

export class SignalFeed {
  readonly signals = createStore<readonly Signal[]>([]);
  readonly state = createStore<SignalsState>("loading");
  private abort = new AbortController();
  private subscription: Subscription | null = null;
  private retryTimer = 0;

  constructor(
    private readonly source: DataSource,
    private readonly events: SignalEvents,
  ) {}

  open(date: string, live: boolean): void {
    this.stop();
    this.state.set("loading");
    this.put([]);
    void this.fetch(date, live);
  }

  stop(): void {
    this.abort.abort();
    this.abort = new AbortController();
    this.subscription?.close();
    this.subscription = null;
    window.clearTimeout(this.retryTimer);
  }

  private async fetch(date: string, live: boolean): Promise<void> {
    const { signal } = this.abort;
    try {
      const found = await this.source.signals({ date }, signal);
      if (signal.aborted) return;
      this.put(merged([], found.signals));
      this.state.set("ready");
      if (live) this.subscribe(date, found);
    } catch (error) {
      if (signal.aborted) return;
      this.state.set("error");
      if (error instanceof SourceError && error.status === 401) return;
      this.retryTimer = window.setTimeout(() => void this.fetch(date, live), RETRY_MS);
    }
  }

  private subscribe(date: string, found: Signals): void {
    this.subscription?.close();
    this.subscription = this.source.subscribe(
      { channel: "signals", ticker: "*", date, epoch_ms: found.epoch_ms, from_seq: found.last_seq },
      {
        onSignals: (signals) => this.came(signals),
        onResync: () => void this.fetch(date, true),
        onError: (message) => console.warn("live:", message),
      },
    );
  }

  private came(signals: Signal[]): void {
    const known = new Set(this.signals.get().map((signal) => signal.id));
    this.put(merged(this.signals.get(), signals));
    for (const signal of signals) {
      if (known.has(signal.id) || signal.late || signal.state !== "active") continue;
      this.events.onNew(signal);
    }
  }

  private put(signals: readonly Signal[]): void {
    this.signals.set(signals);
    this.events.onChange(signals);
  }
}
