"""The ways in which a writer's rows get into the database: what a test runs with each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cli.servers.postgres import PostgresServer
from tests.databases import Database
from tests.postgrest import postgrest, service_key
from tests.supabase import authenticator

__all__ = ["SINKS", "Sink", "opened"]

SINKS = ("copy", "rest")


@dataclass(frozen=True)
class Sink:
    """Where a writer shall write, and what its commits look like on the wire."""

    kind: str
    address: str
    commit_bytes: bytes

    def at(self, address: str) -> Sink:
        """Return the same by another address, such as that of a proxy."""
        return replace(self, address=address)

    @property
    def dsn(self) -> str:
        """What `KITE_PG_DSN` is."""
        return self.address if self.kind == "copy" else ""

    @property
    def settings(self) -> dict[str, Any]:
        """The other settings that name the sink."""
        if self.kind == "copy":
            return {}
        return {
            "writer_sink": "rest",
            "supabase_url": self.address,
            "supabase_service_key": service_key(),
        }

    @property
    def environ(self) -> dict[str, str]:
        """All of them as a process finds them."""
        named = {"KITE_PG_DSN": self.dsn} if self.dsn else {}
        return named | {f"KITE_{name.upper()}": value for name, value in self.settings.items()}


@contextmanager
def opened(kind: str, server: PostgresServer, database: Database) -> Iterator[Sink]:
    """Yield a sink of a kind into a database."""
    if kind == "copy":
        yield Sink(kind, database.owner, b"COMMIT;")
        return
    with postgrest(authenticator(server, database.name)) as url:
        yield Sink(kind, url, b"/rpc/kite_commit ")
