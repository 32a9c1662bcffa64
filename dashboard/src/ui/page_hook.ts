// What tests read off the page: the numbers behind the pixels. It changes nothing.

import { CandleStore } from "../data/series";
import type { Desk } from "./desk";
import { badgeText } from "./top_bar";

function storeOf(desk: Desk): Record<string, number[] | string> | null {
  const showing = desk.day.showing;
  if (showing === null) return null;
  const { store, ticker, date, timeframe } = showing;
  const columns: Record<string, number[] | string> = { ticker, date, timeframe };
  const take = (values: Float64Array): number[] => [...values.subarray(0, store.count)];
  const names =
    store instanceof CandleStore
      ? (["open", "high", "low", "close", "volume", "sma9", "vwap"] as const)
      : (["price", "sma9", "vwap"] as const);
  columns["ts_ms"] = take(store.ts);
  for (const name of names) columns[name] = take(store.column(name));
  return columns;
}

export function exposeHook(desk: Desk): void {
  const hook = {
    get ready(): boolean {
      return desk.account.get().state === "ready" && desk.day.load.get().state === "ready";
    },
    store: () => storeOf(desk),
    newestMs: () => desk.day.showing?.store.lastTs ?? null,
    provisional: () => {
      const store = desk.day.showing?.store;
      return store instanceof CandleStore ? store.provisional : null;
    },
    markers: () => desk.markers(),
    visibleRange: () => desk.chart()?.view() ?? null,
    mode: () => desk.chart()?.mode() ?? null,
    badge: badgeText,
  };
  Object.assign(window, { __dash: hook });
}
