"""What a running stack looks like from outside: rows for the display, the state for the file.

Reads what the supervisor decided and the processes are; changes neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from cli.milestones import MILESTONES
from cli.plan import Stack
from cli.processes import Processes
from cli.programs import ServerProgram, ServiceProgram
from cli.progress import Row
from cli.state import ProcessState, StackState
from cli.supervisor import Supervisor
from cli.units import State, Unit
from deploy.nats.policy import OBSERVER
from deploy.supabase.roles import READER

__all__ = ["View"]


@dataclass
class View:
    """One run, seen from outside.

    `reached_ms` says after how many milliseconds each milestone was reached, `since_ms` when each
    process was last started (epoch milliseconds).
    """

    stack: Stack
    supervisor: Supervisor
    processes: Processes
    started_ms: int
    reached_ms: dict[str, int] = field(default_factory=dict)
    since_ms: dict[str, int] = field(default_factory=dict)

    def rows(self) -> dict[str, Row]:
        """Return where every unit stands in the start."""
        rows = {}
        for unit in self.stack.units:
            reached_ms = self.reached_ms.get(unit.name)
            rows[unit.name] = Row(
                State.DONE if unit.job and reached_ms else self.supervisor.state(unit.name),
                reached_ms / 1000 if reached_ms is not None else None,
                self._note(unit),
            )
        return rows

    def _note(self, unit: Unit) -> str:
        """Say what a unit waits for, or which milestones a job has passed."""
        if self.supervisor.state(unit.name) is State.WAITING:
            return "for " + ", ".join(sorted(unit.needs - self.reached_ms.keys()))
        if unit.job:
            return ", ".join(name for name in MILESTONES if name in self.reached_ms)
        return self.supervisor.reason(unit.name)

    def fingerprint(self) -> list[tuple[object, ...]]:
        """Return all that the state tells of the processes: equal means nothing to write."""
        return [
            (
                self.supervisor.state(unit.name),
                self.supervisor.reason(unit.name),
                self.supervisor.restarts(unit.name),
                self.processes.pid(unit.name),
            )
            for unit in self.stack.units
        ]

    def state(self) -> StackState:
        """Return the whole state, with the credentials of those who may read everything."""
        stack = self.stack
        return StackState(
            nats=stack.nats_url(OBSERVER),
            postgres=stack.postgres_dsn(READER),
            gateway=stack.gateway_url,
            schwab=stack.schwab_url,
            services=self._states(lambda name: isinstance(stack.programs[name], ServiceProgram)),
            servers=self._states(lambda name: isinstance(stack.programs[name], ServerProgram)),
            running=True,
            ready=self.supervisor.announced,
            home=str(stack.home.root),
            source=stack.market.source,
            store=str(stack.store.root),
            tickers=stack.market.tickers,
            partitions=stack.partitions,
            supervisor=os.getpid(),
            started_ms=self.started_ms,
            timings_ms=self.reached_ms,
        )

    def _states(self, wanted: Callable[[str], bool]) -> dict[str, ProcessState]:
        names = [unit.name for unit in self.stack.units if wanted(unit.name)]
        return {name: self._process(name) for name in names}

    def _process(self, name: str) -> ProcessState:
        program = self.stack.programs[name]
        return ProcessState(
            pid=self.processes.pid(name),
            state=self.supervisor.state(name),
            restarts=self.supervisor.restarts(name),
            metrics=program.metrics_url if isinstance(program, ServiceProgram) else None,
            reason=self.supervisor.reason(name),
            since_ms=self.since_ms.get(name),
        )
