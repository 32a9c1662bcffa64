import { describe, expect, it } from "vitest";

import { readUrl, writeUrl } from "../data/url";
import { urlOf, viewOf } from "./address";

const roundTrip = (search: string): string => {
  const url = readUrl(search);
  return writeUrl(urlOf(viewOf(url), url.view));
};

describe("the address", () => {
  it("shows somebody else the same", () => {
    const search = "?p=status&t=QQQ&d=2026-01-05&tf=5m&style=line&x=ema9&from=1&to=2";
    expect(roundTrip(search)).toBe(search);
  });

  it("stays short for what a plain address shows anyway", () => {
    expect(roundTrip("?t=QQQ&tf=1m&style=candles")).toBe("?t=QQQ");
    expect(roundTrip("")).toBe("");
  });
});
