// A month to pick a day from: it knows sessions, half days and holidays, and is walked with the keys.

import { useEffect, useRef, useState } from "react";

import { addDays } from "../data/newyork";
import type { Sessions } from "../data/types";
import { addMonths, type Cell, monthTitle, monthWeeks } from "./days";
import { Icon } from "./icons";

const WEEKDAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const STEPS: Record<string, number> = {
  ArrowLeft: -1,
  ArrowRight: 1,
  ArrowUp: -7,
  ArrowDown: 7,
};

interface MonthProps {
  calendar: Sessions;
  date: string;
  onPick: (date: string) => void;
}

function DayButton({ cell, shown, today, focused, onPick }: {
  cell: Cell;
  shown: boolean;
  today: boolean;
  focused: boolean;
  onPick: (date: string) => void;
}) {
  const kind = cell.day?.kind;
  const look = shown
    ? "bg-accent text-accent-ink font-semibold"
    : cell.selectable
      ? "text-ink hover:bg-raised"
      : kind === "holiday"
        ? "text-down"
        : "text-ink-3";
  return (
    <button
      type="button"
      data-date={cell.date}
      tabIndex={focused ? 0 : -1}
      aria-label={cell.label}
      aria-current={shown ? "date" : undefined}
      aria-disabled={!cell.selectable}
      title={cell.day?.name ?? (kind === "half" ? "Half day" : undefined)}
      className={`relative flex h-8 w-9 items-center justify-center rounded-md text-xs ${look} ${
        cell.selectable ? "" : "cursor-default!"
      } ${today && !shown ? "ring-1 ring-edge ring-inset" : ""}`}
      onClick={() => cell.selectable && onPick(cell.date)}
    >
      {Number(cell.date.slice(8))}
      {kind === "half" && (
        <span className="absolute bottom-1 h-0.5 w-2 rounded-full bg-current" aria-hidden="true" />
      )}
    </button>
  );
}

export default function Month({ calendar, date, onPick }: MonthProps) {
  const [focus, setFocus] = useState(date);
  const grid = useRef<HTMLTableElement>(null);
  const month = focus.slice(0, 7);
  const weeks = monthWeeks(month, calendar.days, calendar.today);
  const first = calendar.days[0]?.date.slice(0, 7) ?? month;
  const lastMonth = calendar.days.at(-1)?.date.slice(0, 7) ?? month;
  const wantsFocus = useRef(true);
  useEffect(() => {
    if (!wantsFocus.current) return;
    grid.current?.querySelector<HTMLElement>(`[data-date="${focus}"]`)?.focus();
    wantsFocus.current = false;
  });
  const turn = (months: number): void => setFocus(`${addMonths(month, months)}-01`);
  const onKeyDown = (event: React.KeyboardEvent): void => {
    const step = STEPS[event.key];
    const next =
      step !== undefined
        ? addDays(focus, step)
        : event.key === "PageUp"
          ? `${addMonths(month, -1)}-01`
          : event.key === "PageDown"
            ? `${addMonths(month, 1)}-01`
            : null;
    if (next === null) return;
    event.preventDefault();
    if (next.slice(0, 7) < first || next.slice(0, 7) > lastMonth) return;
    wantsFocus.current = true;
    setFocus(next);
  };
  return (
    <div className="w-[284px] p-4 pt-3">
      <div className="flex items-center justify-between pb-2">
        <button
          type="button"
          className="quiet square"
          aria-label="Previous month"
          disabled={month <= first}
          onClick={() => turn(-1)}
        >
          <Icon name="left" />
        </button>
        <span className="text-sm font-semibold" aria-live="polite">
          {monthTitle(month)}
        </span>
        <button
          type="button"
          className="quiet square"
          aria-label="Next month"
          disabled={month >= lastMonth}
          onClick={() => turn(1)}
        >
          <Icon name="right" />
        </button>
      </div>
      <table ref={grid} data-arrows onKeyDown={onKeyDown}>
        <caption className="sr-only">{monthTitle(month)}</caption>
        <thead>
          <tr>
            {WEEKDAYS.map((name) => (
              <th key={name} scope="col" className="label h-6 w-9 text-center">
                <abbr title={name} className="no-underline">
                  {name.slice(0, 2)}
                </abbr>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {weeks.map((week) => (
            <tr key={week[0]?.date}>
              {week.map((cell) => (
                <td key={cell.date} className="p-0">
                  {cell.inMonth && (
                    <DayButton
                      cell={cell}
                      shown={cell.date === date}
                      today={cell.date === calendar.today}
                      focused={cell.date === focus}
                      onPick={onPick}
                    />
                  )}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      <p className="label flex items-center gap-4 pt-3">
        <span className="flex items-center gap-1">
          <span className="text-down">4</span> closed
        </span>
        <span className="flex items-center gap-1">
          <span className="h-0.5 w-2 rounded-full bg-ink-2" /> half day
        </span>
        <span className="flex-1" />
        <button type="button" className="quiet h-6!" onClick={() => onPick(calendar.today)}>
          Latest
        </button>
      </p>
    </div>
  );
}
