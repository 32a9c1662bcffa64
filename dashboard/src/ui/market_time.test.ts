import { describe, expect, it } from "vitest";

import type { SessionDay } from "../data/types";
import { countdown, marketMoment, momentText } from "./market_time";

const at = (text: string): number => Date.parse(`2026-07-${text}Z`);
const session = (date: string, close = "20:00"): SessionDay => ({
  date: `2026-07-${date}`,
  kind: close === "20:00" ? "full" : "half",
  name: null,
  pre_open_ms: at(`${date}T11:00`),
  open_ms: at(`${date}T13:30`),
  close_ms: at(`${date}T${close}`),
  post_close_ms: at(`${date}T${close}`) + 3_600_000,
  has_data: true,
});
const HOLIDAY: SessionDay = {
  date: "2026-07-03",
  kind: "holiday",
  name: "Independence Day",
  pre_open_ms: null,
  open_ms: null,
  close_ms: null,
  post_close_ms: null,
  has_data: false,
};
const DAYS = [session("01"), session("02", "17:00"), HOLIDAY, session("06")];
const says = (text: string): string => momentText(marketMoment(DAYS, at(text)), at(text));

describe("the time to open or close", () => {
  it("follows the day", () => {
    expect(says("01T10:00")).toBe("Closed · opens in 3:30:00");
    expect(says("01T13:00")).toBe("Pre-market · opens in 0:30:00");
    expect(says("01T13:30")).toBe("Regular session · closes in 6:30:00");
    expect(says("01T20:30")).toBe("After hours · opens in 17:00:00");
  });

  it("knows half days", () => {
    expect(says("02T16:59:30")).toBe("Regular session · closes in 0:00:30");
  });

  it("leaps over holidays and weekends", () => {
    expect(says("03T13:30")).toBe("Closed · opens in 3 d 0 h");
  });

  it("says no more than it knows", () => {
    expect(says("09T12:00")).toBe("Closed");
  });

  it("does not reach zero before its time", () => {
    expect(countdown(1)).toBe("0:00:01");
    expect(countdown(-5)).toBe("0:00:00");
  });
});
