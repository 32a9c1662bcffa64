// Why a gap cannot be filled, in words for people.

const TEXTS = new Map([
  ["no_trade", "nothing was traded"],
  ["halted", "trading was halted"],
  ["beyond_history", "older than the broker's history"],
  ["no_history", "the broker has none of this day"],
  ["incomplete", "the broker's history is incomplete"],
  ["tick_series", "ticks have no history"],
]);

/** The reason in words; one that this page does not know yet is shown as it is. */
export function reasonText(reason: string): string {
  return TEXTS.get(reason) ?? reason.replaceAll("_", " ");
}
