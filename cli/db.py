"""`./kite db …`: the schema of the stack's database, or of the one that KITE_PG_DSN names."""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from cli.database import dsn_of
from cli.home import Home
from deploy.supabase.migrate import Applied, migrate
from deploy.supabase.roles import OWNER

__all__ = ["run_migrate"]


def run_migrate(home: Home, *, as_json: bool) -> None:
    """Apply what is pending and tell of each migration.

    Raises NotRunningError when there is no database to speak of, and what `migrate` raises.
    """

    def report(step: Applied) -> None:
        if as_json:
            print(
                msgspec.json.encode(
                    {"applied": step.label, "duration_ms": step.duration_ms}
                ).decode()
            )
        else:
            print(f"applied {step.label} ({step.duration_ms:g} ms)")
        sys.stdout.flush()

    applied = asyncio.run(migrate(_owner_dsn(home), report=report))
    if as_json:
        print(msgspec.json.encode({"up_to_date": True, "applied": len(applied)}).decode())
    elif not applied:
        print("the schema is up to date")


def _owner_dsn(home: Home) -> str:
    """Return how to log in as the schema's owner."""
    return os.environ.get("KITE_PG_DSN") or dsn_of(home, OWNER)
