// The watchlist's numbers: who shows a ticker's quote is called when it changes, and nobody else.

import type { Quote, TickerRow } from "../data/types";
import { createStore } from "./store";

export interface BoardRow {
  last: number | null;
  change: number | null;
  percent: number | null;
  tsMs: number | null;
}

export type RowListener = (row: BoardRow, before: BoardRow | null) => void;

/** What a new last price makes of a row. */
export function quoted(
  previousClose: number | null,
  last: number | null,
  tsMs: number | null,
): BoardRow {
  if (last === null || previousClose === null || previousClose === 0) {
    return { last, change: null, percent: null, tsMs };
  }
  const change = last - previousClose;
  return { last, change, percent: (change / previousClose) * 100, tsMs };
}

export class QuoteBoard {
  /** The tickers and what changes seldom; quotes do not pass through here. */
  readonly tickers = createStore<readonly TickerRow[] | null>(null);
  private readonly rows = new Map<string, BoardRow>();
  private readonly listeners = new Map<string, Set<RowListener>>();
  newestMs: number | null = null;

  setTickers(tickers: readonly TickerRow[]): void {
    this.tickers.set(tickers);
    for (const row of tickers) {
      const known = this.rows.get(row.ticker);
      // A quote may have been faster than the list.
      if ((known?.tsMs ?? -1) > (row.ts_ms ?? 0)) continue;
      this.put(row.ticker, quoted(row.previous_close, row.last, row.ts_ms));
    }
  }

  quote(ticker: string, quote: Quote): void {
    const closes = this.tickers.get()?.find((row) => row.ticker === ticker);
    if (quote.last === null) return;
    this.put(ticker, quoted(closes?.previous_close ?? null, quote.last, quote.ts_ms));
  }

  row(ticker: string): BoardRow | null {
    return this.rows.get(ticker) ?? null;
  }

  /** Calls back at once if the ticker is known, and whenever its quote changes. */
  listen(ticker: string, listener: RowListener): () => void {
    const set = this.listeners.get(ticker) ?? new Set();
    this.listeners.set(ticker, set.add(listener));
    const row = this.rows.get(ticker);
    if (row !== undefined) listener(row, null);
    return () => set.delete(listener);
  }

  private put(ticker: string, row: BoardRow): void {
    const before = this.rows.get(ticker) ?? null;
    this.rows.set(ticker, row);
    if (row.tsMs !== null) this.newestMs = Math.max(this.newestMs ?? 0, row.tsMs);
    for (const listener of this.listeners.get(ticker) ?? []) listener(row, before);
  }
}
