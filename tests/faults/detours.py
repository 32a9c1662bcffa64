"""Detours: every service reaches NATS, and the writer Postgres, over a line of the harness.

`Detours` holds the lines. Run as a module, this is the `kite` command as it is, except that `up`
tells each service the port of its line instead of the server's: nothing in the processes under test
knows of it, and the supervisor keeps them as always.
"""

from __future__ import annotations

import json
import os

from cli import plan
from cli.commands import main
from cli.servers.host import choose_port
from deploy.supabase.roles import OWNER
from tests.e2e.stack import Stack
from tests.faults.lines import Line

__all__ = ["CLIENTS", "DetouredStack", "Detours"]

CLIENTS = ("ingest", "indicators", "signals", "writer")
_VARIABLE = "FAULTS_DETOURS"
_TO_POSTGRES = "postgres"


class DetouredStack(Stack):
    """A `kite up` whose services take the detours."""

    module = "tests.faults.detours"


class Detours:
    """A line from each service to NATS, and one to Postgres; both servers get fixed ports."""

    def __init__(self) -> None:
        self.nats_port = choose_port()
        self.postgres_port = choose_port()
        self.nats = {name: Line(self.nats_port) for name in CLIENTS}
        self.postgres = Line(self.postgres_port)
        self._ports: dict[str, int] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What the `kite` command has to be told."""
        return {_VARIABLE: json.dumps(self._ports)}

    async def start(self) -> None:
        """Listen, unless it does already."""
        if self._ports:
            return
        for name, line in {**self.nats, _TO_POSTGRES: self.postgres}.items():
            self._ports[name] = await line.start()

    async def close(self) -> None:
        """Break every connection and listen no more."""
        for line in (*self.nats.values(), self.postgres):
            await line.close()
        self._ports.clear()


class _DetouredPlan(plan.Stack):
    """The plan of all processes, with other ports for those who take a detour."""

    def nats_url(self, user: str) -> str:
        return _instead(super().nats_url(user), self.nats_port, user)

    def postgres_dsn(self, role: str) -> str:
        taker = _TO_POSTGRES if role == OWNER else ""
        return _instead(super().postgres_dsn(role), self.postgres_port, taker)


def _instead(url: str, port: int, taker: str) -> str:
    detour = json.loads(os.environ[_VARIABLE]).get(taker, port)
    return url.replace(f":{port}", f":{detour}")


if __name__ == "__main__":
    plan.Stack = _DetouredPlan  # type: ignore[misc]  # what `build` makes is looked up there
    main()
