"""What a person may ask a service to do, and what is answered: one vocabulary for all who ask.

A command is one message of COMMANDS on `commands.<service>`, JSON that anybody can read:
`{"id": "…", "command": "tickers-add", "arguments": {"tickers": ["NVDA"]}, "sent_ms": 1}`. The `id`
is chosen by whoever asks; asking again with the same id is the same command, which is executed
once. Without an id each message is a command of its own.

The service keeps its answers, the newest last, in its desk: the one message on
`state.<service>.desk` (see `subjects.desk_subject`).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "ANSWERS_MAX",
    "TEXT_CHARS_MAX",
    "Answer",
    "BadCommand",
    "Command",
    "CommandId",
    "CommandName",
    "read_command",
]

ANSWERS_MAX = 64  # that a desk keeps, and so how long a repeated id is recognised
TEXT_CHARS_MAX = 600
_REASON_CHARS_MAX = 300


CommandName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
CommandId = Annotated[str, Meta(max_length=64)]


class BadCommand(Exception):
    """A message that is no command this service knows; the text says what was wrong."""


class Command(Struct, frozen=True):
    """What shall be done. `arguments` are for the service to understand."""

    command: CommandName
    id: CommandId = ""
    arguments: dict[str, Any] = {}
    sent_ms: int = 0


class Answer(Struct, frozen=True):
    """What became of a command: one line for people; `seq` is its place in COMMANDS."""

    id: str
    seq: int
    command: str
    ok: bool
    text: str


def read_command(data: bytes) -> Command:
    """Decode a message of COMMANDS; raises BadCommand."""
    try:
        return msgspec.json.decode(data, type=Command)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadCommand(f"not a command: {str(error)[:_REASON_CHARS_MAX]}") from None
