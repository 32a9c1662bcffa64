// The signals of the day on the screen as components see them, and which of them are news.

import { SignalFeed } from "../data/signal_feed";
import type { DataSource } from "../data/source";
import type { Signal } from "../data/types";
import { createStore } from "./store";

export interface SignalListEvents {
  onChange(): void;
  /** Signals of now, which were not known before; never those that a correction brought. */
  onNew(signals: readonly Signal[]): void;
}

/** Those of `fresh` that a trader has not seen and may act on. */
export function newsOf(known: readonly Signal[], fresh: readonly Signal[]): Signal[] {
  const ids = new Set(known.map((signal) => signal.id));
  return fresh.filter(
    (signal) => !ids.has(signal.id) && !signal.late && signal.state === "active",
  );
}

export class SignalList {
  readonly signals = createStore<readonly Signal[]>([]);
  readonly state = createStore<"loading" | "ready" | "error">("loading");
  private feed: SignalFeed | null = null;

  constructor(
    private readonly source: DataSource,
    private readonly events: SignalListEvents,
  ) {}

  open(date: string, live: boolean): void {
    this.close();
    this.state.set("loading");
    this.put([]);
    this.feed = new SignalFeed(this.source, date, live, {
      onSignals: (signals, fresh) => {
        const news = newsOf(this.signals.get(), fresh);
        this.state.set("ready");
        this.put(signals);
        if (news.length > 0) this.events.onNew(news);
      },
      onError: () => {
        if (this.signals.get().length === 0) this.state.set("error");
      },
    });
  }

  close(): void {
    this.feed?.close();
    this.feed = null;
  }

  private put(signals: readonly Signal[]): void {
    this.signals.set(signals);
    this.events.onChange();
  }
}
