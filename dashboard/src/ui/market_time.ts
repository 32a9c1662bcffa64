// Where in the trading week an instant lies, and how long until the market opens or closes.

import { phaseAt } from "../data/clock";
import type { Phase, SessionDay } from "../data/types";

export interface MarketMoment {
  phase: Phase;
  next: { what: "opens" | "closes"; atMs: number } | null;
}

/** Asks the calendar; the days must be in order. A day unknown to it counts as closed. */
export function marketMoment(days: readonly SessionDay[], nowMs: number): MarketMoment {
  const { phase, next } = phaseAt(days, nowMs);
  if (phase === "regular" && next !== null) {
    return { phase, next: { what: "closes", atMs: next.at_ms } };
  }
  const day = days.find((each) => each.open_ms !== null && each.open_ms > nowMs);
  return { phase, next: day?.open_ms ? { what: "opens", atMs: day.open_ms } : null };
}

const two = (value: number): string => String(value).padStart(2, "0");

/** Time left, to the second within a day: 2:04:09, else 2 d 4 h. */
export function countdown(leftMs: number): string {
  const seconds = Math.max(0, Math.ceil(leftMs / 1000));
  const hours = Math.floor(seconds / 3600);
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  return `${hours}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

const PHASES: Record<Phase, string> = {
  pre: "Pre-market",
  regular: "Regular session",
  post: "After hours",
  closed: "Closed",
};

export function momentText(moment: MarketMoment, nowMs: number): string {
  const phase = PHASES[moment.phase];
  if (moment.next === null) return phase;
  const left = countdown(moment.next.atMs - nowMs);
  return `${phase} · ${moment.next.what} in ${left}`;
}
