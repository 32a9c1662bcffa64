"""Bytes to frames and back, and the one place where schema versions are judged.

Durable frames are MessagePack arrays whose first element is the schema version, so a reader can
refuse a frame of an unknown version before it looks at the rest. Versions N-1 and N read each
other: fields are only ever added at the end, with defaults.

Encoding is deterministic: equal frames give equal bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from libs.common.errors import SchemaError
from libs.common.events import SCHEMA_VERSION, Checkpoint, Frame

__all__ = [
    "FRAME_BYTES_MAX",
    "READABLE_VERSIONS",
    "decode_checkpoint",
    "decode_frame",
    "encode_checkpoint",
    "encode_frame",
    "encode_json",
    "version_of",
]

FRAME_BYTES_MAX = 256 * 1024
READABLE_VERSIONS = frozenset({max(1, SCHEMA_VERSION - 1), SCHEMA_VERSION})

_FIXARRAY_MASK, _FIXARRAY = 0xF0, 0x90
_FIXINT_MAX = 0x7F

# Besides its own errors, msgspec lets these through: text that is no UTF-8, arrays too deep.
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
_json_encoder = msgspec.json.Encoder()
_frame_decoder = msgspec.msgpack.Decoder(Frame)
_checkpoint_decoder = msgspec.msgpack.Decoder(Checkpoint)


def version_of(data: bytes) -> int:
    """Return the schema version of an encoded frame or checkpoint without decoding it.

    Raises SchemaError when the bytes do not begin as ours do: a short array with a small integer.
    """
    if len(data) < 2 or data[0] & _FIXARRAY_MASK != _FIXARRAY or data[1] > _FIXINT_MAX:
        raise SchemaError(f"not a frame: {len(data)} bytes beginning {data[:8].hex() or 'nothing'}")
    return data[1]


def decode_frame(data: bytes) -> Frame:
    """Decode one durable frame; raises SchemaError on an unknown version or broken bytes."""
    _check_version(data)
    try:
        return _frame_decoder.decode(data)
    except _BROKEN as error:
        raise SchemaError(f"frame of {len(data)} bytes does not decode: {error}") from error


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Decode a checkpoint; raises SchemaError on an unknown version or broken bytes."""
    _check_version(data)
    try:
        return _checkpoint_decoder.decode(data)
    except _BROKEN as error:
        raise SchemaError(f"checkpoint of {len(data)} bytes does not decode: {error}") from error


def encode_frame(frame: Frame) -> bytes:
    """Encode one frame; the caller keeps it under FRAME_BYTES_MAX."""
    return _encoder.encode(frame)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Encode one checkpoint."""
    return _encoder.encode(checkpoint)


def encode_json(value: Any) -> bytes:
    """Encode a live message: one flat JSON object."""
    return _json_encoder.encode(value)


def _check_version(data: bytes) -> None:
    version = version_of(data)
    if version not in READABLE_VERSIONS:
        raise SchemaError(
            f"schema version {version} is not one of {sorted(READABLE_VERSIONS)}: "
            "upgrade this service before it reads on; its position is kept"
        )
