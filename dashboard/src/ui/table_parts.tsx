// What the tables share: a head that sorts, a line above with its tools, and a place for nothing.

import type { ReactNode } from "react";

import { Icon } from "./icons";
import type { Direction, SortOrder } from "./sorting";
import { nextOrder } from "./sorting";

interface HeadProps<Column extends string> {
  column: Column;
  label: string;
  order: SortOrder<Column>;
  onOrder: (order: SortOrder<Column>) => void;
  first?: Direction;
  number?: boolean;
}

export function SortableHead<Column extends string>(props: HeadProps<Column>) {
  const { column, label, order, onOrder, first = "ascending", number = false } = props;
  const active = order.column === column;
  return (
    <th
      scope="col"
      aria-sort={active ? order.direction : "none"}
      className={number ? "number" : undefined}
    >
      <button
        type="button"
        className={`inline-flex items-center gap-1 rounded-sm hover:text-ink ${
          active ? "text-ink" : ""
        }`}
        onClick={() => onOrder(nextOrder(order, column, first))}
      >
        {label}
        <span className={active ? "" : "invisible"}>
          <Icon name={order.direction === "ascending" ? "up" : "down"} size={7} />
        </span>
      </button>
    </th>
  );
}

export function TableTools({ children, onCsv }: { children?: ReactNode; onCsv: () => void }) {
  return (
    <div className="flex h-9 flex-none items-center justify-between gap-2 px-2">
      <div className="flex items-center gap-2">{children}</div>
      <button type="button" className="quiet" onClick={onCsv} title="Download as CSV">
        <Icon name="download" size={14} /> CSV
      </button>
    </div>
  );
}

export function NoRows({ children }: { children: ReactNode }) {
  return <p className="px-6 py-8 text-center text-xs text-ink-3">{children}</p>;
}

/** Scrolls by itself, and by keys when it has the focus. */
export function TableScroll({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div
      className="min-h-0 flex-1 overflow-auto outline-offset-[-2px]"
      tabIndex={0}
      role="region"
      aria-label={label}
      data-arrows
    >
      {children}
    </div>
  );
}
