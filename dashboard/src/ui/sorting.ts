// Sorting of tables: stable, unknown values last in either direction.

export type Direction = "ascending" | "descending";

export interface SortOrder<Column extends string> {
  column: Column;
  direction: Direction;
}

type Sortable = string | number | boolean | null | undefined;

function compare(a: Sortable, b: Sortable): number {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0;
}

export function sorted<Row, Column extends string>(
  rows: readonly Row[],
  order: SortOrder<Column>,
  value: (row: Row, column: Column) => Sortable,
): Row[] {
  const sign = order.direction === "ascending" ? 1 : -1;
  return [...rows].sort((left, right) => {
    const a = value(left, order.column);
    const b = value(right, order.column);
    const missing = Number(a == null) - Number(b == null);
    return missing !== 0 ? missing : sign * compare(a, b);
  });
}

/** The order after a click on a column's head: another column starts as it reads best. */
export function nextOrder<Column extends string>(
  order: SortOrder<Column>,
  column: Column,
  first: Direction,
): SortOrder<Column> {
  if (order.column !== column) return { column, direction: first };
  return { column, direction: order.direction === "ascending" ? "descending" : "ascending" };
}
