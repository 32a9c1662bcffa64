/**
 * Marks of crosses: up is a triangle below the price that points up, down one above that points
 * down.
 *
 * Shape and colour both tell them apart. One that a correction brought late is hollow, one that a
 * correction took back is hollow, grey and struck out.
 */

import type { Signal } from "../data/types";
import type { Axis } from "./axis";
import type { Palette } from "./palette";
import type { Frame, PlotMarker } from "./plot";
import { toPixel } from "./plot";

const SIZE = 6;

/** The marks of `signals` on `axis`, in order; on a candle axis they stand at their candle. */
export function plotMarkers(signals: readonly Signal[], axis: Axis): PlotMarker[] {
  const place = (ts: number): number => (axis.stepMs === null ? axis.slotAt(ts) : axis.xOf(ts));
  return signals
    .map((signal): PlotMarker => ({
      x: place(signal.ts_ms),
      price: signal.price,
      direction: signal.direction,
      look: signal.state === "superseded" ? "superseded" : signal.late ? "late" : "active",
    }))
    .sort((a, b) => a.x - b.x);
}

/** The first marker at or right of slot `x`. */
export function firstMarker(markers: readonly PlotMarker[], x: number): number {
  let low = 0;
  let high = markers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((markers[middle] as PlotMarker).x < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function drawMarkers(
  frame: Frame,
  markers: readonly PlotMarker[],
  from: number,
  to: number,
  distance: number,
  palette: Palette,
): void {
  for (let i = firstMarker(markers, from); i < markers.length; i++) {
    const marker = markers[i] as PlotMarker;
    if (marker.x > to) break;
    drawMarker(frame, marker, distance, palette);
  }
}

function drawMarker(frame: Frame, marker: PlotMarker, distance: number, palette: Palette): void {
  const { context, ratio } = frame;
  const color = marker.look === "superseded" ? palette.superseded : palette[marker.direction];
  const sign = marker.direction === "up" ? 1 : -1;
  const size = SIZE * ratio;
  const x = toPixel(frame.x, marker.x);
  const tip = toPixel(frame.y, marker.price) + sign * distance * ratio;
  const base = tip + sign * size * 1.6;
  context.beginPath();
  context.moveTo(x, tip);
  context.lineTo(x - size, base);
  context.lineTo(x + size, base);
  context.closePath();
  context.lineWidth = 1.5 * ratio;
  // A rim in the background's colour keeps the mark apart from the lines it lies on.
  context.strokeStyle = palette.background;
  context.fillStyle = marker.look === "active" ? color : palette.background;
  context.stroke();
  context.fill();
  if (marker.look === "active") return;
  context.strokeStyle = color;
  context.stroke();
  if (marker.look !== "superseded") return;
  context.beginPath();
  context.moveTo(x - size, (tip + base) / 2);
  context.lineTo(x + size, (tip + base) / 2);
  context.stroke();
}
