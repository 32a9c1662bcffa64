/**
 * Candles and their volume: series of the chart's own, for at most a day of minutes.
 *
 * The candle that is still being made is pale, so that nobody takes it for final.
 */

import type {
  CandlestickData,
  HistogramData,
  IChartApi,
  ISeriesApi,
  UTCTimestamp,
  WhitespaceData,
} from "lightweight-charts";
import { CandlestickSeries, HistogramSeries } from "lightweight-charts";

import type { CandleStore } from "../data/series";
import { seconds } from "./axis";
import type { Palette } from "./palette";

type Bar = CandlestickData<UTCTimestamp>;
type Volume = HistogramData<UTCTimestamp> | WhitespaceData<UTCTimestamp>;

const VOLUME_PANE = 1;
const VOLUME_SHARE = 0.18;

export class BarSeries {
  private readonly chart: IChartApi;
  private readonly candles: ISeriesApi<"Candlestick">;
  private histogram: ISeriesApi<"Histogram"> | null = null;
  private palette: Palette;
  /** How much of which store is in the series; anything else has to be set anew. */
  private shown: { store: CandleStore; count: number; provisional: number | null } | null = null;

  constructor(chart: IChartApi, palette: Palette) {
    this.chart = chart;
    this.palette = palette;
    this.candles = chart.addSeries(CandlestickSeries, {
      priceLineVisible: false,
      lastValueVisible: false,
      ...colors(palette),
    });
  }

  setPalette(palette: Palette): void {
    this.palette = palette;
    this.candles.applyOptions(colors(palette));
    this.shown = null;
  }

  /** Whether candles are drawn; their volume stays. */
  setVisible(visible: boolean): void {
    this.candles.applyOptions({ visible });
  }

  setVolume(visible: boolean): void {
    if (visible === (this.histogram !== null)) return;
    if (this.histogram !== null) {
      this.chart.removeSeries(this.histogram);
      this.histogram = null;
      return;
    }
    this.histogram = this.chart.addSeries(
      HistogramSeries,
      {
        priceFormat: { type: "volume" },
        priceLineVisible: false,
        lastValueVisible: false,
      },
      this.chart.panes().length,
    );
    // A pane of its own, right below the prices: an oscillator's moves down.
    const pane = this.histogram.getPane();
    pane.moveTo(VOLUME_PANE);
    pane.setStretchFactor(VOLUME_SHARE);
    this.chart.panes()[0]?.setStretchFactor(1 - VOLUME_SHARE);
    this.shown = null;
  }

  clear(): void {
    this.candles.setData([]);
    this.histogram?.setData([]);
    this.shown = null;
  }

  /**
   * Brings the series up to the store: one update when something came at the end, else all of it.
   */
  sync(store: CandleStore, offsetMs: number): void {
    const shown = this.shown;
    const appended =
      shown !== null &&
      shown.store === store &&
      store.changedFrom >= shown.count &&
      store.count - shown.count <= 1 &&
      (shown.provisional === null ||
        shown.provisional ===
          (store.count > shown.count ? store.lastTs : store.provisional?.ts_ms));
    if (appended) {
      if (store.count > (shown as { count: number }).count)
        this.put(store, store.count - 1, offsetMs);
    } else {
      this.setAll(store, offsetMs);
    }
    const open = store.provisional;
    if (open !== null) {
      const up = open.close >= open.open;
      const time = seconds(open.ts_ms, offsetMs);
      this.candles.update({
        time,
        open: open.open,
        high: open.high,
        low: open.low,
        close: open.close,
        ...provisionalColors(this.palette, up),
      });
      this.histogram?.update({
        time,
        value: open.volume,
        color: provisionalColors(this.palette, up).color,
      });
    }
    this.shown = { store, count: store.count, provisional: open?.ts_ms ?? null };
    store.changedFrom = Number.POSITIVE_INFINITY;
  }

  private put(store: CandleStore, index: number, offsetMs: number): void {
    this.candles.update(bar(store, index, offsetMs));
    this.histogram?.update(this.volume(store, index, offsetMs));
  }

  private setAll(store: CandleStore, offsetMs: number): void {
    const bars: Bar[] = [];
    const volumes: Volume[] = [];
    for (let i = 0; i < store.count; i++) {
      bars.push(bar(store, i, offsetMs));
      volumes.push(this.volume(store, i, offsetMs));
    }
    this.candles.setData(bars);
    this.histogram?.setData(volumes);
  }

  private volume(store: CandleStore, index: number, offsetMs: number): Volume {
    const time = seconds(store.ts[index] as number, offsetMs);
    const value = store.volume[index] as number;
    if (Number.isNaN(value)) return { time };
    const up = (store.close[index] as number) >= (store.open[index] as number);
    return { time, value, color: up ? this.palette.upVolume : this.palette.downVolume };
  }
}

function bar(store: CandleStore, index: number, offsetMs: number): Bar {
  return {
    time: seconds(store.ts[index] as number, offsetMs),
    open: store.open[index] as number,
    high: store.high[index] as number,
    low: store.low[index] as number,
    close: store.close[index] as number,
  };
}

function colors(palette: Palette): Record<string, string | boolean> {
  return {
    // Up is hollow on the background, down is filled: told apart without colour, too.
    upColor: palette.background,
    borderUpColor: palette.up,
    wickUpColor: palette.up,
    downColor: palette.down,
    borderDownColor: palette.down,
    wickDownColor: palette.down,
    borderVisible: true,
  };
}

function provisionalColors(
  palette: Palette,
  up: boolean,
): Record<"color" | "borderColor" | "wickColor", string> {
  const pale = up ? palette.upProvisional : palette.downProvisional;
  return { color: pale, borderColor: pale, wickColor: pale };
}
