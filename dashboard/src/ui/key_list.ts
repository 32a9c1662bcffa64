// The keys for people; `keymap.ts` is the same for the page.

/** The keys as the help shows them, in groups. */
export const HELP: { title: string; keys: [keys: string[], what: string][] }[] = [
  {
    title: "Chart",
    keys: [
      [["←", "→"], "Pan"],
      [["+", "−"], "Zoom in, zoom out"],
      [["0", "R"], "Show the whole day"],
      [["L"], "Back to live"],
      [["C"], "Candles or line"],
      [["S"], "SMA9 on, off"],
      [["V"], "VWAP on, off"],
      [["1", "…", "5"], "Tick, 1m, 5m, 15m, 1h"],
    ],
  },
  {
    title: "Where to look",
    keys: [
      [["/"], "Search a ticker"],
      [["[", "]"], "Previous, next trading day"],
      [["D"], "Latest trading day"],
      [["G"], "Go to a date"],
      [["H"], "Health of the services"],
      [["T"], "Dark or light"],
      [["?"], "This list"],
      [["Esc"], "Close what is open"],
    ],
  },
];
