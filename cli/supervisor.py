"""Which process to start, restart and stop, and when: a pure state machine.

Events go in with the time they happened at (any monotonic seconds); actions come out. It starts no
process and asks no clock: `cli.processes` carries the actions out and reports what happened.

Theory of operation. A *unit* is a process that should run (a server or a service) or that should
run once (a job). It starts when every milestone it needs has been reached. Its own name is a
milestone, reached when it is first ready (a job: when it ended well, or said that it is done); jobs
report more of them while they run. Milestones are never taken back: a service that dies while its
server is away is started again at once and waits by itself.

What dies is started again after a back-off that doubles from 0.2 s to 10 s. It begins anew with a
process that was ready and lived for three seconds: a process that is killed time and again comes
back at once each time, one that cannot get up does not use up the machine. Exit codes 2 and 3 are
a unit's final word (`libs.common.errors`): it is *refused*, and tried again only twice a minute.
While the stack starts, a refusal or the fifth death of a unit that was never ready aborts
everything: better one clear line than a loop.

Stopping goes stage by stage (what feeds the pipeline first, the servers last); a stage that is not
gone within its deadline is killed.

Invariants, held by the tests: a unit has at most one process; nothing starts after a stop was
asked for; `Finish` comes exactly when the last process is gone.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cli.units import (
    LIVE_STATES,
    Action,
    Announce,
    Event,
    Exited,
    Finish,
    ForceAsked,
    Hung,
    Kill,
    Reached,
    Ready,
    Report,
    RestartAsked,
    Start,
    State,
    StopAsked,
    Terminate,
    Unit,
    Unready,
)

__all__ = ["STABLE_AFTER_S", "Supervisor", "backoff_s", "describe_exit"]

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
STABLE_AFTER_S = 3.0
REFUSED_RETRY_S = 30.0
STARTUP_DEATHS_MAX = 5
FINAL_EXIT_CODES = frozenset({2, 3})
EXIT_ABORTED = 1
EXIT_REFUSED = 2


@dataclass
class _Standing:
    """What the machine knows of one unit."""

    state: State = State.WAITING
    starts: int = 0
    deaths_in_a_row: int = 0
    started_s: float = 0.0
    due_s: float | None = None  # next start, or when to kill a process that was told to end
    restart_wanted: bool = False
    was_ready: bool = False
    got_up: bool = False  # whether the process of now has been ready
    reason: str = ""


@dataclass
class Supervisor:
    """The machine; see the module's text. Units must have different names."""

    units: Sequence[Unit]
    _of: dict[str, _Standing] = field(init=False)
    _reached: set[str] = field(init=False, default_factory=set)
    _announced: bool = field(init=False, default=False)
    _stop_code: int | None = field(init=False, default=None)
    _forced: bool = field(init=False, default=False)
    _finished: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Give every unit its place."""
        self._unit = {unit.name: unit for unit in self.units}
        self._of = {unit.name: _Standing() for unit in self.units}

    # -- what others may ask -----------------------------------------------------------------------

    @property
    def announced(self) -> bool:
        """Whether the stack was ready once."""
        return self._announced

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop_code is not None

    def state(self, name: str) -> State:
        """Return a unit's state."""
        return self._of[name].state

    def reason(self, name: str) -> str:
        """Return why a unit is not running, as far as it is known."""
        return self._of[name].reason

    def restarts(self, name: str) -> int:
        """Return how often a unit was started again."""
        return max(0, self._of[name].starts - 1)

    def next_due_s(self) -> float | None:
        """Return when an `Elapsed` is due at the latest, or None."""
        due = [standing.due_s for standing in self._of.values() if standing.due_s is not None]
        return min(due, default=None)

    # -- the machine -------------------------------------------------------------------------------

    def handle(self, event: Event, now_s: float) -> list[Action]:
        """Take one event in and return what to do about it, in order."""
        if self._finished:
            return []
        return [*self._react(event, now_s), *self._advance(now_s)]

    def _react(self, event: Event, now_s: float) -> Sequence[Action]:
        match event:
            case Reached(milestone):
                self._reached.add(milestone)
            case Ready(name):
                self._on_ready(name)
            case Unready(name, reason):
                self._on_unready(name, reason)
            case Hung(name):
                return self._on_hung(name)
            case Exited(name, code, last_words):
                return self._on_exit(name, code, last_words, now_s)
            case RestartAsked(name, reason):
                return self._on_restart(name, reason, now_s)
            case StopAsked(code):
                self._stop(code)
            case ForceAsked():
                return self._force()
        return ()

    def _on_ready(self, name: str) -> None:
        standing = self._of[name]
        if standing.state in (State.STARTING, State.UNREADY):
            standing.state, standing.reason = State.RUNNING, ""
            standing.was_ready = standing.got_up = True
            self._reached.add(name)

    def _on_unready(self, name: str, reason: str) -> None:
        standing = self._of[name]
        if standing.state in LIVE_STATES:
            standing.reason = reason
        if standing.state is State.RUNNING:
            standing.state = State.UNREADY

    def _on_hung(self, name: str) -> list[Action]:
        if self._of[name].state not in LIVE_STATES or self.stopping:
            return []
        return [Report("warning", f"{name} does not answer any more, killing it"), Kill(name)]

    def _on_exit(self, name: str, code: int, last_words: str, now_s: float) -> list[Action]:
        unit, standing = self._unit[name], self._of[name]
        standing.due_s, standing.reason = None, ""
        if self.stopping:
            standing.state = State.STOPPED
            return []
        if unit.job and code == 0:
            standing.state = State.DONE
            self._reached.add(name)
            return []
        if standing.restart_wanted:
            standing.restart_wanted, standing.deaths_in_a_row = False, 0
            standing.state, standing.due_s = State.BACKOFF, now_s
            return []
        return self._on_death(unit, standing, code, last_words, now_s)

    def _on_death(
        self, unit: Unit, standing: _Standing, code: int, last_words: str, now_s: float
    ) -> list[Action]:
        how = describe_exit(code) + (f": {last_words}" if last_words else "")
        standing.reason = how
        if standing.got_up and now_s - standing.started_s >= STABLE_AFTER_S:
            standing.deaths_in_a_row = 0
        standing.deaths_in_a_row += 1
        refused = code in FINAL_EXIT_CODES
        if not self._announced and not standing.was_ready:
            if refused:
                standing.state = State.REFUSED
                return self._abort(f"{unit.name} refuses to run: {last_words or how}", EXIT_REFUSED)
            if standing.deaths_in_a_row >= STARTUP_DEATHS_MAX:
                standing.state = State.STOPPED
                text = f"{unit.name} does not start, tried {STARTUP_DEATHS_MAX} times: {how}"
                return self._abort(text, EXIT_ABORTED)
        if refused:
            standing.state, standing.due_s = State.REFUSED, now_s + REFUSED_RETRY_S
            again = f"trying again in {REFUSED_RETRY_S:.0f} s"
            return [Report("error", f"{unit.name} refuses to run ({how}); {again}")]
        wait_s = backoff_s(standing.deaths_in_a_row)
        standing.state, standing.due_s = State.BACKOFF, now_s + wait_s
        return [Report("warning", f"{unit.name} ended ({how}); starting it again in {wait_s:g} s")]

    def _on_restart(self, name: str, reason: str, now_s: float) -> list[Action]:
        standing = self._of[name]
        if self.stopping or self._unit[name].job:
            return []
        if standing.state in (State.BACKOFF, State.REFUSED):
            standing.state, standing.due_s, standing.deaths_in_a_row = State.BACKOFF, now_s, 0
            return []
        if standing.state in LIVE_STATES and not standing.restart_wanted:
            standing.restart_wanted = True
            told = [Report("warning", f"restarting {name}: {reason}")] if reason else []
            return [*told, self._terminate(name, now_s)]
        return []

    def _abort(self, text: str, code: int) -> list[Action]:
        self._stop(code)
        return [Report("error", text)]

    def _stop(self, code: int) -> None:
        if self.stopping:
            return
        self._stop_code = code
        for standing in self._of.values():
            if standing.state not in LIVE_STATES:
                standing.due_s = None
                if standing.state is not State.DONE:
                    standing.state = State.STOPPED

    def _force(self) -> list[Action]:
        self._stop(EXIT_ABORTED)
        self._forced = True
        for standing in self._of.values():
            standing.due_s = None
        return [Kill(name) for name in self._live()]

    def _terminate(self, name: str, now_s: float) -> Terminate:
        standing = self._of[name]
        standing.state = State.STOPPING
        standing.due_s = now_s + self._unit[name].stop_deadline_s
        return Terminate(name)

    def _live(self) -> list[str]:
        return [unit.name for unit in self.units if self._of[unit.name].state in LIVE_STATES]

    # -- what follows from time and from all of the above ------------------------------------------

    def _advance(self, now_s: float) -> Iterable[Action]:
        yield from self._overdue(now_s)
        if self.stopping:
            yield from self._stop_next_stage(now_s)
            return
        for unit in self.units:
            standing = self._of[unit.name]
            waited = standing.state is State.WAITING and unit.needs <= self._reached
            if waited or self._is_due(standing, now_s):
                standing.state, standing.due_s = State.STARTING, None
                standing.started_s, standing.got_up = now_s, False
                standing.starts += 1
                yield Start(unit.name)
        if not self._announced and self._complete():
            self._announced = True
            yield Announce()

    def _is_due(self, standing: _Standing, now_s: float) -> bool:
        dead = standing.state in (State.BACKOFF, State.REFUSED)
        return dead and standing.due_s is not None and standing.due_s <= now_s

    def _overdue(self, now_s: float) -> Iterable[Action]:
        for unit in self.units:
            standing = self._of[unit.name]
            told = standing.state is State.STOPPING and standing.due_s is not None
            if told and standing.due_s is not None and standing.due_s <= now_s:
                standing.due_s = None
                text = f"{unit.name} did not stop within {unit.stop_deadline_s:g} s, killing it"
                yield Report("warning", text)
                yield Kill(unit.name)

    def _stop_next_stage(self, now_s: float) -> Iterable[Action]:
        live = self._live()
        if not live:
            self._finished = True
            yield Finish(self._stop_code or 0)
            return
        if self._forced:
            return
        stage = min(self._unit[name].stop_stage for name in live)
        for name in live:
            standing = self._of[name]
            if self._unit[name].stop_stage == stage and standing.state is not State.STOPPING:
                yield self._terminate(name, now_s)

    def _complete(self) -> bool:
        """Tell whether everything has come up.

        A unit that was ready and says now that it is not counts: under load, one of many is always
        catching up, and the stack would never be announced.
        """
        return all(
            unit.name in self._reached
            and (unit.job or self._of[unit.name].state in (State.RUNNING, State.UNREADY))
            for unit in self.units
        )


def backoff_s(deaths_in_a_row: int) -> float:
    """Return how long to wait after the n-th death in a row (from 1)."""
    doublings = min(deaths_in_a_row - 1, 10)
    return float(min(BACKOFF_FIRST_S * 2**doublings, BACKOFF_MAX_S))


def describe_exit(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
