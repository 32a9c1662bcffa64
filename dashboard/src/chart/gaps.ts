/**
 * The ribbon at the foot of the chart: what is missing, what was filled, what cannot be filled.
 *
 * Besides the colour the pattern tells: missing is striped, filled is thin, unfillable is solid.
 */

import { lowerBound } from "../data/series";
import type { Gap, Timeframe } from "../data/types";
import type { Axis } from "./axis";
import type { Palette } from "./palette";
import type { Frame, PlotGap } from "./plot";
import { toPixel } from "./plot";

const RIBBON = 6;

/** The gaps of what is shown: of ticks for the tick chart, of bars for candles. */
export function plotGaps(gaps: readonly Gap[], timeframe: Timeframe, axis: Axis): PlotGap[] {
  const series = timeframe === "tick" ? "ticks" : "bars";
  return gaps
    .filter((gap) => gap.series === series)
    .map((gap) => ({ ...placed(gap, axis), state: gap.state }));
}

function placed(gap: Gap, axis: Axis): { from: number; to: number } {
  if (axis.stepMs !== null) return { from: axis.xOf(gap.from_ms), to: axis.xOf(gap.to_ms) };
  // Whole candles: from the one that holds the start to the one that holds the last moment.
  const last = axis.slotAt(Math.max(gap.to_ms - 1, gap.from_ms));
  return { from: axis.slotAt(gap.from_ms) - 0.5, to: last + 0.5 };
}

/**
 * Places over which no line may be drawn: over what is missing, one would claim to know. On a
 * candle axis (`places` given, in order) that is an empty slot; a gap within a candle that exists
 * has none.
 */
export function breaksOf(
  gaps: readonly PlotGap[],
  places: Float64Array | null = null,
  count = 0,
): Float64Array {
  const breaks: number[] = [];
  for (const gap of gaps) {
    if (gap.state === "filled") continue;
    const place = places === null ? (gap.from + gap.to) / 2 : emptySlot(gap, places, count);
    if (place !== null) breaks.push(place);
  }
  return Float64Array.from(breaks).sort();
}

function emptySlot(gap: PlotGap, places: Float64Array, count: number): number | null {
  let at = lowerBound(places, count, gap.from);
  for (let slot = Math.ceil(gap.from); slot < gap.to; slot++) {
    if (at >= count || (places[at] as number) !== slot) return slot;
    at += 1;
  }
  return null;
}

export function drawGaps(frame: Frame, gaps: readonly PlotGap[], palette: Palette): void {
  const { context, ratio } = frame;
  const height = RIBBON * ratio;
  for (const gap of gaps) {
    const from = Math.round(Math.max(toPixel(frame.x, gap.from), -2));
    const to = Math.round(Math.min(toPixel(frame.x, gap.to), frame.width + 2));
    if (to < 0 || from > frame.width) continue;
    // However zoomed out: one that cannot be seen would not be explained.
    const width = Math.max(to - from, 2 * ratio);
    const top = frame.height - height;
    if (gap.state === "filled") {
      context.fillStyle = palette.gapFilled;
      context.fillRect(from, top + height * 0.6, width, height * 0.4);
    } else if (gap.state === "unfillable") {
      context.fillStyle = palette.gapUnfillable;
      context.fillRect(from, top, width, height);
    } else {
      drawStripes(context, from, top, width, height, 4 * ratio, palette.gapOpen);
    }
  }
}

function drawStripes(
  context: CanvasRenderingContext2D,
  left: number,
  top: number,
  width: number,
  height: number,
  step: number,
  color: string,
): void {
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.strokeStyle = color;
  context.lineWidth = step / 2;
  context.beginPath();
  for (let x = left - height; x < left + width; x += step) {
    context.moveTo(x, top + height);
    context.lineTo(x + height, top);
  }
  context.stroke();
  context.strokeRect(left, top, width, height);
  context.restore();
}
