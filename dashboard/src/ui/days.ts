// Trading days: the one before, the one after, and a month as a calendar shows it.
//
// Dates are New York days as text, `YYYY-MM-DD`; their arithmetic is done in UTC, where every day
// has 24 hours.

import { neighbour } from "../data/clock";
import { addDays } from "../data/newyork";
import type { SessionDay } from "../data/types";

export interface Cell {
  date: string;
  day: SessionDay | null;
  inMonth: boolean;
  label: string;
  /** Whether there can be something to look at: a session, not after the latest trading day. */
  selectable: boolean;
}

const utc = (date: string): Date => new Date(`${date}T00:00:00Z`);
const text = (at: Date): string => at.toISOString().slice(0, 10);

/** A month moved by some: "2026-01" and −1 give "2025-12". */
export function addMonths(month: string, months: number): string {
  const [year = 1970, index = 1] = month.split("-").map(Number);
  return text(new Date(Date.UTC(year, index - 1 + months, 1))).slice(0, 7);
}

/** The next session in a direction that is no holiday and not after `today`; null at the end. */
export function adjacentDay(
  days: readonly SessionDay[],
  date: string,
  step: -1 | 1,
  today: string,
): string | null {
  const found = neighbour(days, date, step);
  return found !== null && found <= today ? found : null;
}

/** The day to show first: the latest session that has data, else the latest session. */
export function latestDay(days: readonly SessionDay[], today: string): string {
  const open = days.filter((day) => day.kind !== "holiday" && day.date <= today);
  if (open.at(-1)?.date === today) return today;
  return (open.findLast((day) => day.has_data) ?? open.at(-1))?.date ?? today;
}

export function findDay(days: readonly SessionDay[], date: string): SessionDay | null {
  return days.find((day) => day.date === date) ?? null;
}

/** Why there is nothing to see on a day; null if there might be. */
export function whyEmpty(day: SessionDay | null, date: string, today: string): string | null {
  const weekday = utc(date).getUTCDay();
  if (weekday === 0) return "No session: Sunday";
  if (weekday === 6) return "No session: Saturday";
  if (day?.kind === "holiday") return `No session: ${day.name ?? "holiday"}`;
  return date > today ? "This day is still to come" : null;
}

const LONG = new Intl.DateTimeFormat("en-US", {
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
  timeZone: "UTC",
});
const SHORT = new Intl.DateTimeFormat("en-US", {
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
  timeZone: "UTC",
});
const MONTH = new Intl.DateTimeFormat("en-US", { month: "long", year: "numeric", timeZone: "UTC" });

export const shortDate = (date: string): string => SHORT.format(utc(date));
export const longDate = (date: string): string => LONG.format(utc(date));
export const monthTitle = (month: string): string => MONTH.format(utc(`${month}-01`));

function labelOf(date: string, day: SessionDay | null): string {
  const what = { full: null, half: "half day", holiday: "closed" }[day?.kind ?? "full"];
  return [longDate(date), what, day?.name ?? null].filter((part) => part !== null).join(", ");
}

/** The weeks of a month, Sunday first, filled with the days around it. */
export function monthWeeks(month: string, days: readonly SessionDay[], today: string): Cell[][] {
  const known = new Map(days.map((day) => [day.date, day]));
  const first = `${month}-01`;
  const start = addDays(first, -utc(first).getUTCDay());
  const cellOf = (date: string): Cell => {
    const day = known.get(date) ?? null;
    const selectable = day !== null && day.kind !== "holiday" && date <= today;
    return { date, day, inMonth: date.startsWith(month), label: labelOf(date, day), selectable };
  };
  const weeks: Cell[][] = [];
  for (let at = start; at <= first || at.startsWith(month); at = addDays(at, 7)) {
    weeks.push(Array.from({ length: 7 }, (_, index) => cellOf(addDays(at, index))));
  }
  return weeks;
}
