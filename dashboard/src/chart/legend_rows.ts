/** What the legend says at one place of a store; pure. */

import { formatTime } from "../data/newyork";
import { CandleStore } from "../data/series";
import type { TickStore } from "../data/series";
import type { LegendEntry } from "./legend";
import { formatPrice, formatVolume } from "./legend";
import type { Palette } from "./palette";

export interface LegendContext {
  title: string;
  offsetMs: number;
  palette: Palette;
  showSma9: boolean;
  showVwap: boolean;
  extras: readonly string[];
}

/** The values at `tsMs`, or the newest where it is null. */
export function legendRows(
  store: TickStore | CandleStore,
  tsMs: number | null,
  context: LegendContext,
): LegendEntry[] {
  return store instanceof CandleStore
    ? candleRows(store, tsMs, context)
    : tickRows(store, tsMs, context);
}

function averages(sma9: number | null, vwap: number | null, context: LegendContext): LegendEntry[] {
  const { palette } = context;
  const rows: LegendEntry[] = [];
  if (context.showSma9) {
    rows.push({ key: "sma9", label: "SMA9", value: formatPrice(sma9), color: palette.sma9 });
  }
  if (context.showVwap) {
    rows.push({ key: "vwap", label: "VWAP", value: formatPrice(vwap), color: palette.vwap });
  }
  return rows;
}

function tickRows(store: TickStore, tsMs: number | null, context: LegendContext): LegendEntry[] {
  const { palette, title, offsetMs } = context;
  const i = tsMs === null ? store.count - 1 : store.indexAt(tsMs);
  if (i < 0) return [{ key: "title", label: title, value: "", color: palette.text }];
  const time = formatTime(store.ts[i] as number, "milli", offsetMs);
  return [
    { key: "title", label: title, value: time, color: palette.text },
    { key: "price", label: "Price", value: formatPrice(store.price[i]), color: palette.price },
    ...averages(store.sma9[i] as number, store.vwap[i] as number, context),
  ];
}

function candleRows(
  store: CandleStore,
  tsMs: number | null,
  context: LegendContext,
): LegendEntry[] {
  const { palette, title, offsetMs } = context;
  const open = store.provisional;
  const i = tsMs === null ? store.count - 1 : store.indexAt(tsMs);
  const forming = open !== null && (tsMs === null || tsMs >= open.ts_ms);
  if (!forming && i < 0) return [{ key: "title", label: title, value: "", color: palette.text }];
  const at = <T>(provisional: T, final: T): T => (forming ? provisional : final);
  const first = at(open?.open, store.open[i]) as number;
  const close = at(open?.close, store.close[i]) as number;
  const color = close >= first ? palette.up : palette.down;
  const ts = at(open?.ts_ms, store.ts[i]) as number;
  const values: [string, string][] = [
    ["O", formatPrice(first)],
    ["H", formatPrice(at(open?.high, store.high[i]))],
    ["L", formatPrice(at(open?.low, store.low[i]))],
    ["C", formatPrice(close)],
    ["V", formatVolume(at(open?.volume, store.volume[i]) as number)],
  ];
  const rows: LegendEntry[] = [
    { key: "title", label: title, value: formatTime(ts, "minute", offsetMs), color: palette.text },
    ...values.map(([label, value]) => ({ key: label.toLowerCase(), label, value, color })),
    ...averages(
      at(open?.sma9, store.sma9[i]) ?? null,
      at(open?.vwap, store.vwap[i]) ?? null,
      context,
    ),
    ...context.extras.map((name, nth) => ({
      key: `extra-${name}`,
      label: name,
      // Not all extras are computed for a candle that is still being made.
      value: formatPrice((forming ? open.extras?.[name] : null) ?? store.extra(name)[i]),
      color: palette.extras[nth % palette.extras.length] as string,
    })),
  ];
  // In words too: pale colours alone would not be understood by everybody.
  if (forming) rows.push({ key: "forming", label: "forming", value: "", color: palette.text });
  return rows;
}
