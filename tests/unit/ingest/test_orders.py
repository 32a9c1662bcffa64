"""Orders for days of the past: what is asked, in which order, and what is remembered."""

from __future__ import annotations

import datetime as dt
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from services.ingest.orders import (
    AHEAD_MAX,
    ASKED_MAX,
    ORDERS_KEPT_MAX,
    Order,
    Progress,
    advanced,
    kept,
    placed,
)
from services.ingest.watchlist import Refusal
from tests.unit.ingest.builders import OPEN_MS  # 2026-11-20, a Friday

TICKERS = ("QQQ", "SPY", "IWM")


def day(text: str) -> dt.date:
    """A day."""
    return dt.date.fromisoformat(text)


def order(tickers: tuple[str, ...] = TICKERS, first: str = "2026-11-09") -> Order:
    """A week of days."""
    return placed("x", tickers, day(first), day("2026-11-13"), OPEN_MS)


class TestPlacing:
    def test_the_oldest_day_of_every_ticker_comes_first(self) -> None:
        """The broker forgets the oldest first."""
        units = [order().unit(index) for index in range(order().units)]
        assert len(units) == 15
        assert [unit.ticker for unit in units[:4]] == ["QQQ", "SPY", "IWM", "QQQ"]
        assert [unit.day_ms for unit in units] == sorted(unit.day_ms for unit in units)
        assert calendar.day_of(units[0].day_ms) == day("2026-11-09")
        assert all(
            calendar.day_of(unit.after_ms - 1) == calendar.day_of(unit.day_ms) for unit in units
        )

    def test_without_dates_it_is_all_there_is(self) -> None:
        """From the depth of the broker's minutes to yesterday."""
        found = placed("x", ("QQQ",), None, None, OPEN_MS)
        assert (found.first_day, found.last_day) == ("2026-10-06", "2026-11-19")
        assert found.lines == ()

    def test_holidays_are_named_once(self) -> None:
        """Weekends are no surprise, a closed Thursday may be."""
        after = calendar.session(day("2026-12-04"))
        assert after is not None
        found = placed("x", ("QQQ",), day("2026-11-21"), day("2026-11-29"), after.open_ms)
        assert found.lines == ("2026-11-26: the exchange is closed",)
        assert found.units == 4

    @pytest.mark.parametrize(
        ("first", "last", "says"),
        [
            ("2026-11-14", "2026-11-15", "no trading day in 2026-11-14 to 2026-11-15"),
            ("1899-01-01", "1899-01-02", "beyond the 45 days"),
            ("2026-11-20", None, "2026-11-20: is not over"),
            ("2027-03-01", "2099-03-02", "2027-03-01 to 2099-03-02: not over yet"),
            ("2026-11-19", "2026-11-18", "is later than"),
        ],
    )
    def test_what_leaves_nothing_to_ask_is_refused(
        self, first: str, last: str | None, says: str
    ) -> None:
        """With the reason; no date is too strange."""
        with pytest.raises(Refusal, match=says):
            placed("x", TICKERS, day(first), day(last) if last else None, OPEN_MS)

    def test_nothing_is_placed_before_the_time_is_known(self) -> None:
        """Nobody could tell which days are over."""
        with pytest.raises(Refusal, match="time is not known"):
            placed("x", TICKERS, None, None, 0)

    def test_the_oldest_finished_orders_make_room(self) -> None:
        """Those that run stay, and too many of them refuse another."""
        orders: tuple[Order, ...] = ()
        for number in range(30):
            new = Order(str(number), ("QQQ",), "2026-11-09", "2026-11-09", state="done")
            orders = kept(orders, new)
        assert [o.id for o in orders] == [str(n) for n in range(30 - ORDERS_KEPT_MAX, 30)]
        running = tuple(Order(str(n), ("QQQ",), "2026-11-09", "2026-11-09") for n in range(4))
        with pytest.raises(Refusal, match="4 orders are under way already"):
            kept(running, order())


class TestAdvancing:
    @given(st.randoms(use_true_random=False), st.integers(min_value=1, max_value=4))
    def test_any_order_of_answers_ends_the_same(self, chance: random.Random, parts: int) -> None:
        """Also told twice, and cut into parts in any way."""
        made = order()
        answers = [(index, ("stored", "unchanged", "empty")[index % 3]) for index in range(15)]
        told = answers + chance.sample(answers, 5)
        chance.shuffle(told)
        found = made
        for part in range(parts):
            found = advanced(found, told[part::parts])
        assert (found.state, found.done, found.ahead) == ("done", 15, ())
        assert found.counts == {"stored": 5, "unchanged": 5, "empty": 5}
        assert set(found.with_minutes) == {"QQQ", "SPY"}
        assert found.lines == ("IWM: no minute on any of these days; is the symbol right?",)

    def test_an_order_remembers_what_is_done_ahead(self) -> None:
        """The first unanswered unit holds the front, and nothing is asked twice."""
        found = advanced(order(), [(3, "stored"), (1, "stored")])
        assert (found.done, found.ahead, found.finished) == (0, (1, 3), 2)
        found = advanced(found, [(0, "stored")])
        assert (found.done, found.ahead) == (2, (3,))


class TestProgress:
    def test_a_few_units_at_a_time_and_each_once(self) -> None:
        """Until all are answered."""
        progress, asked = Progress(), []
        orders: tuple[Order, ...] = (order(),)
        while wanted := progress.next(orders):
            assert len(wanted) <= ASKED_MAX
            asked += wanted
            for each in wanted:
                assert progress.answered(each, "stored")
            orders = progress.settled(orders)
            progress.recorded(orders)
        assert len(asked) == len(set(asked)) == 15
        assert orders[0].state == "done"

    def test_what_is_not_on_record_is_not_forgotten(self) -> None:
        """An answer counts when it is stored, and survives a desk that is read again."""
        progress, first = Progress(), order()
        wanted = progress.next((first,))
        progress.answered(wanted[0], "stored")
        progress.recorded((first,))
        assert progress.settled((first,))[0].finished == 1
        assert wanted[0] not in progress.next((first,))

    def test_a_refused_ticker_is_not_asked_for_again(self) -> None:
        """Its other days cost no request."""
        progress = Progress()
        orders: tuple[Order, ...] = (order(("NOPE", "SPY")),)
        requests = 0
        while wanted := progress.next(orders):
            for each in wanted:
                requests += 1
                progress.answered(each, "refused" if each.ticker == "NOPE" else "stored")
            orders = progress.settled(orders)
            progress.recorded(orders)
        orders = progress.settled(orders)
        assert orders[0].state == "done"
        assert orders[0].counts == {"stored": 5, "refused": 5}
        assert requests < 10
        assert orders[0].lines == ("NOPE: the broker has no such history; is the symbol right?",)

    def test_one_unit_that_hangs_does_not_let_the_rest_run_away(self) -> None:
        """How much is remembered ahead of it is bounded."""
        many = placed("x", [f"A{n}" for n in range(300)], None, None, OPEN_MS)
        progress = Progress()
        orders: tuple[Order, ...] = (many,)
        stuck = many.unit(0)
        while wanted := [each for each in progress.next(orders) if each != stuck]:
            for each in wanted:
                progress.answered(each, "stored")
            orders = progress.settled(orders)
            progress.recorded(orders)
        assert len(orders[0].ahead) == AHEAD_MAX - 1

    def test_a_cancelled_order_is_over(self) -> None:
        """What is under way is answered to nobody."""
        progress, running = Progress(), order()
        wanted = progress.next((running,))
        cancelled = Order("x", TICKERS, "2026-11-09", "2026-11-13", state="cancelled")
        progress.recorded((cancelled,))
        assert not progress.answered(wanted[0], "stored")
        assert progress.next((cancelled,)) == []
