"""The vocabulary of supervision: units, their states, what happens to them, what to do about it.

Plain values, shared by the machine that decides (`cli.supervisor`) and the code that acts
(`cli.processes`, `cli.up`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "LIVE_STATES",
    "Action",
    "Announce",
    "Elapsed",
    "Event",
    "Exited",
    "Finish",
    "ForceAsked",
    "Hung",
    "Kill",
    "Noted",
    "Reached",
    "Ready",
    "Report",
    "RestartAsked",
    "Start",
    "State",
    "StopAsked",
    "Terminate",
    "Unit",
    "Unready",
]


class State(StrEnum):
    """Where a unit stands, as `./kite status` shows it."""

    WAITING = "waiting"  # for a milestone
    STARTING = "starting"  # has a process, was not ready yet
    RUNNING = "running"  # ready
    UNREADY = "unready"  # was ready, says now that it cannot work
    BACKOFF = "restarting"  # died, starts again soon
    REFUSED = "refused"  # said that it cannot go on; tried again seldom
    STOPPING = "stopping"  # told to end
    STOPPED = "stopped"  # ended, and stays so
    DONE = "done"  # a job that ended well


LIVE_STATES = frozenset({State.STARTING, State.RUNNING, State.UNREADY, State.STOPPING})


@dataclass(frozen=True)
class Unit:
    """A process to look after.

    `needs` are the milestones it waits for; `stop_stage` says when it is stopped (0 first) and
    `stop_deadline_s` how long it may take before it is killed. A `job` runs once.
    """

    name: str
    needs: frozenset[str] = frozenset()
    job: bool = False
    stop_stage: int = 0
    stop_deadline_s: float = 10.0


# -- events ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elapsed:
    """Time passed, nothing else; the first one sets things going."""


@dataclass(frozen=True)
class Reached:
    """A milestone was reached."""

    milestone: str


@dataclass(frozen=True)
class Ready:
    """A unit's process says that it can do its work."""

    unit: str


@dataclass(frozen=True)
class Unready:
    """A unit's process says that it cannot do its work now, and why."""

    unit: str
    reason: str


@dataclass(frozen=True)
class Hung:
    """A unit's process does not answer any more."""

    unit: str


@dataclass(frozen=True)
class Exited:
    """A unit's process ended; `code` is negative for a signal. `last_words` is its last error."""

    unit: str
    code: int
    last_words: str = ""


@dataclass(frozen=True)
class RestartAsked:
    """Somebody wants a unit restarted; `reason` is told to the operator, if there is one."""

    unit: str
    reason: str = ""


@dataclass(frozen=True)
class StopAsked:
    """Stop everything in order and finish with `code`."""

    code: int = 0


@dataclass(frozen=True)
class ForceAsked:
    """Stop everything now."""


@dataclass(frozen=True)
class Noted:
    """A unit's process said something that the operator should read; nothing follows from it."""

    text: str


Event = (
    Elapsed
    | Reached
    | Ready
    | Unready
    | Hung
    | Exited
    | RestartAsked
    | StopAsked
    | ForceAsked
    | Noted
)

# -- actions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Start a process for this unit."""

    unit: str


@dataclass(frozen=True)
class Terminate:
    """Ask this unit's process to end."""

    unit: str


@dataclass(frozen=True)
class Kill:
    """End this unit's process without asking."""

    unit: str


@dataclass(frozen=True)
class Announce:
    """Every unit is ready and every job done, for the first time."""


@dataclass(frozen=True)
class Report:
    """One line for the operator; `level` is info, warning or error."""

    level: str
    text: str


@dataclass(frozen=True)
class Finish:
    """The last process is gone; end with `code`."""

    code: int


Action = Start | Terminate | Kill | Announce | Report | Finish
