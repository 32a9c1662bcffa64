// What the page is about, without the page: which day of what is shown, its data, and the clock.
//
// Components read its stores and call its methods; they know neither the source nor the chart. The
// chart is attached when its element exists, and told everything again then.

import { ChartEngine, type EngineEvents, type Look, type Showing } from "../chart/engine";
import type { Palette } from "../chart/palette";
import type { Mode } from "../chart/view";
import { BrokerClock } from "../data/clock";
import { addDays, dateAt } from "../data/newyork";
import { SourceError, type ConnectionStatus, type DataSource } from "../data/source";
import type { Me, Sessions, Signal, TickerRow, Timeframe } from "../data/types";
import { Announcer } from "./announcer";
import { adjacentDay, findDay, latestDay, whyEmpty } from "./days";
import { DayView } from "./day_view";
import type { Preferences } from "./preferences";
import { QuoteBoard } from "./quote_board";
import { SignalList } from "./signal_list";
import { createStore, type Store } from "./store";

export interface View {
  page: "chart" | "status";
  ticker: string | null;
  /** A New York date, or null for the latest trading day, whichever that is. */
  date: string | null;
  timeframe: Timeframe;
  style: "candles" | "line";
  extras: readonly string[];
}

export type Account =
  | { state: "asking" }
  | { state: "away"; message: string }
  | { state: "login"; me: Me }
  | { state: "ready"; me: Me };

const TICKERS_EVERY_MS = 60_000;
const CALENDAR_EVERY_MS = 600_000;
const CALENDAR_AGAIN_MS = 5_000;
/** After so long without a connection: perhaps it is the login that is missing. */
const ACCOUNT_AFTER_MS = 8_000;
const OLD_DAYS_MAX = 1_400;
const ASK_AGAIN_MS = 3_000;
const HIDDEN_HZ = 1;

export class Desk {
  readonly account = createStore<Account>({ state: "asking" });
  readonly calendar = createStore<Sessions | null>(null);
  readonly mode = createStore<Mode>("follow");
  readonly board = new QuoteBoard();
  readonly clock = new BrokerClock();
  readonly announcer: Announcer;
  readonly day: DayView;
  readonly signals: SignalList;
  status: ConnectionStatus | null = null;
  wasConnected = false;
  private engine: ChartEngine | null = null;
  private opened = "";
  private centreMs: number | null = null;
  private timer = 0;
  /** The old day that the calendar was last asked for. */
  private reaching = "";
  private hasShown = false;
  private calendarDueMs = 0;
  private accountDueMs = 0;

  constructor(
    readonly source: DataSource,
    readonly view: Store<View>,
    readonly preferences: Store<Preferences>,
    /** Where the address puts the first view. */
    readonly firstRange: { from_ms: number; to_ms: number } | null = null,
  ) {
    this.announcer = new Announcer(preferences, (signal) => this.centre(signal));
    this.day = new DayView(source, {
      onShow: (showing) => this.show(showing),
      onChange: () => this.engine?.invalidate(),
      onGaps: (gaps) => this.engine?.setGaps(gaps),
      onUnauthorized: () => void this.start(),
    });
    this.signals = new SignalList(source, {
      onChange: () => this.engine?.setSignals(this.markers()),
      onNew: (signals) => this.announcer.announce(signals),
    });
    view.subscribe(() => this.reopen());
    preferences.subscribe(() => this.engine?.setLook(this.look()));
    source.onStatus((status) => {
      this.status = status;
      this.wasConnected ||= this.connected();
      if (this.connected()) this.accountDueMs = 0;
    });
    source.onBeat((beat, atMs) => this.heard(beat.broker_ms, beat.speed, atMs));
    document.addEventListener("visibilitychange", () => this.adjustRate());
  }

  // --- Coming in -------------------------------------------------------------------------------

  async start(): Promise<void> {
    window.clearTimeout(this.timer);
    try {
      const me = await this.source.me();
      if (me.auth === "password" && !me.authenticated && !me.public_market) {
        this.account.set({ state: "login", me });
        return;
      }
      await this.loadCommon();
      this.account.set({ state: "ready", me });
      this.keepCurrent();
      this.opened = "";
      this.reopen();
    } catch (error) {
      this.away(error);
    }
  }

  async login(password: string): Promise<void> {
    await this.source.login(password);
    await this.start();
  }

  async logout(): Promise<void> {
    await this.source.logout();
    this.day.close();
    this.signals.close();
    await this.start();
  }

  /** Shows the way in to who looks at a public market without being somebody. */
  askLogin(): void {
    const account = this.account.get();
    if (account.state === "ready") this.account.set({ state: "login", me: account.me });
  }

  /** Whether there is a login that this viewer has not made. */
  mayLogin(): boolean {
    const account = this.account.get();
    return account.state === "ready" && account.me.auth === "password" && !account.me.authenticated;
  }

  private connected(): boolean {
    return this.status?.phase === "open" || this.status?.phase === "polling";
  }

  /** A gateway that was started anew knows nobody: ask who we are, and begin again if need be. */
  private async checkAccount(): Promise<void> {
    const account = this.account.get();
    if (account.state !== "ready" || this.connected()) return;
    if (this.accountDueMs === 0) this.accountDueMs = Date.now() + ACCOUNT_AFTER_MS;
    if (Date.now() < this.accountDueMs) return;
    this.accountDueMs = Date.now() + ACCOUNT_AFTER_MS;
    try {
      const me = await this.source.me();
      if (me.authenticated !== account.me.authenticated) await this.start();
    } catch {
      // It is away, as the badge says; asked again soon.
    }
  }

  private async loadCommon(): Promise<void> {
    const [calendar, tickers, clock] = await Promise.all([
      this.source.sessions(),
      this.source.tickers(),
      this.source.clock(),
    ]);
    this.heard(clock.broker_ms, clock.speed, Date.now());
    this.calendar.set(calendar);
    this.takeTickers(tickers);
  }

  private takeTickers(tickers: TickerRow[]): void {
    this.board.setTickers(tickers);
    const first = tickers[0]?.ticker ?? null;
    if (this.view.get().ticker === null && first !== null) this.view.patch({ ticker: first });
  }

  private away(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    const waitMs = (error instanceof SourceError && error.retryAfterMs) || ASK_AGAIN_MS;
    this.account.set({ state: "away", message });
    this.timer = window.setTimeout(() => void this.start(), waitMs);
  }

  private keepCurrent(): void {
    this.source.subscribe(
      { channel: "quotes" },
      {
        onQuotes: (quotes) => {
          for (const ticker in quotes) {
            const quote = quotes[ticker];
            if (quote !== undefined) this.board.quote(ticker, quote);
          }
        },
      },
    );
    this.keepCurrent = () => undefined; // Once is enough, however often somebody logs in.
    window.setInterval(() => void this.refreshTickers(), TICKERS_EVERY_MS);
    window.setInterval(() => this.checkDate(), 1000);
    window.setInterval(() => void this.checkAccount(), 1000);
  }

  private async refreshTickers(): Promise<void> {
    try {
      this.takeTickers(await this.source.tickers());
    } catch (error) {
      console.warn("tickers:", error); // The badge tells the viewer; the next minute asks again.
    }
  }

  /** A new day may begin while somebody watches; and earlier ones may be corrected. */
  private checkDate(): void {
    const now = this.nowMs();
    const calendar = this.calendar.get();
    // Without a connection nobody knows the day, and what is on the screen stays.
    if (now === null || calendar === null || !this.connected()) return;
    const local = Date.now();
    if (local < this.calendarDueMs && dateAt(now) === calendar.today) return;
    if (local < this.calendarDueMs - CALENDAR_EVERY_MS + CALENDAR_AGAIN_MS) return;
    this.calendarDueMs = local + CALENDAR_EVERY_MS;
    void this.refreshCalendar();
  }

  private async refreshCalendar(): Promise<void> {
    try {
      this.putCalendar(await this.source.sessions());
      this.reopen();
    } catch (error) {
      console.warn("sessions:", error); // Asked again after a few seconds.
      this.calendarDueMs = Date.now() + CALENDAR_AGAIN_MS;
    }
  }

  /** Keeps the older days that were asked for before. */
  private putCalendar(found: Sessions): void {
    const first = found.days[0]?.date ?? "";
    const older = this.calendar.get()?.days.filter((day) => day.date < first) ?? [];
    this.calendar.set({ ...found, days: [...older, ...found.days] });
  }

  /** Brings the calendar back to a day before its first one. */
  private async reach(date: string): Promise<void> {
    const first = this.calendar.get()?.days[0]?.date;
    if (first === undefined || date >= first || this.reaching === date) return;
    this.reaching = date;
    const from = addDays(date, -40);
    const far = addDays(from, OLD_DAYS_MAX);
    try {
      const to = addDays(first, -1);
      const found = await this.source.sessions(from, to < far ? to : far);
      const calendar = this.calendar.get();
      if (calendar === null) return;
      const older = found.days.filter((day) => day.date < first);
      this.calendar.set({ ...calendar, days: [...older, ...calendar.days] });
      this.reopen();
    } catch (error) {
      console.warn("sessions:", error); // The day itself is shown; only its neighbours are unknown.
    }
  }

  private heard(brokerMs: number | null, speed: number, atMs: number): void {
    if (brokerMs !== null) this.clock.set(brokerMs, speed, atMs);
  }

  private adjustRate(): void {
    // The server's own rate: 10 a second live, 20 when the market is played faster.
    const hz = document.hidden ? HIDDEN_HZ : this.clock.speed > 1 ? 20 : 10;
    this.source.setRate(hz);
    if (!document.hidden) this.engine?.invalidate();
  }

  // --- What is shown ---------------------------------------------------------------------------

  nowMs(): number | null {
    return this.clock.nowMs(Date.now());
  }

  /** The date on the screen. */
  date(): string | null {
    const calendar = this.calendar.get();
    const chosen = this.view.get().date;
    if (calendar === null) return chosen;
    return chosen ?? latestDay(calendar.days, calendar.today);
  }

  go(step: -1 | 1): void {
    const calendar = this.calendar.get();
    const date = this.date();
    if (calendar === null || date === null) return;
    const found = adjacentDay(calendar.days, date, step, calendar.today);
    if (found !== null) this.goTo(found);
  }

  goTo(date: string): void {
    const calendar = this.calendar.get();
    const isLatest = calendar !== null && date === latestDay(calendar.days, calendar.today);
    this.view.patch({ page: "chart", date: isLatest ? null : date });
  }

  /** Puts a signal into the middle of the chart, whatever is on it now. */
  centre(signal: Signal): void {
    const { ticker } = this.view.get();
    this.centreMs = signal.ts_ms;
    if (ticker !== signal.ticker || this.date() !== dateAt(signal.ts_ms)) {
      this.goTo(dateAt(signal.ts_ms));
      this.view.patch({ ticker: signal.ticker });
    } else {
      this.view.patch({ page: "chart" });
      this.centreNow();
    }
  }

  private reopen(): void {
    const { ticker, timeframe } = this.view.get();
    const calendar = this.calendar.get();
    const date = this.date();
    this.engine?.setLook(this.look());
    if (this.account.get().state !== "ready" || calendar === null || date === null) return;
    if (ticker === null) return this.day.openEmpty("No tickers yet");
    const live = date === calendar.today;
    const wanted = JSON.stringify([ticker, date, timeframe, live]);
    if (wanted === this.opened) return;
    const [, before, , wasLive] = this.opened === "" ? [] : (JSON.parse(this.opened) as unknown[]);
    this.opened = wanted;
    void this.reach(date);
    if (before !== date || wasLive !== live) this.signals.open(date, live);
    const reason = whyEmpty(findDay(calendar.days, date), date, calendar.today);
    if (reason !== null) this.day.openEmpty(reason);
    else this.day.open({ ticker, date, timeframe, live });
  }

  markers(): Signal[] {
    const { ticker } = this.view.get();
    return this.signals.signals.get().filter((signal) => signal.ticker === ticker);
  }

  // --- The chart -------------------------------------------------------------------------------

  attach(host: HTMLElement, palette: Palette, events: EngineEvents): () => void {
    const engine = new ChartEngine(host, palette, {
      ...events,
      onMode: (mode) => this.mode.set(mode),
    });
    this.engine = engine;
    engine.setLook(this.look());
    if (this.day.showing !== null) this.show(this.day.showing);
    return () => {
      this.engine = null;
      engine.destroy();
    };
  }

  chart(): ChartEngine | null {
    return this.engine;
  }

  private show(showing: Showing): void {
    const { engine } = this;
    if (engine === null) return;
    engine.setSignals(this.markers());
    engine.setGaps(this.day.gaps.get() ?? []);
    engine.show(showing, this.hasShown ? null : this.firstRange);
    this.hasShown = true;
    this.mode.set(engine.mode());
    this.centreNow();
  }

  private centreNow(): void {
    if (this.centreMs === null || this.engine === null) return;
    this.engine.centre(this.centreMs);
    this.centreMs = null;
  }

  private look(): Look {
    const { style, extras } = this.view.get();
    const { sma9, vwap, volume } = this.preferences.get();
    return { style, sma9, vwap, volume, extras };
  }
}
