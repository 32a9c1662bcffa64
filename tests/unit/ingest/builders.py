"""Frames of the streamer as the tests write them."""

from __future__ import annotations

from typing import Any

__all__ = ["OPEN_MS", "bar", "chart", "data", "heartbeat", "image", "level_one"]

OPEN_MS = 1_795_185_000_000  # 2026-11-20 09:30 New York


def data(service: str, items: list[Any], at_ms: Any) -> dict[str, Any]:
    """A data frame of one service."""
    part = {"service": service, "timestamp": at_ms, "command": "SUBS", "content": items}
    return {"data": [part]}


def level_one(at_ms: int, *items: Any) -> dict[str, Any]:
    """A frame of LEVELONE_EQUITIES."""
    return data("LEVELONE_EQUITIES", list(items), at_ms)


def chart(at_ms: int, *items: Any) -> dict[str, Any]:
    """A frame of CHART_EQUITY."""
    return data("CHART_EQUITY", list(items), at_ms)


def heartbeat(at_ms: int) -> dict[str, Any]:
    """A heartbeat."""
    return {"notify": [{"heartbeat": str(at_ms)}]}


def image(ticker: str, *, last: float, volume: int, at_ms: int) -> dict[str, Any]:
    """The first item of a ticker after a subscription."""
    return {
        "key": ticker, "delayed": False, "assetMainType": "EQUITY", "cusip": "000000000",
        "1": last - 0.01, "2": last + 0.01, "3": last, "8": volume, "34": at_ms, "35": at_ms,
    }  # fmt: skip


def bar(
    ticker: str, ts_ms: int, close: float = 10.0, *, volume: int = 100, seq: int | None = None
) -> dict[str, Any]:
    """A minute bar of 10.0 that ends at `close`."""
    item: dict[str, Any] = {
        "key": ticker, "1": 1, "2": 10.0, "3": max(10.0, close), "4": min(10.0, close),
        "5": close, "6": volume, "7": ts_ms, "8": 20_000,
    }  # fmt: skip
    return item if seq is None else {**item, "seq": seq}
