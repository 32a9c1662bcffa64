// The tables beside the chart: signals, prices, gaps. They are the chart for whoever cannot see it.

import { lazy, Suspense, useId, useState } from "react";

import { useDesk } from "./desk_context";
import { SignalsTable } from "./signals_table";
import { useStore } from "./store";

const TABS = ["signals", "prices", "gaps"] as const;
type Tab = (typeof TABS)[number];
const NAMES: Record<Tab, string> = { signals: "Signals", prices: "Prices", gaps: "Gaps" };
const TABLES: Record<Tab, React.ComponentType> = {
  signals: SignalsTable,
  prices: lazy(() => import("./prices_table")),
  gaps: lazy(() => import("./gaps_table")),
};

export function SidePanel() {
  const desk = useDesk();
  const [tab, setTab] = useState<Tab>("signals");
  const id = useId();
  const signals = useStore(desk.signals.signals);
  const gaps = useStore(desk.day.gaps);
  const { ticker } = useStore(desk.view);
  const counts: Record<Tab, number> = {
    signals: signals.filter((signal) => signal.ticker === ticker).length,
    prices: 0,
    gaps: (gaps ?? []).filter((gap) => gap.state !== "filled").length,
  };
  const turn = (step: number): void => {
    const next = TABS[(TABS.indexOf(tab) + step + TABS.length) % TABS.length] ?? tab;
    setTab(next);
    document.getElementById(`${id}-${next}`)?.focus();
  };
  const Table = TABLES[tab];
  return (
    <section aria-label="Tables" className="flex min-h-0 min-w-0 flex-col bg-panel">
      <div
        role="tablist"
        aria-label="Tables"
        className="flex h-9 flex-none items-stretch gap-4 border-b border-line px-3"
        data-arrows
        onKeyDown={(event) => {
          if (event.key === "ArrowRight") turn(1);
          if (event.key === "ArrowLeft") turn(-1);
        }}
      >
        {TABS.map((each) => (
          <button
            key={each}
            type="button"
            role="tab"
            id={`${id}-${each}`}
            aria-selected={each === tab}
            aria-controls={`${id}-panel`}
            tabIndex={each === tab ? 0 : -1}
            className="-mb-px flex items-center gap-1.5 rounded-t-sm border-b-2 px-0.5 outline-offset-[-2px] border-transparent text-xs font-medium text-ink-3 hover:text-ink aria-selected:border-accent aria-selected:text-ink"
            onClick={() => setTab(each)}
          >
            {NAMES[each]}
            {counts[each] > 0 && <span className="tag">{counts[each]}</span>}
          </button>
        ))}
      </div>
      <div
        role="tabpanel"
        id={`${id}-panel`}
        aria-labelledby={`${id}-${tab}`}
        className="flex min-h-0 flex-1 flex-col"
      >
        <Suspense>
          <Table />
        </Suspense>
      </div>
    </section>
  );
}
