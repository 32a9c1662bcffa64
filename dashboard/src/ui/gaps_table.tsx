// What is missing from the day: every gap, why, and whether it was filled.

import { saveCsv } from "./csv_link";
import { useDesk } from "./desk_context";
import { GapRows } from "./gap_rows";
import { useStore } from "./store";
import { NoRows, TableScroll, TableTools } from "./table_parts";

export default function GapsTable() {
  const desk = useDesk();
  const gaps = useStore(desk.day.gaps);
  const { ticker } = useStore(desk.view);
  const date = desk.date() ?? "";
  const query = ticker === null ? { date } : { date, ticker };
  return (
    <>
      <TableTools onCsv={() => void saveCsv(desk.source, "gaps", query, async () =>
          (await import("../data/csv")).gapsCsv(gaps))}>
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
