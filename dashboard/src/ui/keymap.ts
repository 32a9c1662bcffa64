// Which key does what. Pure: from a key press to the name of an action.

export type Action =
  | "pan_left"
  | "pan_right"
  | "zoom_in"
  | "zoom_out"
  | "reset"
  | "live"
  | "previous_day"
  | "next_day"
  | "today"
  | "pick_date"
  | "search"
  | "help"
  | "theme"
  | "style"
  | "sma9"
  | "vwap"
  | "status"
  | "timeframe_1"
  | "timeframe_2"
  | "timeframe_3"
  | "timeframe_4"
  | "timeframe_5";

export interface Press {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  /** The element that has the focus takes text, or uses the arrow keys itself. */
  typing: boolean;
  arrowsTaken: boolean;
}

const ARROWS = new Set(["ArrowLeft", "ArrowRight"]);

const ACTIONS: Record<string, Action> = {
  ArrowLeft: "pan_left",
  ArrowRight: "pan_right",
  "+": "zoom_in",
  "=": "zoom_in",
  "-": "zoom_out",
  _: "zoom_out",
  "0": "reset",
  r: "reset",
  l: "live",
  "[": "previous_day",
  "]": "next_day",
  d: "today",
  g: "pick_date",
  "/": "search",
  "?": "help",
  t: "theme",
  c: "style",
  s: "sma9",
  v: "vwap",
  h: "status",
  "1": "timeframe_1",
  "2": "timeframe_2",
  "3": "timeframe_3",
  "4": "timeframe_4",
  "5": "timeframe_5",
};

export function actionOf(press: Press): Action | null {
  if (press.typing || press.ctrlKey || press.metaKey || press.altKey) return null;
  if (ARROWS.has(press.key) && press.arrowsTaken) return null;
  const key = press.key.length === 1 ? press.key.toLowerCase() : press.key;
  return Object.hasOwn(ACTIONS, key) ? (ACTIONS[key] ?? null) : null;
}

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
