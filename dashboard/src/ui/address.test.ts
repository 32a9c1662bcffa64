import { describe, expect, it } from "vitest";

import { readUrl, writeUrl } from "../data/url";
import { urlOf, viewOf } from "./address";

const roundTrip = (search: string): string => {
  const url = readUrl(search);
  return writeUrl(urlOf(viewOf(url), url.view, url.date));
};

describe("the address", () => {
  it("shows somebody else the same", () => {
    const search = "?p=status&t=QQQ&d=2026-01-05&tf=5m&style=line&x=ema9&from=1&to=2";
    expect(roundTrip(search)).toBe(search);
  });

  it("names the day of a stretch, also the latest one", () => {
    const view = viewOf(readUrl("?t=QQQ"));
    const address = writeUrl(urlOf(view, { from_ms: 1, to_ms: 2 }, "2026-01-05"));
    expect(address).toBe("?t=QQQ&d=2026-01-05&from=1&to=2");
    expect(readUrl("?t=QQQ&from=1&to=2").view).toBeNull();
  });

  it("stays short for what a plain address shows anyway", () => {
    expect(roundTrip("?t=QQQ&tf=1m&style=candles")).toBe("?t=QQQ");
    expect(roundTrip("")).toBe("");
  });
});
