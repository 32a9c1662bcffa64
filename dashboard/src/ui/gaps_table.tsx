// What is missing from the day: every gap, why, and whether it was filled.

import { gapsCsv } from "../data/csv";
import { formatTime } from "../data/newyork";
import type { Gap } from "../data/types";
import { saveCsv } from "./csv_link";
import { useDesk } from "./desk_context";
import { useStore } from "./store";
import { NoRows, TableScroll, TableTools } from "./table_parts";

const TONES: Record<Gap["state"], string> = { open: "warn", filled: "good", unfillable: "bad" };

export function GapRows({ gaps, withTicker }: { gaps: readonly Gap[]; withTicker: boolean }) {
  return (
    <table className="grid-table">
      <caption className="sr-only">Missing stretches of the day, New York time</caption>
      <thead>
        <tr>
          <th scope="col">From</th>
          <th scope="col">To</th>
          {withTicker && <th scope="col">Ticker</th>}
          <th scope="col">Of</th>
          <th scope="col">State</th>
          <th scope="col">Cause</th>
        </tr>
      </thead>
      <tbody>
        {gaps.map((gap) => (
          <tr key={gap.id}>
            <td>{formatTime(gap.from_ms)}</td>
            <td>{formatTime(gap.to_ms)}</td>
            {withTicker && <td className="font-medium">{gap.ticker}</td>}
            <td>{gap.series}</td>
            <td>
              <span className="tag" data-tone={TONES[gap.state]}>
                {gap.state}
              </span>
            </td>
            <td className="text-ink-2">{gap.cause.replaceAll("_", " ")}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function GapsTable() {
  const desk = useDesk();
  const gaps = useStore(desk.day.gaps);
  const { ticker } = useStore(desk.view);
  const date = desk.date() ?? "";
  const query = ticker === null ? { date } : { date, ticker };
  return (
    <>
      <TableTools onCsv={() => void saveCsv(desk.source, "gaps", query, () => gapsCsv(gaps))}>
        <span className="label px-1">{gaps.length === 0 ? "None" : `${gaps.length} in all`}</span>
      </TableTools>
      <TableScroll label="Gaps, scrollable">
        {gaps.length > 0 ? (
          <GapRows gaps={gaps} withTicker={false} />
        ) : (
          <NoRows>Nothing is missing from this day.</NoRows>
        )}
      </TableScroll>
    </>
  );
}
