/**
 * Which part of the day is in view, and whether it follows the newest value.
 *
 * Following is a state of its own. New data moves a following view, sideways and only as far as
 * needed, and never a view that the user has put somewhere. All places are slots of the axis.
 */

export type Mode = "follow" | "free";

export interface Range {
  from: number;
  to: number;
}

/** The share of the width that stays free right of the newest value. */
export const MARGIN = 0.06;

/** Where a following view has to go for `lastX`; null when it may stay. */
export function followRange(range: Range, lastX: number): Range | null {
  const width = range.to - range.from;
  if (lastX >= range.from && lastX <= range.to - MARGIN * width) return null;
  const to = lastX + MARGIN * width;
  return { from: to - width, to };
}

/** The mode after the user has zoomed or panned from a view in `mode` to `range`. */
export function modeAfter(gesture: "zoom" | "pan", mode: Mode, range: Range, lastX: number): Mode {
  const width = range.to - range.from;
  if (lastX < range.from || lastX > range.to) return "free";
  if (gesture === "zoom") return mode;
  // The newest value about where following keeps it: the user has come back to it.
  return lastX <= range.to - 0.5 * MARGIN * width ? "follow" : "free";
}

/**
 * The view around its centre (or the newest value) that is `factor` times as wide, within limits.
 */
export function zoomed(
  range: Range,
  factor: number,
  anchor: number,
  widest: number,
  narrowest = 10,
): Range {
  const width = range.to - range.from;
  const wanted = Math.min(
    Math.max(width * factor, Math.min(narrowest, width)),
    Math.max(widest, width),
  );
  const share = (anchor - range.from) / width;
  return { from: anchor - share * wanted, to: anchor + (1 - share) * wanted };
}

export function panned(range: Range, share: number): Range {
  const by = (range.to - range.from) * share;
  return { from: range.from + by, to: range.to + by };
}

export function centred(range: Range, x: number): Range {
  const half = (range.to - range.from) / 2;
  return { from: x - half, to: x + half };
}

/**
 * The first view of a day: what there is of it, or its newest `window` slots when ticks come in.
 */
export function firstRange(
  firstX: number,
  lastX: number,
  axisLength: number,
  window: number | null,
): Range {
  if (Number.isNaN(lastX)) return { from: -0.5, to: axisLength - 0.5 };
  const seen = Math.max(lastX - firstX, 8);
  const width = window === null ? seen : Math.min(seen, window);
  const from = lastX - width - 0.5;
  // So that the newest value already stands where following keeps it.
  return { from, to: from + (width + 0.5) / (1 - MARGIN) + 0.5 };
}
