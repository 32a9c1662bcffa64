// How the services do: checks, what each last said of itself, how far rows are behind, what is missing.

import { useEffect, useState } from "react";

import type { Gap, Health } from "../data/types";
import { ageText } from "./badge";
import { useDesk } from "./desk_context";
import { countText, DASH } from "./format";
import { GapRows } from "./gap_rows";
import { Icon } from "./icons";

const EVERY_MS = 3000;
const LAG_HIGH = 100;

const OVERALL = {
  ok: { tone: "good", text: "All is well" },
  degraded: { tone: "warn", text: "Something is not as it should be" },
  down: { tone: "bad", text: "Not working" },
} as const;

interface Found {
  health: Health | null;
  gaps: Gap[];
  error: string | null;
  atMs: number;
}

/** Keeps asking while the page is open; an answer that fails leaves the last good one standing. */
function useHealth(): Found {
  const desk = useDesk();
  const [found, setFound] = useState<Found>({ health: null, gaps: [], error: null, atMs: 0 });
  useEffect(() => {
    const abort = new AbortController();
    const ask = async (): Promise<void> => {
      try {
        const date = desk.calendar.get()?.today;
        const [health, gaps] = await Promise.all([
          desk.source.health(abort.signal),
          date === undefined ? [] : desk.source.gaps(date, undefined, abort.signal),
        ]);
        setFound({ health, gaps, error: null, atMs: Date.now() });
      } catch (error) {
        if (abort.signal.aborted) return;
        const message = error instanceof Error ? error.message : String(error);
        setFound((before) => ({ ...before, error: message }));
      }
    };
    void ask();
    const timer = window.setInterval(() => void ask(), EVERY_MS);
    return () => {
      abort.abort();
      window.clearInterval(timer);
    };
  }, [desk]);
  return found;
}

function Card({ title, children }: { title: string; children: React.ReactNode }) {
  return (
    <section className="card overflow-hidden rounded-lg border border-line bg-panel" aria-label={title}>
      <h2 className="border-b border-line px-4 py-2 text-sm font-semibold">{title}</h2>
      {children}
    </section>
  );
}

function Wide({ label, children }: { label: string; children: React.ReactNode }) {
  return (
    <div className="overflow-x-auto outline-offset-[-2px]" tabIndex={0} role="region" aria-label={label}>
      {children}
    </div>
  );
}

function Checks({ health }: { health: Health }) {
  return (
    <Card title="Checks">
      <ul className="divide-y divide-line">
        {health.checks.map((check) => (
          <li
            key={check.name}
            className="flex items-center gap-3 px-4 py-2"
            data-tone={check.ok ? "good" : "bad"}
          >
            <span className="dot" />
            <span className="font-medium">{check.name.replaceAll("_", " ")}</span>
            <span className="min-w-0 flex-1 truncate text-right text-xs text-ink-3" title={check.detail}>
              {check.detail || (check.ok ? "ok" : "failed")}
            </span>
            <span className="sr-only">{check.ok ? "ok" : "failed"}</span>
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Services({ health, atMs }: { health: Health; atMs: number }) {
  return (
    <Card title="Services">
      <Wide label="Services, scrollable">
        <table className="grid-table">
          <caption className="sr-only">What each instance last said of itself</caption>
          <thead>
            <tr>
              <th scope="col">Service</th>
              <th scope="col">Instance</th>
              <th scope="col">Status</th>
              <th scope="col" className="number">
                Heard
              </th>
              <th scope="col" className="number">
                Batches
              </th>
              <th scope="col" className="number">
                Records
              </th>
              <th scope="col" className="number">
                Errors
              </th>
              <th scope="col" className="number">
                Work
              </th>
              <th scope="col" className="number">
                Behind
              </th>
              <th scope="col" className="number" title="Since the gateway listens">
                Restarts
              </th>
            </tr>
          </thead>
          <tbody>
            {health.services.map((row) => (
              <tr key={`${row.service}/${row.instance}`}>
                <td className="font-medium">{row.service}</td>
                <td className="text-ink-3">{row.instance.slice(0, 8)}</td>
                <td>
                  <span
                    className="tag"
                    data-tone={/^(ok|healthy|running|ready)$/.test(row.status) ? "good" : "warn"}
                  >
                    {row.status}
                  </span>
                </td>
                <td className="number">
                  {ageText(atMs - row.at_ms)} ago
                </td>
                <td className="number">{countText(row.batches)}</td>
                <td className="number">{countText(row.records)}</td>
                <td className={`number ${(row.errors ?? 0) > 0 ? "font-medium text-down" : ""}`}>
                  {countText(row.errors)}
                </td>
                <td className="number">
                  {row.processing_ms === null ? DASH : `${Math.round(row.processing_ms)} ms`}
                </td>
                <td className={`number ${(row.lag ?? 0) > LAG_HIGH ? "font-medium text-warn" : ""}`}>
                  {countText(row.lag)}
                </td>
                <td className="number">{countText(row.restarts)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
      {health.services.length === 0 && <Nothing>No service has said anything lately.</Nothing>}
    </Card>
  );
}

function Nothing({ children }: { children: React.ReactNode }) {
  return <p className="px-4 py-4 text-xs text-ink-3">{children}</p>;
}

function Lanes({ health }: { health: Health }) {
  return (
    <Card title="Lanes: from stream to rows">
      <Wide label="Lanes, scrollable">
        <table className="grid-table">
          <caption className="sr-only">How many frames the rows are behind each stream</caption>
          <thead>
            <tr>
              <th scope="col">Stream</th>
              <th scope="col" className="number">
                Partition
              </th>
              <th scope="col" className="number">
                Written
              </th>
              <th scope="col" className="number">
                Stream's end
              </th>
              <th scope="col" className="number">
                Behind
              </th>
            </tr>
          </thead>
          <tbody>
            {health.lanes.map((lane) => (
              <tr key={`${lane.stream}/${lane.partition}`}>
                <td className="font-medium">{lane.stream}</td>
                <td className="number">{lane.partition}</td>
                <td className="number">{countText(lane.seq)}</td>
                <td className="number">{countText(lane.end_seq)}</td>
                <td className={`number ${(lane.lag ?? 0) > LAG_HIGH ? "font-medium text-warn" : ""}`}>
                  {countText(lane.lag)}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
      {health.lanes.length === 0 && <Nothing>Nothing is known of the streams from here.</Nothing>}
    </Card>
  );
}

export default function StatusPage() {
  const desk = useDesk();
  const { health, gaps, error, atMs } = useHealth();
  const overall = health === null ? null : OVERALL[health.status];
  return (
    <main className="min-h-0 flex-1 overflow-y-auto">
      <div className="mx-auto flex max-w-5xl flex-col gap-4 p-4">
        <div className="flex flex-wrap items-center gap-3 py-2">
          <h1 className="text-xl font-semibold tracking-[-0.01em]">Status</h1>
          {overall !== null && (
            <span className="badge" data-tone={overall.tone}>
              <span className="dot" />
              <span>{overall.text}</span>
            </span>
          )}
          <div className="flex-1" />
          {desk.source.brokerLoginUrl !== null && (
            <a className="quiet outlined" href={desk.source.brokerLoginUrl}>
              Broker login
            </a>
          )}
          <button
            type="button"
            className="quiet outlined"
            onClick={() => desk.view.patch({ page: "chart" })}
          >
            <Icon name="chart" /> Back to the chart
          </button>
        </div>
        {error !== null && (
          <p role="alert" className="rounded-md bg-down-soft px-4 py-2 text-sm text-down">
            The status could not be read: {error}
            {desk.mayLogin() && (
              <button type="button" className="quiet outlined ml-3" onClick={() => desk.askLogin()}>
                Sign in
              </button>
            )}
          </p>
        )}
        {health === null && error === null && <div className="bone h-64" />}
        {health !== null && (
          <>
            <Checks health={health} />
            <Services health={health} atMs={atMs} />
            <Lanes health={health} />
            <Card title="Gaps of today">
              {gaps.length > 0 ? (
                <Wide label="Gaps, scrollable">
                  <GapRows gaps={gaps} withTicker />
                </Wide>
              ) : (
                <Nothing>Nothing is missing from today.</Nothing>
              )}
            </Card>
          </>
        )}
      </div>
    </main>
  );
}
