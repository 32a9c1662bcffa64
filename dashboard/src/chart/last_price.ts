/** The line and the label at the newest price, be it final or not. */

import type { IPriceLine, ISeriesApi } from "lightweight-charts";

import { CandleStore } from "../data/series";
import type { TickStore } from "../data/series";
import type { Palette } from "./palette";

const DASHED = 2;

export class LastPrice {
  private readonly line: IPriceLine;

  constructor(series: ISeriesApi<"Line">, palette: Palette) {
    this.line = series.createPriceLine({
      price: 0,
      color: palette.price,
      lineWidth: 1,
      lineStyle: DASHED,
      axisLabelVisible: false,
      lineVisible: false,
      title: "",
    });
  }

  setPalette(palette: Palette): void {
    this.line.applyOptions({ color: palette.price });
  }

  show(store: TickStore | CandleStore): void {
    const last = newestPrice(store);
    const known = this.line.options();
    if (last !== null && (known.price !== last || !known.lineVisible)) {
      this.line.applyOptions({ price: last, lineVisible: true, axisLabelVisible: true });
    } else if (last === null && known.lineVisible) {
      this.line.applyOptions({ lineVisible: false, axisLabelVisible: false });
    }
  }
}

function newestPrice(store: TickStore | CandleStore): number | null {
  const open = store instanceof CandleStore ? store.provisional : null;
  if (open !== null) return open.close;
  if (store.count === 0) return null;
  const prices = store instanceof CandleStore ? store.close : store.price;
  const last = prices[store.count - 1] as number;
  return Number.isNaN(last) ? null : last;
}
