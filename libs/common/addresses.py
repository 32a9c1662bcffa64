"""Addresses for people: where a browser on this machine finds what listens at some host."""

from __future__ import annotations

__all__ = ["url_here"]

_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


def url_here(host: str, port: int) -> str:
    """Return the URL of what listens at `host` (an address or a name; empty: everywhere)."""
    shown = "127.0.0.1" if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
