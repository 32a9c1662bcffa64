"""Places at which a process can be told to die or to stop, so that tests can hit it exactly there.

A kill at a random moment seldom hits the few microseconds that matter: between a publish and its
acknowledgement, in the middle of a transaction. Each of those moments has a name here, and the
code calls `reach` with it. With KITE_FAILPOINT_FILE set when the process starts, a harness arms
one point by putting its name into that file (whole at once: written beside it, then renamed). The
process that reaches the point removes the file and kills itself, so the file's absence tells that
the point was reached. When several processes reach it together, only the one that removed the file
dies.

The death is SIGKILL because no other one is honest: an exception would run `finally` blocks, a
signal that can be handled would drain and say goodbye, and a real crash does neither.

`<name> stop` in the file makes the process stop itself by SIGSTOP instead, and go on from there
when a harness sends SIGCONT. That is how a zombie is made on purpose: it wakes with a write on its
lips that has long been somebody else's to make. Places that prepare their death (`is_armed`) only
die.

Without the variable, which is how everybody but a test runs it, nothing here looks at any file, and
what a process starts with stays for its life.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["ENABLED", "FAILPOINTS", "STOP", "is_armed", "reach", "within"]

STOP: Final = "stop"

# `sent` points lie between a request that has reached the server and its answer.
FAILPOINTS: Final[tuple[str, ...]] = (
    "ingest.publish.before",
    "ingest.publish.sent",
    "ingest.publish.stored",  # acknowledged, not yet noted
    "ingest.spool.append.torn",  # half of a record is in the file
    "ingest.spool.appended",
    "ingest.checkpoint.before",
    "ingest.checkpoint.sent",
    "ingest.command.before",  # what it changes is known here and nowhere else
    "ingest.command.stored",  # on record, not acknowledged
    "indicators.publish.before",
    "indicators.publish.sent",
    "indicators.publish.stored",  # the input is not acknowledged
    "indicators.checkpoint.before",
    "indicators.checkpoint.sent",
    "indicators.load.middle",  # the checkpoint is taken up, what was answered since is not
    "signals.publish.before",
    "signals.publish.sent",
    "signals.publish.stored",
    "signals.checkpoint.before",
    "signals.checkpoint.sent",
    "signals.load.middle",
    "writer.transaction.before",  # the rows are made, the database has not heard of them
    "writer.transaction.begun",  # the position is moved, no row is written
    "writer.transaction.middle",  # rows of one table are written
    "writer.commit.before",
    "writer.commit.sent",
    "writer.committed",  # the bus has not heard of it
    "notifier.intake.before",  # signals are read, the journal has none of them
    "notifier.intake.stored",
    "notifier.alerts.stored",  # Alertmanager has no answer
    "notifier.send.before",
    "notifier.send.intended",  # the journal knows of the try, the channel does not
    "notifier.send.sent",  # the channel has it, the journal has not heard of it
    "notifier.send.stored",
    "migrate.middle",  # a migration is applied and not noted
    "bootstrap.streams.middle",  # some streams are made, others not
)

_FILE: Final = Path(value) if (value := os.environ.get("KITE_FAILPOINT_FILE")) else None
ENABLED: Final = _FILE is not None


def reach(name: str) -> None:
    """Die or stop here if this point is armed; raises ValueError if nobody can arm it."""
    if _FILE is None:
        return
    _require_known(name)
    armed = _armed()
    if armed in ([name], [name, STOP]) and _claim(_FILE):
        os.kill(os.getpid(), signal.SIGSTOP if STOP in armed else signal.SIGKILL)


def is_armed(name: str) -> bool:
    """Whether `reach` would die here, for places that must prepare their death."""
    if _FILE is None:
        return False
    _require_known(name)
    return _armed() == [name]


def within(process: str) -> Callable[[str], None]:
    """Return `reach` for the points of one process, to be called without its name."""
    if _FILE is None:
        return _pass_by
    return lambda place: reach(f"{process}.{place}")


def _pass_by(_place: str) -> None:
    """What is left of a point when none can be armed."""


def _require_known(name: str) -> None:
    if name not in FAILPOINTS:
        raise ValueError(f"{name!r} is not among the failpoints")


def _armed() -> list[str]:
    """Return the words of the file: a point, and what shall happen there if not death."""
    assert _FILE is not None
    try:
        return _FILE.read_text().split()
    except FileNotFoundError:
        return []


def _claim(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True
