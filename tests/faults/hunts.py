"""Hunts for planted defects: the proof that the rows and their judge can say no.

The control comes first: every row that hunts must find nothing on the code as it is. Then each
defect is planted in a copy of the repository, and its row strikes until something is violated, for
as many trials as the defect has. A stack that is red for another reason than the defect counts as
not found out. The rows to compare with, and the judge, are always those of the code as it is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from libs.common import calendar
from tests.faults import report
from tests.faults.campaign import Baseline, Run, baseline, judge, run, strike
from tests.faults.recording import DAYS, write_recording
from tests.faults.rows import ROWS, Row
from tests.faults.sensitivity import DEFECTS, Defect, Finding
from tests.servers import temporary_home

__all__ = ["every", "finding", "hunt", "short"]

CAUGHT_UP_WITHIN_S = 60.0
SETTLED_WITHIN_S = 20.0
SESSION_WITHIN_S = 240.0
BASELINE_HOURS = 6.0
_SEED = 7
_FIRST_CHARACTERS_MAX = 400
# What a rig meets when a process that it asks or strikes is not there.
_BROKEN = (AssertionError, OSError, httpx.HTTPError, psutil.Error)
_BEGUN_MS = 15 * 60_000

_console = Console()


async def every(rows: Sequence[Row]) -> bool:
    """Hunt each defect whose row is among `rows`, keep what came out, and write the page.

    Returns whether the control found nothing and every defect was found out.
    """
    defects = [defect for defect in DEFECTS if defect.row in {row.name for row in rows}]
    with temporary_home() as folder:
        recording = write_recording(folder)
        expected = await baseline(recording, BASELINE_HOURS)
        runs = await _control(defects, rows, recording, expected)
        findings = await _hunt_all(defects, rows, recording, expected, report.keep_finding)
    report.write(ROWS)
    _console.print(_summary(findings))
    calm = not any(each.violations for each in runs)
    return calm and all(found.found_out for found in findings)


async def short(rows: Sequence[Row]) -> bool:
    """Hunt the quickest defects; returns whether each was found out."""
    names = {row.name for row in rows}
    defects = [defect for defect in DEFECTS if defect.short and defect.row in names]
    with temporary_home() as folder:
        recording = write_recording(folder)
        expected = await baseline(recording, BASELINE_HOURS)
        findings = await _hunt_all(defects, rows, recording, expected)
    _console.print(_summary(findings))
    return all(found.found_out for found in findings)


async def _control(
    defects: Sequence[Defect], rows: Sequence[Row], recording: Sequence[Path], expected: Baseline
) -> list[Run]:
    """Strike once with each row on the code as it is; rows of one kind share a run."""
    named = {defect.row for defect in defects}
    left = [row for row in rows if row.name in named]
    runs = []
    while left:
        first = left[0]
        batch = [
            row
            for row in left
            if (row.scene, row.misses_input) == (first.scene, first.misses_input)
        ][: first.scene.trials_max]
        left = [row for row in left if row not in batch]
        done = await run(first.scene, batch, _SEED, recording, expected)
        runs.append(done)
        report.keep(done)
        names = ", ".join(row.name for row in batch)
        _console.print(f"control, {names}: {'; '.join(done.violations) or 'nothing'}")
    return runs


async def _hunt_all(
    defects: Iterable[Defect],
    rows: Iterable[Row],
    recording: Sequence[Path],
    expected: Baseline,
    keep: Callable[[Finding], None] = lambda found: None,
) -> list[Finding]:
    named = {row.name: row for row in rows}
    findings = []
    for defect in defects:
        found = await hunt(defect, named[defect.row], recording, expected)
        findings.append(found)
        keep(found)
        outcome = "found out" if found.found_out else "NOT FOUND OUT"
        _console.print(f"{defect.name}: {outcome} after {found.trials}: {found.first}")
    return findings


async def hunt(defect: Defect, row: Row, recording: Sequence[Path], expected: Baseline) -> Finding:
    """Plant a defect and strike until something is violated."""
    scene = dataclasses.replace(row.scene, defect=defect.patch)
    random = Random(_SEED)
    trials = 0
    found: list[str] = []
    try:
        async with scene.rig(recording) as rig:
            rig.caught_up_within_s = CAUGHT_UP_WITHIN_S
            try:
                if defect.in_session:
                    await rig.until_broker(_session_begun_ms(), SESSION_WITHIN_S)
                while not found and trials < defect.trials_max:
                    trials += 1
                    await rig.a_moment(random)
                    await strike(row, rig, random)
                    found = await judge(rig, [row], expected, SETTLED_WITHIN_S)
            except _BROKEN as error:
                found = [str(error) or type(error).__name__]
            if found:
                found += rig.complaints()
    except _BROKEN as error:  # the stack does not start, or does not end
        found = found or [str(error)]
    return finding(defect, trials, found)


def _session_begun_ms() -> int:
    """Return broker time shortly after the first regular open of the recording."""
    session = calendar.session(DAYS[0])
    assert session is not None
    return session.open_ms + _BEGUN_MS


def finding(defect: Defect, trials: int, found: Sequence[str]) -> Finding:
    """Look for the violation that the defect must cause; without it, tell the first one."""
    right = [line for line in found if re.search(defect.shows, line)]
    first = " ".join((right or list(found) or [""])[0].split())
    return Finding(defect.name, defect.row, trials, first[:_FIRST_CHARACTERS_MAX], bool(right))


def _summary(findings: Iterable[Finding]) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("defect", "row", "trials", "first violation"):
        table.add_column(name, justify="right" if name == "trials" else "left")
    for each in findings:
        first = each.first if each.found_out else f"NOT FOUND OUT {each.first}"
        table.add_row(each.defect, each.row, str(each.trials), first)
    return table
