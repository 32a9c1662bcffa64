/**
 * The colours of the chart, light and dark.
 *
 * Up and down differ in hue for every kind of colour vision (blue against orange), and wherever
 * they matter also in shape or fill. Canvas cannot read style sheets, so the colours are handed
 * over here.
 */

export interface Palette {
  background: string;
  text: string;
  grid: string;
  crosshair: string;
  border: string;
  price: string;
  sma9: string;
  vwap: string;
  up: string;
  down: string;
  /** Bodies of the candle that is still being made. */
  upProvisional: string;
  downProvisional: string;
  upVolume: string;
  downVolume: string;
  /** Markers of signals that a correction took back. */
  superseded: string;
  preMarket: string;
  postMarket: string;
  gapOpen: string;
  gapFilled: string;
  gapUnfillable: string;
  extras: readonly string[];
}

export const DARK: Palette = {
  background: "#0b0f17",
  text: "#a7b0c0",
  grid: "rgba(148, 163, 184, 0.09)",
  crosshair: "#64748b",
  border: "#1f2937",
  price: "#e2e8f0",
  sma9: "#fbbf24",
  vwap: "#c084fc",
  up: "#38bdf8",
  down: "#fb923c",
  upProvisional: "rgba(56, 189, 248, 0.28)",
  downProvisional: "rgba(251, 146, 60, 0.28)",
  upVolume: "rgba(56, 189, 248, 0.45)",
  downVolume: "rgba(251, 146, 60, 0.45)",
  superseded: "#64748b",
  preMarket: "rgba(96, 165, 250, 0.07)",
  postMarket: "rgba(168, 85, 247, 0.07)",
  gapOpen: "#facc15",
  gapFilled: "#2dd4bf",
  gapUnfillable: "#f43f5e",
  extras: ["#34d399", "#f472b6", "#a3e635", "#22d3ee", "#fda4af", "#818cf8"],
};

export const LIGHT: Palette = {
  background: "#ffffff",
  text: "#475569",
  grid: "rgba(71, 85, 105, 0.10)",
  crosshair: "#94a3b8",
  border: "#e2e8f0",
  price: "#0f172a",
  sma9: "#b45309",
  vwap: "#7e22ce",
  up: "#0369a1",
  down: "#c2410c",
  upProvisional: "rgba(3, 105, 161, 0.22)",
  downProvisional: "rgba(194, 65, 12, 0.22)",
  upVolume: "rgba(3, 105, 161, 0.38)",
  downVolume: "rgba(194, 65, 12, 0.38)",
  superseded: "#94a3b8",
  preMarket: "rgba(37, 99, 235, 0.06)",
  postMarket: "rgba(126, 34, 206, 0.06)",
  gapOpen: "#ca8a04",
  gapFilled: "#0d9488",
  gapUnfillable: "#e11d48",
  extras: ["#047857", "#be185d", "#4d7c0f", "#0e7490", "#9f1239", "#4338ca"],
};
