/**
 * What the drawing code needs to know of the data, in the arrays that the data lies in.
 *
 * The engine fills a plot before each frame; nothing here is copied for drawing.
 */

import type { Scale } from "./decimate";

export interface PlotLine {
  ys: Float64Array;
  color: string;
  width: number;
  /** The value of the candle that is still being made; NaN for none. */
  tail: number;
}

export interface PlotMarker {
  /** Place on the axis, in slots. */
  x: number;
  price: number;
  direction: "up" | "down";
  look: "active" | "late" | "superseded";
}

export interface PlotSpan {
  from: number;
  to: number;
}

export interface PlotGap extends PlotSpan {
  state: "open" | "filled" | "unfillable";
}

export interface PlotBand extends PlotSpan {
  color: string;
}

export interface Plot {
  /** Where values lie: slot = (xs[i] - origin) × perUnit. */
  xs: Float64Array;
  origin: number;
  perUnit: number;
  count: number;
  lines: PlotLine[];
  /** The slot of the candle that is still being made; NaN for none. */
  tailX: number;
  /** Between which xs no line may be drawn, in rising order. */
  breaks: Float64Array;
  /** In order of `x`. */
  markers: PlotMarker[];
  gaps: PlotGap[];
  bands: PlotBand[];
  /** Distance of a marker's tip from its price, in pixels of the page. */
  markerDistance: number;
}

export function emptyPlot(): Plot {
  return {
    xs: new Float64Array(0),
    origin: 0,
    perUnit: 1,
    count: 0,
    lines: [],
    tailX: Number.NaN,
    breaks: new Float64Array(0),
    markers: [],
    gaps: [],
    bands: [],
    markerDistance: 6,
  };
}

/** One drawing: the canvas in its own pixels, and how slots and prices map to them. */
export interface Frame {
  context: CanvasRenderingContext2D;
  width: number;
  height: number;
  /** Pixels of the canvas for one pixel of the page. */
  ratio: number;
  x: Scale;
  y: Scale;
}

export function toPixel(scale: Scale, value: number): number {
  return scale.offset + scale.factor * value;
}

export function fromPixel(scale: Scale, pixel: number): number {
  return (pixel - scale.offset) / scale.factor;
}
