import { describe, expect, it } from "vitest";

import { nextOrder, sorted, type SortOrder } from "./sorting";

interface Row {
  at: number;
  value: number | null;
  name: string;
}
type Column = keyof Row & string;

const ROWS: Row[] = [
  { at: 1, value: 3, name: "b" },
  { at: 2, value: null, name: "a" },
  { at: 3, value: 10, name: "b" },
  { at: 4, value: 3, name: "c" },
];
const ats = (order: SortOrder<Column>): number[] =>
  sorted(ROWS, order, (row, column) => row[column]).map((row) => row.at);

describe("sorted", () => {
  it("compares numbers as numbers and keeps equals in order", () => {
    expect(ats({ column: "value", direction: "ascending" })).toEqual([1, 4, 3, 2]);
  });

  it("puts the unknown last in both directions", () => {
    expect(ats({ column: "value", direction: "descending" })).toEqual([3, 1, 4, 2]);
  });

  it("compares text and leaves its input alone", () => {
    expect(ats({ column: "name", direction: "ascending" })).toEqual([2, 1, 3, 4]);
    expect(ROWS.map((row) => row.at)).toEqual([1, 2, 3, 4]);
  });
});

describe("a click on a head", () => {
  it("turns the order around, or starts the other column as it reads best", () => {
    const order: SortOrder<Column> = { column: "at", direction: "descending" };
    expect(nextOrder(order, "at", "descending").direction).toBe("ascending");
    expect(nextOrder(order, "name", "ascending")).toEqual({ column: "name", direction: "ascending" });
  });
});
