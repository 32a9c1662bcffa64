"""Spans of time as people read them."""

from __future__ import annotations

__all__ = ["span_text"]

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def span_text(span_s: int) -> str:
    """Write a span in its two largest units, e.g. `6 d 23 h`; seconds only where it has no more."""
    rest_s, parts = span_s, []
    for length_s, unit in _UNITS:
        count, rest_s = divmod(rest_s, length_s)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or f"{rest_s} s"
