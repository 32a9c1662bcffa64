// The line at the top: what this is, how good the connection is, and what time it is in New York.
//
// Badge and clock change many times a second, so they write into their elements themselves.

import { useEffect, useRef } from "react";

import { formatTime } from "../data/newyork";
import { type BadgeKind, ageText, nextBadge } from "./badge";
import type { Desk } from "./desk";
import { useDesk } from "./desk_context";
import { Icon, Logo } from "./icons";
import { marketMoment, momentText } from "./market_time";
import { SettingsMenu } from "./settings_menu";
import { useStore } from "./store";

const CLOCK_EVERY_MS = 100;
const BADGE_EVERY_MS = 250;

const SPOKEN: Record<BadgeKind, string> = {
  connecting: "Connecting",
  live: "Live",
  delayed: "Delayed: no new prices",
  simulated: "Simulated prices",
  reconnecting: "Connection lost, reconnecting",
  closed: "The market is closed",
};

function setText(element: Element | null, text: string): void {
  if (element !== null && element.textContent !== text) element.textContent = text;
}

function useTicking(run: () => void, everyMs: number): void {
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => {
    latest.current();
    const timer = window.setInterval(() => latest.current(), everyMs);
    return () => window.clearInterval(timer);
  }, [everyMs]);
}

/** The badge for what the desk knows now; `previous` keeps it from flickering. */
function badgeOf(desk: Desk, previous: BadgeKind | null) {
  const account = desk.account.get();
  const nowMs = desk.nowMs();
  const days = desk.calendar.get()?.days ?? [];
  const phase = desk.status?.phase;
  const newestMs = desk.board.newestMs;
  const tickAgeMs = nowMs === null || newestMs === null ? null : Math.max(0, nowMs - newestMs);
  const badge = nextBadge(previous, {
    connected: phase === "open" || phase === "polling",
    wasConnected: desk.wasConnected,
    simulated: account.state === "ready" && account.me.simulated,
    speed: desk.clock.speed,
    phase: nowMs === null || days.length === 0 ? null : marketMoment(days, nowMs).phase,
    tickAgeMs,
  });
  return { badge, tickAgeMs };
}

function ConnectionBadge() {
  const desk = useDesk();
  const root = useRef<HTMLDivElement>(null);
  const kind = useRef<BadgeKind | null>(null);
  useTicking(() => {
    const element = root.current;
    if (element === null) return;
    const { badge, tickAgeMs } = badgeOf(desk, kind.current);
    const [chip, also, age, trip, spoken] = element.children;
    if (chip instanceof HTMLElement) {
      if (chip.dataset["tone"] !== badge.tone) chip.dataset["tone"] = badge.tone;
      if (chip.dataset["kind"] !== badge.kind) chip.dataset["kind"] = badge.kind;
      setText(chip.lastElementChild, badge.label);
    }
    if (also instanceof HTMLElement) also.hidden = !badge.alsoSimulated;
    const rttMs = desk.status?.rttMs ?? null;
    setText(age?.lastElementChild ?? null, ageText(tickAgeMs));
    setText(trip?.lastElementChild ?? null, rttMs === null ? "–" : `${Math.round(rttMs)} ms`);
    // Told when it turns into another one; that its seconds count up is no news.
    if (kind.current !== badge.kind) setText(spoken ?? null, SPOKEN[badge.kind]);
    kind.current = badge.kind;
  }, BADGE_EVERY_MS);
  return (
    <div ref={root} className="flex min-w-0 flex-wrap items-center gap-2" data-testid="badge">
      <span className="badge" data-tone="calm">
        <span className="dot" />
        <span>CONNECTING</span>
      </span>
      <span className="badge" data-tone="warn" hidden>
        SIMULATED
      </span>
      <span className="label hidden flex-col sm:flex" title="Age of the last tick">
        <span>Last tick</span>
        <span className="min-w-10 font-medium text-ink-2">–</span>
      </span>
      <span className="label hidden flex-col sm:flex" title="Round trip to the server">
        <span>Round trip</span>
        <span className="min-w-10 font-medium text-ink-2">–</span>
      </span>
      <span className="sr-only" role="status" />
    </div>
  );
}

function Clock() {
  const desk = useDesk();
  const time = useRef<HTMLSpanElement>(null);
  const millis = useRef<HTMLSpanElement>(null);
  const moment = useRef<HTMLSpanElement>(null);
  useTicking(() => {
    const nowMs = desk.nowMs();
    const days = desk.calendar.get()?.days ?? [];
    if (nowMs === null) return;
    const text = formatTime(nowMs, "milli");
    setText(time.current, text.slice(0, 8));
    setText(millis.current, text.slice(8));
    if (days.length > 0) setText(moment.current, momentText(marketMoment(days, nowMs), nowMs));
  }, CLOCK_EVERY_MS);
  return (
    <div className="flex flex-col items-end" role="group" aria-label="New York time">
      <span className="flex items-baseline text-base leading-5 font-semibold" data-testid="clock">
        <span ref={time}>––:––:––</span>
        <span ref={millis} className="text-ink-3">
          .–––
        </span>
        <span className="ml-1 text-2xs font-medium text-ink-3">ET</span>
      </span>
      <span ref={moment} className="label whitespace-nowrap" data-testid="countdown">
        &nbsp;
      </span>
    </div>
  );
}

interface TopBarProps {
  onSearch: () => void;
  onHelp: () => void;
}

export function TopBar({ onSearch, onHelp }: TopBarProps) {
  const desk = useDesk();
  const { page } = useStore(desk.view);
  const toggle = page === "status" ? "chart" : "status";
  return (
    <header className="flex flex-wrap items-center gap-x-4 gap-y-2 border-b border-line bg-panel px-3 py-2 md:h-12 md:flex-nowrap md:py-0">
      <a href="./" className="flex items-center gap-2 rounded-sm" aria-label="Alpha Kite Max, home">
        <Logo />
        <span className="text-base font-semibold tracking-[-0.01em]">
          Alpha Kite <span className="text-ink-3">Max</span>
        </span>
      </a>
      <button
        type="button"
        className="hidden h-8 w-44 items-center gap-2 rounded-md border border-line bg-canvas px-2 text-xs text-ink-3 hover:border-edge md:flex"
        onClick={onSearch}
      >
        <Icon name="search" size={14} />
        <span className="flex-1 text-left">Search ticker</span>
        <kbd className="key">/</kbd>
      </button>
      <div className="flex-1" />
      <div className="order-2 flex w-full flex-wrap items-center justify-between gap-x-4 gap-y-1 md:order-none md:w-auto md:flex-nowrap">
        <ConnectionBadge />
        <span className="hidden h-6 w-px bg-line md:block" />
        <Clock />
      </div>
      <nav className="-mr-1 flex items-center" aria-label="Tools">
        <button type="button" className="quiet square md:hidden!" aria-label="Search ticker" onClick={onSearch}>
          <Icon name="search" />
        </button>
        <button
          type="button"
          className="quiet square"
          aria-label={page === "status" ? "Back to the chart" : "Status of the services"}
          title={page === "status" ? "Back to the chart (H)" : "Status of the services (H)"}
          aria-current={page === "status" ? "page" : undefined}
          onClick={() => desk.view.patch({ page: toggle })}
        >
          <Icon name={page === "status" ? "chart" : "pulse"} />
        </button>
        <SettingsMenu />
        <button
          type="button"
          className="quiet square"
          aria-label="Keyboard shortcuts"
          title="Keyboard shortcuts (?)"
          onClick={onHelp}
        >
          <Icon name="keyboard" />
        </button>
      </nav>
    </header>
  );
}

/** The badge's text for tests: what a viewer reads. */
export function badgeText(): string {
  const root = document.querySelector('[data-testid="badge"]');
  const [chip, also] = root?.children ?? [];
  const label = chip?.lastElementChild?.textContent ?? "";
  return also instanceof HTMLElement && !also.hidden ? `${label} SIMULATED` : label;
}
