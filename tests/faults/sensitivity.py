"""Planted defects: what each breaks, and the row that must find out. `hunts` sees whether it does.

A test that has never failed proves little. Each defect is a patch in `defects/`; its row strikes a
stack with the patch until something is violated, and what is violated must read as the table says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

__all__ = ["DEFECTS", "Defect", "Finding"]

_PATCHES = Path(__file__).resolve().parent / "defects"
_STOPS = "caught up with the broker"
_TWICE = r"writer refuses to run \(exit code 3: UniqueViolationError"
_HOLE = "left the stream before they were written"


@dataclass(frozen=True)
class Defect:
    """A patch: what is wrong then, the row that must find out, and how that violation reads.

    `shows` is a regular expression for a part of it, or of what `kite up` says.

    `row` gets at most `trials_max` trials; where one is not enough, chance decides whether the
    defect does any harm. `in_session` waits for the regular session before the first one, because
    there are signals only then. The `short` ones are hunted on each change.
    """

    name: str
    what: str
    row: str
    shows: str
    trials_max: int = 2
    in_session: bool = False
    short: bool = False

    @property
    def patch(self) -> Path:
        """The file that plants it."""
        return _PATCHES / f"{self.name}.patch"


class Finding(msgspec.Struct, frozen=True):
    """How a hunt ended; `first` is the violation that tells, empty when there was none at all."""

    defect: str
    row: str
    trials: int
    first: str
    found_out: bool


DEFECTS = (
    # The writer and the database.
    Defect(
        "position-before-rows",
        "the writer moves its position in a transaction of its own, before the rows",
        "failpoint writer.transaction.begun", "0 rows that should not be", short=True,
    ),
    Defect(
        "position-after-rows",
        "the writer moves its position in a transaction of its own, after the rows",
        "failpoint writer.transaction.begun", _TWICE, trials_max=6,
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
        "zombie indicators", _HOLE,
    ),
    Defect(
        "sent-again-when-fenced",
        "an answer that the server refuses is sent again behind whatever is there",
        "zombie indicators", _HOLE,
    ),
    Defect(
        "input-not-run-again",
        "after a restart the input since the checkpoint is passed over",
        "kill -9 indicators", "indicators: ",
    ),
    Defect(
        "answers-repeated",
        "after a restart the input since the checkpoint is answered again",
        "kill -9 indicators", _TWICE,
    ),
    Defect(
        "reused-sequence",
        "after a restart answers are numbered from the checkpoint on, not from the last answer",
        "kill -9 indicators", _HOLE,
    ),
    Defect(
        "vwap-forgotten",
        "a restart forgets the sums of the ticks' vwap",
        "kill -9 indicators", "indicators: ",
    ),
    Defect(
        "session-forgotten",
        "a restart of signals forgets today's session, so that nothing counts until tomorrow",
        "kill -9 signals", "signals: 0 rows that should not be", trials_max=4, in_session=True,
    ),
    Defect(
        "correction-ignored",
        "signals does not look at days that history corrects",
        "kill -9 ingest", "essence of signals: 0 rows that should not be", trials_max=4,
        in_session=True,
    ),
    # The bus.
    Defect(
        "doubt-is-success",
        "a publish that nobody answered counts as stored",
        "kill -9 nats", "and the last one known is", trials_max=6,
    ),
    Defect(
        "no-fsync",
        "nats-server acknowledges what is not on the disk yet, as it does by default",
        "power cut", "still waiting for nats|lost its tail",
    ),
    # Ingest.
    Defect(
        "sent-again-in-doubt",
        "ingest sends a frame again under its number without looking whether it was stored",
        "ambiguous publish: ingest", _HOLE,
    ),
    Defect(
        "memory-dropped",
        "frames that wait in memory get lost when ingest turns to the spool",
        "kill -9 nats", _HOLE,
    ),
    Defect(
        "spool-forgotten",
        "ingest begins with an empty spool",
        "kill -9 ingest with a spool", "ticks in the spool are not stored",
    ),
    Defect(
        "torn-record-accepted",
        "a record of the spool is taken without its length and checksum being looked at",
        "failpoint ingest.spool.append.torn", "does not decode: Input data was truncated",
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
    Defect(
        "falling-volume",
        "a day volume that begins anew counts as traded",
        "wire: volume reset", "are not the wire's",
    ),
    Defect(
        "letter-dropped",
        "what cannot be parsed is passed over in silence",
        "wire: malformed", "kite_ingest_dead_letters_total",
    ),
    # The gateway.
    Defect(
        "told-twice",
        "a client that comes back is told the frame once more that it had reached",
        "kill -9 gateway", "the page was told tick", short=True,
    ),
    Defect(
        "frame-passed-over",
        "a client is told what came after the frame that follows its place",
        "kill -9 gateway", "the page lacks",
    ),
)  # fmt: skip
