"""Gives ingest commands as a person does, and reads its desk."""

from __future__ import annotations

import json
from typing import Any

from libs.common.bus import Bus
from libs.common.commands import Answer
from services.ingest.desk import Desk, decoded
from tests.waiting import eventually_async

__all__ = ["answered", "command", "desk", "until"]

DEADLINE_S = 30.0


async def command(bus: Bus, name: str, command_id: str = "", **arguments: Any) -> int:
    """Store a command; returns its sequence."""
    body = {"id": command_id, "command": name, "arguments": arguments, "sent_ms": 1}
    return await bus.append("commands.ingest", json.dumps(body).encode())


async def desk(bus: Bus) -> Desk | None:
    """What is on record."""
    stored = await bus.last("STATE", "state.ingest.desk")
    return decoded(stored.data) if stored is not None else None


async def until(bus: Bus, holds: Any, what: str) -> Desk:
    """Wait until a desk for which `holds` is on record."""

    async def found() -> Desk | None:
        now = await desk(bus)
        return now if now is not None and holds(now) else None

    there = await eventually_async(found, DEADLINE_S, what)
    assert there is not None
    return there


async def answered(bus: Bus, name: str, command_id: str = "", **arguments: Any) -> Answer:
    """Give a command and wait for its answer."""
    seq = await command(bus, name, command_id, **arguments)
    there = await until(bus, lambda now: now.commands_seq >= seq, f"the answer to {name}")
    return next(a for a in reversed(there.answers) if a.id in (command_id, f"seq-{seq}"))
