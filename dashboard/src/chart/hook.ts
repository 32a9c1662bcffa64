/**
 * `window.__dash`: what the page shows, for tests that cannot read a canvas.
 *
 * Copies of plain values; nothing can be changed through it.
 */

import { CandleStore } from "../data/series";
import type { TickStore } from "../data/series";
import type { Signal } from "../data/types";
import type { ChartEngine, View } from "./engine";

export interface DashHook {
  /** Whether a day is loaded and has been handed to the chart. */
  readonly ready: boolean;
  /** The columns in view's store by name, NaN as null; the open candle apart. */
  store(): Record<string, unknown>;
  /** The signals drawn as marks. */
  markers(): { ts_ms: number; direction: string; state: string; late: boolean; price: number }[];
  visibleRange(): View | null;
  mode(): string;
  badge(): string;
}

declare global {
  interface Window {
    __dash?: DashHook;
  }
}

export interface HookParts {
  ready(): boolean;
  engine(): ChartEngine | null;
  badge(): string;
}

function columns(store: TickStore | CandleStore): Record<string, unknown> {
  const copied: Record<string, unknown> = { count: store.count };
  for (const [name, values] of Object.entries(store.columns)) {
    const plain = Array.from(values.subarray(0, store.count), (value) =>
      Number.isNaN(value) ? null : value,
    );
    copied[name === "ts" ? "ts_ms" : name] = plain;
  }
  if (store instanceof CandleStore) copied["provisional"] = structuredClone(store.provisional);
  return copied;
}

function marker(signal: Signal): ReturnType<DashHook["markers"]>[number] {
  const { ts_ms, direction, state, late, price } = signal;
  return { ts_ms, direction, state, late, price };
}

export function installHook(parts: HookParts): () => void {
  const hook: DashHook = {
    get ready() {
      return parts.ready();
    },
    store() {
      const store = parts.engine()?.shown()?.store;
      return store === undefined ? {} : columns(store);
    },
    markers: () => (parts.engine()?.marked() ?? []).map(marker),
    visibleRange: () => parts.engine()?.view() ?? null,
    mode: () => parts.engine()?.mode() ?? "free",
    badge: () => parts.badge(),
  };
  window.__dash = hook;
  return () => {
    if (window.__dash === hook) delete window.__dash;
  };
}
