/**
 * How long to wait before the next attempt: growing, and jittered so that pages do not come as one.
 */

export const BACKOFF_FIRST_MS = 500;
export const BACKOFF_MAX_MS = 15_000;

/** The wait before attempt number `attempt` (0 is the first again); `random` is in [0, 1). */
export function backoffMs(attempt: number, random: number): number {
  const full = Math.min(BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 10), BACKOFF_MAX_MS);
  // At least half of it: a wait of almost nothing would be no wait.
  return Math.round(full * (0.5 + 0.5 * random));
}
