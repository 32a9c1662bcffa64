/** The tint behind pre-market and after hours, whose bounds come from the calendar. */

import type { Session } from "../data/types";
import type { Axis } from "./axis";
import type { Palette } from "./palette";
import type { Frame, PlotBand } from "./plot";
import { toPixel } from "./plot";

export function sessionBands(session: Session | null, axis: Axis, palette: Palette): PlotBand[] {
  if (session === null) return [];
  // A slot is drawn around its place, so a band begins half a slot before it.
  const place = (ts: number): number => axis.xOf(ts) - 0.5;
  return [
    { from: place(session.pre_open_ms), to: place(session.open_ms), color: palette.preMarket },
    { from: place(session.close_ms), to: place(session.post_close_ms), color: palette.postMarket },
  ];
}

export function drawBands(frame: Frame, bands: readonly PlotBand[]): void {
  for (const band of bands) {
    const from = Math.max(toPixel(frame.x, band.from), 0);
    const to = Math.min(toPixel(frame.x, band.to), frame.width);
    if (to <= from) continue;
    frame.context.fillStyle = band.color;
    frame.context.fillRect(Math.round(from), 0, Math.round(to) - Math.round(from), frame.height);
  }
}
