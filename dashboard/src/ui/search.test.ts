import { describe, expect, it } from "vitest";

import type { TickerRow } from "../data/types";
import { found } from "./search";

const rows = ["AAPL", "QQQ", "SPY", "PYPL"].map((ticker) => ({ ticker }) as TickerRow);
const names = (text: string): string[] => found(rows, text).map((row) => row.ticker);

describe("the search", () => {
  it("shows everything before anything is typed", () => {
    expect(names("")).toEqual(["AAPL", "QQQ", "SPY", "PYPL"]);
  });

  it("puts what begins with the text before what holds it", () => {
    expect(names(" p")).toEqual(["PYPL", "AAPL", "SPY"]);
    expect(names("zz")).toEqual([]);
  });
});
