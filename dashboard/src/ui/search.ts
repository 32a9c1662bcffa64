// Which tickers a search finds, best first.

import type { TickerRow } from "../data/types";

/** Those that begin with the text, then those that hold it; each group in the list's order. */
export function found(rows: readonly TickerRow[], text: string): TickerRow[] {
  const wanted = text.trim().toUpperCase();
  const first = rows.filter((row) => row.ticker.startsWith(wanted));
  const others = rows.filter((row) => row.ticker.indexOf(wanted) > 0);
  return [...first, ...others];
}
