"""Quotes of many symbols as REST answers them -> what is known of each, and broker time."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Struct

from services.ingest import wire

__all__ = ["Quotes", "quotes_of"]

_NAMES_MAX = 20


class Quotes(Struct, frozen=True):
    """The `quote` section of each symbol, and the symbols that the broker does not know.

    `broker_ms` is when the broker answered, to the second.
    """

    by_ticker: dict[str, dict[str, Any]] = {}
    broker_ms: int = 0
    size_bytes: int = 0
    unknown: frozenset[str] = frozenset()

    def with_more(self, other: Quotes) -> Quotes:
        """Return both together; the newer time counts."""
        return Quotes(
            self.by_ticker | other.by_ticker,
            max(self.broker_ms, other.broker_ms),
            self.size_bytes + other.size_bytes,
            self.unknown | other.unknown,
        )


def quotes_of(content: bytes, date: str | None) -> Quotes:
    """Read an answer and its `Date` header; raises ValueError when they cannot be understood."""
    try:
        answer = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"quotes do not decode: {error}") from None
    try:
        broker_ms = int(parsedate_to_datetime(date or "").timestamp()) * 1000
    except (TypeError, ValueError):
        raise ValueError(f"quotes came without a time (Date: {date!r})") from None
    found = {
        ticker: entry["quote"]
        for ticker, entry in answer.items()
        if isinstance(entry, dict) and isinstance(entry.get("quote"), dict)
    }
    return Quotes(found, broker_ms, len(content), _unknown(answer.get("errors")))


def _unknown(errors: Any) -> frozenset[str]:
    names = errors.get("invalidSymbols") if isinstance(errors, dict) else None
    if not isinstance(names, list):
        return frozenset()
    return frozenset(wire.excerpt(name)[:_NAMES_MAX] for name in names if isinstance(name, str))
