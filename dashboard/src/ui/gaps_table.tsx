// What is missing from the day: every gap, why, and whether it was filled.

import type { Gap } from "../data/types";
import { saveCsv } from "./csv_link";
import { useDesk } from "./desk_context";
import { GapRows } from "./gap_rows";
import { useStore } from "./store";
import { NoRows, TableScroll, TableTools } from "./table_parts";

function countOf(gaps: readonly Gap[] | null): string {
  if (gaps === null) return "";
  return gaps.length === 0 ? "None" : `${gaps.length} in all`;
}

export default function GapsTable() {
  const desk = useDesk();
  const gaps = useStore(desk.day.gaps);
  const { ticker } = useStore(desk.view);
  const date = desk.date() ?? "";
  const query = ticker === null ? { date } : { date, ticker };
  return (
    <>
      <TableTools onCsv={() => void saveCsv(desk.source, "gaps", query, async () =>
          (await import("../data/csv")).gapsCsv(gaps ?? []))}>
        <span className="label px-1">{countOf(gaps)}</span>
      </TableTools>
      <TableScroll label="Gaps, scrollable">
        {gaps !== null && gaps.length > 0 ? (
          <GapRows gaps={gaps} withTicker={false} />
        ) : (
          <NoRows>{gaps === null ? "Loading…" : "Nothing is missing from this day."}</NoRows>
        )}
      </TableScroll>
    </>
  );
}
