// The tickers with their last price and change. Quotes are written straight into the cells.

import { useEffect, useRef } from "react";

import type { TickerRow } from "../data/types";
import { useDesk } from "./desk_context";
import { priceText, signedText, toneOf } from "./format";
import type { BoardRow } from "./quote_board";
import { Sparkline } from "./sparkline";
import { useStore } from "./store";

const TONES = ["text-up", "text-down", "text-ink-3"];

/** Starts the flash anew, also when it is still running. */
function flash(element: HTMLElement, up: boolean): void {
  element.classList.remove("flash-up", "flash-down");
  void element.offsetWidth;
  element.classList.add(up ? "flash-up" : "flash-down");
}

function setTone(element: HTMLElement, change: number | null): void {
  element.classList.remove(...TONES);
  element.classList.add(toneOf(change));
}

/** Keeps three elements at a ticker's quote. */
export function useQuote(ticker: string | null, flashes: boolean) {
  const desk = useDesk();
  const last = useRef<HTMLSpanElement>(null);
  const change = useRef<HTMLSpanElement>(null);
  const percent = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    if (ticker === null) return;
    const show = (row: BoardRow, before: BoardRow | null): void => {
      if (last.current === null || change.current === null || percent.current === null) return;
      last.current.textContent = priceText(row.last);
      change.current.textContent = signedText(row.change);
      percent.current.textContent = signedText(row.percent, "%");
      setTone(change.current, row.change);
      setTone(percent.current, row.change);
      if (!flashes || before?.last == null || row.last === null || before.last === row.last) return;
      flash(last.current, row.last > before.last);
    };
    return desk.board.listen(ticker, show);
  }, [desk, ticker, flashes]);
  return { last, change, percent };
}

function Row({ row, current }: { row: TickerRow; current: boolean }) {
  const desk = useDesk();
  const { last, change, percent } = useQuote(row.ticker, true);
  return (
    <li className="flex-none">
      <button
        type="button"
        aria-current={current ? "true" : undefined}
        className="relative grid h-13 w-36 grid-cols-[1fr_auto] items-center gap-x-2 border-r border-line px-3 text-left hover:bg-raised aria-[current]:bg-raised md:w-full md:grid-cols-[1fr_56px_64px] md:border-r-0 md:border-b"
        onClick={() => desk.view.patch({ ticker: row.ticker, page: "chart" })}
      >
        {current && (
          <span className="absolute inset-x-0 bottom-0 h-0.5 bg-accent md:inset-x-auto md:inset-y-0 md:left-0 md:h-auto md:w-0.5" />
        )}
        <span className="flex min-w-0 flex-col">
          <span className="truncate text-sm font-semibold">{row.ticker}</span>
          <span ref={change} className="text-xs" />
        </span>
        <span className="hidden md:block">
          <Sparkline values={row.sparkline} reference={row.previous_close} />
        </span>
        <span className="flex flex-col items-end">
          <span ref={last} className="-mr-1 px-1 text-sm font-medium" />
          <span ref={percent} className="text-xs" />
        </span>
      </button>
    </li>
  );
}

export function Watchlist() {
  const desk = useDesk();
  const tickers = useStore(desk.board.tickers);
  const { ticker } = useStore(desk.view);
  return (
    <section aria-label="Watchlist" className="flex min-h-0 flex-col bg-panel md:overflow-y-auto">
      <h2 className="label hidden h-9 flex-none items-center border-b border-line px-3 md:flex">
        Watchlist
      </h2>
      {tickers?.length === 0 && (
        <p className="p-3 text-xs text-ink-3">
          No tickers yet. They appear here with their first price.
        </p>
      )}
      <ul className="flex overflow-x-auto md:block">
        {(tickers ?? []).map((row) => (
          <Row key={row.ticker} row={row} current={row.ticker === ticker} />
        ))}
      </ul>
    </section>
  );
}
