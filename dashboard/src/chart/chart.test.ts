// The parts of the chart that need no canvas: places, lines, views, marks, gaps, legend.

import { describe, expect, it } from "vitest";

import { CandleStore, TickStore } from "../data/series";
import type { Gap, Session, Signal } from "../data/types";
import { candleAxis, candleTimes, dayAxis, hasSlots, slotData, tickAxis } from "./axis";
import { PointBuffer, decimate, widen } from "./decimate";
import { breaksOf, plotGaps } from "./gaps";
import { formatVolume } from "./legend";
import { legendRows } from "./legend_rows";
import { firstMarker, plotMarkers } from "./markers";
import { axisTime } from "./options";
import { liesOnPrice } from "./oscillators";
import { DARK, LIGHT } from "./palette";
import { sessionBands } from "./shading";
import { centred, firstRange, followRange, modeAfter, zoomed } from "./view";

const MINUTE = 60_000;
const OPEN_MS = Date.parse("2026-01-05T14:30:00Z");
const SESSION: Session = {
  kind: "full",
  pre_open_ms: OPEN_MS - 150 * MINUTE,
  open_ms: OPEN_MS,
  close_ms: OPEN_MS + 390 * MINUTE,
  post_close_ms: OPEN_MS + 630 * MINUTE,
};

describe("axes", () => {
  it("gives ticks a slot a second, and places between them", () => {
    const axis = tickAxis(SESSION.pre_open_ms, SESSION.post_close_ms);
    expect(axis.length).toBe(46_800);
    expect(axis.xOf(OPEN_MS + 1500)).toBe(9001.5);
    expect(axis.tsOf(9001.5)).toBe(OPEN_MS + 1500);
    expect(axis.xOf(SESSION.pre_open_ms - 1000)).toBe(-1);
  });

  it("cuts candles at the ends of segments", () => {
    const axis = candleAxis(SESSION, "1h", []);
    const hours = Array.from(axis.starts, (ts) => (ts - OPEN_MS) / MINUTE);
    expect(hours).toEqual([-150, -90, -30, 0, 60, 120, 180, 240, 300, 360, 390, 450, 510, 570]);
    expect(axis.slotAt(OPEN_MS - 1)).toBe(2);
    expect(axis.xOf(OPEN_MS - 15 * MINUTE)).toBe(2.5);
    expect(axis.tsOf(2.5)).toBe(OPEN_MS - 15 * MINUTE);
    expect(candleAxis(SESSION, "1m", []).length).toBe(780);
  });

  it("makes room for candles that the calendar does not know", () => {
    const odd = SESSION.post_close_ms + 5 * MINUTE;
    const axis = candleAxis(SESSION, "1m", [odd]);
    expect(axis.has(odd)).toBe(true);
    expect(axis.has(odd - MINUTE)).toBe(false);
    expect(candleAxis(null, "1m", [OPEN_MS, OPEN_MS + MINUTE]).length).toBe(2);
  });
});

describe("decimation", () => {
  const one = { offset: 0, factor: 1 };
  const line = (xs: number[], ys: number[], scale = one, breaks: number[] = []): number[] => {
    const out = new PointBuffer();
    decimate(
      Float64Array.from(xs),
      Float64Array.from(ys),
      0,
      xs.length,
      scale,
      one,
      out,
      Float64Array.from(breaks),
    );
    return Array.from(out.data.subarray(0, out.length));
  };

  it("keeps every point where there is room", () => {
    expect(line([0, 1, 2], [5, 6, 4])).toEqual([0, 5, 1, 6, 2, 4]);
  });

  it("keeps first, lowest, highest and last of a pixel, in the order they came", () => {
    const points = line([0, 1, 2, 3, 4, 5], [5, 9, 7, 1, 3, 4], { offset: 0, factor: 0.1 });
    expect(points.filter((_, i) => i % 2 === 1)).toEqual([5, 9, 1, 4]);
  });

  it("loses no spike of a day", () => {
    const ys = Array.from({ length: 23_400 }, (_, i) => Math.sin(i / 500) * 10);
    ys[12_345] = 99;
    const points = line(
      ys.map((_, i) => i),
      ys,
      { offset: 0, factor: 1400 / 23_400 },
    );
    const drawn = points.filter((_, i) => i % 2 === 1);
    expect(Math.max(...drawn)).toBe(99);
    expect(drawn.length).toBeLessThanOrEqual(4 * 1400);
  });

  it("is content with one point where a pixel is flat, and ends where the line ends", () => {
    expect(line([0, 0.1, 0.2, 1, 1.1], [5, 5.1, 5.2, 5.3, 5.4])).toEqual([0, 5, 1, 5.3, 1.1, 5.4]);
  });

  it("lifts the pen over NaN, once", () => {
    const points = line([0, 1, 2, 3], [5, Number.NaN, Number.NaN, 6]);
    expect(points).toEqual([0, 5, Number.NaN, Number.NaN, 3, 6]);
    expect(line([0, 1], [Number.NaN, 6])).toEqual([1, 6]);
  });

  it("lifts the pen over a known gap between two values", () => {
    expect(line([0, 1, 5, 6], [1, 2, 3, 4], one, [-3, 3, 99])).toEqual([
      0,
      1,
      1,
      2,
      Number.NaN,
      Number.NaN,
      5,
      3,
      6,
      4,
    ]);
  });

  it("finds the extent, NaN aside", () => {
    const extent = { low: Number.POSITIVE_INFINITY, high: Number.NEGATIVE_INFINITY };
    widen(Float64Array.of(9, 3, Number.NaN, 5, 1), 1, 4, extent);
    expect(extent).toEqual({ low: 3, high: 5 });
  });
});

describe("the view", () => {
  const range = { from: 0, to: 100 };

  it("stays until the newest value comes near its edge, then goes as far as needed", () => {
    expect(followRange(range, 50)).toBeNull();
    expect(followRange(range, 94)).toBeNull();
    expect(followRange(range, 95)).toEqual({ from: 1, to: 101 });
    expect(followRange(range, 500)).toEqual({ from: 406, to: 506 });
    expect(followRange({ from: 400, to: 500 }, 50)).toEqual({ from: -44, to: 56 });
  });

  it("is let go by panning away and taken up by coming back", () => {
    expect(modeAfter("pan", "follow", range, 150)).toBe("free");
    expect(modeAfter("pan", "follow", range, 99)).toBe("free");
    expect(modeAfter("pan", "free", range, 90)).toBe("follow");
    expect(modeAfter("zoom", "follow", range, 99)).toBe("follow");
    expect(modeAfter("zoom", "free", range, 50)).toBe("free");
    expect(modeAfter("zoom", "follow", range, 101)).toBe("free");
  });

  it("zooms around its anchor, within limits", () => {
    expect(zoomed(range, 0.5, 50, 1000)).toEqual({ from: 25, to: 75 });
    expect(zoomed(range, 0.5, 100, 1000)).toEqual({ from: 50, to: 100 });
    expect(zoomed(range, 100, 50, 200)).toEqual({ from: -50, to: 150 });
    expect(zoomed({ from: 0, to: 12 }, 0.1, 6, 200)).toEqual({ from: 1, to: 11 });
    expect(centred(range, 300)).toEqual({ from: 250, to: 350 });
  });

  it("begins with the day so far, or its newest part", () => {
    const day = firstRange(0, 1000, 46_800, null);
    expect(day.from).toBeLessThan(0);
    expect(day.to).toBeGreaterThan(1000);
    const part = firstRange(0, 10_000, 46_800, 1800);
    expect(part.to - part.from).toBeLessThan(2100);
    expect(followRange(part, 10_000)).toBeNull();
    expect(firstRange(Number.NaN, Number.NaN, 780, null)).toEqual({ from: -0.5, to: 779.5 });
  });
});

function signal(ts_ms: number, more: Partial<Signal> = {}): Signal {
  return {
    id: `QQQ:1m:${ts_ms}`,
    revision: 0,
    state: "active",
    late: false,
    ticker: "QQQ",
    timeframe: "1m",
    ts_ms,
    kind: "cross",
    direction: "up",
    price: 500,
    sma9: 501,
    vwap: 500,
    ...more,
  };
}

describe("marks", () => {
  it("stand at their candle, in order, each with its look", () => {
    const markers = plotMarkers(
      [
        signal(OPEN_MS + 7 * MINUTE, { late: true }),
        signal(OPEN_MS + MINUTE, { state: "superseded", late: true }),
        signal(OPEN_MS, { direction: "down" }),
      ],
      candleAxis(SESSION, "5m", []),
    );
    expect(markers.map((marker) => [marker.x, marker.look])).toEqual([
      [30, "superseded"],
      [30, "active"],
      [31, "late"],
    ]);
    expect(firstMarker(markers, 30.5)).toBe(2);
  });
});

describe("gaps", () => {
  const gap = (from: number, to: number, state: Gap["state"], series = "bars"): Gap => ({
    id: `${from}`,
    ticker: "QQQ",
    series,
    from_ms: OPEN_MS + from * MINUTE,
    to_ms: OPEN_MS + to * MINUTE,
    cause: "test",
    state,
    reason: "",
  });
  const axis = candleAxis(SESSION, "1m", []);

  it("shows those of the series in view, as whole candles", () => {
    const shown = plotGaps([gap(0, 2, "open"), gap(0, 1, "open", "ticks")], "1m", axis);
    expect(shown).toMatchObject([{ from: 149.5, to: 151.5, state: "open" }]);
    expect(plotGaps([gap(0, 2, "open")], "tick", axis)).toEqual([]);
  });

  it("breaks lines only where something is missing", () => {
    const shown = plotGaps(
      [gap(0, 2, "open"), gap(4, 6, "filled"), gap(8, 9, "unfillable")],
      "1m",
      axis,
    );
    const places = Float64Array.of(149, 152, 153, 154, 155, 156, 157, 158, 159);
    // The candle of the unfillable gap is there after all.
    expect(Array.from(breaksOf(shown, places, places.length))).toEqual([150]);
    expect(Array.from(breaksOf(shown))).toEqual([150.5, 158]);
  });
});

describe("shading", () => {
  it("comes from the session, half a slot before its first value", () => {
    const bands = sessionBands(SESSION, candleAxis(SESSION, "1m", []), DARK);
    expect(bands.map((band) => [band.from, band.to])).toEqual([
      [-0.5, 149.5],
      [539.5, 779.5],
    ]);
    expect(sessionBands(null, candleAxis(SESSION, "1m", []), DARK)).toEqual([]);
  });
});

describe("the legend", () => {
  const context = {
    title: "QQQ 1m",
    offsetMs: -5 * 60 * MINUTE,
    palette: LIGHT,
    showSma9: true,
    showVwap: true,
    extras: ["ema9"],
  };
  const text = (rows: { label: string; value: string }[]): string =>
    rows.map((row) => `${row.label} ${row.value}`.trim()).join(" ");
  const bar = { open: 1, high: 2, low: 1, close: 2, volume: 12_345, sma9: null, vwap: 1.5 };

  it("tells the newest candle, the one under the crosshair, and what is still being made", () => {
    const store = new CandleStore();
    expect(text(legendRows(store, null, context))).toBe("QQQ 1m");
    store.upsert({ ts_ms: OPEN_MS, ...bar, extras: { ema9: 1.25 } });
    store.setProvisional({ ts_ms: OPEN_MS + MINUTE, ...bar, close: 3 });
    expect(text(legendRows(store, OPEN_MS, context))).toBe(
      "QQQ 1m 09:30 O 1.00 H 2.00 L 1.00 C 2.00 V 12.3K SMA9 – VWAP 1.50 ema9 1.25",
    );
    expect(text(legendRows(store, null, context))).toMatch(
      /09:31 .* C 3\.00 .* ema9 1\.25 forming$/,
    );
    expect(text(legendRows(store, OPEN_MS - 1, context))).toBe("QQQ 1m");
  });

  it("tells ticks to the millisecond", () => {
    const store = new TickStore();
    store.put(OPEN_MS + 123, 500.5, Number.NaN, 500.25);
    expect(text(legendRows(store, null, { ...context, title: "QQQ tick" }))).toBe(
      "QQQ tick 09:30:00.123 Price 500.50 SMA9 – VWAP 500.25",
    );
  });

  it("shortens volumes", () => {
    expect([950, 9999, 18_420, 1_234_567, 2e9, Number.NaN].map(formatVolume)).toEqual([
      "950",
      "9999",
      "18.4K",
      "1.23M",
      "2.00B",
      "–",
    ]);
  });
});

it("tells extras on the price's scale from others", () => {
  const store = new CandleStore();
  const bar = { open: 500, high: 500, low: 500, close: 500, volume: 1, sma9: null, vwap: null };
  store.upsert({
    ts_ms: OPEN_MS,
    ...bar,
    extras: { ema9: 499, rsi14: 55, bollinger20_upper: null },
  });
  expect(["ema9", "rsi14", "bollinger20_upper"].map((name) => liesOnPrice(store, name))).toEqual([
    true,
    false,
    true,
  ]);
});

it("writes axis times as they are, for they are New York's already", () => {
  expect(axisTime((Date.UTC(2026, 0, 5, 9, 30, 5) / 1000) as never, true)).toBe("09:30:05");
  expect(axisTime((Date.UTC(2026, 0, 5, 9, 30, 5) / 1000) as never, false)).toBe("09:30");
});

describe("slots for what comes", () => {
  const bar = { open: 1, high: 1, low: 1, close: 1, volume: 1, sma9: null, vwap: null };

  it("are there for a session's values, and missing for a candle beside it", () => {
    const store = new CandleStore();
    const axis = candleAxis(SESSION, "1m", []);
    store.upsert({ ts_ms: OPEN_MS, ...bar });
    expect(hasSlots(axis, { session: SESSION, store })).toBe(true);
    store.upsert({ ts_ms: SESSION.pre_open_ms - MINUTE, ...bar });
    expect(hasSlots(axis, { session: SESSION, store })).toBe(false);
    expect(candleAxis(SESSION, "1m", candleTimes(store)).length).toBe(781);
  });

  it("grow by the hour where no session is known", () => {
    const store = new TickStore();
    const empty = dayAxis(null, store);
    store.put(OPEN_MS, 1, 1, 1);
    expect(hasSlots(empty, { session: null, store })).toBe(false);
    const axis = dayAxis(null, store);
    store.put(OPEN_MS + 59 * MINUTE, 1, 1, 1);
    expect(hasSlots(axis, { session: null, store })).toBe(true);
    store.put(OPEN_MS + 61 * MINUTE, 1, 1, 1);
    expect(hasSlots(axis, { session: null, store })).toBe(false);
  });

  it("hold nothing but the ends, without which the chart would not scroll that far", () => {
    const data = slotData(candleAxis(SESSION, "1h", []), -5 * 60 * MINUTE);
    expect(data.map((slot) => "value" in slot)).toEqual([
      true,
      ...Array.from({ length: 12 }, () => false),
      true,
    ]);
    // 09:30 in New York, in disguise.
    expect(data[3]?.time).toBe(Date.UTC(2026, 0, 5, 9, 30) / 1000);
  });
});
