// Puts the chosen theme on the page, and tells the chart its colours.
//
// The style sheet alone knows colours; the chart, which cannot read it, is handed what it says.

import { DARK, LIGHT, type Palette } from "../chart/palette";
import type { Preferences, Theme } from "./preferences";

const prefersLight = (): MediaQueryList => matchMedia("(prefers-color-scheme: light)");

export function resolveTheme(theme: Theme, systemIsLight: boolean): "dark" | "light" {
  if (theme !== "system") return theme;
  return systemIsLight ? "light" : "dark";
}

export function applyTheme(preferences: Preferences): void {
  const root = document.documentElement;
  const theme = resolveTheme(preferences.theme, prefersLight().matches);
  root.dataset["theme"] = theme;
  root.dataset["palette"] = preferences.palette;
  const canvas = getComputedStyle(root).getPropertyValue("--panel").trim();
  for (const meta of document.querySelectorAll<HTMLMetaElement>('meta[name="theme-color"]')) {
    meta.content = canvas;
  }
}

export function onSystemTheme(listener: () => void): () => void {
  const query = prefersLight();
  query.addEventListener("change", listener);
  return () => query.removeEventListener("change", listener);
}

/** The theme after a press of the theme's key: what the eyes see changes at every press. */
export function toggledTheme(theme: Theme, systemIsLight = prefersLight().matches): Theme {
  return resolveTheme(theme, systemIsLight) === "dark" ? "light" : "dark";
}


/** `#rrggbb` with an opacity. */
export function withAlpha(color: string, alpha: number): string {
  const value = /^#([0-9a-f]{6})$/i.exec(color.trim())?.[1];
  if (value === undefined) return color;
  const part = (at: number): number => Number.parseInt(value.slice(at, at + 2), 16);
  return `rgba(${part(0)}, ${part(2)}, ${part(4)}, ${alpha})`;
}

/** The chart's colours as the style sheet has them now. */
export function chartPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const token = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const light = document.documentElement.dataset["theme"] === "light";
  const base = light ? LIGHT : DARK;
  const [up, down] = [token("up"), token("down")];
  return {
    ...base,
    background: token("panel"),
    text: token("ink-3"),
    grid: withAlpha(token("ink-3"), light ? 0.12 : 0.09),
    crosshair: token("ink-3"),
    border: token("line"),
    price: token("ink"),
    sma9: token("sma"),
    vwap: token("vwap"),
    up,
    down,
    upProvisional: withAlpha(up, 0.28),
    downProvisional: withAlpha(down, 0.28),
    upVolume: withAlpha(up, 0.4),
    downVolume: withAlpha(down, 0.4),
    superseded: token("ink-3"),
    preMarket: withAlpha(token("accent"), light ? 0.04 : 0.05),
    postMarket: withAlpha(token("vwap"), light ? 0.04 : 0.05),
  };
}
