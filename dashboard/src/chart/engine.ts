/**
 * The chart: owns one Lightweight Charts instance for its whole life and shows one day in it.
 *
 * Promises: data never moves a view that the user has put somewhere; nothing is drawn outside an
 * animation frame, however often data comes; another day, ticker or timeframe reuses the chart.
 *
 * How: a hidden line series holds a slot for every second (or candle) of the session, of which only
 * the first and the last have a value, without which the chart would not scroll that far. It
 * carries the axes, the last-price line and the primitive that draws from the stores' arrays.
 */

import type {
  IChartApi,
  ISeriesApi,
  LogicalRange,
  MouseEventParams,
  Time,
} from "lightweight-charts";
import { LineSeries, createChart } from "lightweight-charts";

import { CandleStore } from "../data/series";
import type { TickStore } from "../data/series";
import type { Gap, Signal } from "../data/types";
import type { Axis } from "./axis";
import { candleAxis, candleTimes, dayAxis, hasSlots, slotData } from "./axis";
import { BarSeries } from "./bar_series";
import { breaksOf, plotGaps } from "./gaps";
import { Gestures } from "./gestures";
import { LastPrice } from "./last_price";
import { Legend } from "./legend";
import { legendRows } from "./legend_rows";
import { plotMarkers } from "./markers";
import { chartOptions, themeOptions } from "./options";
import { Oscillators, liesOnPrice } from "./oscillators";
import type { Palette } from "./palette";
import type { PlotLine } from "./plot";
import { sessionBands } from "./shading";
import type { EngineEvents, Look, Showing, View } from "./showing";
import { DEFAULT_LOOK } from "./showing";
import { TickPrimitive } from "./tick_primitive";
import type { Mode, Range } from "./view";
import { centred, firstRange, followRange, modeAfter, panned, zoomed } from "./view";

export type { EngineEvents, Look, Showing, View } from "./showing";
export { DEFAULT_LOOK } from "./showing";

/** Width of the first view of a live tick chart: half an hour. */
const TICK_WINDOW = 1800;

export class ChartEngine {
  readonly chart: IChartApi;
  private readonly slots: ISeriesApi<"Line">;
  private readonly primitive: TickPrimitive;
  private readonly bars: BarSeries;
  private readonly oscillators: Oscillators;
  private readonly legend: Legend;
  private readonly gestures: Gestures;
  private readonly lastPrice: LastPrice;
  private readonly events: EngineEvents;
  private palette: Palette;
  private look: Look = DEFAULT_LOOK;
  private showing: Showing | null = null;
  private axis: Axis | null = null;
  private signals: readonly Signal[] = [];
  private gaps: readonly Gap[] = [];
  private following: Mode = "free";
  private frame = 0;
  private cursorTs: number | null = null;
  /** A view set but not yet taken over by the chart, which does so at its next frame. */
  private pending: Range | null = null;
  /** Places of candles on the axis, the counterpart of a tick store's times. */
  private places = new Float64Array(0);
  private placesVersion = -1;
  private laidOffsetMs = Number.NaN;
  /** Nothing has come yet, so the first view of the day is still to be found. */
  private awaiting = false;

  constructor(host: HTMLElement, palette: Palette, events: EngineEvents = {}) {
    this.palette = palette;
    this.events = events;
    if (getComputedStyle(host).position === "static") host.style.position = "relative";
    const root = document.createElement("div");
    Object.assign(root.style, { position: "absolute", inset: "0" });
    // The library lays itself out with a table, which would read as one.
    root.setAttribute("aria-hidden", "true");
    host.appendChild(root);
    this.chart = createChart(root, chartOptions(palette));
    this.primitive = new TickPrimitive(palette);
    this.slots = this.chart.addSeries(LineSeries, {
      lineVisible: false,
      lastValueVisible: false,
      priceLineVisible: false,
      crosshairMarkerVisible: false,
      autoscaleInfoProvider: () => this.primitive.autoscale(),
    });
    this.bars = new BarSeries(this.chart, palette);
    // After the candles, so that the lines lie over them.
    this.slots.setSeriesOrder(1);
    this.slots.attachPrimitive(this.primitive);
    this.oscillators = new Oscillators(this.chart);
    this.lastPrice = new LastPrice(this.slots, palette);
    this.legend = new Legend(host);
    this.gestures = new Gestures(root);
    this.chart.timeScale().subscribeVisibleLogicalRangeChange(this.rangeChanged);
    this.chart.subscribeCrosshairMove(this.crosshairMoved);
  }

  destroy(): void {
    cancelAnimationFrame(this.frame);
    this.gestures.destroy();
    this.legend.remove();
    this.chart.remove();
  }

  // --- What is shown ---------------------------------------------------------------------------

  /**
   * Shows a day; `view` puts it where the address says, else it begins as a newcomer expects it.
   */
  show(showing: Showing, view: View | null = null): void {
    const before = this.showing;
    const kept =
      view ??
      (before !== null && before.date === showing.date && this.following === "free"
        ? this.view()
        : null);
    this.showing = showing;
    this.cursorTs = null;
    this.placesVersion = -1;
    this.bars.clear();
    // Their old times would stand in the time scale beside those of the new day.
    this.oscillators.clear();
    this.layAxis();
    this.applyLook();
    this.awaiting = showing.store.count === 0 && kept === null;
    if (kept !== null) {
      this.setView(kept);
      this.setMode("free");
    } else {
      this.reset();
    }
    this.invalidate();
  }

  setLook(look: Look): void {
    this.look = look;
    if (this.showing === null) return;
    this.applyLook();
    this.invalidate();
  }

  setSignals(signals: readonly Signal[]): void {
    this.signals = signals;
    this.placeMarks();
    this.invalidate();
  }

  /** What is shown, and the signals that are marked in it; for tests and exports. */
  shown(): Showing | null {
    return this.showing;
  }

  marked(): readonly Signal[] {
    return this.signals;
  }

  setGaps(gaps: readonly Gap[]): void {
    this.gaps = gaps;
    this.placeMarks();
    this.invalidate();
  }

  setLive(live: boolean): void {
    if (this.showing === null || this.showing.live === live) return;
    this.showing = { ...this.showing, live };
    if (!live) this.setMode("free");
  }

  setPalette(palette: Palette): void {
    this.palette = this.primitive.palette = palette;
    this.chart.applyOptions(themeOptions(palette));
    this.lastPrice.setPalette(palette);
    this.bars.setPalette(palette);
    this.oscillators.repaint();
    this.placeMarks();
    this.invalidate();
  }

  /**
   * Something in the store has changed. Cheap: all changes before the next frame cost one drawing.
   */
  invalidate(): void {
    if (this.frame !== 0) return;
    // Ours is asked for first, so it runs first, and the chart draws in the very same frame.
    this.frame = requestAnimationFrame(this.flush);
    this.primitive.requestUpdate();
  }

  // --- Where the user looks --------------------------------------------------------------------

  mode(): Mode {
    return this.following;
  }

  /** The part of the day in view, or null before anything is shown. */
  view(): View | null {
    const range = this.range();
    if (range === null || this.axis === null) return null;
    return {
      from_ms: Math.round(this.axis.tsOf(range.from)),
      to_ms: Math.round(this.axis.tsOf(range.to)),
    };
  }

  setView(view: View): void {
    if (this.axis === null || view.to_ms <= view.from_ms) return;
    this.setRange({ from: this.axis.xOf(view.from_ms), to: this.axis.xOf(view.to_ms) });
  }

  /** By a share of the width; negative goes back in time. */
  pan(share: number): void {
    const range = this.range();
    if (range !== null) this.moveTo("pan", panned(range, share));
  }

  /** Above 1 shows more, below 1 less. Around the newest value while following, else the centre. */
  zoom(factor: number): void {
    const range = this.range();
    if (range === null || this.axis === null) return;
    const anchor = this.following === "follow" ? this.lastX() : (range.from + range.to) / 2;
    this.moveTo("zoom", zoomed(range, factor, anchor, this.axis.length * 1.2));
  }

  /** The first view of the day, both scales automatic again; follows if the day is live. */
  reset(): void {
    const { showing, axis } = this;
    if (showing === null || axis === null) return;
    const { store, live, timeframe } = showing;
    const first = store.count > 0 ? axis.xOf(store.ts[0] as number) : Number.NaN;
    const window = live && timeframe === "tick" ? TICK_WINDOW : null;
    this.autoscale();
    this.setRange(firstRange(first, this.lastX(), axis.length, window));
    this.setMode(live ? "follow" : "free");
    this.events.onView?.(null);
  }

  autoscale(): void {
    this.chart.priceScale("right").applyOptions({ autoScale: true });
  }

  /** Back to the newest value, at the present zoom. */
  toLive(): void {
    const range = this.range();
    if (range === null || this.showing?.live !== true) return;
    this.setMode("follow");
    const moved = followRange(range, this.lastX());
    if (moved !== null) this.setRange(moved);
    this.invalidate();
  }

  /** Puts `tsMs` into the middle. */
  centre(tsMs: number): void {
    const range = this.range();
    if (range === null || this.axis === null) return;
    this.setMode("free");
    this.setRange(centred(range, this.axis.xOf(tsMs)));
    this.report();
  }

  // --- Within ----------------------------------------------------------------------------------

  private readonly flush = (): void => {
    this.frame = 0;
    const { showing } = this;
    if (showing === null) return;
    this.layNewSlots();
    if (this.awaiting && showing.store.count > 0) {
      this.awaiting = false;
      this.reset();
    }
    this.fillPlot();
    if (showing.store instanceof CandleStore) this.bars.sync(showing.store, showing.offsetMs);
    this.follow();
    this.lastPrice.show(showing.store);
    this.showLegend();
    this.primitive.requestUpdate();
  };

  /** Gives the hidden series its slots; the only data it ever gets. */
  private layAxis(): void {
    const { showing } = this;
    if (showing === null) return;
    const { store, session, timeframe, offsetMs } = showing;
    const axis =
      timeframe === "tick"
        ? dayAxis(session, store)
        : candleAxis(session, timeframe, candleTimes(store));
    // Another ticker of the same day: the slots, which are most of the work, can stay.
    if (this.axis === null || !this.axis.equals(axis) || this.laidOffsetMs !== offsetMs) {
      this.slots.setData(slotData(axis, offsetMs));
      this.laidOffsetMs = offsetMs;
    }
    this.axis = axis;
    this.placeMarks();
  }

  /** A value outside the calendar's day (rare) needs a slot before the chart makes one up. */
  private layNewSlots(): void {
    const { showing, axis } = this;
    if (showing === null || axis === null || hasSlots(axis, showing)) return;
    const view = this.view();
    this.layAxis();
    if (view !== null) this.setView(view);
  }

  private placeMarks(): void {
    const { axis, showing, primitive, palette } = this;
    if (axis === null || showing === null) return;
    const { plot } = primitive;
    plot.markers = plotMarkers(this.signals, axis);
    plot.gaps = plotGaps(this.gaps, showing.timeframe, axis);
    // The plot of ticks counts in times; that of candles in slots, see `candlePlaces`.
    if (axis.stepMs !== null) plot.breaks = breaksOf(plot.gaps).map((x) => axis.tsOf(x));
    this.placesVersion = -1;
    plot.bands = sessionBands(showing.session, axis, palette);
    plot.markerDistance = showing.timeframe === "tick" ? 6 : 14;
  }

  private applyLook(): void {
    const { look, showing } = this;
    if (showing === null) return;
    const candles = showing.timeframe !== "tick";
    this.bars.setVisible(candles && look.style === "candles");
    this.bars.setVolume(candles && look.volume);
    this.chart.timeScale().applyOptions({ secondsVisible: !candles });
  }

  private fillPlot(): void {
    const { showing, axis } = this;
    if (showing === null || axis === null) return;
    const { store } = showing;
    const { plot } = this.primitive;
    plot.count = store.count;
    if (store instanceof CandleStore) {
      plot.xs = this.candlePlaces(store, axis);
      plot.origin = 0;
      plot.perUnit = 1;
      plot.tailX = store.provisional === null ? Number.NaN : axis.slotAt(store.provisional.ts_ms);
      plot.lines = this.candleLines(store);
    } else {
      plot.xs = store.ts;
      plot.origin = axis.startMs;
      plot.perUnit = 1 / (axis.stepMs ?? 1);
      plot.tailX = Number.NaN;
      plot.lines = this.averages(store);
      plot.lines.push(line(store.price, this.palette.price, 1.4));
    }
  }

  private candlePlaces(store: CandleStore, axis: Axis): Float64Array {
    if (this.placesVersion === store.version) return this.places;
    if (this.places.length < store.count) this.places = new Float64Array(store.ts.length);
    for (let i = 0; i < store.count; i++) this.places[i] = axis.slotAt(store.ts[i] as number);
    this.primitive.plot.breaks = breaksOf(this.primitive.plot.gaps, this.places, store.count);
    this.placesVersion = store.version;
    return this.places;
  }

  private averages(store: TickStore | CandleStore): PlotLine[] {
    const open = store instanceof CandleStore ? store.provisional : null;
    const lines: PlotLine[] = [];
    if (this.look.vwap) lines.push(line(store.vwap, this.palette.vwap, 1.8, open?.vwap));
    if (this.look.sma9) lines.push(line(store.sma9, this.palette.sma9, 1.4, open?.sma9));
    return lines;
  }

  private candleLines(store: CandleStore): PlotLine[] {
    const { palette, look, showing } = this;
    const lines = this.averages(store);
    const apart: string[] = [];
    const chosen = look.extras.filter((name) => store.extras.includes(name));
    for (const name of chosen) {
      const color = palette.extras[chosen.indexOf(name) % palette.extras.length] as string;
      if (!liesOnPrice(store, name)) apart.push(name);
      else lines.push(line(store.extra(name), color, 1.2, store.provisional?.extras?.[name]));
    }
    this.oscillators.sync(store, apart, chosen, palette, showing?.offsetMs ?? 0);
    if (look.style === "line") {
      lines.push(line(store.close, palette.price, 1.6, store.provisional?.close));
    }
    return lines;
  }

  private lastX(): number {
    const { showing, axis } = this;
    if (showing === null || axis === null) return Number.NaN;
    const { store } = showing;
    if (store instanceof CandleStore && store.provisional !== null) {
      return axis.xOf(store.provisional.ts_ms);
    }
    return store.count > 0 ? axis.xOf(store.lastTs) : Number.NaN;
  }

  private range(): Range | null {
    return this.pending ?? this.chart.timeScale().getVisibleLogicalRange();
  }

  private setRange(range: Range): void {
    this.pending = range;
    this.chart.timeScale().setVisibleLogicalRange(range);
  }

  private moveTo(gesture: "zoom" | "pan", range: Range): void {
    const live = this.showing?.live === true;
    this.setRange(range);
    this.setMode(live ? modeAfter(gesture, this.following, range, this.lastX()) : "free");
    this.report();
  }

  private follow(): void {
    if (this.following !== "follow" || this.gestures.holding) return;
    const range = this.range();
    const lastX = this.lastX();
    if (range === null || Number.isNaN(lastX)) return;
    const moved = followRange(range, lastX);
    if (moved !== null) this.setRange(moved);
  }

  private setMode(mode: Mode): void {
    if (mode === this.following) return;
    this.following = mode;
    this.events.onMode?.(mode);
  }

  private report(): void {
    const view = this.view();
    if (view !== null) this.events.onView?.(view);
  }

  private readonly rangeChanged = (range: LogicalRange | null): void => {
    this.pending = null;
    const gesture = this.gestures.current;
    if (range === null || gesture === null || this.showing === null) return;
    const live = this.showing.live;
    this.setMode(live ? modeAfter(gesture, this.following, range, this.lastX()) : "free");
    this.report();
  };

  private readonly crosshairMoved = (event: MouseEventParams<Time>): void => {
    const { axis } = this;
    const slot = event.point === undefined ? undefined : event.logical;
    if (slot === undefined || axis === null) {
      this.cursorTs = null;
    } else if (axis.stepMs === null) {
      this.cursorTs = axis.starts[Math.min(Math.max(slot, 0), axis.length - 1)] ?? null;
    } else {
      this.cursorTs = axis.tsOf(slot + 1) - 1;
    }
    this.showLegend();
  };

  private showLegend(): void {
    const { showing, palette, look } = this;
    if (showing === null) return;
    const { store } = showing;
    const extras =
      store instanceof CandleStore ? look.extras.filter((name) => store.extras.includes(name)) : [];
    this.legend.show(
      legendRows(store, this.cursorTs, {
        title: `${showing.ticker} ${showing.timeframe}`,
        offsetMs: showing.offsetMs,
        palette,
        showSma9: look.sma9,
        showVwap: look.vwap,
        extras,
      }),
    );
  }
}

function line(ys: Float64Array, color: string, width: number, tail?: number | null): PlotLine {
  return { ys, color, width, tail: tail ?? Number.NaN };
}
