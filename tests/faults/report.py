"""Results kept as JSON lines, and the page that is made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
from rich.table import Table

from tests.faults.campaign import Run
from tests.faults.evidence import ROOT, code_digest
from tests.faults.rows import Row

__all__ = ["keep", "summary", "write"]

RESULTS = ROOT / "docs" / "faults.jsonl"
PAGE = ROOT / "docs" / "faults.md"


class Kept(msgspec.Struct, frozen=True):
    """A run, and the code that it ran."""

    code: str
    run: Run


def keep(run: Run) -> None:
    """Append a run to the results."""
    with RESULTS.open("ab") as file:
        file.write(msgspec.json.encode(Kept(code_digest(), run)) + b"\n")


def write(rows: Sequence[Row]) -> None:
    """Write the page from the results of the present code."""
    kept = _kept()
    lines = [_INTRODUCTION.format(code=code_digest(), runs=len(kept)), *_HEADER]
    lines += [_line(row, kept) for row in rows]
    worst: dict[str, int] = {}
    for run in kept:
        for name, rss_bytes in run.rss_bytes.items():
            worst[name] = max(worst.get(name, 0), rss_bytes)
    lines += ["", "## Memory", "", "| process | largest resident set, MiB |", "|---|---|"]
    lines += [f"| {name} | {rss_bytes >> 20} |" for name, rss_bytes in sorted(worst.items())]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def summary(runs: Sequence[Run]) -> Table:
    """Return the table that a terminal shows."""
    table = Table(box=None, header_style="bold")
    for name in ("row", "trials", "violations", "p50 s", "p99 s", "max s"):
        table.add_column(name, justify="left" if name == "row" else "right")
    for name in dict.fromkeys(trial.row for run in runs for trial in run.trials):
        figures = _figures(name, runs)
        table.add_row(name, *figures)
    return table


def _kept() -> list[Run]:
    if not RESULTS.exists():
        return []
    lines = RESULTS.read_bytes().splitlines()
    kept = [msgspec.json.decode(line, type=Kept) for line in lines]
    return [each.run for each in kept if each.code == code_digest()]


def _line(row: Row, runs: Sequence[Run]) -> str:
    trials, violations, *recovery = _figures(row.name, runs)
    bound = f"{3 / int(trials):.1%}" if int(trials) and violations == "0" else ""
    cells = (row.name, row.what, trials, violations, bound, *recovery)
    return f"| {' | '.join(cells)} |"


def _figures(name: str, runs: Iterable[Run]) -> tuple[str, ...]:
    struck = [(run, trial) for run in runs for trial in run.trials if trial.row == name]
    guilty = {id(run) for run, _ in struck if run.violations}
    times = sorted(trial.recovery_ms for _, trial in struck if trial.recovery_ms is not None)
    return (
        str(len(struck)),
        str(len(guilty)),
        *(f"{_quantile(times, part) / 1000:.2f}" if times else "" for part in (0.5, 0.99, 1.0)),
    )


def _quantile(values: Sequence[int], part: float) -> int:
    return values[max(0, math.ceil(part * len(values)) - 1)]


_INTRODUCTION = """\
# Faults

What was done to the running stack, how often, and what came of it. Written by `make faults`; the
harness is in `tests/faults`. Code {code}, {runs} runs.

A *run* starts the whole stack with `./kite up` on recorded minutes of eight tickers at 300 times
their pace, and strikes it again and again; each strike is a *trial*. At the end its rows are held
against those of a run without faults (SHA-256 of every table), against what the simulator noted as
sent, and against what was said on the live subjects. A violation counts against every row of its
run. The bound is what no violation in n trials says with 95 % confidence about the chance of one:
3/n.

*Recovery* is the time from the blow (for a stopped process or a sick surrounding: from its end)
until a wire frame received since then, the newest there was, had all its rows committed in every
partition.
"""
_HEADER = (
    "| row | what happens | trials | violations | bound | recovery p50 s | p99 s | max s |",
    "|---|---|---|---|---|---|---|---|",
)
