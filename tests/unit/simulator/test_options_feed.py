"""Option contracts by name: images, Greeks, turns in a load, and nights without values."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.simulator.market import session_of
from services.simulator.options_feed import OptionsFeed, parse_contract
from services.simulator.synthetic import SyntheticMarket
from services.simulator.tape import NEVER_MS

MARKET = SyntheticMarket("1")
SESSION = session_of(dt.date(2026, 11, 20))
NOON_MS = SESSION.open_ms + 9_000_000
ALL = tuple(range(56))
CALL, PUT = "QQQ   261204C00610000", "QQQ   261204P00610000"


def subscribed(at_ms: int, *keys: str) -> tuple[OptionsFeed, dict[object, dict[str, object]]]:
    """A feed with these contracts, and their images."""
    feed = OptionsFeed(MARKET)
    return feed, {item["key"]: dict(item) for item in feed.subscribe([*keys], ALL, at_ms)}


def test_a_name_says_all_about_a_contract() -> None:
    """Root, expiry, side, strike in thousandths."""
    found = parse_contract("SPXW  261005C07780000")
    assert found is not None
    assert (found.root, found.expires, found.is_call, found.strike) == (
        "SPXW", dt.date(2026, 10, 5), True, 7_780.0,
    )  # fmt: skip


@given(st.text("SPY 0123456789CP", max_size=24))
def test_what_is_no_name_is_no_contract(text: str) -> None:
    """Nothing is guessed; the service counts such symbols and stays silent."""
    found = parse_contract(text)
    assert found is None or len(text) == 21


@pytest.mark.parametrize("text", ["QQQ", "QQQ   261304C00610000", "QQQ 261204C00610000", ""])
def test_a_broken_name_never_says_anything(text: str) -> None:
    """A month 13, a short root, an equity."""
    feed, images = subscribed(NOON_MS, text)
    assert not images
    assert list(feed.keys) == [text]
    assert feed.due_ms(NOON_MS) == NEVER_MS


def test_call_and_put_of_one_strike_fit_each_other() -> None:
    """Deltas are one apart, gamma and vega the same, eight decimals; prices obey parity."""
    _, images = subscribed(NOON_MS, CALL, PUT)
    call, put = images[CALL], images[PUT]
    assert call["35"] == put["35"]
    assert 0 < float(str(call["28"])) < 1
    assert -1 < float(str(put["28"])) < 0
    assert {call["33"], put["33"]} == {"Normal"}
    assert call["assetMainType"] == "OPTION"
    assert float(str(call["2"])) <= float(str(call["37"])) <= float(str(call["3"]))


def test_a_move_of_the_underlying_sends_every_contract() -> None:
    """About once a second; only what changed."""
    feed, _ = subscribed(NOON_MS, CALL, PUT)
    due_ms = feed.due_ms(NOON_MS)
    assert 0 < due_ms - NOON_MS <= 1_000
    items = feed.emit(due_ms)
    assert {item["key"] for item in items} == {CALL, PUT}
    assert all("35" in item and "20" not in item for item in items)
    assert feed.due_ms(due_ms) == due_ms + 1_000


def test_at_night_values_are_absent_and_nothing_is_sent() -> None:
    """-999 for volatility and Greeks, -1 for the theoretical value, until the next open."""
    night_ms = SESSION.post_close_ms + 3_600_000
    feed, images = subscribed(night_ms, CALL)
    image = images[CALL]
    assert {image[str(number)] for number in (10, 28, 29, 30, 31, 32)} == {-999}
    assert (image["34"], image["38"], image["33"]) == (-1, 0, "Unknown")
    assert feed.due_ms(night_ms) == session_of(dt.date(2026, 11, 23)).open_ms


def test_in_a_load_contracts_take_turns() -> None:
    """Three items every 100 ms, each contract as often as the others."""
    keys = [f"QQQ   261204C00{strike}000" for strike in range(600, 606)]
    feed = OptionsFeed(MARKET, (100.0, 3))
    feed.subscribe(keys, ALL, NOON_MS)
    seen, at_ms = [], NOON_MS
    for _ in range(40):
        at_ms = feed.due_ms(at_ms)
        seen += [item["key"] for item in feed.emit(at_ms)]
    assert set(seen) == set(keys)


def test_whom_nobody_wants_any_more_is_gone() -> None:
    """And fields may change on the way."""
    feed, _ = subscribed(NOON_MS, CALL, PUT)
    feed.view((2, 3))
    feed.unsubscribe([CALL, "unknown"])
    assert {key for item in feed.emit(feed.due_ms(NOON_MS)) for key in item} <= {"key", "2", "3"}
    assert list(feed.keys) == [PUT]
