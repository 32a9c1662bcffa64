// The Supabase source against a stand-in that answers as PostgREST does, through the real
// supabase-js.

import { createClient } from "@supabase/supabase-js";
import { beforeEach, describe, expect, it, vi } from "vitest";

import { PAGE_ROWS, SupabaseSource } from "./supabase";
import { tickSeries } from "./supabase_rows";

type Row = Record<string, unknown>;

/**
 * Tables in memory; understands eq, gt, gte, lt, order and limit, and hands out 1,000 rows at most.
 */
class Tables {
  readonly tables: Record<string, Row[]> = {};
  readonly asked: URL[] = [];
  broken = false;

  fetch = (input: RequestInfo | URL): Promise<Response> => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    this.asked.push(url);
    if (this.broken) {
      const body = { code: "42501", message: "permission denied for table candles" };
      return Promise.resolve(new Response(JSON.stringify(body), { status: 401 }));
    }
    let rows = [...(this.tables[url.pathname.replace("/rest/v1/", "")] ?? [])];
    for (const [name, text] of url.searchParams) {
      if (["select", "order", "limit"].includes(name)) continue;
      const [operator = "", ...rest] = text.split(".");
      rows = rows.filter((row) => holds(row[name], operator, rest.join(".")));
    }
    for (const part of (url.searchParams.get("order") ?? "").split(",").filter(Boolean).reverse()) {
      const [name = "", way] = part.split(".");
      rows.sort((a, b) => (String(a[name]) < String(b[name]) ? -1 : 1) * (way === "desc" ? -1 : 1));
    }
    const limit = Math.min(Number(url.searchParams.get("limit") ?? PAGE_ROWS), PAGE_ROWS);
    return Promise.resolve(new Response(JSON.stringify(rows.slice(0, limit)), { status: 200 }));
  };
}

function holds(value: unknown, operator: string, wanted: string): boolean {
  const time = Date.parse(String(value));
  const [a, b] = Number.isNaN(time) ? [String(value), wanted] : [time, Date.parse(wanted)];
  switch (operator) {
    case "eq":
      return a === b;
    case "gt":
      return a > b;
    case "gte":
      return a >= b;
    case "lt":
      return a < b;
    default:
      throw new Error(`the stand-in does not know ${operator}`);
  }
}

const OPEN_MS = Date.parse("2026-01-05T14:30:00Z");
const stamp = (ms: number): string => new Date(ms).toISOString().replace("Z", "+00:00");

function candle(ticker: string, ts: number, close: number, timeframe = "1m"): Row {
  return {
    ticker,
    timeframe,
    timestamp: stamp(ts),
    open: close,
    high: close,
    low: close,
    close,
    volume: 100,
    sma9: null,
    vwap: String(close),
    extras: { ema9: close },
    revision: 0,
  };
}

let tables: Tables;
let source: SupabaseSource;
let nowMs: number;

beforeEach(() => {
  tables = new Tables();
  nowMs = OPEN_MS + 3_600_000;
  const client = createClient("https://project.example", "anon", {
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
    global: { fetch: tables.fetch },
    // Never opened; older Node versions have none to offer.
    realtime: { transport: class {} as never },
  });
  source = new SupabaseSource(client, () => nowMs);
});

describe("snapshots", () => {
  it("reads a day of ticks in pages, and puts their averages beside them", async () => {
    const count = 2 * PAGE_ROWS + 5;
    const at = (i: number): string => stamp(OPEN_MS + i * 1000);
    tables.tables["equity_data"] = Array.from({ length: count }, (_, i) => ({
      ticker: "QQQ",
      timestamp: at(i),
      price: 500 + i,
      volume: 10,
    }));
    tables.tables["equity_data"].push({ ticker: "SPY", timestamp: at(1), price: 1, volume: 1 });
    tables.tables["equity_data"].push({
      ticker: "QQQ",
      timestamp: stamp(OPEN_MS + 86_400_000),
      price: 9,
      volume: 1,
    });
    tables.tables["indicators"] = Array.from({ length: count - 1 }, (_, i) => ({
      ticker: "QQQ",
      timestamp: at(i),
      sma9: i < 8 ? null : 500,
      vwap: 501,
    }));
    const series = await source.series("QQQ", "2026-01-05", "tick");
    if (series.timeframe !== "tick") throw new Error("not ticks");
    expect(series.ts_ms).toHaveLength(count);
    expect(series.price[count - 1]).toBe(500 + count - 1);
    expect([
      series.sma9[7],
      series.sma9[8],
      series.vwap[count - 2],
      series.vwap[count - 1],
    ]).toEqual([null, 500, 501, null]);
    expect(tables.asked.filter((url) => url.pathname.endsWith("equity_data"))).toHaveLength(3);
    expect(series.session?.open_ms).toBe(OPEN_MS);
  });

  it("reads candles with extras, whatever numbers are written as", async () => {
    tables.tables["candles"] = [
      candle("QQQ", OPEN_MS, 500.25),
      candle("QQQ", OPEN_MS + 60_000, 501),
    ];
    const series = await source.series("QQQ", "2026-01-05", "1m");
    expect(series).toMatchObject({
      close: [500.25, 501],
      vwap: [500.25, 501],
      extras: { ema9: [500.25, 501] },
    });
  });

  it("lists tickers with their change since the session before", async () => {
    const friday = OPEN_MS - 3 * 86_400_000;
    tables.tables["candles"] = [
      candle("QQQ", friday, 400),
      candle("QQQ", friday + 7 * 3_600_000, 999),
      candle("QQQ", OPEN_MS, 410),
      candle("SPY", OPEN_MS, 600),
    ];
    const [qqq, spy] = await source.tickers();
    // 16:30 on Friday is after hours and not the close.
    expect(qqq).toMatchObject({
      ticker: "QQQ",
      last: 410,
      previous_close: 400,
      change: 10,
      change_percent: 2.5,
    });
    expect(spy).toMatchObject({ ticker: "SPY", last: 600, previous_close: null, change: null });
  });

  it("tells which days have data", async () => {
    tables.tables["candles"] = [candle("QQQ", OPEN_MS, 500, "1h")];
    const { today, days } = await source.sessions("2025-12-30", "2026-01-06");
    expect(today).toBe("2026-01-05");
    expect(days.map((day) => [day.date, day.kind, day.has_data])).toEqual([
      ["2025-12-30", "full", false],
      ["2025-12-31", "full", false],
      ["2026-01-01", "holiday", false],
      ["2026-01-02", "full", false],
      ["2026-01-05", "full", true],
      ["2026-01-06", "full", false],
    ]);
  });

  it("reads more signals of one instant than a page's edge can split", async () => {
    tables.tables["signals"] = Array.from({ length: PAGE_ROWS + 3 }, (_, i) => ({
      id: `T${String(i).padStart(5, "0")}:1m:1`,
      revision: 0,
      state: "active",
      late: false,
      ticker: `T${i}`,
      timeframe: "1m",
      timestamp: stamp(OPEN_MS + Math.floor(i / 10) * 60_000),
      kind: "cross",
      direction: "up",
      price: 1,
      sma9: 1,
      vwap: 1,
    }));
    const { signals } = await source.signals({ date: "2026-01-05" });
    expect(new Set(signals.map((signal) => signal.id)).size).toBe(PAGE_ROWS + 3);
    expect(signals).toHaveLength(PAGE_ROWS + 3);
  });

  it("hands on what the database says", async () => {
    tables.broken = true;
    await expect(source.gaps("2026-01-05")).rejects.toMatchObject({ status: 401, code: "42501" });
    expect((await source.health()).status).toBe("down");
  });
});

describe("polling", () => {
  it("brings what is new in market hours, and nothing when the market is closed", async () => {
    tables.tables["equity_data"] = [
      { ticker: "QQQ", timestamp: stamp(OPEN_MS), price: 500, volume: 1 },
    ];
    const onTicks = vi.fn();
    const subscription = source.subscribe(
      {
        channel: "ticks",
        ticker: "QQQ",
        date: "2026-01-05",
        epoch_ms: 0,
        from_seq: 0,
        last_ts_ms: OPEN_MS,
      },
      { onTicks },
    );
    tables.tables["equity_data"].push({
      ticker: "QQQ",
      timestamp: stamp(OPEN_MS + 1000),
      price: 501,
      volume: 1,
    });
    await source.pollAll();
    expect(onTicks.mock.calls[0]?.[0].price).toEqual([500, 501]);
    nowMs = Date.parse("2026-01-06T03:00:00Z");
    const before = tables.asked.length;
    await source.pollAll();
    expect(tables.asked).toHaveLength(before);
    subscription.close();
    source.close();
  });

  it("says that it could not reach the database, and goes on", async () => {
    const phases: string[] = [];
    source.onStatus((status) => phases.push(status.phase));
    source.subscribe(
      { channel: "signals", ticker: "*", date: "2026-01-05", epoch_ms: 0, from_seq: {} },
      {},
    );
    tables.broken = true;
    await source.pollAll();
    expect(phases[phases.length - 1]).toBe("reconnecting");
    tables.broken = false;
    await source.pollAll();
    expect(phases[phases.length - 1]).toBe("polling");
    source.close();
  });
});

it("leaves out averages that belong to no tick", () => {
  const series = tickSeries(
    null,
    [{ timestamp: stamp(2000), price: "5.5", volume: null }],
    [
      { timestamp: stamp(1000), sma9: 1, vwap: 1 },
      { timestamp: stamp(2000), sma9: 2, vwap: null },
    ],
  );
  expect(series).toMatchObject({
    ts_ms: [2000],
    price: [5.5],
    volume: [null],
    sma9: [2],
    vwap: [null],
  });
});
