/**
 * The one primitive that draws everything that is not a candle, straight from typed arrays.
 *
 * The chart's own line series rebuild an object for every point whenever one is appended; this
 * draws only what is in view, at most four points for a column of pixels. Both axes are linear, so
 * two coordinates of each are all that has to be asked for.
 */

import type {
  AutoscaleInfo,
  IChartApi,
  IPrimitivePaneRenderer,
  IPrimitivePaneView,
  ISeriesApi,
  ISeriesPrimitive,
  Logical,
  PrimitivePaneViewZOrder,
  SeriesAttachedParameter,
  Time,
} from "lightweight-charts";

import { lowerBound } from "../data/series";
import type { Scale } from "./decimate";
import { PointBuffer, decimate, widen } from "./decimate";
import { drawGaps } from "./gaps";
import { drawMarkers } from "./markers";
import type { Palette } from "./palette";
import type { Frame, Plot } from "./plot";
import { emptyPlot, fromPixel, toPixel } from "./plot";
import { drawBands } from "./shading";

type Target = Parameters<IPrimitivePaneRenderer["draw"]>[0];

/** Room above and below the values, in pixels of the page; the ribbon lies in the lower one. */
const MARGINS = { above: 18, below: 24 };

/** Two coordinates this far apart tell the scale. */
const SPREAD = 1000;

/** Above so many points a pixel column a line is hairy, and the thinnest one is as good: measured
 *  without a graphics card, it costs a third of a line of 1.4 pixels with round joins. */
const DENSE = 1.5;

export class TickPrimitive implements ISeriesPrimitive<Time> {
  plot: Plot = emptyPlot();
  palette: Palette;
  private chart: IChartApi | null = null;
  private series: ISeriesApi<"Line"> | null = null;
  private redraw: (() => void) | null = null;
  private readonly points = new PointBuffer();
  private readonly views: readonly IPrimitivePaneView[];

  constructor(palette: Palette) {
    this.palette = palette;
    this.views = [
      new View("bottom", (frame) => drawBands(frame, this.plot.bands)),
      new View("normal", (frame) => this.drawLines(frame)),
      new View("top", (frame) => this.drawMarks(frame)),
    ].map((view) => view.of(this));
  }

  attached(to: SeriesAttachedParameter<Time>): void {
    this.chart = to.chart as IChartApi;
    this.series = to.series as ISeriesApi<"Line">;
    this.redraw = to.requestUpdate;
  }

  detached(): void {
    this.chart = this.series = this.redraw = null;
  }

  /** Asks for a frame; any number of times before it costs one. */
  requestUpdate(): void {
    this.redraw?.();
  }

  paneViews(): readonly IPrimitivePaneView[] {
    return this.views;
  }

  /** The lowest and highest value in view; asked for by the hidden series that carries this. */
  autoscale(): AutoscaleInfo | null {
    const range = this.chart?.timeScale().getVisibleLogicalRange();
    if (!range) return null;
    const [from, to] = this.visible(range.from, range.to);
    const extent = { low: Number.POSITIVE_INFINITY, high: Number.NEGATIVE_INFINITY };
    for (const line of this.plot.lines) {
      widen(line.ys, from, to, extent);
      if (line.tail < extent.low && this.plot.tailX <= range.to) extent.low = line.tail;
      if (line.tail > extent.high && this.plot.tailX <= range.to) extent.high = line.tail;
    }
    if (extent.low > extent.high) return null;
    // A flat line still needs a range to lie in the middle of.
    const pad = extent.low === extent.high ? Math.max(Math.abs(extent.low) * 1e-4, 0.01) : 0;
    return {
      priceRange: { minValue: extent.low - pad, maxValue: extent.high + pad },
      margins: MARGINS,
    };
  }

  /** How slots and prices map to the canvas; null before the chart has a scale. */
  frame(
    context: CanvasRenderingContext2D,
    width: number,
    height: number,
    ratioX: number,
    ratioY: number,
  ): Frame | null {
    const time = this.chart?.timeScale();
    if (!time || !this.series) return null;
    const x0 = time.logicalToCoordinate(0 as Logical);
    const x1 = time.logicalToCoordinate(SPREAD as Logical);
    const p0 = this.series.coordinateToPrice(0);
    const p1 = this.series.coordinateToPrice(SPREAD);
    if (x0 === null || x1 === null || p0 === null || p1 === null || p0 === p1) return null;
    const factor = (SPREAD / (p1 - p0)) * ratioY;
    return {
      context,
      width,
      height,
      ratio: ratioX,
      x: { offset: x0 * ratioX, factor: ((x1 - x0) / SPREAD) * ratioX },
      y: { offset: -p0 * factor, factor },
    };
  }

  /** Indexes of the values between two slots, and one more on either side. */
  private visible(from: number, to: number): [number, number] {
    const { xs, count, origin, perUnit } = this.plot;
    const first = lowerBound(xs, count, from / perUnit + origin);
    const end = lowerBound(xs, count, to / perUnit + origin);
    return [Math.max(first - 1, 0), Math.min(end + 2, count)];
  }

  private drawLines(frame: Frame): void {
    const { plot } = this;
    const left = fromPixel(frame.x, 0);
    const right = fromPixel(frame.x, frame.width);
    const [from, to] = this.visible(left, right);
    const scale: Scale = {
      offset: frame.x.offset - frame.x.factor * plot.perUnit * plot.origin,
      factor: frame.x.factor * plot.perUnit,
    };
    for (const line of plot.lines) {
      decimate(plot.xs, line.ys, from, to, scale, frame.y, this.points, plot.breaks);
      frame.context.strokeStyle = line.color;
      const dense = this.points.length > 2 * DENSE * frame.width;
      frame.context.lineJoin = dense ? "miter" : "round";
      frame.context.lineWidth = dense ? Math.floor(frame.ratio) : line.width * frame.ratio;
      stroke(frame.context, this.points);
      if (!Number.isNaN(line.tail))
        drawTail(frame, this.points, toPixel(frame.x, plot.tailX), line.tail);
    }
  }

  private drawMarks(frame: Frame): void {
    const { plot, palette } = this;
    const from = fromPixel(frame.x, -12);
    const to = fromPixel(frame.x, frame.width + 12);
    drawMarkers(frame, plot.markers, from, to, plot.markerDistance, palette);
    drawGaps(frame, plot.gaps, palette);
  }
}

/** From the last final value to the one that may still change: dotted. */
function drawTail(frame: Frame, points: PointBuffer, x: number, value: number): void {
  if (points.length < 2) return;
  const { context, ratio } = frame;
  context.setLineDash([2 * ratio, 3 * ratio]);
  context.beginPath();
  context.moveTo(
    points.data[points.length - 2] as number,
    points.data[points.length - 1] as number,
  );
  context.lineTo(x, toPixel(frame.y, value));
  context.stroke();
  context.setLineDash([]);
}

function stroke(context: CanvasRenderingContext2D, points: PointBuffer): void {
  const { data, length } = points;
  context.beginPath();
  let down = false;
  for (let i = 0; i < length; i += 2) {
    const x = data[i] as number;
    if (Number.isNaN(x)) {
      down = false;
    } else if (down) {
      context.lineTo(x, data[i + 1] as number);
    } else {
      context.moveTo(x, data[i + 1] as number);
      down = true;
    }
  }
  context.stroke();
}

/** One layer of the primitive, as the chart wants it. */
class View implements IPrimitivePaneView, IPrimitivePaneRenderer {
  private owner: TickPrimitive | null = null;
  private readonly order: PrimitivePaneViewZOrder;
  private readonly paint: (frame: Frame) => void;

  constructor(order: PrimitivePaneViewZOrder, paint: (frame: Frame) => void) {
    this.order = order;
    this.paint = paint;
  }

  of(owner: TickPrimitive): this {
    this.owner = owner;
    return this;
  }

  zOrder(): PrimitivePaneViewZOrder {
    return this.order;
  }

  renderer(): IPrimitivePaneRenderer {
    return this;
  }

  draw(target: Target): void {
    target.useBitmapCoordinateSpace((scope) => {
      const { width, height } = scope.bitmapSize;
      const frame = this.owner?.frame(
        scope.context,
        width,
        height,
        scope.horizontalPixelRatio,
        scope.verticalPixelRatio,
      );
      if (!frame) return;
      scope.context.save();
      this.paint(frame);
      scope.context.restore();
    });
  }
}
