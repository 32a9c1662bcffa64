/** What the chart is asked to show, and what it tells in return. */

import type { CandleStore, TickStore } from "../data/series";
import type { Session, Timeframe } from "../data/types";
import type { Mode } from "./view";

/** A part of the day in view. */
export interface View {
  from_ms: number;
  to_ms: number;
}

/** Which day of what is shown, and where its numbers lie. */
export interface Showing {
  ticker: string;
  date: string;
  timeframe: Timeframe;
  session: Session | null;
  /** New York's offset from UTC on that day (`offsetMsOn`). */
  offsetMs: number;
  store: TickStore | CandleStore;
  /** Whether new values may come; only then can the view follow. */
  live: boolean;
}

export interface Look {
  /** Candles, or a line through their closes; ticks are always a line. */
  style: "candles" | "line";
  sma9: boolean;
  vwap: boolean;
  volume: boolean;
  extras: readonly string[];
}

export const DEFAULT_LOOK: Look = {
  style: "candles",
  sma9: true,
  vwap: true,
  volume: true,
  extras: [],
};

export interface EngineEvents {
  onMode?(mode: Mode): void;
  /** The view was moved by the user or a call, not by following; null: to the first one. */
  onView?(view: View | null): void;
}
