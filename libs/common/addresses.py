"""Addresses: which of them stay on this machine, and where a browser on it finds what listens."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback", "url_here"]

_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


def url_here(host: str, port: int) -> str:
    """Return the URL of what listens at `host` (an address or a name; empty: everywhere)."""
    shown = "127.0.0.1" if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether a host (an address or a name) can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
