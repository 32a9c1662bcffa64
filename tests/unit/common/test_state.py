"""An operator's state as bytes."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import SchemaError
from libs.common.state import pack, unpack

PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
CONTENT = st.recursive(PLAIN | st.text(), lambda inner: st.lists(inner, max_size=4), max_leaves=20)


@given(CONTENT)
def test_what_was_packed_comes_back(content: object) -> None:
    """Numbers, texts, None and lists survive, and equal states are equal bytes."""
    assert unpack(3, pack(3, content)) == content
    assert pack(3, content) == pack(3, content)


def test_another_version_is_refused() -> None:
    """A state of a later or earlier layout is never guessed at."""
    with pytest.raises(SchemaError, match="version 2, but this program reads 3"):
        unpack(3, pack(2, []))


@pytest.mark.parametrize(
    "damage", [b"", b"x", pack(3, [1])[:-3], zlib.compress(b"\x01"), zlib.compress(b"\xc1")]
)
def test_broken_bytes_are_refused(damage: bytes) -> None:
    """Anything that `pack` did not make is a SchemaError."""
    with pytest.raises(SchemaError):
        unpack(3, damage)
