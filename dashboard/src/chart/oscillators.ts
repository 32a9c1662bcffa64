/**
 * Extras that do not live on the price's scale (RSI, ATR) get a pane of their own.
 *
 * At most a day of minutes each, so the chart's own line series will do.
 */

import type {
  IChartApi,
  ISeriesApi,
  UTCTimestamp,
  WhitespaceData,
  LineData,
} from "lightweight-charts";
import { LineSeries } from "lightweight-charts";

import type { CandleStore } from "../data/series";
import { seconds } from "./axis";
import type { Palette } from "./palette";

const PANE_SHARE = 0.2;

/** Whether an extra's values lie so near the closes that it belongs on the same scale. */
export function liesOnPrice(store: CandleStore, name: string): boolean {
  const values = store.extra(name);
  for (let i = store.count - 1; i >= 0; i--) {
    const value = values[i] as number;
    if (Number.isNaN(value)) continue;
    const close = store.close[i] as number;
    return Math.abs(value - close) < 0.25 * close;
  }
  return true;
}

export class Oscillators {
  private readonly chart: IChartApi;
  private readonly lines = new Map<string, ISeriesApi<"Line">>();
  private shownVersion = -1;
  private shownStore: CandleStore | null = null;
  private shownColors = "";

  constructor(chart: IChartApi) {
    this.chart = chart;
  }

  clear(): void {
    for (const line of this.lines.values()) this.chart.removeSeries(line);
    this.lines.clear();
  }

  /** Takes the colours anew at the next `sync`. */
  repaint(): void {
    this.shownColors = "";
  }

  /** Shows exactly the extras of `names`, with the colours of their places among `all`. */
  sync(
    store: CandleStore,
    names: readonly string[],
    all: readonly string[],
    palette: Palette,
    offsetMs: number,
  ): void {
    let changed = store !== this.shownStore || store.version !== this.shownVersion;
    for (const [name, line] of this.lines) {
      if (names.includes(name)) continue;
      this.chart.removeSeries(line);
      this.lines.delete(name);
    }
    for (const name of names) {
      if (this.lines.has(name)) continue;
      this.lines.set(name, this.add());
      this.shownColors = "";
      changed = true;
    }
    this.paint(all, palette);
    if (!changed) return;
    for (const [name, line] of this.lines) line.setData(points(store, name, offsetMs));
    this.shownStore = store;
    this.shownVersion = store.version;
  }

  private paint(all: readonly string[], palette: Palette): void {
    const wanted = all.join();
    if (wanted === this.shownColors) return;
    for (const [name, line] of this.lines) {
      line.applyOptions({
        color: palette.extras[all.indexOf(name) % palette.extras.length] as string,
      });
    }
    this.shownColors = wanted;
  }

  /** In the lowest pane, which is made for the first of them. */
  private add(): ISeriesApi<"Line"> {
    const last = this.chart.panes().length;
    const pane = this.lines.size > 0 ? last - 1 : last;
    const line = this.chart.addSeries(
      LineSeries,
      { lineWidth: 1, priceLineVisible: false, lastValueVisible: true },
      pane,
    );
    this.chart.panes()[pane]?.setStretchFactor(PANE_SHARE);
    return line;
  }
}

function points(
  store: CandleStore,
  name: string,
  offsetMs: number,
): (LineData<UTCTimestamp> | WhitespaceData<UTCTimestamp>)[] {
  const values = store.extra(name);
  const made = [];
  for (let i = 0; i < store.count; i++) {
    const time = seconds(store.ts[i] as number, offsetMs);
    const value = values[i] as number;
    made.push(Number.isNaN(value) ? { time } : { time, value });
  }
  return made;
}
