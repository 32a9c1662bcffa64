"""Gives a service a command and reads what it answered, for whoever faces people.

The command goes to COMMANDS, the answer comes from the service's desk; see `commands.py`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from libs.common import subjects
from libs.common.bus import Stored
from libs.common.commands import Answer

__all__ = ["Answers", "Way", "answered", "read_desk", "send"]

_POLL_S = 0.1


class Way(Protocol):
    """What is needed of the bus."""

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message of a subject; raises BusUnavailable."""
        ...

    async def append(self, subject: str, data: bytes) -> int:
        """Store a message; raises BusError."""
        ...


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What every desk has, whoever keeps it."""

    commands_seq: int = 0
    answers: tuple[Answer, ...] = ()


D = TypeVar("D", bound=msgspec.Struct)


async def read_desk(bus: Way, service: str, kind: type[D]) -> D | None:
    """Return a desk, or None before there is one; raises BusUnavailable, msgspec.MsgspecError."""
    stored = await bus.last(subjects.STATE, subjects.desk_subject(service))
    return None if stored is None else msgspec.json.decode(stored.data, type=kind)


async def send(
    bus: Way, service: str, command: str, arguments: Mapping[str, Any], now_ms: int
) -> tuple[str, int]:
    """Store a command; returns its id and its place. Raises BusError."""
    command_id = secrets.token_hex(4)
    body = {"id": command_id, "command": command, "arguments": arguments, "sent_ms": now_ms}
    seq = await bus.append(subjects.command_subject(service), msgspec.json.encode(body))
    return command_id, seq


async def answered(
    bus: Way, service: str, command_id: str, seq: int, wait_s: float
) -> Answer | None:
    """Wait for the answer to a command; None if there is none in time. Raises BusUnavailable."""
    deadline_s = asyncio.get_running_loop().time() + wait_s
    while asyncio.get_running_loop().time() < deadline_s:
        desk = await read_desk(bus, service, Answers)
        if desk is not None:
            found = next((a for a in reversed(desk.answers) if a.id == command_id), None)
            if found is not None or desk.commands_seq >= seq:
                return found  # so much else may have been asked that the answer is forgotten
        await asyncio.sleep(_POLL_S)
    return None
