"""Digests of days, and the room that they take in a checkpoint."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from libs.common import calendar
from libs.common.codec import FRAME_BYTES_MAX
from libs.common.events import HistoryBar
from libs.common.state import pack
from services.ingest.core import Core
from services.ingest.days import DAYS_MAX, Days
from services.ingest.requests import KNOWN_MAX
from services.ingest.tickers import Ticker, pack_memory
from tests.unit.ingest.builders import OPEN_MS

DAY_MS = calendar.day_start_ms(OPEN_MS)


def bars(count: int, close: float = 10.0) -> tuple[HistoryBar, ...]:
    """Minutes of a day."""
    return tuple(
        HistoryBar(OPEN_MS + n * 60_000, 10.0, 11.0, 9.0, close, 100 + n) for n in range(count)
    )


@given(st.integers(min_value=1, max_value=20), st.integers(min_value=0, max_value=20))
def test_bars_one_by_one_are_the_history_of_them(count: int, first: int) -> None:
    """However much came as a history before."""
    days, whole = Days(), bars(count)
    first = min(first, count)
    days.replace(DAY_MS, whole[:first])
    for bar in whole[first:]:
        days.append(DAY_MS, bar)
    assert days.equal(DAY_MS, whole)
    assert not days.equal(DAY_MS, whole[:-1])
    assert not days.equal(DAY_MS, bars(count, close=10.5))
    assert not days.equal(DAY_MS + 86_400_000, whole)


@given(st.permutations(bars(6)), st.integers(0, 5))
def test_a_digest_is_that_of_the_minutes(order: list[HistoryBar], changed: int) -> None:
    """In any order, and another one as soon as anything differs."""
    days = Days()
    days.replace(DAY_MS, bars(6))
    assert days.equal(DAY_MS, order)
    other = [*order]
    other[changed] = structs.replace(other[changed], volume=99)
    assert not days.equal(DAY_MS, other)
    assert not days.equal(DAY_MS, order[1:])


def test_a_minute_that_is_withdrawn_leaves_no_trace() -> None:
    """Of a day that is not known nothing can be withdrawn."""
    days, whole = Days(), bars(3)
    days.replace(DAY_MS, whole)
    days.withdraw(DAY_MS, whole[2])
    assert days.equal(DAY_MS, whole[:2])
    days.forget(DAY_MS)
    days.withdraw(DAY_MS, whole[1])
    assert days.packed() == ()


def test_a_forgotten_day_is_equal_to_nothing() -> None:
    """Neither is one that nothing was published of."""
    days = Days()
    assert not days.equal(DAY_MS, ())
    days.replace(DAY_MS, bars(3))
    days.forget(DAY_MS)
    assert not days.equal(DAY_MS, bars(3))


def test_the_newest_days_are_kept() -> None:
    """And they come back out of a checkpoint."""
    days = Days()
    starts = [calendar.day_start_ms(OPEN_MS - n * 86_400_000) for n in range(2 * DAYS_MAX)]
    for start_ms in starts:
        days.replace(start_ms, bars(2))
    again = Days()
    again.unpack(days.packed())
    assert [again.equal(start_ms, bars(2)) for start_ms in starts] == (
        [True] * DAYS_MAX + [False] * DAYS_MAX
    )


def test_the_memory_of_as_many_tickers_as_may_be_fits_a_message() -> None:
    """With every day known, and prices that do not compress."""
    chance, tickers = random.Random(7), []
    for number in range(KNOWN_MAX):
        ticker = Ticker(f"AB{number}")
        for n in range(DAYS_MAX):
            start_ms = calendar.day_start_ms(OPEN_MS - n * 86_400_000)
            low, start, last, high = (round(chance.uniform(1, 999), 4) for _ in range(4))
            day = [
                HistoryBar(start_ms + m * 60_000, start, high, low, last, chance.randrange(10**6))
                for m in range(6)
            ]
            ticker.minutes.published(start_ms, tuple(day))
        tickers.append(ticker)
    assert len(pack_memory(OPEN_MS, 1, tickers)) < FRAME_BYTES_MAX - 1_000


def test_a_checkpoint_from_before_there_were_digests_is_read() -> None:
    """An update takes up what the release before has left, and compares nothing with it."""
    known = ["QQQ", 5, 0, "", OPEN_MS, DAY_MS, 1, [[OPEN_MS, 10.0, 11.0, 9.0, 10.0, 100]], []]
    core = Core(["QQQ"])
    core.restore(pack(1, [OPEN_MS, 3, [known]]))
    assert (core.broker_ms, core.epoch) == (OPEN_MS, 3)
    mine = core.snapshot(0, 1, 3)
    again = Core(["QQQ"])
    again.restore(mine)
    assert again.snapshot(0, 1, 3) == mine
