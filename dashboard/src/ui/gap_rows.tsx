// The rows of gaps, wherever they are listed.

import { formatTime } from "../data/newyork";
import type { Gap } from "../data/types";
import { reasonText } from "./gap_reason";

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
          <th scope="col">Why not filled</th>
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
            <td className="text-ink-2">{reasonText(gap.reason)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
