// Above the chart: whose prices these are, of which day, and how they are drawn.

import { TIMEFRAMES, type Timeframe } from "../data/types";
import { DayPicker } from "./day_picker";
import { findDay } from "./days";
import { useDesk } from "./desk_context";
import { Icon } from "./icons";
import { Dropdown } from "./dropdown";
import { useStore } from "./store";
import { useQuote } from "./watchlist";

const TIMEFRAME_NAMES: Record<Timeframe, string> = {
  tick: "Tick",
  "1m": "1m",
  "5m": "5m",
  "15m": "15m",
  "1h": "1h",
};

interface PickingProps {
  picking: boolean;
  onPicking: (open: boolean) => void;
}

function Quote({ ticker }: { ticker: string }) {
  const { last, change, percent } = useQuote(ticker, false);
  return (
    <p className="flex items-baseline gap-2 whitespace-nowrap" data-testid="quote">
      <span ref={last} className="text-lg font-semibold" />
      <span ref={change} className="text-xs font-medium" />
      <span ref={percent} className="text-xs font-medium" />
    </p>
  );
}

export function ChartHeader({ picking, onPicking }: PickingProps) {
  const desk = useDesk();
  const { ticker } = useStore(desk.view);
  const calendar = useStore(desk.calendar);
  const date = desk.date();
  const day = calendar !== null && date !== null ? findDay(calendar.days, date) : null;
  const isToday = calendar !== null && date === calendar.today;
  return (
    <div className="flex flex-wrap items-center gap-x-3 gap-y-2 px-3 pt-2 pb-1">
      <h1 className="text-lg font-semibold tracking-[-0.01em]">{ticker ?? "–"}</h1>
      {ticker !== null && isToday && <Quote key={ticker} ticker={ticker} />}
      {calendar !== null && !isToday && <span className="tag">Past session</span>}
      {day?.kind === "half" && (
        <span className="tag" data-tone="warn">
          Half day{day.name === null ? "" : `: ${day.name}`}
        </span>
      )}
      <div className="hidden flex-1 sm:block" />
      <div className="-ml-2 flex w-full items-center justify-between sm:mr-0 sm:w-auto">
        <DayPicker open={picking} onOpen={onPicking} />
        <Styles className="-mr-2 inline-flex sm:hidden" />
      </div>
    </div>
  );
}

function Timeframes() {
  const desk = useDesk();
  const { timeframe } = useStore(desk.view);
  return (
    <div
      role="group"
      aria-label="Timeframe"
      className="segments"
    >
      {TIMEFRAMES.map((each, index) => (
        <button
          key={each}
          type="button"
          aria-pressed={each === timeframe}
          title={`${TIMEFRAME_NAMES[each]} (${index + 1})`}
          onClick={() => desk.view.patch({ timeframe: each })}
        >
          {TIMEFRAME_NAMES[each]}
        </button>
      ))}
    </div>
  );
}

function Styles({ className }: { className: string }) {
  const desk = useDesk();
  const { style, timeframe } = useStore(desk.view);
  // Ticks are always a line.
  const shown = timeframe === "tick" ? "line" : style;
  return (
    <div role="group" aria-label="Style" className={className}>
      {(["candles", "line"] as const).map((each) => (
        <button
          key={each}
          type="button"
          className="quiet square"
          aria-label={each === "candles" ? "Candles" : "Line"}
          title={each === "candles" ? "Candles (C)" : "Line (C)"}
          aria-pressed={each === shown}
          disabled={timeframe === "tick"}
          onClick={() => desk.view.patch({ style: each })}
        >
          <Icon name={each} />
        </button>
      ))}
    </div>
  );
}

interface ToggleProps {
  label: string;
  color: string;
  on: boolean;
  title: string;
  onChange: (on: boolean) => void;
}

function Toggle({ label, color, on, title, onChange }: ToggleProps) {
  return (
    <button
      type="button"
      className="quiet gap-1.5! px-1.5! sm:px-2! aria-[pressed=true]:bg-transparent!"
      aria-pressed={on}
      title={title}
      onClick={() => onChange(!on)}
    >
      <span className={`h-0.5 w-2 rounded-full sm:w-3 ${on ? color : "bg-edge"}`} />
      <span className={on ? "" : "text-ink-3"}>{label}</span>
    </button>
  );
}

function Extras() {
  const desk = useDesk();
  const { extras } = useStore(desk.view);
  const available = useStore(desk.day.extras);
  if (available.length === 0) return null;
  const chosen = extras.filter((name) => available.includes(name));
  const set = (name: string, on: boolean): void => {
    const others = extras.filter((each) => each !== name);
    desk.view.patch({ extras: on ? [...others, name] : others });
  };
  return (
    <Dropdown
      label="More indicators"
      withText
      align="right"
      button={<>More{chosen.length > 0 && <span className="tag">{chosen.length}</span>}</>}
    >
      {() => (
        <fieldset className="flex max-h-72 w-52 flex-col overflow-y-auto p-2">
          <legend className="sr-only">More indicators</legend>
          {available.map((name) => (
            <label
              key={name}
              className="flex h-8 cursor-pointer items-center gap-2 rounded-md px-2 text-sm hover:bg-raised"
            >
              <input
                type="checkbox"
                className="h-4 w-4 accent-(--accent)"
                checked={extras.includes(name)}
                onChange={(event) => set(name, event.target.checked)}
              />
              {name.replaceAll("_", " ")}
            </label>
          ))}
        </fieldset>
      )}
    </Dropdown>
  );
}

export function ChartToolbar() {
  const desk = useDesk();
  const { timeframe } = useStore(desk.view);
  const { sma9, vwap, volume } = useStore(desk.preferences);
  const bars = timeframe !== "tick";
  return (
    <div className="flex flex-wrap items-center gap-x-2 gap-y-1 px-3 pb-2" role="toolbar" aria-label="Chart">
      <Timeframes />
      <Styles className="hidden sm:inline-flex" />
      <span className="hidden h-4 w-px bg-line sm:block" />
      <div role="group" aria-label="Indicators" className="inline-flex">
        <Toggle
          label="SMA9"
          color="bg-sma"
          on={sma9}
          title="Mean of the last 9 closes (S)"
          onChange={(on) => desk.preferences.patch({ sma9: on })}
        />
        <Toggle
          label="VWAP"
          color="bg-vwap"
          on={vwap}
          title="Volume-weighted average price of the session (V)"
          onChange={(on) => desk.preferences.patch({ vwap: on })}
        />
        {bars && (
          <span className="hidden sm:block">
            <Toggle
              label="Volume"
              color="bg-ink-3"
              on={volume}
              title="Volume"
              onChange={(on) => desk.preferences.patch({ volume: on })}
            />
          </span>
        )}
        <Extras />
      </div>
    </div>
  );
}
