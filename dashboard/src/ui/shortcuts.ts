// Turns key presses into what they do.

import { useEffect } from "react";

import { TIMEFRAMES } from "../data/types";
import type { Desk } from "./desk";
import { type Action, actionOf } from "./keymap";
import { toggledTheme } from "./theme";

export interface Openers {
  search(): void;
  help(): void;
  pickDate(): void;
}

const PAN_SHARE = 0.15;
const ZOOM_FACTOR = 0.75;

function timeframe(desk: Desk, action: Action): void {
  const chosen = TIMEFRAMES[Number(action.slice(-1)) - 1];
  if (chosen !== undefined) desk.view.patch({ timeframe: chosen });
}

function perform(desk: Desk, action: Action, openers: Openers): void {
  const chart = desk.chart();
  const view = desk.view.get();
  const preferences = desk.preferences.get();
  const deeds: Partial<Record<Action, () => void>> = {
    pan_left: () => chart?.pan(-PAN_SHARE),
    pan_right: () => chart?.pan(PAN_SHARE),
    zoom_in: () => chart?.zoom(ZOOM_FACTOR),
    zoom_out: () => chart?.zoom(1 / ZOOM_FACTOR),
    reset: () => chart?.reset(),
    live: () => (desk.day.showing?.live ? chart?.toLive() : desk.view.patch({ date: null })),
    previous_day: () => desk.go(-1),
    next_day: () => desk.go(1),
    today: () => desk.view.patch({ date: null, page: "chart" }),
    pick_date: openers.pickDate,
    search: openers.search,
    help: openers.help,
    theme: () => desk.preferences.patch({ theme: toggledTheme(preferences.theme) }),
    style: () => desk.view.patch({ style: view.style === "line" ? "candles" : "line" }),
    sma9: () => desk.preferences.patch({ sma9: !preferences.sma9 }),
    vwap: () => desk.preferences.patch({ vwap: !preferences.vwap }),
    status: () => desk.view.patch({ page: view.page === "status" ? "chart" : "status" }),
  };
  const deed = deeds[action] ?? (() => timeframe(desk, action));
  deed();
}

const TYPING = "input:not([type=checkbox]), textarea, select, [contenteditable]";

export function useShortcuts(desk: Desk, openers: Openers): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent): void => {
      if (!desk.preferences.get().shortcuts || event.defaultPrevented) return;
      // A dialog has the page to itself.
      if (document.querySelector("dialog[open]") !== null) return;
      const target = event.target instanceof Element ? event.target : document.body;
      const action = actionOf({
        key: event.key,
        ctrlKey: event.ctrlKey,
        metaKey: event.metaKey,
        altKey: event.altKey,
        typing: target.closest(TYPING) !== null,
        arrowsTaken: target.closest("[data-arrows]") !== null,
      });
      if (action === null) return;
      event.preventDefault();
      perform(desk, action, openers);
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  });
}
