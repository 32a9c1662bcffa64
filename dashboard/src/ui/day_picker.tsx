// Which day is shown: one back, one forward, or picked from a month that knows its holidays.

import { lazy, Suspense } from "react";

import { adjacentDay, shortDate } from "./days";
import { useDesk } from "./desk_context";
import { Icon } from "./icons";
import { Dropdown } from "./dropdown";
import { useStore } from "./store";

const Month = lazy(() => import("./month"));

interface DayPickerProps {
  open: boolean;
  onOpen: (open: boolean) => void;
}

export function DayPicker({ open, onOpen }: DayPickerProps) {
  const desk = useDesk();
  const calendar = useStore(desk.calendar);
  useStore(desk.view);
  const date = desk.date();
  if (calendar === null || date === null) return <div className="bone h-7 w-48" />;
  const has = (step: -1 | 1): boolean =>
    adjacentDay(calendar.days, date, step, calendar.today) !== null;
  return (
    <div className="flex items-center" role="group" aria-label="Trading day">
      <button
        type="button"
        className="quiet square"
        aria-label="Previous trading day"
        title="Previous trading day ([)"
        disabled={!has(-1)}
        onClick={() => desk.go(-1)}
      >
        <Icon name="left" />
      </button>
      <Dropdown
        label="Pick a day (G)"
        withText
        align="wide_right"
        open={open}
        onOpen={onOpen}
        buttonClass="quiet text-ink! outlined"
        button={
          <>
            <Icon name="calendar" size={14} />
            <time dateTime={date} data-testid="date">
              {shortDate(date)}
            </time>
          </>
        }
      >
        {(close) => (
          <Suspense fallback={<div className="h-72 w-[284px]" />}>
            <Month
              calendar={calendar}
              date={date}
              onPick={(picked) => {
                close();
                if (picked === calendar.today) desk.view.patch({ date: null, page: "chart" });
                else desk.goTo(picked);
              }}
            />
          </Suspense>
        )}
      </Dropdown>
      <button
        type="button"
        className="quiet square"
        aria-label="Next trading day"
        title="Next trading day (])"
        disabled={!has(1)}
        onClick={() => desk.go(1)}
      >
        <Icon name="right" />
      </button>
    </div>
  );
}
