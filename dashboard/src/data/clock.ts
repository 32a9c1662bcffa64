/**
 * The broker's clock as the page shows it, and where it stands in the trading day.
 *
 * In a replay it runs faster than the wall, so it is carried on at the speed last heard. It never
 * goes back by itself: a small correction waits until the time has caught up.
 */

import type { Phase, Session, SessionDay } from "./types";

/** More than this is a jump (another day is replayed), not a correction. */
const JUMP_MS = 2000;
/** Who has not been told the time for so long carries on at the wall's pace: a replay has ended. */
const CARRIED_MS = 30_000;

export class BrokerClock {
  speed = 1;
  private baseMs: number | null = null;
  private atMs = 0;
  private shownMs = Number.NEGATIVE_INFINITY;

  /** At local time `atMs` the broker's clock read `brokerMs`. */
  set(brokerMs: number, speed: number, atMs: number): void {
    const before = this.nowMs(atMs);
    if (before !== null && Math.abs(before - brokerMs) > JUMP_MS * Math.max(this.speed, speed, 1)) {
      this.shownMs = Number.NEGATIVE_INFINITY;
    }
    this.baseMs = brokerMs;
    this.atMs = atMs;
    this.speed = speed;
  }

  /** The broker's time at local time `localMs`; null before it was ever told. */
  nowMs(localMs: number): number | null {
    if (this.baseMs === null) return null;
    const passed = localMs - this.atMs;
    const carried = Math.min(passed, CARRIED_MS);
    const now = this.baseMs + carried * this.speed + (passed - carried);
    this.shownMs = Math.max(this.shownMs, now);
    return this.shownMs;
  }
}

export interface PhaseNow {
  phase: Phase;
  next: { phase: Phase; at_ms: number } | null;
}

function sessionOf(day: SessionDay): Session | null {
  const { kind, pre_open_ms, open_ms, close_ms, post_close_ms } = day;
  if (
    kind === "holiday" ||
    pre_open_ms === null ||
    open_ms === null ||
    close_ms === null ||
    post_close_ms === null
  )
    return null;
  return { kind, pre_open_ms, open_ms, close_ms, post_close_ms };
}

/** The bounds of `date`, or null when there is no session. */
export function sessionOn(days: readonly SessionDay[], date: string): Session | null {
  const day = days.find((candidate) => candidate.date === date);
  return day === undefined ? null : sessionOf(day);
}

/** Which part of which session `nowMs` lies in, and what comes next. */
export function phaseAt(days: readonly SessionDay[], nowMs: number): PhaseNow {
  for (const day of days) {
    const session = sessionOf(day);
    if (session === null || nowMs >= session.post_close_ms) continue;
    if (nowMs < session.pre_open_ms) {
      return { phase: "closed", next: { phase: "pre", at_ms: session.pre_open_ms } };
    }
    if (nowMs < session.open_ms) {
      return { phase: "pre", next: { phase: "regular", at_ms: session.open_ms } };
    }
    if (nowMs < session.close_ms) {
      return { phase: "regular", next: { phase: "post", at_ms: session.close_ms } };
    }
    return { phase: "post", next: { phase: "closed", at_ms: session.post_close_ms } };
  }
  return { phase: "closed", next: null };
}

/**
 * The nearest day with a session before (−1) or after (1) `date`; null beyond the calendar known.
 */
export function neighbour(days: readonly SessionDay[], date: string, way: -1 | 1): string | null {
  const open = days.filter((day) => day.kind !== "holiday").map((day) => day.date);
  const beyond = open.filter((day) => (way < 0 ? day < date : day > date));
  return (way < 0 ? beyond[beyond.length - 1] : beyond[0]) ?? null;
}
