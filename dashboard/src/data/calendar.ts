/**
 * New York's trading days by rule, for pages that have no server to ask.
 *
 * Holidays and half days as the exchanges have kept them since 2012; closings that no rule
 * foretells are listed. Where there is a gateway, its calendar is used and this is not loaded.
 */

import { addDays, offsetMsOn } from "./newyork";
import type { SessionDay } from "./types";

const MINUTE_MS = 60_000;

const UNFORESEEN: Record<string, string> = {
  "2012-10-29": "Hurricane Sandy",
  "2012-10-30": "Hurricane Sandy",
  "2018-12-05": "National day of mourning",
  "2025-01-09": "National day of mourning",
};

function weekday(date: string): number {
  return new Date(`${date}T00:00:00Z`).getUTCDay();
}

function dateOf(year: number, month: number, day: number): string {
  return `${year}-${String(month).padStart(2, "0")}-${String(day).padStart(2, "0")}`;
}

/** The `nth` such weekday of a month; −1 for its last. */
function nthWeekday(year: number, month: number, wanted: number, nth: number): string {
  if (nth > 0) {
    const first = weekday(dateOf(year, month, 1));
    return dateOf(year, month, 1 + ((wanted - first + 7) % 7) + 7 * (nth - 1));
  }
  const last = addDays(month === 12 ? dateOf(year + 1, 1, 1) : dateOf(year, month + 1, 1), -1);
  return addDays(last, -((weekday(last) - wanted + 7) % 7));
}

/** Easter Sunday by the Gregorian computus. */
function easter(year: number): string {
  const golden = year % 19;
  const century = Math.floor(year / 100);
  const epact =
    (century - Math.floor(century / 4) - Math.floor((8 * century + 13) / 25) + 19 * golden + 15) %
    30;
  const moon =
    epact -
    Math.floor(epact / 28) * (1 - Math.floor(29 / (epact + 1)) * Math.floor((21 - golden) / 11));
  const sunday = (year + Math.floor(year / 4) + moon + 2 - century + Math.floor(century / 4)) % 7;
  const from = moon - sunday;
  const month = 3 + Math.floor((from + 40) / 44);
  return dateOf(year, month, from + 28 - 31 * Math.floor(month / 4));
}

/** A fixed day that falls on a weekend is kept on the Friday before or the Monday after. */
function observed(date: string): string {
  const day = weekday(date);
  return day === 6 ? addDays(date, -1) : day === 0 ? addDays(date, 1) : date;
}

function holidaysOf(year: number): Record<string, string> {
  const days: Record<string, string> = {
    [nthWeekday(year, 1, 1, 3)]: "Martin Luther King Jr. Day",
    [nthWeekday(year, 2, 1, 3)]: "Washington's Birthday",
    [addDays(easter(year), -2)]: "Good Friday",
    [nthWeekday(year, 5, 1, -1)]: "Memorial Day",
    [observed(dateOf(year, 7, 4))]: "Independence Day",
    [nthWeekday(year, 9, 1, 1)]: "Labor Day",
    [nthWeekday(year, 11, 4, 4)]: "Thanksgiving Day",
    [observed(dateOf(year, 12, 25))]: "Christmas Day",
  };
  // A New Year's Day on a Saturday is not made up for: the Friday before is the year's last.
  if (weekday(dateOf(year, 1, 1)) !== 6) days[observed(dateOf(year, 1, 1))] = "New Year's Day";
  if (year >= 2022) days[observed(dateOf(year, 6, 19))] = "Juneteenth";
  return days;
}

function halfDaysOf(year: number): Record<string, string> {
  const days: Record<string, string> = {
    [addDays(nthWeekday(year, 11, 4, 4), 1)]: "Day after Thanksgiving",
  };
  const eve = dateOf(year, 12, 24);
  if (weekday(eve) >= 1 && weekday(eve) <= 4) days[eve] = "Christmas Eve";
  const third = dateOf(year, 7, 3);
  const fourth = weekday(dateOf(year, 7, 4));
  if (fourth >= 2 && fourth <= 5 && weekday(third) <= 4) days[third] = "Independence Day eve";
  return days;
}

/** One weekday of the calendar; `has_data` is for the caller to say. */
function sessionDay(date: string): SessionDay {
  const year = Number(date.slice(0, 4));
  const closed = UNFORESEEN[date] ?? holidaysOf(year)[date];
  if (closed !== undefined) {
    return {
      date,
      kind: "holiday",
      name: closed,
      pre_open_ms: null,
      open_ms: null,
      close_ms: null,
      post_close_ms: null,
      has_data: false,
    };
  }
  const short = halfDaysOf(year)[date];
  const midnight = Date.parse(`${date}T00:00:00Z`) - offsetMsOn(date);
  const at = (hour: number, minute = 0): number => midnight + (hour * 60 + minute) * MINUTE_MS;
  return {
    date,
    kind: short === undefined ? "full" : "half",
    name: short ?? null,
    pre_open_ms: at(7),
    open_ms: at(9, 30),
    close_ms: short === undefined ? at(16) : at(13),
    post_close_ms: short === undefined ? at(20) : at(17),
    has_data: false,
  };
}

/** The weekdays from `from` to `to`, both included. */
export function tradingDays(from: string, to: string): SessionDay[] {
  const days: SessionDay[] = [];
  for (let date = from; date <= to; date = addDays(date, 1)) {
    if (weekday(date) !== 0 && weekday(date) !== 6) days.push(sessionDay(date));
  }
  return days;
}
