"""Results kept as JSON lines, and the page that is made of them."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich.table import Table

from tests.faults.campaign import Run
from tests.faults.changes import CHANGES, LEFT_OUT, counts
from tests.faults.evidence import ROOT, code_digest
from tests.faults.rows import Row
from tests.faults.sensitivity import DEFECTS, Finding

__all__ = ["keep", "keep_finding", "summary", "trials", "write"]

RESULTS = ROOT / "docs" / "faults.jsonl"
PAGE = ROOT / "docs" / "faults.md"


class Kept(msgspec.Struct, frozen=True):
    """A run or the hunt for a planted defect, and the code that it was made with."""

    code: str
    run: Run | None = None
    finding: Finding | None = None


def keep(run: Run) -> None:
    """Append a run to the results."""
    _append(Kept(code_digest(), run=run))


def keep_finding(finding: Finding) -> None:
    """Append the end of a hunt to the results."""
    _append(Kept(code_digest(), finding=finding))


def trials() -> Counter[str]:
    """Return how many trials of each row there are of the present code."""
    runs = (each.run for each in _kept() if each.run is not None)
    return Counter(trial.row for run in runs for trial in run.trials)


def _append(kept: Kept) -> None:
    with RESULTS.open("ab") as file:
        file.write(msgspec.json.encode(kept) + b"\n")


def write(rows: Sequence[Row]) -> None:
    """Write the page from the results of the present code."""
    everything = _kept()
    kept = [each.run for each in everything if each.run is not None]
    lines = [_INTRODUCTION.format(code=code_digest(), runs=len(kept)), *_earlier(), *_HEADER]
    lines += [_line(row, kept) for row in rows]
    worst: dict[str, int] = {}
    for run in kept:
        for name, rss_bytes in run.rss_bytes.items():
            worst[name] = max(worst.get(name, 0), rss_bytes)
    lines += ["", "## Memory", "", "| process | largest resident set, MiB |", "|---|---|"]
    lines += [f"| {name} | {rss_bytes >> 20} |" for name, rss_bytes in sorted(worst.items())]
    findings = {each.finding.defect: each.finding for each in everything if each.finding}
    lines += _defects(findings)
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


def _kept() -> list[Kept]:
    if not RESULTS.exists():
        return []
    lines = RESULTS.read_bytes().splitlines()
    return [each for line in lines if _counts(each := msgspec.json.decode(line, type=Kept))]


def _counts(kept: Kept) -> bool:
    scene = kept.run.scene if kept.run is not None else None
    if scene is None:
        return kept.code == code_digest()
    return counts(kept.code, scene, code_digest())


def _earlier() -> list[str]:
    """Say which mends came after some of the trials, and which runs do not count."""
    said = [
        f"Found by the campaign and mended on the way: {each.what}. Trials made before count for "
        f"rows that cannot feel this; those of scene {', '.join(sorted(each.scenes))} were begun "
        "anew."
        for each in CHANGES
        if each.after == code_digest()
    ]
    left_out = LEFT_OUT.get(code_digest(), ())
    if left_out:
        said.append("Left out: " + "; ".join(left_out) + ".")
    return [line for text in said for line in (textwrap.fill(text, 100), "")]


def _defects(findings: Mapping[str, Finding]) -> list[str]:
    """Return the section on planted defects; one that was not hunted yet says so."""
    lines = list(_DEFECTS_HEADER)
    for defect in DEFECTS:
        found = findings.get(defect.name)
        if found is None:
            trials, first = "", "not hunted yet"
        else:
            trials = str(found.trials)
            first = found.first if found.found_out else f"**not found out** {found.first}"
        lines.append(
            f"| {defect.name} | {defect.what} | {defect.row} | {trials} | {_in_cell(first)} |"
        )
    return lines


def _in_cell(text: str) -> str:
    """Shorten a violation to what fits into a table, whose columns it must not break."""
    short = text if len(text) <= _CELL_MAX else text[: _CELL_MAX - 1] + "…"
    return short.replace("|", "\\|")


def _line(row: Row, runs: Sequence[Run]) -> str:
    trials, violations, *recovery = _figures(row.name, runs)
    bound = f"{3 / int(trials):.1%}" if int(trials) and violations == "0" else ""
    cells = (row.name, row.what, trials, violations, bound, *recovery, _seen(row.name, runs))
    return f"| {' | '.join(cells)} |"


def _seen(name: str, runs: Iterable[Run]) -> str:
    """Say what happened in all trials of a row together, such as `30 reached`."""
    counts: Counter[str] = Counter()
    for run in runs:
        for trial in run.trials:
            if trial.row == name:
                counts.update(trial.counts)
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))


def _figures(name: str, runs: Iterable[Run]) -> tuple[str, ...]:
    struck = [(run, trial) for run in runs for trial in run.trials if trial.row == name]
    guilty = {id(run) for run, _ in struck if run.violations}
    alone = [trial for run, trial in struck if run.jobs == 1]
    measured = alone if len(alone) >= _ALONE_MIN else [trial for _, trial in struck]
    times = sorted(trial.recovery_ms for trial in measured if trial.recovery_ms is not None)
    return (
        str(len(struck)),
        str(len(guilty)),
        *(f"{_quantile(times, part) / 1000:.2f}" if times else "" for part in (0.5, 0.99, 1.0)),
    )


def _quantile(values: Sequence[int], part: float) -> int:
    return values[max(0, math.ceil(part * len(values)) - 1)]


_CELL_MAX = 160
_ALONE_MIN = 20  # fewer say little about the slowest of them
_INTRODUCTION = """\
# Faults

What was done to the running stack, how often, and what came of it. Written by `make faults`; the
harness is in `tests/faults`. Code {code}, {runs} runs.

A *run* starts the whole stack with `./kite up` on recorded minutes of eight tickers at 75 to
150 times their pace, and strikes it again and again; each strike is a *trial*. At the end its rows
are held against those of a run without faults (SHA-256 of every table), against what the simulator
noted as sent, and against what was said on the live subjects. A violation counts against every row
of its run. The bound is what no violation in n trials says with 95 % confidence about the chance of
one: 3/n.

*Recovery* is the time from the blow (for a stopped process or a sick surrounding: from its end)
until a wire frame received since then, the newest there was, had all its rows committed in every
partition. It is that of runs which had the machine for themselves, where a row has twenty trials of
that kind; elsewhere several stacks shared it, so it is longer than it need be.

*Seen* counts over all trials what had to happen for them to mean anything: failpoints reached,
stale writes fenced.
"""
_HEADER = (
    "| row | what happens | trials | violations | bound | recovery p50 s | p99 s | max s | seen |",
    "|---|---|---|---|---|---|---|---|---|",
)
_DEFECTS_HEADER = (
    "",
    "## Planted defects",
    "",
    "What a judge is worth shows when something is wrong. Each defect is a patch in",
    "`tests/faults/defects`, applied to a copy of the code; its row must turn red, and for this",
    "reason, while the same row finds nothing on the code as it is. All of them are hunted by",
    "`make faults ARGS=--sensitivity`.",
    "",
    "| defect | what is wrong | row | trials until red | first violation |",
    "|---|---|---|---|---|",
)
