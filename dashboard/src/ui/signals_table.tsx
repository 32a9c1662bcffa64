// The day's crosses. A click on one puts it into the middle of the chart.

import { useMemo, useState } from "react";

import { formatTime } from "../data/newyork";
import type { Signal } from "../data/types";
import { Choice } from "./choice";
import { saveCsv } from "./csv_link";
import { useDesk } from "./desk_context";
import { priceText } from "./format";
import { Icon } from "./icons";
import { type SortOrder, sorted } from "./sorting";
import { useStore } from "./store";
import { NoRows, SortableHead, TableScroll, TableTools } from "./table_parts";

type Column = "ts_ms" | "ticker" | "direction" | "price" | "state";

const ROWS_MAX = 500;

/** What a reader wants to know of a signal's state in one word. */
export function stateOf(signal: Signal): "active" | "late" | "superseded" {
  if (signal.state === "superseded") return "superseded";
  return signal.late ? "late" : "active";
}

function valueOf(signal: Signal, column: Column): string | number {
  return column === "state" ? stateOf(signal) : signal[column];
}

function Direction({ signal }: { signal: Signal }) {
  const colour = signal.direction === "up" ? "text-up" : "text-down";
  const tone = signal.state === "superseded" ? "line-through" : colour;
  return (
    <span className={`inline-flex items-center gap-1.5 font-medium ${tone}`}>
      <Icon name={signal.direction} size={9} />
      {signal.direction === "up" ? "Up" : "Down"}
    </span>
  );
}

function Row({ signal, withTicker }: { signal: Signal; withTicker: boolean }) {
  const desk = useDesk();
  const state = stateOf(signal);
  const superseded = state === "superseded";
  return (
    <tr
      data-link
      data-signal={signal.id}
      className={superseded ? "text-ink-3 line-through" : ""}
      onClick={() => desk.centre(signal)}
    >
      <td>
        <button
          type="button"
          className="rounded-sm"
          title={`SMA9 ${priceText(signal.sma9)}, VWAP ${priceText(signal.vwap)}`}
          aria-label={`${formatTime(signal.ts_ms)}, show in the chart`}
        >
          {formatTime(signal.ts_ms)}
        </button>
      </td>
      {withTicker && <td className="font-medium">{signal.ticker}</td>}
      <td>
        <Direction signal={signal} />
      </td>
      <td className="number">{priceText(signal.price)}</td>
      <td>
        {state === "active" ? (
          <span className="text-ink-3">{state}</span>
        ) : (
          <span className="tag inline-block!" data-tone={state === "late" ? "warn" : undefined}>
            {state}
          </span>
        )}
      </td>
    </tr>
  );
}

export function SignalsTable() {
  const desk = useDesk();
  const signals = useStore(desk.signals.signals);
  const state = useStore(desk.signals.state);
  const { ticker } = useStore(desk.view);
  const [which, setWhich] = useState<"one" | "all">("one");
  const [order, setOrder] = useState<SortOrder<Column>>({
    column: "ts_ms",
    direction: "descending",
  });
  const rows = useMemo(() => {
    const wanted = signals.filter((signal) => which === "all" || signal.ticker === ticker);
    return sorted(wanted, order, valueOf);
  }, [signals, ticker, which, order]);
  const date = desk.date() ?? "";
  const query = which === "all" || ticker === null ? { date } : { date, ticker };
  const head = { order, onOrder: setOrder };
  return (
    <>
      <TableTools
        onCsv={() => void saveCsv(desk.source, "signals", query, async () =>
            (await import("../data/csv")).signalsCsv(rows))}
      >
        <Choice
          label="Which signals"
          names={{ one: ticker ?? "–", all: "All tickers" }}
          values={["one", "all"]}
          value={which}
          onChange={setWhich}
        />
      </TableTools>
      <TableScroll label="Signals, scrollable">
        <table className="grid-table" data-testid="signals">
          <caption className="sr-only">
            Crosses of SMA9 and VWAP, New York time; {rows.length} signals
          </caption>
          <thead>
            <tr>
              <SortableHead column="ts_ms" label="Time" first="descending" {...head} />
              {which === "all" && <SortableHead column="ticker" label="Ticker" {...head} />}
              <SortableHead column="direction" label="Cross" {...head} />
              <SortableHead column="price" label="Price" first="descending" number {...head} />
              <SortableHead column="state" label="State" {...head} />
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, ROWS_MAX).map((signal) => (
              <Row key={signal.id} signal={signal} withTicker={which === "all"} />
            ))}
          </tbody>
        </table>
        {rows.length === 0 && (
          <NoRows>
            {state === "loading"
              ? "Loading…"
              : state === "error"
                ? "The signals could not be loaded. They are asked for again."
                : "No cross on this day. A signal is a cross of SMA9 and VWAP in the regular session."}
          </NoRows>
        )}
        {rows.length > ROWS_MAX && (
          <NoRows>
            The first {ROWS_MAX} of {rows.length}; the CSV holds all.
          </NoRows>
        )}
      </TableScroll>
    </>
  );
}
