"""Answers and notices of the streamer, read with the same suspicion as its data.

The library dies of an answer that it does not expect, and takes documented success codes for
failures. `awaited_answer` gives it exactly the answer that it waits for, in the form that it knows.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from msgspec import Struct

from services.ingest import wire

__all__ = ["Answer", "admin_code", "awaited_answer", "code_name"]

_SUCCESS_CODES = frozenset({0, 26, 27, 28, 29})
_NAMES = {
    3: "LOGIN_DENIED",
    9: "UNKNOWN_FAILURE",
    11: "SERVICE_NOT_AVAILABLE",
    12: "CLOSE_CONNECTION",
    19: "REACHED_SYMBOL_LIMIT",
    20: "STREAM_CONN_NOT_FOUND",
    21: "BAD_COMMAND_FORMAT",
    22: "FAILED_COMMAND_SUBS",
    23: "FAILED_COMMAND_UNSUBS",
    24: "FAILED_COMMAND_ADD",
    25: "FAILED_COMMAND_VIEW",
    30: "STOP_STREAMING",
}


class Answer(Struct, frozen=True):
    """An answer in the library's form, and the broker time that it carries (0: none)."""

    message: dict[str, Any]
    sent_ms: int


def awaited_answer(entries: object, request_id: str) -> Answer | None:
    """Find the answer to a request among the entries of a response frame."""
    for entry in entries if isinstance(entries, list) else ():
        found = _answer(entry, request_id)
        if found is not None:
            return found
    return None


def admin_code(notices: object) -> int:
    """Return the code of an administrative notice, such as 12 for an eviction; 0 for none."""
    for notice in notices if isinstance(notices, list) else ():
        content = notice.get("content") if isinstance(notice, dict) else None
        code = content.get("code") if isinstance(content, dict) else None
        if isinstance(code, int):
            return code
    return 0


def code_name(code: int) -> str:
    """Return a code as people know it, such as `code 12 CLOSE_CONNECTION`."""
    return f"code {code} {_NAMES[code]}" if code in _NAMES else f"code {code}"


def _answer(entry: Any, request_id: str) -> Answer | None:
    try:
        if str(entry["requestid"]) != request_id:
            return None
        code = int(entry["content"]["code"])
        text = str(entry["content"].get("msg", ""))
        names = {"service": entry["service"], "command": entry["command"]}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    sent_ms = 0
    with suppress(wire.BadItem):
        sent_ms = wire.time_ms(entry.get("timestamp"))
    content = {"code": 0 if code in _SUCCESS_CODES else code, "msg": text}
    return Answer({"response": [{"requestid": request_id, **names, "content": content}]}, sent_ms)
