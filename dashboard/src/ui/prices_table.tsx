// The newest prices of the chart as a table, once a second.

import { useEffect, useState } from "react";

import { formatTime } from "../data/newyork";
import { CandleStore, type TickStore } from "../data/series";
import { saveCsv } from "./csv_link";
import { useDesk } from "./desk_context";
import { priceText, volumeText } from "./format";
import { useStore } from "./store";
import { NoRows, TableScroll, TableTools } from "./table_parts";

const ROWS_MAX = 120;
const EVERY_MS = 1000;

/** Turns up a new number whenever the store has changed since the last second. */
function useVersion(): number {
  const desk = useDesk();
  const [version, setVersion] = useState(0);
  useEffect(() => {
    const look = (): void => setVersion(desk.day.showing?.store.version ?? 0);
    const timer = window.setInterval(look, EVERY_MS);
    look();
    return () => window.clearInterval(timer);
  }, [desk]);
  return version;
}

function columnsOf(store: TickStore | CandleStore): [string, Float64Array][] {
  if (store instanceof CandleStore) {
    return [
      ["Open", store.open],
      ["High", store.high],
      ["Low", store.low],
      ["Close", store.close],
      ["SMA9", store.sma9],
      ["VWAP", store.vwap],
      ["Volume", store.volume],
    ];
  }
  return [
    ["Price", store.price],
    ["SMA9", store.sma9],
    ["VWAP", store.vwap],
  ];
}

export default function PricesTable() {
  const desk = useDesk();
  useVersion();
  useStore(desk.day.load);
  const showing = desk.day.showing;
  if (showing === null) return <NoRows>Nothing to show on this day.</NoRows>;
  const { store, ticker, date, timeframe, offsetMs } = showing;
  const columns = columnsOf(store);
  const precision = timeframe === "tick" ? "milli" : "minute";
  const first = Math.max(0, store.count - ROWS_MAX);
  const indexes = Array.from({ length: store.count - first }, (_, nth) => store.count - 1 - nth);
  const query = { ticker, date, timeframe };
  const make = async (): Promise<string> =>
    (await import("../data/csv")).seriesCsv(await desk.source.series(ticker, date, timeframe));
  return (
    <>
      <TableTools onCsv={() => void saveCsv(desk.source, "series", query, make)}>
        <span className="label px-1">
          Newest {indexes.length} of {store.count}
        </span>
      </TableTools>
      <TableScroll label="Prices, scrollable">
        <table className="grid-table">
          <caption className="sr-only">
            {ticker} {timeframe}, newest first, New York time
          </caption>
          <thead>
            <tr>
              <th scope="col">Time</th>
              {columns.map(([name]) => (
                <th key={name} scope="col" className="number">
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {indexes.map((index) => (
              <tr key={store.ts[index]}>
                <td>{formatTime(store.ts[index] ?? 0, precision, offsetMs)}</td>
                {columns.map(([name, values]) => (
                  <td key={name} className="number">
                    {name === "Volume" ? volumeText(values[index]) : priceText(values[index])}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </TableScroll>
    </>
  );
}
