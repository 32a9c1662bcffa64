"""What the reconciler has found to differ, and what of it still stands: pure.

A finding is told once, when it is new, and stands until it is looked for again and not found. Each
comparison of a whole lane has a number: a finding that the one with the next number did not confirm
is mended (or has left the stream by age, so that nobody can say any more).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from services.writer.ledger import Difference, Tally

__all__ = ["ROWS_KIND", "Finding", "Findings", "Lane", "of_rows"]

ROWS_KIND = "rows"
STANDING_MAX = 10_000
_TICKERS_NAMED_MAX = 5

# A stream and a partition of it; -1 stands for the stream as a whole.
Lane = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be: what kind, and where within its lane.

    `facts` are the fields of its log line.
    """

    kind: str
    lane: Lane
    place: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)


class Findings:
    """The findings that stand. At most STANDING_MAX are kept; what exceeds them is not told."""

    def __init__(self) -> None:
        self._standing: dict[Finding, int] = {}

    def report(self, finding: Finding, sweep: int) -> bool:
        """Note what comparison number `sweep` of its lane found; tells whether it is new."""
        new = finding not in self._standing
        if new and len(self._standing) >= STANDING_MAX:
            return False
        self._standing[finding] = sweep
        return new

    def settle(self, lane: Lane, sweep: int) -> Sequence[Finding]:
        """Drop and return what comparison number `sweep` and later ones did not confirm."""
        mended = [
            finding
            for finding, confirmed in self._standing.items()
            if finding.lane == lane and confirmed < sweep
        ]
        for finding in mended:
            del self._standing[finding]
        return mended

    def standing(self) -> Counter[tuple[str, Lane]]:
        """Count what stands by kind and lane."""
        return Counter((finding.kind, finding.lane) for finding in self._standing)


def of_rows(lane: Lane, table: str, found: Iterable[Difference]) -> list[Finding]:
    """Make one finding of all tickers that differ in a minute, with the counts of both sides."""
    findings = []
    for minute_ms, group in groupby(found, key=lambda each: each.minute_ms):
        differing = list(group)
        minute = datetime.fromtimestamp(minute_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")
        stream = sum((each.stream for each in differing), Tally())
        stored = sum((each.table for each in differing), Tally())
        facts = {
            "table": table,
            "minute": minute,
            "tickers": len(differing),
            "rows_of_stream": stream.count,
            "rows_of_table": stored.count,
            "digest_of_stream": f"{stream.digest:x}",
            "digest_of_table": f"{stored.digest:x}",
            "examples": [
                f"{each.ticker} {each.stream.count}/{each.table.count}"
                for each in differing[:_TICKERS_NAMED_MAX]
            ],
        }
        findings.append(Finding(ROWS_KIND, lane, minute, facts))
    return findings
