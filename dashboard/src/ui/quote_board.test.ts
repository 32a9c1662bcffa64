import { describe, expect, it } from "vitest";

import type { TickerRow } from "../data/types";
import { type BoardRow, QuoteBoard, quoted } from "./quote_board";

const ROW: TickerRow = {
  ticker: "QQQ",
  last: 101,
  ts_ms: 1_000,
  change: 1,
  change_percent: 1,
  previous_close: 100,
  date: "2026-01-05",
  sparkline: [],
};

describe("a quote", () => {
  it("is compared with the close before", () => {
    expect(quoted(100, 98, 5)).toEqual({ last: 98, change: -2, percent: -2, tsMs: 5 });
  });

  it("has no change where there is nothing to compare with", () => {
    expect(quoted(null, 98, 5).change).toBeNull();
    expect(quoted(0, 98, 5).percent).toBeNull();
  });
});

describe("the board", () => {
  it("calls those who show the ticker, with what was before", () => {
    const board = new QuoteBoard();
    const seen: [BoardRow, BoardRow | null][] = [];
    board.setTickers([ROW]);
    const stop = board.listen("QQQ", (row, before) => seen.push([row, before]));
    board.quote("QQQ", { last: 102, ts_ms: 2_000, bid: null, ask: null });
    board.quote("SPY", { last: 400, ts_ms: 3_000, bid: null, ask: null });
    stop();
    board.quote("QQQ", { last: 103, ts_ms: 4_000, bid: null, ask: null });
    expect(seen.map(([row, before]) => [row.last, before?.last ?? null])).toEqual([
      [101, null],
      [102, 101],
    ]);
    expect(board.newestMs).toBe(4_000);
  });

  it("does not go back when the list is older than the quote", () => {
    const board = new QuoteBoard();
    board.setTickers([ROW]);
    board.quote("QQQ", { last: 102, ts_ms: 2_000, bid: null, ask: null });
    board.setTickers([ROW]);
    expect(board.row("QQQ")?.last).toBe(102);
  });
});
