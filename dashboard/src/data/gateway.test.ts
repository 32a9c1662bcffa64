import { beforeEach, describe, expect, it, vi } from "vitest";

import { DayFeed } from "./day_feed";
import { OPEN_MS, World, candleSeries, settle, signal, tickSeries, ticks } from "./fake_gateway";
import type { CandleStore, TickStore } from "./series";
import { SignalFeed } from "./signal_feed";
import type { ConnectionStatus } from "./source";
import { SourceError } from "./source";
import type { Signal } from "./types";

let world: World;
beforeEach(() => {
  world = new World();
});

describe("snapshot, then live", () => {
  const events = () => ({
    onLoaded: vi.fn(),
    onChange: vi.fn(),
    onError: vi.fn(),
    onNextDay: vi.fn(),
  });

  function follow(timeframe: "tick" | "1m" = "tick"): {
    feed: DayFeed;
    seen: ReturnType<typeof events>;
  } {
    const seen = events();
    const feed = new DayFeed(
      world.source,
      { ticker: "QQQ", date: "2026-01-05", timeframe, live: true },
      seen,
      { random: () => 0.999_999, later: (callback, ms) => world.later(callback, ms) },
    );
    return { feed, seen };
  }

  it("subscribes from the very position of the snapshot", async () => {
    world.answer("/series", () => tickSeries(3, 41));
    const { feed, seen } = follow();
    await settle();
    expect(seen.onLoaded).toHaveBeenCalledOnce();
    world.socket.open();
    const [sub] = world.socket.subs();
    expect(sub).toEqual({
      op: "sub",
      id: 1,
      channel: "ticks",
      ticker: "QQQ",
      epoch_ms: 7,
      from_seq: 41,
    });
    world.socket.say(ticks(1, 42, 3, 4));
    expect(feed.store.count).toBe(5);
    expect(seen.onChange).toHaveBeenCalledOnce();
  });

  it("goes on from the last position after a break, and takes nothing twice", async () => {
    world.answer("/series", () => tickSeries(3, 41));
    const { feed } = follow();
    await settle();
    world.socket.open();
    world.socket.say(ticks(1, 42, 3));
    world.socket.onclose?.({ code: 1006 });
    await world.pass(600);
    expect(world.sockets).toHaveLength(2);
    world.socket.open();
    expect(world.socket.subs()[0]).toMatchObject({ from_seq: 42 });
    world.socket.say(ticks(1, 43, 3, 4));
    expect(feed.store.count).toBe(5);
    expect(world.asked.filter((url) => url.includes("/series"))).toHaveLength(1);
  });

  it("hears the candles again when the line breaks between a correction and them", async () => {
    world.answer("/series", () => candleSeries(41, [10, 11]));
    follow("1m");
    await settle();
    world.socket.open();
    world.socket.say({ op: "corrected", id: 1, seq: 50, date: "2026-01-02", revision: 1 });
    world.socket.onclose?.({ code: 1006 });
    await world.pass(600);
    world.socket.open();
    expect(world.socket.subs()[0]).toMatchObject({ from_seq: 41 });
  });

  it("takes a new snapshot at a resync, and hears the old subscription no more", async () => {
    world.answer("/series", () => tickSeries(3, 41));
    const { feed } = follow();
    await settle();
    world.socket.open();
    world.answer("/series", () => tickSeries(10, 99, 8));
    world.socket.say({ op: "resync", id: 1, reason: "too old" });
    world.socket.say(ticks(1, 43, 3));
    await settle();
    expect(feed.store.count).toBe(10);
    expect(world.cachesOf("/series")).toEqual(["default", "reload"]);
    const second = world.socket.subs()[1];
    expect(second).toMatchObject({ id: 2, epoch_ms: 8, from_seq: 99 });
    expect(world.socket.sent.some((message) => message["op"] === "unsub")).toBe(false);
    world.socket.say(ticks(2, 100, 10));
    expect(feed.store.count).toBe(11);
  });

  it("waits longer for each resync, until something comes live", async () => {
    world.answer("/series", () => tickSeries(3, 41));
    follow();
    await settle();
    world.socket.open();
    const asked = (): number => world.cachesOf("/series").length;
    world.socket.say({ op: "resync", id: 1, reason: "too old" });
    await settle();
    expect(asked()).toBe(2);
    world.socket.say({ op: "resync", id: 2, reason: "too old" });
    await settle();
    expect(asked()).toBe(2);
    await world.pass(600);
    expect(asked()).toBe(3);
    world.socket.say({ op: "resync", id: 3, reason: "too old" });
    await world.pass(600);
    expect(asked()).toBe(3);
    await world.pass(600);
    expect(asked()).toBe(4);
    world.socket.say(ticks(4, 42, 3));
    world.socket.say({ op: "resync", id: 4, reason: "too old" });
    await settle();
    expect(asked()).toBe(5);
  });

  it("does not load again for a correction that it has asked for already", async () => {
    world.answer("/series", () => candleSeries(41, [10, 11]));
    follow("1m");
    await settle();
    world.socket.open();
    const corrected = { op: "corrected", seq: 50, date: "2026-01-05", revision: 1 };
    world.socket.say({ ...corrected, id: 1 });
    await settle();
    // The server goes on from a snapshot that is older, and tells of the correction again.
    world.socket.say({ ...corrected, id: 2 });
    await settle();
    expect(world.cachesOf("/series")).toHaveLength(2);
    await world.pass(600);
    expect(world.cachesOf("/series")).toHaveLength(3);
  });

  it("loads a corrected day until the database has it", async () => {
    world.answer("/series", () => candleSeries(41, [10, 11]));
    const { feed, seen } = follow("1m");
    await settle();
    world.socket.open();
    world.answer("/series", () => candleSeries(49, [10, 11]));
    world.socket.say({ op: "corrected", id: 1, seq: 50, date: "2026-01-05", revision: 1 });
    await settle();
    world.answer("/series", () => candleSeries(50, [12, 13]));
    await world.pass(1000);
    expect((feed.store as CandleStore).close[0]).toBe(12);
    expect(seen.onLoaded).toHaveBeenCalledTimes(3);
    expect(world.cachesOf("/series")).toEqual(["default", "reload", "reload"]);
    expect(world.socket.subs().map((sub) => sub["from_seq"])).toEqual([41, 49, 50]);
    world.socket.say({ op: "corrected", id: 3, seq: 50, date: "2026-01-05", revision: 1 });
    world.socket.say({ op: "corrected", id: 3, seq: 60, date: "2026-01-02", revision: 1 });
    await settle();
    expect(seen.onLoaded).toHaveBeenCalledTimes(3);
  });

  it("keeps the open candle apart and leaves tomorrow's values out", async () => {
    world.answer("/series", () => candleSeries(41, [10]));
    const { feed, seen } = follow("1m");
    await settle();
    world.socket.open();
    const open = {
      open: 1,
      high: 1,
      low: 1,
      close: 1,
      volume: 1,
      sma9: null,
      vwap: null,
      extras: {},
    };
    world.socket.say({ op: "provisional", id: 1, candle: { ts_ms: OPEN_MS + 60_000, ...open } });
    expect((feed.store as CandleStore).provisional?.close).toBe(1);
    const tomorrow = { ts_ms: OPEN_MS + 86_400_000, ...open, revision: 0, source: "stream" };
    world.socket.say({ op: "candles", id: 1, seq: 42, candles: [tomorrow] });
    expect(feed.store.count).toBe(1);
    expect(seen.onNextDay).toHaveBeenCalledOnce();
  });

  it("tries again when the gateway is away, and not when the question is wrong", async () => {
    const { seen } = follow();
    await settle();
    expect(seen.onError.mock.calls[0]?.[0]).toMatchObject({ code: "unreachable" });
    world.answer("/series", () => tickSeries(2, 1));
    await world.pass(600);
    expect(seen.onLoaded).toHaveBeenCalledOnce();

    world.answer(
      "/series",
      () => ({ error: { code: "bad_parameter", message: "no such day", parameter: "date" } }),
      400,
    );
    const wrong = follow();
    await settle();
    expect(wrong.seen.onError).toHaveBeenCalledWith(
      expect.objectContaining({ parameter: "date" }),
      null,
    );
    await world.pass(60_000);
    expect(wrong.seen.onError).toHaveBeenCalledOnce();
  });

  it("says no more once it is closed", async () => {
    world.answer("/series", () => tickSeries(3, 41));
    const { feed, seen } = follow();
    await settle();
    world.socket.open();
    feed.close();
    world.socket.say(ticks(1, 42, 3));
    expect(seen.onChange).not.toHaveBeenCalled();
    expect(world.socket.sent).toContainEqual({ op: "unsub", id: 1 });
    expect((feed.store as TickStore).count).toBe(3);
  });
});

describe("signals", () => {
  it("keeps the highest revision, by partition's position", async () => {
    world.answer("/signals", () => ({
      epoch_ms: 7,
      last_seq: { 0: 5, 1: 9 },
      signals: [signal(1)],
    }));
    const onSignals = vi.fn();
    new SignalFeed(world.source, "2026-01-05", true, { onSignals });
    await settle();
    world.socket.open();
    expect(world.socket.subs()[0]).toMatchObject({
      channel: "signals",
      ticker: "*",
      from_seq: { 0: 5, 1: 9 },
    });
    world.socket.say({
      op: "signals",
      id: 1,
      seq: 6,
      partition: 0,
      signals: [signal(1, 1, "down"), signal(2)],
    });
    world.socket.say({ op: "signals", id: 1, seq: 10, partition: 1, signals: [signal(1, 0)] });
    expect(onSignals).toHaveBeenCalledTimes(2);
    const [all, fresh] = onSignals.mock.calls[1] as [Signal[], Signal[]];
    expect(all.map((each) => each.direction)).toEqual(["down", "up"]);
    expect(fresh).toHaveLength(2);
    world.socket.onclose?.({ code: 1013 });
    await world.pass(600);
    world.socket.open();
    expect(world.socket.subs()[0]).toMatchObject({ from_seq: { 0: 6, 1: 10 } });
  });
});

describe("the connection", () => {
  function statuses(): ConnectionStatus[] {
    const seen: ConnectionStatus[] = [];
    world.source.onStatus((status) => seen.push(status));
    return seen;
  }

  it("waits longer after every failure, and begins anew once something was heard", async () => {
    const seen = statuses();
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    const waits: number[] = [];
    for (let i = 0; i < 7; i++) {
      world.socket.onclose?.({ code: 1006 });
      waits.push((seen[seen.length - 1]?.retryAtMs ?? 0) - world.nowMs);
      await world.pass(waits[i] as number);
    }
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
    world.socket.open();
    world.socket.onclose?.({ code: 1006 });
    expect((seen[seen.length - 1]?.retryAtMs ?? 0) - world.nowMs).toBe(500);
  });

  it("takes 12 s of silence for a break, and no less", async () => {
    const seen = statuses();
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    world.socket.open();
    await world.pass(10_000);
    world.socket.say({ op: "heartbeat", n: 1, wall_ms: 0, broker_ms: null, speed: 1 });
    await world.pass(10_000);
    expect(seen[seen.length - 1]?.phase).toBe("open");
    const silent = world.socket;
    await world.pass(2_100);
    expect(silent.closed).toBe(true);
    expect(seen[seen.length - 1]?.phase).toBe("reconnecting");
  });

  it("gives up a socket that never opens, and closes it should it open later", async () => {
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    const hanging = world.socket;
    await world.pass(13_000);
    expect(world.sockets).toHaveLength(2);
    hanging.closed = false;
    hanging.onopen?.(undefined as never);
    expect(hanging.closed).toBe(true);
  });

  it("answers heartbeats, and tells round trip, offset and the broker's time", async () => {
    const seen = statuses();
    const beats = vi.fn();
    world.source.onBeat(beats);
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    world.answers.delete("/clock");
    world.socket.open();
    await settle();
    world.socket.say({
      op: "heartbeat",
      n: 3,
      wall_ms: world.nowMs + 990,
      broker_ms: 77,
      speed: 50,
      rtt_ms: 20,
    });
    expect(world.socket.sent).toContainEqual({ op: "pong", n: 3 });
    expect(seen[seen.length - 1]).toMatchObject({ phase: "open", rttMs: 20, offsetMs: 1000 });
    expect(beats).toHaveBeenLastCalledWith(
      expect.objectContaining({ broker_ms: 77, speed: 50 }),
      world.nowMs - 10,
    );
  });

  it("waits long where it was shown out, and comes back by itself", async () => {
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    world.socket.open();
    world.socket.onclose?.({ code: 1008 });
    await world.pass(7_000);
    expect(world.sockets).toHaveLength(1);
    await world.pass(9_000);
    expect(world.sockets).toHaveLength(2);
  });

  it("lets go of the connection at a logout, and takes it up again when it may", async () => {
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    world.socket.open();
    world.answer("/logout", () => ({}));
    await world.source.logout();
    expect(world.socket.closed).toBe(true);
    await world.pass(60_000);
    expect(world.sockets).toHaveLength(1);
    world.answer("/me", () => ({ auth: "password", authenticated: false, public_market: false }));
    await world.source.me();
    await settle();
    expect(world.sockets).toHaveLength(1);
    world.answer("/me", () => ({ auth: "password", authenticated: true, public_market: false }));
    await world.source.me();
    await settle();
    expect(world.sockets).toHaveLength(2);
  });

  it("names the version of what it knows for days that are over only", async () => {
    world.answer("/sessions", () => ({ today: "2026-01-06", version: "7.1.0", days: [] }));
    world.answer("/series", () => tickSeries(3, 41));
    await world.source.sessions();
    await world.source.series("QQQ", "2026-01-05", "tick");
    await world.source.series("QQQ", "2026-01-06", "tick");
    const [past, today] = world.asked.filter((url) => url.includes("/series"));
    expect(past).toContain("version=7.1.0");
    expect(today).not.toContain("version");
  });

  it("connects without a token where a public market gives none", async () => {
    world = new World("https://gateway.example", "https://page.example/");
    world.answer("/live-token", () => ({ error: { code: "login_required", message: "" } }), 401);
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    expect(world.socket.url).toBe("wss://gateway.example/api/v1/live");
  });

  it("brings its token along where the gateway is elsewhere", async () => {
    world = new World("https://gateway.example", "https://page.example/");
    world.answer("/live-token", () => ({ token: "once", expires_ms: 1 }));
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    expect(world.socket.url).toBe("wss://gateway.example/api/v1/live?token=once");
  });

  it("asks for the rate again on a new socket", async () => {
    world.source.subscribe({ channel: "quotes" }, {});
    await settle();
    world.socket.open();
    world.source.setRate(1);
    world.socket.onclose?.({ code: 1006 });
    await world.pass(600);
    world.socket.open();
    expect(world.socket.sent[0]).toEqual({ op: "rate", hz: 1 });
  });
});

describe("HTTP", () => {
  it("hands on the gateway's own words", async () => {
    world.answer("/tickers", () => ({ error: { code: "busy", message: "later" } }), 503, {
      "retry-after": "2",
    });
    const error = await world.source.tickers().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(SourceError);
    expect(error).toMatchObject({
      status: 503,
      code: "busy",
      message: "later",
      retryAfterMs: 2000,
    });
  });

  it("reads the health of a gateway that is ill", async () => {
    world.answer("/health", () => ({ status: "down", checks: [], services: [], lanes: [] }), 503);
    expect((await world.source.health()).status).toBe("down");
  });

  it("leaves out parameters that are not set", async () => {
    world.answer("/gaps", () => ({ gaps: [] }));
    await world.source.gaps("2026-01-05");
    expect(world.asked[world.asked.length - 1]).toBe("/api/v1/gaps?date=2026-01-05");
  });
});
