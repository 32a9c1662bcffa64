// Draws a day of seconds with the page's engine or with Recharts, and measures either in the same
// way.

import { StrictMode, useSyncExternalStore } from "react";
import { createRoot } from "react-dom/client";
import { CartesianGrid, Line, LineChart, ReferenceDot, XAxis, YAxis } from "recharts";

import { ChartEngine } from "../src/chart/engine";
import { DARK } from "../src/chart/palette";
import { offsetMsOn } from "../src/data/newyork";
import { TickStore } from "../src/data/series";
import { POINTS, SESSION, makePoints, makeSignals } from "./data";
import type { Point } from "./data";

interface Subject {
  append(point: Point): void;
}

interface Figures {
  first_render_ms: number;
  frames_per_s: number;
  longest_frame_ms: number;
  points: number;
}

const host = document.getElementById("chart") as HTMLElement;
const points = makePoints(POINTS + 2_000);
const day = points.slice(0, POINTS);
const signals = makeSignals(day);

function engine(): Subject {
  const store = new TickStore(32_768);
  for (const point of day) store.put(point.ts, point.price, point.sma9, point.vwap);
  const chart = new ChartEngine(host, DARK);
  chart.show(
    {
      ticker: "QQQ",
      date: "2026-01-05",
      timeframe: "tick",
      session: SESSION,
      offsetMs: offsetMsOn("2026-01-05"),
      store,
      live: true,
    },
    { from_ms: SESSION.open_ms, to_ms: SESSION.close_ms + 2_400_000 },
  );
  chart.setSignals(signals);
  return {
    append: (point) => {
      store.put(point.ts, point.price, point.sma9, point.vwap);
      chart.invalidate();
    },
  };
}

function recharts(): Subject {
  let shown: Point[] = day;
  let wanted = day.slice();
  const listeners = new Set<() => void>();
  let scheduled = false;
  const subscribe = (listener: () => void): (() => void) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  function Chart() {
    const data = useSyncExternalStore(subscribe, () => shown);
    const line = { dot: false, isAnimationActive: false, type: "linear" } as const;
    return (
      <LineChart width={1400} height={600} data={data}>
        <CartesianGrid stroke="#333" />
        <XAxis dataKey="ts" type="number" domain={["dataMin", "dataMax"]} />
        <YAxis domain={["auto", "auto"]} />
        <Line {...line} dataKey="price" stroke="#334" />
        <Line {...line} dataKey="vwap" stroke="#a4f" />
        <Line {...line} dataKey="sma9" stroke="#fa0" />
        {signals.map((signal) => (
          <ReferenceDot key={signal.id} x={signal.ts_ms} y={signal.price} r={4} />
        ))}
      </LineChart>
    );
  }
  createRoot(host).render(
    <StrictMode>
      <Chart />
    </StrictMode>,
  );
  return {
    append: (point) => {
      wanted.push(point);
      if (scheduled) return;
      scheduled = true; // As the engine does: what comes between two frames is one drawing.
      requestAnimationFrame(() => {
        scheduled = false;
        shown = wanted;
        wanted = wanted.slice();
        for (const listener of listeners) listener();
      });
    },
  };
}

function frame(): Promise<number> {
  return new Promise((resolve) => requestAnimationFrame(resolve));
}

/** A task that runs after the frame that was asked for has been drawn. */
function afterPaint(): Promise<void> {
  return new Promise((resolve) => {
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => resolve();
      channel.port2.postMessage(null);
    });
  });
}

/** Whether anything but the background has been drawn, so that an empty chart cannot be quick. */
function drawn(): boolean {
  if (host.querySelectorAll("path.recharts-line-curve").length >= 3) return true;
  for (const canvas of host.querySelectorAll("canvas")) {
    if (canvas.width < 600 || canvas.height < 300) continue;
    const pixels = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data;
    const colors = new Set<number>();
    for (let i = 0; pixels !== undefined && i < pixels.length; i += 4) {
      if ((pixels[i + 3] as number) < 255) continue;
      colors.add(
        ((pixels[i] as number) << 16) |
          ((pixels[i + 1] as number) << 8) |
          (pixels[i + 2] as number),
      );
      if (colors.size > 8) return true;
    }
  }
  return false;
}

async function measure(name: string, appendsPerS: number, seconds: number): Promise<Figures> {
  await frame();
  const startedMs = performance.now();
  const subject = name === "recharts" ? recharts() : engine();
  await afterPaint();
  let first_render_ms = performance.now() - startedMs;
  while (!drawn()) {
    await afterPaint();
    first_render_ms = performance.now() - startedMs;
  }
  if (seconds === 0)
    return { first_render_ms, frames_per_s: 0, longest_frame_ms: 0, points: POINTS };
  await frame();
  let next = POINTS;
  const timer = setInterval(() => {
    // By the clock, as a server does: a busy page gets all that came meanwhile.
    const due = POINTS + Math.floor(((performance.now() - liveMs) / 1000) * appendsPerS);
    while (next < due && next < points.length) subject.append(points[next++] as Point);
  }, 1000 / appendsPerS);
  const liveMs = performance.now();
  let frames = 0;
  let longest = 0;
  let before = await frame();
  const begin = before;
  while (before - begin < seconds * 1000) {
    const now = await frame();
    longest = Math.max(longest, now - before);
    before = now;
    frames += 1;
  }
  clearInterval(timer);
  return {
    first_render_ms,
    frames_per_s: (frames * 1000) / (before - begin),
    longest_frame_ms: longest,
    points: next,
  };
}

declare global {
  interface Window {
    measure: typeof measure;
  }
}
window.measure = measure;
