"""Planted defects: each breaks one promise of the code, and the row that watches it must find out.

A test that has never failed proves little. The control comes first: every row named here, on the
code as it is, must find nothing. Then each defect is planted in a copy of the repository, and its
row strikes until something is violated, for as many trials as the defect has. What is violated must
be what the defect breaks (`shows`); a stack that is red for another reason counts as not found out.
The rows to compare with, and the judge, are always those of the code without defects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
from rich.table import Table

from tests.faults.campaign import Baseline, Run, judge, run, strike
from tests.faults.row import Row

__all__ = ["DEFECTS", "Defect", "Finding", "control", "hunt", "summary"]

CAUGHT_UP_WITHIN_S = 30.0
SETTLED_WITHIN_S = 10.0
_PATCHES = Path(__file__).resolve().parent / "defects"
_SEED = 7
_FIRST_CHARACTERS_MAX = 400
_STOPS = "caught up with the broker"


@dataclass(frozen=True)
class Defect:
    """A patch: what is wrong then, the row that must find out, and how that violation reads.

    `row` gets at most `trials_max` trials; where one is not enough, chance decides whether the
    defect does any harm. The `short` ones are hunted on each change.
    """

    name: str
    what: str
    row: str
    shows: str
    trials_max: int = 2
    short: bool = False

    @property
    def patch(self) -> Path:
        """The file that plants it."""
        return _PATCHES / f"{self.name}.patch"


class Finding(msgspec.Struct, frozen=True):
    """How a hunt ended: the first violation is empty when nothing was found."""

    defect: str
    row: str
    trials: int
    first: str
    found_out: bool


async def control(
    rows: Sequence[Row],
    recording: Sequence[Path],
    expected: Baseline,
    on_run: Callable[[str], None],
) -> list[Run]:
    """Strike once with each row on the code as it is; rows of one kind share a run."""
    left = list(rows)
    runs = []
    while left:
        first = left[0]
        kind = (first.scene, first.misses_input)
        batch = [row for row in left if (row.scene, row.misses_input) == kind]
        batch = batch[: first.scene.trials_max]
        left = [row for row in left if row not in batch]
        on_run(f"control, {first.scene.name}")
        runs.append(await run(first.scene, batch, _SEED, recording, expected))
    return runs


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
                while not found and trials < defect.trials_max:
                    trials += 1
                    await rig.a_moment(random)
                    await strike(row, rig, random)
                    found = await judge(rig, [row], expected, SETTLED_WITHIN_S)
            except AssertionError as error:
                found = [str(error), *rig.complaints()]
    except AssertionError as error:  # the stack does not start, or not end
        found = found or [str(error)]
    return _finding(defect, trials, found)


def _finding(defect: Defect, trials: int, found: Sequence[str]) -> Finding:
    """Look for the violation that the defect is to cause; without it, tell the first one."""
    right = [line for line in found if defect.shows in line]
    first = (right or list(found) or [""])[0]
    return Finding(
        defect.name, defect.row, trials, " ".join(first.split())[:_FIRST_CHARACTERS_MAX],
        bool(right),
    )  # fmt: skip


def summary(findings: Iterable[Finding]) -> Table:
    """Return the table that a terminal shows."""
    table = Table(box=None, header_style="bold")
    for name in ("defect", "row", "trials", "first violation"):
        table.add_column(name, justify="right" if name == "trials" else "left")
    for each in findings:
        first = each.first if each.found_out else f"NOT FOUND OUT {each.first}"
        table.add_row(each.defect, each.row, str(each.trials), first)
    return table


DEFECTS = (
    # The writer and the database.
    Defect(
        "position-before-rows",
        "the writer moves its position in a transaction of its own, before the rows",
        "failpoint writer.transaction.begun", "sent and not stored", short=True,
    ),
    Defect(
        "position-after-rows",
        "the writer moves its position in a transaction of its own, after the rows",
        "failpoint writer.transaction.begun", _STOPS,
    ),
    Defect(
        "writer-without-fence",
        "the writer moves the position wherever it stands, also if another writer moved it",
        "zombie writer", "the stale write of writer is refused",
    ),
    Defect(
        "swallowed-exception",
        "the writer goes on with the next batch when one could not be committed",
        "kill -9 postgres", _STOPS,
    ),
    Defect(
        "float-key",
        "the time of a tick passes through a float on its way to the key",
        "kill -9 writer", "sent and not stored", trials_max=1, short=True,
    ),
    # The owner of a partition.
    Defect(
        "skipped-fence",
        "an answer does not name the one that it follows, so the server refuses nothing",
        "zombie indicators", "the stale write of indicators is refused",
    ),
    Defect(
        "sent-again-when-fenced",
        "an answer that the server refuses is sent again behind whatever is there",
        "zombie indicators", _STOPS,
    ),
    Defect(
        "input-not-run-again",
        "after a restart the input since the checkpoint is passed over",
        "kill -9 indicators", "indicators: ",
    ),
    Defect(
        "answers-repeated",
        "after a restart the input since the checkpoint is answered again",
        "kill -9 indicators", _STOPS,
    ),
    Defect(
        "reused-sequence",
        "after a restart answers are numbered from the checkpoint on, not from the last answer",
        "kill -9 indicators", _STOPS,
    ),
    Defect(
        "vwap-forgotten",
        "a restart forgets the sums of the ticks' vwap",
        "kill -9 indicators", "indicators: ",
    ),
    Defect(
        "relation-forgotten",
        "a restart forgets which of two averages was above",
        "kill -9 signals", "signals: ", trials_max=10,
    ),
    Defect(
        "correction-ignored",
        "signals does not look at days that history corrects",
        "kill -9 ingest", "essence of signals: ", trials_max=4,
    ),
    # The bus.
    Defect(
        "doubt-is-success",
        "a publish that nobody answered counts as stored",
        "kill -9 nats", "", trials_max=4,
    ),
    Defect(
        "no-fsync",
        "nats-server acknowledges what is not on the disk yet, as it does by default",
        "power cut", "",
    ),
    # Ingest.
    Defect(
        "sent-again-in-doubt",
        "ingest sends a frame again under its number without looking whether it was stored",
        "ambiguous publish: ingest", _STOPS,
    ),
    Defect(
        "memory-dropped",
        "frames that wait in memory get lost when ingest turns to the spool",
        "kill -9 nats", "",
    ),
    Defect(
        "spool-forgotten",
        "ingest begins with an empty spool",
        "kill -9 ingest with a spool", "ticks in the spool are not stored",
    ),
    Defect(
        "torn-record-accepted",
        "a record of the spool is taken without its length and checksum being looked at",
        "failpoint ingest.spool.append.torn", _STOPS,
    ),
    Defect(
        "ignored-gap",
        "ticks missed between two connections are not listed",
        "kill -9 ingest", "are in no gap", trials_max=1, short=True,
    ),
    Defect(
        "gap-over-a-tick",
        "a gap begins with the last tick that is stored",
        "kill -9 ingest", "stored ticks",
    ),
    Defect(
        "history-not-wanted",
        "minutes missed between two connections are listed and not asked for",
        "kill -9 ingest", "essence of candles: ",
    ),
    Defect(
        "image-is-growth",
        "the day's volume in the first image of a connection counts as traded since",
        "kill -9 ingest", "are not the wire's",
    ),
)  # fmt: skip
