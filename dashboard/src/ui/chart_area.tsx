// Where the chart lives, and what stands there while there is none: a skeleton, a reason, an error.
//
// The chart is a picture to a screen reader; the tables beside it hold signals and newest prices.

import { useEffect, useRef } from "react";

import { longDate } from "./days";
import { useDesk } from "./desk_context";
import { Icon } from "./icons";
import { useStore } from "./store";
import { chartPalette } from "./theme";

const HEIGHTS = [38, 44, 41, 52, 47, 58, 66, 60, 71, 64, 57, 61, 69, 78, 72, 80, 76, 84, 79, 88];

function Skeleton() {
  return (
    <div className="absolute inset-0 flex items-end gap-2 px-4 pt-12 pb-10" role="status">
      <span className="sr-only">Loading the day</span>
      {HEIGHTS.map((height, index) => (
        <span key={index} className="bone flex-1" style={{ height: `${height}%` }} />
      ))}
    </div>
  );
}

interface NoticeProps {
  title: string;
  detail: string;
  children?: React.ReactNode;
}

export function Notice({ title, detail, children }: NoticeProps) {
  return (
    <div className="absolute inset-0 flex flex-col items-center justify-center gap-1 px-6 text-center">
      <p className="text-base font-semibold text-ink">{title}</p>
      <p className="max-w-md text-sm text-ink-3">{detail}</p>
      {children !== undefined && <div className="flex gap-2 pt-3">{children}</div>}
    </div>
  );
}

function Neighbours() {
  const desk = useDesk();
  return (
    <>
      <button type="button" className="quiet outlined" onClick={() => desk.go(-1)}>
        <Icon name="left" /> Previous session
      </button>
      <button type="button" className="quiet outlined" onClick={() => desk.view.patch({ date: null })}>
        Latest session
      </button>
    </>
  );
}

function Overlay() {
  const desk = useDesk();
  const load = useStore(desk.day.load);
  const { ticker } = useStore(desk.view);
  const date = desk.date();
  const day = date === null ? "" : longDate(date);
  if (load.state === "loading") return <Skeleton />;
  if (load.state === "waiting") {
    return (
      <Notice
        title="Waiting for the first trade"
        detail={`${ticker ?? ""} has not traded yet on ${day}. The chart begins by itself.`}
      />
    );
  }
  if (load.state === "empty") {
    return (
      <Notice title={load.reason} detail={day}>
        <Neighbours />
      </Notice>
    );
  }
  if (load.state === "error") {
    return (
      <Notice title="The day could not be loaded" detail={load.message}>
        <button type="button" className="solid" onClick={() => desk.day.retry()}>
          <Icon name="refresh" /> Try again
        </button>
      </Notice>
    );
  }
  return null;
}

function ToLive() {
  const desk = useDesk();
  const mode = useStore(desk.mode);
  const load = useStore(desk.day.load);
  if (mode === "follow" || load.state !== "ready" || desk.day.showing?.live !== true) return null;
  return (
    <button
      type="button"
      className="quiet floating absolute right-20 bottom-10 z-10 rounded-full! px-3! text-ink!"
      title="To live (L)"
      onClick={() => desk.chart()?.toLive()}
    >
      To live <Icon name="live" size={14} />
    </button>
  );
}

interface ChartAreaProps {
  onView: (view: { from_ms: number; to_ms: number } | null) => void;
}

export function ChartArea({ onView }: ChartAreaProps) {
  const desk = useDesk();
  const host = useRef<HTMLDivElement>(null);
  const { ticker, timeframe } = useStore(desk.view);
  const load = useStore(desk.day.load);
  const preferences = useStore(desk.preferences);
  useEffect(() => {
    if (host.current === null) return;
    return desk.attach(host.current, chartPalette(), { onView });
  }, [desk, onView]);
  useEffect(() => {
    desk.chart()?.setPalette(chartPalette());
  }, [desk, preferences]);
  const shown = load.state === "ready";
  const date = desk.date();
  const label = [
    `Chart of ${ticker ?? "no ticker"}`,
    timeframe,
    date === null ? null : longDate(date),
  ];
  return (
    <div
      className="relative min-h-0 flex-1 outline-offset-[-2px]"
      tabIndex={0}
      role="group"
      aria-label={label.filter((part) => part !== null).join(", ")}
      aria-describedby="chart-keys"
      data-testid="chart"
    >
      <p id="chart-keys" className="sr-only">
        Arrow keys pan, plus and minus zoom, zero shows the whole day, L goes back to live. The tables
        hold the signals and the newest prices, their CSV the whole day.
      </p>
      <div
        ref={host}
        aria-hidden="true"
        className={`absolute inset-0 ${shown ? "" : "pointer-events-none invisible"}`}
      />
      <Overlay />
      <ToLive />
    </div>
  );
}
