"""A hub whose partitions have begun, clients of it, and what these subscribe to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from libs.common import subjects
from services.gateway.hub import Client, Hub, Limits
from services.gateway.messages import Subscribe

__all__ = [
    "EPOCH_MS",
    "candles_from",
    "hub_of",
    "join",
    "said",
    "signals_from",
    "spoken",
    "ticks_from",
]

EPOCH_MS = 1_700_000_000_000
INDICATORS, SIGNALS = subjects.INDICATORS, subjects.SIGNALS


def hub_of(partitions: int = 1, **limits: int) -> Hub:
    """Return a hub whose partitions have begun."""
    hub = Hub(partitions, "demo", Limits(**limits))
    for stream in (INDICATORS, SIGNALS):
        for partition in range(partitions):
            hub.begin(stream, partition, EPOCH_MS, 1)
    return hub


def join(hub: Hub) -> Client:
    """Return a client that nobody needs to wake."""
    return hub.join(lambda: None)


def said(client: Client) -> list[dict[str, Any]]:
    """Return what a client gets now."""
    return list(spoken(client))


def spoken(client: Client) -> Iterator[dict[str, Any]]:
    """Yield what a client gets now, until it is cut off."""
    for batch in client.collect(1.0):
        yield json.loads(batch.text)


def ticks_from(seq: int, ticker: str = "QQQ", subscription_id: int = 1) -> Subscribe:
    """Return a subscription to ticks."""
    return Subscribe(subscription_id, "ticks", ticker, None, EPOCH_MS, seq)


def candles_from(seq: int, ticker: str = "QQQ") -> Subscribe:
    """Return a subscription to candles of a minute."""
    return Subscribe(2, "candles", ticker, "1m", EPOCH_MS, seq)


def signals_from(seq: int | dict[int, int], ticker: str = "*") -> Subscribe:
    """Return a subscription to signals."""
    return Subscribe(3, "signals", ticker, None, EPOCH_MS, seq)
