"""Counting rows out of frames: what makes a difference, and what must not."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.events import Event, Tick
from libs.common.subjects import INDICATORS, MARKET
from services.writer.ledger import (
    MINUTE_MS,
    ROWS,
    Difference,
    Group,
    Span,
    Tally,
    Walk,
    differences,
    fingerprint,
)
from tests.writer_frames import TS_MS, frame, tick, tick_indicator

TICKS = ROWS[MARKET]
FIELDS: dict[str, Any] = {
    "ticker": "SPY", "price": 389.5126, "volume": 101, "total_volume": 5001, "bid": None,
    "ask": 389.52, "ts_ms": TS_MS + 1,
}  # fmt: skip

# Ticks of a few tickers, each ticker's times growing by up to three minutes.
Steps = list[tuple[str, int]]
steps = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C"]), st.integers(1, 3 * MINUTE_MS)), max_size=30
)


def ticks_of(moves: Steps) -> list[Tick]:
    """Turn steps into ticks."""
    last: dict[str, int] = defaultdict(lambda: TS_MS)
    made = []
    for ticker, step_ms in moves:
        last[ticker] += step_ms
        made.append(tick(last[ticker], ticker=ticker))
    return made


def table_of(ticks: Iterable[Tick]) -> dict[Group, Tally]:
    """Tally ticks as the database does, in no order."""
    found: dict[Group, Tally] = defaultdict(Tally)
    for each in ticks:
        group = (each.ticker, each.ts_ms - each.ts_ms % MINUTE_MS)
        found[group] += Tally(1, fingerprint(TICKS.text(each)))
    return found


def within(table: dict[Group, Tally], spans: Sequence[Span]) -> dict[Group, Tally]:
    """Return the rows of a table that lie in some spans."""
    return {
        (ticker, minute_ms): tally
        for (ticker, minute_ms), tally in table.items()
        for span in spans
        if span.ticker == ticker and span.from_ms <= minute_ms
        if span.to_ms is None or minute_ms < span.to_ms
    }


def compare(walk: Walk, table: dict[Group, Tally]) -> list[Difference]:
    """Compare what is complete, then the rest."""
    spans, complete = walk.take()
    found = differences(complete, within(table, spans))
    rest = walk.rest()
    return found + differences(walk.take_rest(rest), within(table, rest))


def walked(*frames: Sequence[Event], first: bool = True) -> Walk:
    """Walk through frames numbered from 1."""
    walk = Walk(TICKS, first=first)
    for n, events in enumerate(frames, 1):
        walk.add(n, frame(n, *events))
    return walk


@given(steps, st.randoms(use_true_random=False))
def test_the_order_of_rows_makes_no_difference(moves: Steps, rng: random.Random) -> None:
    """The table may give them in any order."""
    ticks = ticks_of(moves)
    shuffled = list(ticks)
    rng.shuffle(shuffled)
    assert compare(walked(ticks), table_of(shuffled)) == []


@given(steps, st.lists(st.integers(0, 60)))
def test_how_ticks_are_split_into_frames_makes_no_difference(moves: Steps, cuts: list[int]) -> None:
    """Nor when the walk is compared on the way."""
    ticks = ticks_of(moves)
    table = table_of(ticks)
    walk = Walk(TICKS, first=True)
    places = sorted({0, len(ticks), *(cut for cut in cuts if cut < len(ticks))})
    for n, (begin, end) in enumerate(pairwise(places), 1):
        walk.add(n, frame(n, *ticks[begin:end]))
        spans, complete = walk.take()
        assert differences(complete, within(table, spans)) == []
    assert compare(walk, table) == []


@given(steps.filter(bool), st.data())
def test_a_lost_row_is_found_wherever_it_was(moves: Steps, data: st.DataObject) -> None:
    """In its minute, and nowhere else."""
    ticks = ticks_of(moves)
    lost = data.draw(st.sampled_from(ticks))
    (found,) = compare(walked(ticks), table_of(each for each in ticks if each is not lost))
    assert (found.ticker, found.minute_ms) == (lost.ticker, lost.ts_ms - lost.ts_ms % MINUTE_MS)
    assert found.stream.count == found.table.count + 1


@given(steps.filter(bool), st.data())
def test_a_doubled_row_is_found_wherever_it_is(moves: Steps, data: st.DataObject) -> None:
    """Twice the same is not the same as once."""
    ticks = ticks_of(moves)
    twice = data.draw(st.sampled_from(ticks))
    (found,) = compare(walked(ticks), table_of([*ticks, twice]))
    assert found.table.count == found.stream.count + 1


@given(steps.filter(bool), st.integers(-3 * MINUTE_MS, 200 * MINUTE_MS))
def test_a_row_that_no_frame_made_is_found_at_any_time(moves: Steps, offset_ms: int) -> None:
    """Before the first minute, between two of them, and after the last."""
    ticks = ticks_of(moves)
    invented = tick(TS_MS + offset_ms, ticker=ticks[0].ticker, price=1.0)
    assert len(compare(walked(ticks), table_of([*ticks, invented]))) == 1


@pytest.mark.parametrize("field", FIELDS)
def test_every_column_counts(field: str) -> None:
    """A change of one of them changes the number that stands for the row."""
    changed = tick(**{field: FIELDS[field]})
    assert fingerprint(TICKS.text(changed)) != fingerprint(TICKS.text(tick()))


@pytest.mark.parametrize("changed", [{"sma9": 1.5}, {"vwap": 389.123458}, {"vwap": None}])
def test_every_average_counts(changed: dict[str, Any]) -> None:
    """Null is a value of its own."""
    text = ROWS[INDICATORS].text
    assert text(tick_indicator(**changed)) != text(tick_indicator())


def test_a_zero_has_no_sign() -> None:
    """No column keeps one."""
    assert TICKS.text(tick(bid=-0.0)) == TICKS.text(tick(bid=0.0))


def test_a_ticker_s_first_minute_is_not_claimed_where_the_beginning_is_gone() -> None:
    """Earlier rows of it may have come from frames that have aged out."""
    ticks = ticks_of([("A", 1000), ("A", MINUTE_MS), ("A", MINUTE_MS)])
    before = tick(TS_MS + 1, ticker="A")
    assert compare(walked(ticks, first=False), table_of([before, *ticks])) == []
    later = tick(ticks[-1].ts_ms + 1, ticker="A")
    assert len(compare(walked(ticks, first=False), table_of([before, *ticks, later]))) == 1


def test_frames_must_be_numbered_one_after_another() -> None:
    """From 1 where the stream's first frame is known, and by sequence where only that is."""
    walk = Walk(None, first=True)
    assert walk.misses(2, 2, sole=False)
    walk.add(1, frame(1))
    assert not walk.misses(7, 2, sole=False)
    assert walk.misses(2, 3, sole=True)
    later = Walk(None, first=False, seq=4)
    assert not later.misses(9, 70, sole=False)
    assert later.misses(6, 70, sole=True)
    assert not later.misses(5, 70, sole=True)


def test_a_time_that_does_not_grow_is_told() -> None:
    """Ingest promises that it never happens."""
    walk = walked([tick(TS_MS + 5), tick(TS_MS + 5), tick(TS_MS + 4), tick(TS_MS + 6)])
    assert walk.disorder == [("QQQ", TS_MS + 5), ("QQQ", TS_MS + 4)]
