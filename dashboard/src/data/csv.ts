/** Tables as CSV, made in the page where no server hands them out. */

import { formatDateTime } from "./newyork";
import type { Gap, Series, Signal } from "./types";

type Cell = string | number | boolean | null | undefined;

/** A cell by RFC 4180; one that a spreadsheet would run as a formula is taken for text. */
export function csvCell(value: Cell): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
  const text = String(value);
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function toCsv(header: readonly string[], rows: Iterable<readonly Cell[]>): string {
  const lines = [header.map(csvCell).join(",")];
  for (const row of rows) lines.push(row.map(csvCell).join(","));
  return `${lines.join("\r\n")}\r\n`;
}

/** The two columns that every table begins with: UTC for machines, New York for people. */
function times(tsMs: number): [string, string] {
  return [new Date(tsMs).toISOString(), formatDateTime(tsMs)];
}

const TIMES = ["timestamp", "new_york"] as const;

export function seriesCsv(series: Series): string {
  const extras = series.timeframe === "tick" ? {} : series.extras;
  const columns: Record<string, readonly Cell[]> =
    series.timeframe === "tick"
      ? { price: series.price, volume: series.volume }
      : {
          open: series.open,
          high: series.high,
          low: series.low,
          close: series.close,
          volume: series.volume,
          revision: series.revision,
        };
  Object.assign(columns, { sma9: series.sma9, vwap: series.vwap }, extras);
  const names = Object.keys(columns);
  return toCsv(
    [...TIMES, ...names],
    series.ts_ms.map((ts, i) => [...times(ts), ...names.map((name) => columns[name]?.[i])]),
  );
}

export function signalsCsv(signals: readonly Signal[]): string {
  const names = [
    "id",
    "ticker",
    "timeframe",
    "kind",
    "direction",
    "price",
    "sma9",
    "vwap",
    "state",
    "late",
    "revision",
  ] as const;
  return toCsv(
    [...TIMES, ...names],
    signals.map((signal) => [...times(signal.ts_ms), ...names.map((name) => signal[name])]),
  );
}

export function gapsCsv(gaps: readonly Gap[]): string {
  return toCsv(
    [
      "from",
      "from_new_york",
      "to",
      "to_new_york",
      "id",
      "ticker",
      "series",
      "cause",
      "state",
      "reason",
    ],
    gaps.map((gap) => [
      ...times(gap.from_ms),
      ...times(gap.to_ms),
      gap.id,
      gap.ticker,
      gap.series,
      gap.cause,
      gap.state,
      gap.reason,
    ]),
  );
}

/** Hands a text to the user as a file. */
export function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
