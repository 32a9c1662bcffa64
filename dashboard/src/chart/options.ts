/** The options of Lightweight Charts that the engine depends on, and the theme among them. */

import type { ChartOptions, DeepPartial, Time } from "lightweight-charts";
import { CrosshairMode, TickMarkType } from "lightweight-charts";

import type { Palette } from "./palette";

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Times on the axis are New York's wall clock in disguise, so they are read as UTC. */
export function axisTime(time: Time, withSeconds: boolean): string {
  return new Date((time as number) * 1000).toISOString().slice(11, withSeconds ? 19 : 16);
}

function tickMark(time: Time, kind: TickMarkType): string {
  if (kind === TickMarkType.Time) return axisTime(time, false);
  if (kind === TickMarkType.TimeWithSeconds) return axisTime(time, true);
  const date = new Date((time as number) * 1000);
  return `${MONTHS[date.getUTCMonth()]} ${date.getUTCDate()}`;
}

export function themeOptions(palette: Palette): DeepPartial<ChartOptions> {
  return {
    layout: {
      background: { color: palette.background },
      textColor: palette.text,
      panes: { separatorColor: palette.border, separatorHoverColor: palette.grid },
    },
    grid: { vertLines: { color: palette.grid }, horzLines: { color: palette.grid } },
    crosshair: {
      vertLine: { color: palette.crosshair, labelBackgroundColor: palette.crosshair },
      horzLine: { color: palette.crosshair, labelBackgroundColor: palette.crosshair },
    },
    rightPriceScale: { borderColor: palette.border },
    timeScale: { borderColor: palette.border },
  };
}

export function chartOptions(palette: Palette): DeepPartial<ChartOptions> {
  const theme = themeOptions(palette);
  return {
    ...theme,
    autoSize: true,
    // The logo brings a style element, which the content security policy forbids; the page's foot
    // has the attribution instead.
    layout: { ...theme.layout, attributionLogo: false, fontSize: 11 },
    rightPriceScale: { ...theme.rightPriceScale, scaleMargins: { top: 0.1, bottom: 0.08 } },
    crosshair: { ...theme.crosshair, mode: CrosshairMode.Normal },
    timeScale: {
      ...theme.timeScale,
      timeVisible: true,
      // Half a pixel, the default, would need a screen of 23,400 pixels for a day of seconds.
      minBarSpacing: 0.001,
      shiftVisibleRangeOnNewBar: false,
      tickMarkFormatter: tickMark,
    },
    localization: { timeFormatter: (time: Time) => axisTime(time, true), locale: "en-US" },
    // On a phone a vertical swipe scrolls the page.
    handleScroll: { vertTouchDrag: false },
    handleScale: { axisDoubleClickReset: { price: true, time: false } },
  };
}
