"""What people asked of ingest, as it stands on record: one message on `state.ingest.desk`.

It is JSON, for the command line and whoever is curious. The position in COMMANDS stands in it, so
that a command and what it changed are stored together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from libs.common.broker_login import BrokerLogin
from libs.common.bus import StreamState
from libs.common.commands import ANSWERS_MAX, TEXT_CHARS_MAX, Answer
from libs.common.errors import PositionError, SchemaError
from services.ingest.orders import Order
from services.ingest.watchlist import merged

__all__ = ["Desk", "TickerState", "decoded", "encoded", "judge", "opened"]

_VERSION = 1
_READABLE = (1,)


class TickerState(Struct, frozen=True):
    """How one ticker stands: `state` is streaming, quiet, dropped or waiting; `reason` says why."""

    ticker: str
    state: str
    ticks: bool = False
    bars: bool = False
    reason: str = ""


class Desk(Struct, frozen=True, kw_only=True):
    """Everything on record. `commands_seq` is the last command of COMMANDS that was taken.

    `tickers` is the list in order of priority, `configured` the KITE_TICKERS that it last met.
    `feed` tells how each of them stands, `caps` what the broker takes at most, as far as known.
    `login` is how the login to the broker is, and the one that somebody goes through.
    """

    version: int = _VERSION
    commands_created_ms: int
    commands_seq: int = 0
    configured: tuple[str, ...]
    tickers: tuple[str, ...]
    orders: tuple[Order, ...] = ()
    answers: tuple[Answer, ...] = ()
    feed: tuple[TickerState, ...] = ()
    caps: dict[str, int] = {}
    trouble: str = ""
    login: BrokerLogin | None = None

    def answer_to(self, command_id: str) -> Answer | None:
        """Return what was answered to a command, if that is remembered."""
        return next((a for a in reversed(self.answers) if a.id == command_id), None)

    def taken(self, seq: int, answer: Answer | None = None) -> Desk:
        """Return the desk after a command, with its answer if there is a new one."""
        if answer is None:
            return replace(self, commands_seq=seq)
        if len(answer.text) > TEXT_CHARS_MAX:
            answer = replace(answer, text=f"{answer.text[: TEXT_CHARS_MAX - 1]}…")
        answers = (*self.answers, answer)[-ANSWERS_MAX:]
        return replace(self, commands_seq=seq, answers=answers)


def opened(stored: Desk | None, commands: StreamState, configured: Sequence[str]) -> Desk:
    """Return the desk to begin a life with: a new one, or the stored one with a changed setting."""
    names = tuple(configured)
    if stored is None:
        return Desk(commands_created_ms=commands.created_ms, configured=names, tickers=names)
    tickers = merged(stored.tickers, stored.configured, names)
    return replace(stored, configured=names, tickers=tickers)


def judge(desk: Desk, commands: StreamState) -> None:
    """Raise PositionError when the desk's position does not fit the stream."""
    if desk.commands_created_ms != commands.created_ms:
        raise PositionError(
            f"ingest: stream {commands.name} was made anew at {commands.created_ms} ms, but what "
            f"was taken from it is older ({desk.commands_created_ms} ms); restore both from one "
            "backup, or start with an empty store"
        )
    if desk.commands_seq > commands.last_seq:
        raise PositionError(
            f"ingest: command {desk.commands_seq} was taken, but {commands.name} ends at "
            f"{commands.last_seq}: the stream has lost its tail; restore both from one backup"
        )


def encoded(desk: Desk) -> bytes:
    """Return the message."""
    return msgspec.json.encode(desk)


def decoded(data: bytes) -> Desk:
    """Return what `encoded` gave; raises SchemaError."""
    try:
        desk = msgspec.json.decode(data, type=Desk)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SchemaError(f"the desk of ingest does not decode: {error}") from error
    if desk.version not in _READABLE:
        raise SchemaError(f"the desk of ingest has version {desk.version}, this program reads 1")
    return desk
