"""The list of tickers: lists in, lists out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.settings import TICKERS_MAX
from services.ingest.watchlist import Refusal, added, merged, planned, removed

NAMES = st.lists(st.sampled_from("ABCDEFGH"), unique=True, max_size=8).map(tuple)
SOME = st.lists(st.sampled_from("ABCDEFGH"), unique=True, min_size=1, max_size=8).map(tuple)


@given(SOME, SOME)
def test_a_setting_that_did_not_change_changes_nothing(
    tickers: tuple[str, ...], same: tuple[str, ...]
) -> None:
    """What was added and removed by command outlives every restart."""
    assert merged(tickers, same, same) == tickers


@given(SOME, NAMES, SOME)
def test_a_changed_setting_adds_and_removes_what_changed_in_it(
    tickers: tuple[str, ...], before: tuple[str, ...], now: tuple[str, ...]
) -> None:
    """Nothing else comes or goes, and the list never becomes empty."""
    found = merged(tickers, before, now)
    assert found
    assert len(set(found)) == len(found)
    put_in, taken_out = set(now) - set(before), set(before) - set(now)
    if set(tickers) - taken_out or put_in:
        if before != now:
            assert set(found) == (set(tickers) - taken_out) | put_in
    else:
        assert found == (tickers if before == now else now)


def test_the_setting_decides_the_order_of_its_own() -> None:
    """Its tickers come first, in its order; the others follow as they were."""
    assert merged(("A", "B", "X", "Y"), ("A", "B"), ("B", "A", "C")) == ("B", "A", "C", "X", "Y")


def test_a_removed_ticker_of_the_setting_stays_away() -> None:
    """Also when the setting changes elsewhere."""
    assert merged(("A",), ("A", "B"), ("A", "B", "C")) == ("A", "C")


@given(SOME, SOME, st.booleans())
def test_adding_keeps_everybody(
    tickers: tuple[str, ...], new: tuple[str, ...], first: bool
) -> None:
    """At the end, or before all others."""
    found = added(tickers, new, first=first)
    assert set(found) == {*tickers, *new}
    assert len(found) == len(set(found))
    if first:
        assert found[: len(new)] == new
    else:
        assert found[: len(tickers)] == tickers


def test_more_than_the_broker_takes_are_refused() -> None:
    """With the number to remove."""
    full = tuple(f"A{number}" for number in range(TICKERS_MAX))
    with pytest.raises(Refusal, match="remove 2 others first"):
        added(full, ("B", "C"), first=True)
    assert added(full, ("A7",), first=False) == full


def test_the_last_ticker_and_strangers_are_not_removed() -> None:
    """The broker hangs up on whoever wants nothing."""
    assert removed(("A", "B"), ("B",)) == ("A",)
    with pytest.raises(Refusal, match="one ticker has to stay"):
        removed(("A", "B"), ("B", "A"))
    with pytest.raises(Refusal, match="not on the list: X, Y"):
        removed(("A", "B"), ("X", "A", "Y", "X"))


@given(NAMES, NAMES, st.none() | st.integers(min_value=1, max_value=8))
def test_the_plan_leads_to_the_first_of_the_list(
    taken: tuple[str, ...], wanted: tuple[str, ...], cap: int | None
) -> None:
    """Whoever leaves is not among them; whoever is asked for was not there."""
    gone, new = planned(taken, wanted, cap)
    assert (set(taken) - set(gone)) | set(new) == set(wanted[:cap])
    assert set(gone) <= set(taken)
    assert not set(new) & set(taken)
    assert new == [ticker for ticker in wanted[:cap] if ticker in new]
