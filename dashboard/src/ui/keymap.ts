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
