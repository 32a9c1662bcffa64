// The page's state and its address, each made of the other.

import type { UrlState } from "../data/url";
import type { View } from "./desk";

type Range = UrlState["view"];

export function viewOf(url: UrlState): View {
  return {
    page: url.page,
    ticker: url.ticker,
    date: url.date,
    timeframe: url.timeframe ?? "1m",
    style: url.style ?? "candles",
    extras: url.extras,
  };
}

/** Leaves out what a plain address shows anyway. A stretch belongs to its day, `shown`. */
export function urlOf(view: View, range: Range, shown: string | null): UrlState {
  return {
    page: view.page,
    ticker: view.ticker,
    date: range === null ? view.date : shown,
    timeframe: view.timeframe === "1m" ? null : view.timeframe,
    style: view.style === "candles" ? null : view.style,
    extras: [...view.extras],
    view: range,
  };
}
