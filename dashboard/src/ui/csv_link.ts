// Hands a table to the viewer as a file: the server's where it makes one, else made here.

import type { DataSource } from "../data/source";

export async function saveCsv(
  source: DataSource,
  table: "series" | "signals" | "gaps",
  query: Record<string, string>,
  make: () => string | Promise<string>,
): Promise<void> {
  const url = source.csvUrl(table, query);
  if (url !== null) {
    const link = document.createElement("a");
    link.href = url;
    link.download = "";
    link.click();
    return;
  }
  const name = [query["ticker"] ?? "all", query["date"], query["timeframe"] ?? table];
  const { download } = await import("../data/csv");
  download(`${name.join("-")}.csv`, await make());
}
