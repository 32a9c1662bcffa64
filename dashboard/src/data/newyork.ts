/**
 * New York's wall clock, whatever the viewer's zone.
 *
 * The offset from UTC is asked of the browser once for an hour and kept; formatting is arithmetic.
 * Daylight saving changes at 02:00 on Sundays, so one offset holds for a whole trading day.
 */

const ZONE = "America/New_York";
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const KEPT_MAX = 4096;

const zoneName = new Intl.DateTimeFormat("en-US", { timeZone: ZONE, timeZoneName: "longOffset" });
const kept = new Map<number, number>();

/** What to add to UTC to get New York's wall clock at `tsMs`: −5 h or −4 h. */
export function offsetMsAt(tsMs: number): number {
  const hour = Math.floor(tsMs / HOUR_MS);
  const known = kept.get(hour);
  if (known !== undefined) return known;
  if (kept.size >= KEPT_MAX) kept.clear();
  const offset = askOffset(tsMs);
  kept.set(hour, offset);
  return offset;
}

function askOffset(tsMs: number): number {
  const name = zoneName.formatToParts(tsMs).find((part) => part.type === "timeZoneName")?.value;
  const match = /^GMT(?:([+-])(\d{2}):(\d{2}))?$/.exec(name ?? "");
  if (match === null) throw new Error(`unexpected zone name ${name}`);
  const minutes = Number(match[2] ?? 0) * 60 + Number(match[3] ?? 0);
  return (match[1] === "-" ? -minutes : minutes) * 60_000;
}

/** The offset of a trading day. */
export function offsetMsOn(date: string): number {
  // Noon UTC is morning in New York: after any change of that day.
  return offsetMsAt(Date.parse(`${date}T12:00:00Z`));
}

/** The New York date at `tsMs`. */
export function dateAt(tsMs: number): string {
  return new Date(tsMs + offsetMsAt(tsMs)).toISOString().slice(0, 10);
}

/** When a New York day begins. */
export function midnightMs(date: string): number {
  const guess = Date.parse(`${date}T00:00:00Z`);
  return guess - offsetMsAt(guess + 5 * HOUR_MS - 1);
}

/** The date `days` later, by the calendar. */
export function addDays(date: string, days: number): string {
  return new Date(Date.parse(`${date}T00:00:00Z`) + days * DAY_MS).toISOString().slice(0, 10);
}

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}

/** `HH:MM`, `HH:MM:SS` or `HH:MM:SS.mmm` in New York; pass the day's offset where it is known. */
export function formatTime(
  tsMs: number,
  precision: "minute" | "second" | "milli" = "second",
  offsetMs: number = offsetMsAt(tsMs),
): string {
  const local = Math.floor(tsMs) + offsetMs;
  const ofDay = ((local % DAY_MS) + DAY_MS) % DAY_MS;
  const minute = `${two(Math.floor(ofDay / HOUR_MS))}:${two(Math.floor(ofDay / 60_000) % 60)}`;
  if (precision === "minute") return minute;
  const second = `${minute}:${two(Math.floor(ofDay / 1000) % 60)}`;
  if (precision === "second") return second;
  return `${second}.${String(ofDay % 1000).padStart(3, "0")}`;
}

/** `YYYY-MM-DD HH:MM:SS.mmm` in New York, as tables for machines have it. */
export function formatDateTime(tsMs: number): string {
  return `${dateAt(tsMs)} ${formatTime(tsMs, "milli")}`;
}

const dayName = new Intl.DateTimeFormat("en-US", {
  timeZone: "UTC",
  weekday: "short",
  month: "short",
  day: "numeric",
  year: "numeric",
});

/** `Mon, Jan 5, 2026`. */
export function formatDate(date: string): string {
  return dayName.format(Date.parse(`${date}T00:00:00Z`));
}

/** How long until something: `2 d 3 h`, `3 h 04 min`, `4 min 05 s`, `5 s`. */
export function formatSpan(ms: number): string {
  const seconds = Math.max(Math.floor(ms / 1000), 0);
  const days = Math.floor(seconds / 86_400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  if (minutes > 0) return `${minutes} min ${two(seconds % 60)} s`;
  return `${seconds} s`;
}
