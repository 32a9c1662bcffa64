"""Load mode: the frames, the items, and that every item is a trade."""

from __future__ import annotations

import datetime as dt

from services.simulator.load import LoadFeed
from services.simulator.market import session_of
from services.simulator.synthetic import SyntheticMarket

MARKET = SyntheticMarket("1")
AT_MS = session_of(dt.date(2026, 11, 20)).open_ms
TICKERS = ["QQQ", "SPY", "IWM", "DIA", "TLT"]
ALL = tuple(range(52))


def loaded(at_ms: int = AT_MS, items: int = 3) -> LoadFeed:
    """Ten frames a second with all tickers subscribed."""
    feed = LoadFeed(MARKET, 100.0, items)
    assert len(feed.subscribe(TICKERS, ALL, at_ms)) == len(TICKERS)
    return feed


def test_frames_come_at_their_rate_and_full() -> None:
    """Every 100 ms three items; symbols take turns."""
    feed, position_ms, keys = loaded(), AT_MS, []
    for _ in range(50):
        due_ms = feed.due_ms(position_ms)
        assert due_ms - position_ms == 100 or position_ms == AT_MS
        position_ms = due_ms
        keys.append([item["key"] for item in feed.emit(due_ms)])
    assert all(len(set(frame)) == 3 for frame in keys)
    assert {key for frame in keys for key in frame} == set(TICKERS)


def test_every_item_changes_price_volume_and_trade_time() -> None:
    """Also over thousands of frames; volume never falls."""
    feed = loaded(items=5)
    volumes = dict.fromkeys(TICKERS, 0)
    for _ in range(2_000):
        at_ms = feed.due_ms(0)
        for item in feed.emit(at_ms):
            assert {"3", "8", "35"} <= set(item)
            assert item["35"] == at_ms
            volume = item["8"]
            assert isinstance(volume, int)
            assert volume > volumes[str(item["key"])]
            volumes[str(item["key"])] = volume


def test_a_restarted_load_goes_on_where_it_was() -> None:
    """Total volume does not fall back."""
    feed = loaded(items=5)
    for _ in range(99):
        feed.emit(feed.due_ms(0))
    at_ms = feed.due_ms(0)
    last = feed.emit(at_ms)
    fresh = LoadFeed(MARKET, 100.0, 5)
    images = {item["key"]: item for item in fresh.subscribe(TICKERS, ALL, at_ms)}
    assert all(images[item["key"]]["8"] == item["8"] for item in last)


def test_unsubscribed_symbols_are_left_out() -> None:
    """And without symbols there are no frames."""
    feed = loaded(items=5)
    feed.unsubscribe(TICKERS[1:])
    assert [item["key"] for item in feed.emit(feed.due_ms(0))] == ["QQQ"]
    feed.unsubscribe(["QQQ"])
    assert feed.due_ms(0) > AT_MS * 2
