"""An operator's state as the bytes of a checkpoint: MessagePack, compressed, with a version.

A checkpoint is one message and leaves every second, so it has to stay small with hundreds of
tickers; what repeats from ticker to ticker compresses to a third. Equal states give equal bytes.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from libs.common.errors import SchemaError

__all__ = ["pack", "unpack"]

_LEVEL = 1  # the fastest; higher ones gain little on numbers


def pack(version: int, content: Any) -> bytes:
    """Return `content` (numbers, text, None, lists and tuples of them) as bytes."""
    return zlib.compress(msgspec.msgpack.encode([version, content]), _LEVEL)


def unpack(version: int, state: bytes) -> Any:
    """Return what `pack` was given, with lists for tuples.

    Raises SchemaError when the bytes are broken or of another version.
    """
    try:
        found, content = msgspec.msgpack.decode(zlib.decompress(state))
    except (zlib.error, msgspec.MsgspecError, TypeError, ValueError) as error:
        raise SchemaError(f"a state of {len(state)} bytes does not unpack: {error}") from error
    if found != version:
        raise SchemaError(f"a state of version {found!r}, but this program reads {version}")
    return content
