// What this viewer likes, kept in this browser. Anything unreadable counts as never set.

import { createStore, type Store } from "./store";

export const THEMES = ["system", "dark", "light"] as const;
export type Theme = (typeof THEMES)[number];
export type Palette = "green_red" | "blue_orange";

export interface Preferences {
  theme: Theme;
  palette: Palette;
  sound: boolean;
  notifications: boolean;
  shortcuts: boolean;
  /** Which of the standing lines the chart draws. */
  sma9: boolean;
  vwap: boolean;
  volume: boolean;
}

type Flag = "sound" | "notifications" | "shortcuts" | "sma9" | "vwap" | "volume";

export const DEFAULTS: Preferences = {
  theme: "system",
  palette: "green_red",
  sound: false,
  notifications: false,
  shortcuts: true,
  sma9: true,
  vwap: true,
  volume: true,
};

const KEY = "kite.preferences";

/** Takes from stored text what is well-formed, and the default for everything else. */
export function parsePreferences(text: string | null): Preferences {
  let found: Partial<Record<keyof Preferences, unknown>> = {};
  try {
    const parsed: unknown = JSON.parse(text ?? "{}");
    if (typeof parsed === "object" && parsed !== null) found = parsed;
  } catch {
    return DEFAULTS; // Somebody else's text: the next change writes ours over it.
  }
  const flag = (key: Flag): boolean =>
    typeof found[key] === "boolean" ? found[key] : DEFAULTS[key];
  return {
    theme: THEMES.find((theme) => theme === found.theme) ?? DEFAULTS.theme,
    palette: found.palette === "blue_orange" ? "blue_orange" : DEFAULTS.palette,
    sound: flag("sound"),
    notifications: flag("notifications"),
    shortcuts: flag("shortcuts"),
    sma9: flag("sma9"),
    vwap: flag("vwap"),
    volume: flag("volume"),
  };
}

export function openPreferences(): Store<Preferences> {
  const store = createStore(parsePreferences(read()));
  store.subscribe(() => write(JSON.stringify(store.get())));
  return store;
}

function read(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // A browser may forbid storage; then nothing is kept.
  }
}

function write(text: string): void {
  try {
    localStorage.setItem(KEY, text);
  } catch {
    // See read(): the choice holds until the page is left.
  }
}
