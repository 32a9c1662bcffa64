// A data source out of the made-up market, so that the page can be looked at without any server.
//
// `?demo=` takes a comma list: login, away, slow, broken, closed, real, signals.

import {
  type BeatListener,
  type ConnectionStatus,
  type DataSource,
  SourceError,
  type SubscribeHandlers,
  type SubscribeRequest,
  type Subscription,
} from "../src/data/source";
import type { Clock, Gap, Health, Me, Series, Signal, TickerRow, Timeframe } from "../src/data/types";
import {
  BEGIN_MS,
  candleSeries,
  countUntil,
  DAYS,
  signalsOf,
  TICKERS,
  ticksOf,
  tickSeries,
  TODAY,
} from "./market";

const wait = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

export class DemoSource implements DataSource {
  readonly kind = "gateway";
  private readonly wishes: Set<string>;
  private readonly beganMs = Date.now();
  private authenticated = false;

  constructor(search: string) {
    this.wishes = new Set((new URLSearchParams(search).get("demo") ?? "").split(","));
  }

  private nowMs(): number {
    const begin = this.wishes.has("closed") ? BEGIN_MS + 10 * 3_600_000 : BEGIN_MS;
    return begin + Date.now() - this.beganMs;
  }

  async me(): Promise<Me> {
    if (this.wishes.has("away")) throw new SourceError(0, "network", "Connection refused.");
    const auth = this.wishes.has("login") ? "password" : "none";
    const authenticated = auth === "none" || this.authenticated;
    const simulated = !this.wishes.has("real");
    const source = simulated ? "demo" : "schwab";
    return { auth, authenticated, public_market: false, source, simulated, version: "0.3.0" };
  }

  async login(password: string): Promise<void> {
    await wait(300);
    if (password !== "kite") throw new SourceError(401, "wrong_password", "Wrong password.");
    this.authenticated = true;
  }

  async logout(): Promise<void> {
    this.authenticated = false;
  }

  async tickers(): Promise<TickerRow[]> {
    return TICKERS.map(([ticker]) => {
      const closes = candleSeries(ticker, TODAY, "5m", this.nowMs()).close;
      const before = candleSeries(ticker, "2026-07-02", "1h", this.nowMs()).close;
      const previous = before.at(-5) ?? null;
      const last = closes.at(-1) ?? null;
      const change = last !== null && previous !== null ? last - previous : null;
      const percent = change !== null && previous !== null ? (change / previous) * 100 : null;
      return {
        ticker,
        last,
        ts_ms: this.nowMs() - 400,
        change,
        change_percent: percent,
        previous_close: previous,
        date: TODAY,
        sparkline: closes.slice(-60),
      };
    });
  }

  async sessions() {
    return { today: TODAY, days: DAYS };
  }

  async series(ticker: string, date: string, timeframe: Timeframe): Promise<Series> {
    await wait(this.wishes.has("slow") ? 1e9 : 60);
    if (this.wishes.has("broken")) {
      throw new SourceError(503, "database_away", "The database is away; try again in a moment.");
    }
    if (!TICKERS.some(([name]) => name === ticker)) {
      throw new SourceError(404, "unknown_ticker", `Nothing is known of ${ticker}.`);
    }
    if (timeframe === "tick") return tickSeries(ticker, date, this.nowMs());
    return candleSeries(ticker, date, timeframe, this.nowMs());
  }

  async signals(query: { date: string }) {
    const signals = TICKERS.flatMap(([ticker]) => signalsOf(ticker, query.date, this.nowMs()));
    return { epoch_ms: 1, last_seq: { "0": 1 }, signals };
  }

  async gaps(date: string, ticker?: string): Promise<Gap[]> {
    const open = DAYS.find((day) => day.date === date)?.open_ms ?? 0;
    const gap = (nth: number, minutes: number, state: Gap["state"], cause: string): Gap => ({
      id: `g${nth}`,
      ticker: ticker ?? "QQQ",
      series: nth === 2 ? "ticks" : "bars",
      from_ms: open + nth * 1_800_000,
      to_ms: open + nth * 1_800_000 + minutes * 60_000,
      cause,
      state,
      reason: state === "unfillable" ? "tick_series" : "",
    });
    return [gap(1, 3, "filled", "ingest_down"), gap(2, 1, "unfillable", "connection_lost")];
  }

  async clock(): Promise<Clock> {
    return {
      broker_ms: this.nowMs(),
      wall_ms: Date.now(),
      speed: 1,
      source: "demo",
      simulated: true,
      date: TODAY,
      phase: "regular",
      next: null,
    };
  }

  async health(): Promise<Health> {
    const names = ["ingest", "indicators", "signals", "writer", "simulator"];
    return {
      status: "degraded",
      checks: [
        { name: "database", ok: true, detail: "answers in 2 ms" },
        { name: "bus", ok: true, detail: "connected" },
        { name: "fresh_data", ok: true, detail: "newest tick 0.6 s old" },
        { name: "lanes", ok: false, detail: "SIGNALS of partition 0 is 140 frames behind" },
      ],
      services: names.map((service, nth) => ({
        service,
        instance: `${nth}f86d081884c`,
        status: nth === 2 ? "degraded" : "healthy",
        at_ms: Date.now() - 700 - nth * 180,
        batches: 48_210 + nth * 311,
        records: 1_204_331 - nth * 90_000,
        errors: nth === 2 ? 3 : 0,
        processing_ms: 2.4 + nth,
        restarts: nth % 2,
        lag: nth === 2 ? 140 : nth === 4 ? null : 0,
      })),
      lanes: ["MARKET", "INDICATORS", "SIGNALS"].map((stream, nth) => ({
        stream,
        partition: 0,
        seq: 84_120 - nth * 140,
        end_seq: 84_120,
        lag: nth === 2 ? 140 : 0,
      })),
    };
  }

  subscribe(request: SubscribeRequest, handlers: SubscribeHandlers): Subscription {
    const timer = setInterval(() => this.push(request, handlers), 500);
    return { close: () => clearInterval(timer) };
  }

  private push(request: SubscribeRequest, handlers: SubscribeHandlers): void {
    const nowMs = this.nowMs();
    if (request.channel === "quotes") {
      for (const [ticker] of TICKERS) {
        const ticks = ticksOf(ticker, TODAY);
        const at = countUntil(ticks, nowMs) - 1;
        const [last = null, ts_ms = null] = [ticks.price[at], ticks.ts[at]];
        handlers.onQuotes?.({ [ticker]: { last, ts_ms, bid: null, ask: null } });
      }
    } else if (request.channel === "ticks") {
      const { ts_ms, price, sma9, vwap } = tickSeries(request.ticker, TODAY, nowMs);
      const part = <T>(values: T[]): T[] => values.slice(-2);
      handlers.onTicks?.({
        ts_ms: part(ts_ms),
        price: part(price),
        sma9: part(sma9),
        vwap: part(vwap),
      });
    } else if (request.channel === "candles") {
      this.pushCandle(request, handlers, nowMs);
    } else if (request.channel === "signals" && this.wishes.delete("signals")) {
      setTimeout(() => handlers.onSignals?.([this.fresh(nowMs)]), 800);
    }
  }

  private pushCandle(
    request: Extract<SubscribeRequest, { channel: "candles" }>,
    handlers: SubscribeHandlers,
    nowMs: number,
  ): void {
    if (request.timeframe === "tick") return;
    const series = candleSeries(request.ticker, TODAY, request.timeframe, nowMs);
    const candle = (index: number) => ({
      ts_ms: series.ts_ms[index] ?? 0,
      open: series.open[index] ?? 0,
      high: series.high[index] ?? 0,
      low: series.low[index] ?? 0,
      close: series.close[index] ?? 0,
      volume: series.volume[index] ?? 0,
      sma9: series.sma9[index] ?? null,
      vwap: series.vwap[index] ?? null,
    });
    handlers.onProvisional?.(candle(series.ts_ms.length - 1));
  }

  private fresh(nowMs: number): Signal {
    const ts_ms = Math.floor(nowMs / 60_000) * 60_000;
    const common = { kind: "cross", timeframe: "1m", price: 611.84, sma9: 611.7, vwap: 611.6 };
    return {
      ...common,
      id: `QQQ:1m:${ts_ms}`,
      revision: 0,
      state: "active",
      late: false,
      ticker: "QQQ",
      ts_ms,
      direction: "up",
    };
  }

  onStatus(listener: (status: ConnectionStatus) => void): () => void {
    const phase = this.wishes.has("lost") ? "reconnecting" : "open";
    const status = { phase, rttMs: 4, lastMessageMs: null, offsetMs: 0, retryAtMs: null } as const;
    if (phase === "reconnecting") listener({ ...status, phase: "open" });
    listener(status);
    return () => undefined;
  }

  onBeat(listener: BeatListener): () => void {
    const timer = setInterval(() => {
      listener({ wall_ms: Date.now(), broker_ms: this.nowMs(), speed: 1 }, Date.now());
    }, 5000);
    return () => clearInterval(timer);
  }

  setRate(): void {}

  csvUrl(): string | null {
    return null;
  }

  retryNow(): void {}

  close(): void {}
}
