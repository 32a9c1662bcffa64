/** Bounds of days and sessions as filters want them; pure. */

import { tradingDays } from "./calendar";
import { addDays, midnightMs } from "./newyork";
import type { Session } from "./types";

export function iso(ms: number): string {
  return new Date(ms).toISOString();
}

export function dayBounds(date: string, afterMs?: number): { from: string; to: string } {
  const from = afterMs === undefined ? midnightMs(date) : afterMs + 1;
  return { from: iso(from), to: iso(midnightMs(addDays(date, 1))) };
}

export function sessionOf(date: string): Session | null {
  const day = tradingDays(date, date)[0];
  return day === undefined || day.kind === "holiday" ? null : (day as Session);
}

export function previousSession(date: string): Session | null {
  const days = tradingDays(addDays(date, -10), addDays(date, -1));
  return (days.reverse().find((day) => day.kind !== "holiday") ?? null) as Session | null;
}

export function equal(wanted: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(wanted).filter((pair): pair is [string, string] => pair[1] !== undefined),
  );
}
