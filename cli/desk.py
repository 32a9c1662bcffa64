"""The way to ingest's desk: commands in, answers and progress out, over the bus.

Works on the running stack, as its operator, or on any other bus that KITE_NATS_URL (or the file
that KITE_NATS_URL_FILE names) tells, together with a user who may command ingest and read its desk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cli.control import current_state
from cli.home import Home
from cli.state import NotRunningError, StackState
from deploy.credentials import load_credentials
from deploy.nats.policy import OPERATOR
from libs.common import asking, subjects
from libs.common.bus import nats
from libs.common.clock import SystemClock
from libs.common.commands import Answer
from libs.common.errors import BusError, BusUnavailable, KiteError, StreamFull
from libs.common.settings import load
from services.ingest.desk import Desk, decoded

__all__ = ["DeskClient", "connected", "tickers_of"]

ANSWER_WAIT_S = 20.0
_GLANCE_S = 2.0  # who asks how things stand shall not wait for a bus that is away
_SERVICE = "ingest"


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Which bus, if it is not the running stack's own."""

    nats_url: str = ""


class DeskClient:
    """Asks ingest and reads what it answered."""

    def __init__(self, bus: nats.NatsBus, state: StackState | None) -> None:
        self._bus = bus
        self._state = state

    async def read(self) -> Desk | None:
        """Return the desk; None before ingest has made one. Raises BusUnavailable, SchemaError."""
        stored = await self._bus.last(subjects.STATE, subjects.desk_subject(_SERVICE))
        return decoded(stored.data) if stored is not None else None

    async def room_share(self) -> float:
        """Return which part of COMMANDS is full, from 0 to 1."""
        stream = await self._bus.stream(subjects.COMMANDS)
        return stream.bytes_held / stream.bytes_max if stream.bytes_max else 0.0

    async def send(self, command: str, arguments: dict[str, Any]) -> tuple[str, int]:
        """Store a command; returns its id and its place. Raises KiteError."""
        try:
            return await asking.send(
                self._bus, _SERVICE, command, arguments, SystemClock().now_ms()
            )
        except StreamFull as error:
            raise KiteError(
                "the stream of commands is full; what is in it goes after seven days, or set "
                "KITE_STREAM_BYTES_MAX higher and restart"
            ) from error

    async def answer(self, command_id: str, seq: int) -> Answer:
        """Wait for the answer to a command; raises KiteError when there is none in time."""
        found = await asking.answered(self._bus, _SERVICE, command_id, seq, ANSWER_WAIT_S)
        if found is not None:
            return found
        raise KiteError(
            f"no answer within {ANSWER_WAIT_S:.0f} s; the command is stored, and ingest takes it "
            f"when it runs{self._why()}"
        )

    async def ask(self, command: str, arguments: dict[str, Any]) -> Answer:
        """Give a command and wait for its answer; raises KiteError also when it is refused."""
        answer = await self.answer(*await self.send(command, arguments))
        if not answer.ok:
            raise KiteError(answer.text)
        return answer

    def running(self) -> bool:
        """Whether ingest runs, as far as can be told from here."""
        process = self._state.services.get(_SERVICE) if self._state is not None else None
        return process is None or process.state in ("running", "unready")

    def _why(self) -> str:
        process = self._state.services.get(_SERVICE) if self._state is not None else None
        if process is None or process.state == "running":
            return ""
        return f" (now it is {process.state}{f': {process.reason}' if process.reason else ''})"


@asynccontextmanager
async def connected(home: Home) -> AsyncIterator[DeskClient]:
    """Connect as the operator of the running stack, or as KITE_NATS_URL says.

    Raises NotRunningError, SettingsError, BusUnavailable.
    """
    url, state = load(_Place, os.environ).nats_url, None
    if not url:
        try:
            state = current_state(home)
        except NotRunningError as error:
            raise NotRunningError(f"{error}, or name a bus in KITE_NATS_URL") from error
        kept = load_credentials(Path(state.store or ""), nats_users=(OPERATOR,))
        server = urlsplit(state.nats or "")
        url = f"nats://{OPERATOR}:{kept.nats[OPERATOR]}@{server.hostname}:{server.port}"
    bus = await nats.connect(url, name="kite")
    try:
        yield DeskClient(bus, state)
    except BusError as error:
        raise BusUnavailable(f"the bus does not answer: {error}") from error
    finally:
        await bus.close()


def tickers_of(home: Home, state: StackState) -> tuple[str, ...]:
    """Return the list of the running stack, or what it was started with if nobody can tell."""

    async def ask() -> tuple[str, ...]:
        async with asyncio.timeout(_GLANCE_S), connected(home) as client:
            desk = await client.read()
            return desk.tickers if desk is not None else state.tickers

    try:
        return asyncio.run(ask())
    except (KiteError, TimeoutError):
        return state.tickers
