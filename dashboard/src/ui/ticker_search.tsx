// Finds a ticker by its first letters.

import { useId, useMemo, useState } from "react";

import type { TickerRow } from "../data/types";
import { useDesk } from "./desk_context";
import { Dialog } from "./dialog";
import { priceText, signedText, toneOf } from "./format";
import { found } from "./search";
import { useStore } from "./store";

export function TickerSearch({ onClose }: { onClose: () => void }) {
  const desk = useDesk();
  const all = useStore(desk.board.tickers);
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const listId = useId();
  const rows = useMemo(() => found(all ?? [], text), [all, text]);
  const chosen = rows[Math.min(at, rows.length - 1)];
  const pick = (row: TickerRow | undefined, close: () => void): void => {
    if (row === undefined) return;
    desk.view.patch({ ticker: row.ticker, page: "chart" });
    close();
  };
  const move = (step: number): void => {
    if (rows.length > 0) setAt((at + step + rows.length) % rows.length);
  };
  return (
    <Dialog title="Search ticker" onClose={onClose} width="max-w-md">
      {(close) => (
        <>
          <div className="p-3">
            <input
              className="field"
              type="text"
              role="combobox"
              aria-label="Ticker"
              aria-expanded="true"
              aria-controls={listId}
              aria-activedescendant={chosen ? `${listId}-${chosen.ticker}` : undefined}
              autoComplete="off"
              autoCapitalize="characters"
              spellCheck={false}
              placeholder="QQQ"
              data-first
              value={text}
              onChange={(event) => {
                setText(event.target.value);
                setAt(0);
              }}
              onKeyDown={(event) => {
                if (event.key === "ArrowDown") move(1);
                else if (event.key === "ArrowUp") move(-1);
                else if (event.key === "Enter") pick(chosen, close);
                else return;
                event.preventDefault();
              }}
            />
          </div>
          <ul id={listId} role="listbox" aria-label="Tickers" className="max-h-72 overflow-y-auto px-2 pb-2">
            {rows.map((row) => (
              <li
                key={row.ticker}
                id={`${listId}-${row.ticker}`}
                role="option"
                aria-selected={row === chosen}
                className="grid h-9 cursor-pointer grid-cols-[1fr_80px_80px] items-center rounded-md px-2 hover:bg-raised aria-selected:bg-raised"
                onClick={() => pick(row, close)}
              >
                <span className="font-semibold">{row.ticker}</span>
                <span className="text-right">{priceText(row.last)}</span>
                <span className={`text-right text-xs ${toneOf(row.change)}`}>
                  {signedText(row.change_percent, "%")}
                </span>
              </li>
            ))}
          </ul>
          {rows.length === 0 && (
            <p className="px-4 pb-4 text-xs text-ink-3">
              No ticker like this is followed. <code>./kite up --tickers</code> names those that are.
            </p>
          )}
        </>
      )}
    </Dialog>
  );
}
