"""Frames that no broker should send: a catalogue for testing what reads them.

Each is one way to be wrong. None carries news, so a reader that throws them all away misses
nothing.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["hostile_frames"]

_DEPTH = 20_000
_WRONG_VALUES: tuple[Any, ...] = (
    "abc",
    None,
    True,
    [1, 2],
    {"a": 1},
    -1.0,
    1e308,
    10**30,
    float("nan"),
    float("inf"),
)


def hostile_frames(service: str, key: str, at_ms: int) -> list[bytes]:
    """Return the catalogue for a symbol of a service at a virtual instant."""

    def frame(content: Any, name: Any = service, stamp: Any = at_ms) -> bytes:
        data = {"service": name, "timestamp": stamp, "command": "SUBS", "content": content}
        return json.dumps({"data": [data]}).encode()

    wrong_fields = [
        frame([{"key": key, number: value}])
        for number in ("3", "8", "35")
        for value in _WRONG_VALUES
    ]
    in_a_year_ms = at_ms + 31_536_000_000
    deep = b'{"data":[{"service":"%s","content":%s%s}]}'
    return [
        *wrong_fields,
        frame([{"key": key, "3": 1.0, "8": 1, "35": in_a_year_ms}]),
        frame([{"key": key, "999": 1, "no number": "x"}]),
        frame([{"key": 7, "3": 1.0}]),
        frame([{"3": 1.0}]),
        frame([None, 5, "x", []]),
        frame("content"),
        frame(None),
        frame([{"key": key, "3": 1.0}], name="NO_SUCH_SERVICE"),
        frame([{"key": key, "3": 1.0}], name=None),
        frame([{"key": key, "3": 1.0}], stamp="yesterday"),
        deep % (service.encode(), b"[" * _DEPTH, b"]" * _DEPTH),
        b'{"data":null}',
        b'{"notify":[{"heartbeat":"never"}]}',
        b'{"notify":[{"service":"ADMIN","content":null}]}',
        b'{"unknown":[1]}',
        b"[]",
        b"null",
        b"0",
        b'"text"',
        b"",
    ]
