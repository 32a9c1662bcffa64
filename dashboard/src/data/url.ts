/**
 * What the page shows, in its address: a link shows somebody else the same.
 *
 * `?t=QQQ&d=2026-01-05&tf=1m&style=line&x=ema9&from=…&to=…`; without `d` the page is on the current
 * day, without `from` and `to` on the first view of it; those two need a day. What does not make
 * sense is left out.
 */

import { TIMEFRAMES } from "./types";
import type { Timeframe } from "./types";

export interface UrlState {
  ticker: string | null;
  /** Null: the current day, whichever it is when the link is opened. */
  date: string | null;
  timeframe: Timeframe | null;
  style: "candles" | "line" | null;
  extras: string[];
  view: { from_ms: number; to_ms: number } | null;
  page: "chart" | "status";
}

const TICKER = /^[A-Z0-9$][A-Z0-9.$^/ -]{0,31}$/;
const DATE = /^\d{4}-\d{2}-\d{2}$/;
const EXTRA = /^[a-z][a-z0-9_]{0,31}$/;
const EXTRAS_MAX = 12;

export function readUrl(search: string): UrlState {
  const query = new URLSearchParams(search);
  const ticker = (query.get("t") ?? "").toUpperCase();
  const date = query.get("d") ?? "";
  const timeframe = TIMEFRAMES.find((known) => known === query.get("tf"));
  const style = query.get("style");
  return {
    ticker: TICKER.test(ticker) ? ticker : null,
    date: isDate(date) ? date : null,
    timeframe: timeframe ?? null,
    style: style === "line" || style === "candles" ? style : null,
    extras: (query.get("x") ?? "")
      .split(",")
      .filter((name) => EXTRA.test(name))
      .slice(0, EXTRAS_MAX),
    // A stretch of no certain day would be one of another day tomorrow.
    view: isDate(date) ? readView(query) : null,
    page: query.get("p") === "status" ? "status" : "chart",
  };
}

function isDate(text: string): boolean {
  const ms = DATE.test(text) ? Date.parse(`${text}T00:00:00Z`) : Number.NaN;
  // The parser takes February 30 for March 2.
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(text);
}

function readView(query: URLSearchParams): UrlState["view"] {
  const [from_ms, to_ms] = [query.get("from"), query.get("to")].map((text) =>
    text !== null && /^\d{1,14}$/.test(text) ? Number(text) : Number.NaN,
  ) as [number, number];
  return to_ms > from_ms ? { from_ms, to_ms } : null;
}

/** The query for this state, "" where nothing differs from what a plain address shows. */
export function writeUrl(state: UrlState): string {
  const query = new URLSearchParams();
  if (state.page !== "chart") query.set("p", state.page);
  if (state.ticker !== null) query.set("t", state.ticker);
  if (state.date !== null) query.set("d", state.date);
  if (state.timeframe !== null) query.set("tf", state.timeframe);
  if (state.style !== null) query.set("style", state.style);
  if (state.extras.length > 0) query.set("x", state.extras.join(","));
  if (state.view !== null) {
    query.set("from", String(Math.round(state.view.from_ms)));
    query.set("to", String(Math.round(state.view.to_ms)));
  }
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

/** Writes the address after a pause: browsers refuse pages that change it with every wheel turn. */
export class UrlWriter {
  private timer: ReturnType<typeof setTimeout> | null = null;
  private readonly replace: (search: string) => void;
  private readonly pauseMs: number;

  constructor(
    replace: (search: string) => void = (search) =>
      history.replaceState(null, "", search === "" ? location.pathname : search),
    pauseMs = 300,
  ) {
    this.replace = replace;
    this.pauseMs = pauseMs;
  }

  write(state: UrlState): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.replace(writeUrl(state));
    }, this.pauseMs);
  }
}
