"""Days of the past that somebody asked for: what is still to be asked, and what came of it. Pure.

An order names tickers and trading days, oldest day first; each ticker's day is one unit, numbered
from 0. Units are answered out of order, so an order remembers how many are done from the front, and
which further ones. It is done when all are; nothing is lost when the work is interrupted anywhere,
and a unit that is asked for twice changes nothing.

`Progress` is what a running ingest knows besides: what is being asked for now, and what is answered
and not on record yet, because the bars themselves may not be stored yet.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from libs.common import calendar
from services.ingest.core import DayWanted
from services.ingest.minutes import HISTORY_DAYS_MAX
from services.ingest.watchlist import Refusal

__all__ = ["ORDERS_KEPT_MAX", "Order", "Outcome", "Progress", "advanced", "kept", "placed"]

Outcome = Literal["stored", "unchanged", "empty", "refused"]

RUNNING_MAX = 4
ORDERS_KEPT_MAX = 8
LINES_MAX = 40
ASKED_MAX = 8  # units at once, so that gaps of the live series never wait behind many
AHEAD_MAX = 512  # how far to go on while an early unit is not answered
_NAMED_MAX = 12


class Order(Struct, frozen=True):
    """One request for history; `first_day` and `last_day` are ISO dates, both included.

    `done` units are finished from the front, and `ahead` further ones. `counts` says how many days
    had each outcome; `with_minutes` are tickers that had any; `lines` are for people.
    """

    id: str
    tickers: tuple[str, ...]
    first_day: str
    last_day: str
    state: Literal["running", "done", "cancelled"] = "running"
    done: int = 0
    ahead: tuple[int, ...] = ()
    counts: dict[str, int] = {}
    with_minutes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def days(self) -> tuple[int, ...]:
        """New York midnight of each trading day, ascending."""
        return _days(self.first_day, self.last_day)

    @property
    def units(self) -> int:
        """How many days of tickers there are."""
        return len(self.days) * len(self.tickers)

    @property
    def finished(self) -> int:
        """How many of them are finished."""
        return self.done + len(self.ahead)

    def unit(self, index: int) -> DayWanted:
        """Return what to ask for: all tickers of the oldest day first.

        Not before the day is over: a life that has just begun may not know the time yet.
        """
        place, ticker = divmod(index, len(self.tickers))
        day_ms = self.days[place]
        over_ms = calendar.day_bounds_ms(calendar.day_of(day_ms))[1]
        return DayWanted(self.tickers[ticker], day_ms, over_ms, changes_only=True)

    def covers(self, index: int) -> bool:
        """Whether a unit is finished."""
        return index < self.done or index in self.ahead


def placed(
    order_id: str,
    tickers: Sequence[str],
    first: dt.date | None,
    last: dt.date | None,
    broker_ms: int,
) -> Order:
    """Make an order of what was asked for, with a line for everything that is left out.

    Without dates it reaches from as far back as the broker's minutes go to the last day that is
    over. Raises Refusal when nothing is left.
    """
    if not broker_ms:
        raise Refusal("the broker's time is not known yet: ask again when ingest is connected")
    today = calendar.day_of(broker_ms)
    oldest, newest = today - dt.timedelta(HISTORY_DAYS_MAX), today - dt.timedelta(1)
    if first is not None and last is not None and first > last:
        raise Refusal(f"--from {first} is later than --to {last}")
    lines = []
    start = first or oldest
    end = last or max(newest, start)
    if start < oldest:
        until = min(end, oldest - dt.timedelta(1))
        lines.append(
            f"{start} to {until}: beyond the {HISTORY_DAYS_MAX} days of minutes that the broker "
            "keeps; left out"
        )
    if end > newest:
        since = max(start, today)
        what = "is not over" if since == today == end else "not over yet"
        lines.append(f"{_span(since, end)}: {what}; the stream and its gaps bring those minutes")
    start, end = max(start, oldest), min(end, newest)
    if start > end:
        raise Refusal("; ".join(lines))
    lines += _closed(start, end)
    names = tuple(dict.fromkeys(tickers))
    order = Order(order_id, names, start.isoformat(), end.isoformat(), lines=tuple(lines))
    if not order.units:
        raise Refusal("; ".join(lines) or f"no trading day in {_span(start, end)}")
    return order


def advanced(order: Order, answers: Iterable[tuple[int, str]]) -> Order:
    """Return the order with more units finished; those it knows of already change nothing."""
    counts, ahead = dict(order.counts), set(order.ahead)
    with_minutes, refused, lines = list(order.with_minutes), list(order.refused), []
    done = order.done
    for index, outcome in answers:
        if index < done or index in ahead or index >= order.units:
            continue
        ahead.add(index)
        counts[outcome] = counts.get(outcome, 0) + 1
        ticker = order.unit(index).ticker
        if outcome in ("stored", "unchanged") and ticker not in with_minutes:
            with_minutes.append(ticker)
        if outcome == "refused" and ticker not in refused:
            refused.append(ticker)
            lines.append(f"{ticker}: the broker has no such history; is the symbol right?")
    while done in ahead:
        ahead.remove(done)
        done += 1
    over = done == order.units
    if over:
        empty = [t for t in order.tickers if t not in with_minutes and t not in refused]
        lines += [f"{t}: no minute on any of these days; is the symbol right?" for t in empty]
    return replace(
        order,
        state="done" if over and order.state == "running" else order.state,
        done=done,
        ahead=tuple(sorted(ahead)),
        counts=counts,
        with_minutes=tuple(with_minutes),
        refused=tuple(refused),
        lines=_bounded([*order.lines, *lines]),
    )


def kept(orders: Sequence[Order], new: Order) -> tuple[Order, ...]:
    """Return the orders with one more; the oldest finished ones are forgotten. Raises Refusal."""
    running = [order for order in orders if order.state == "running"]
    if len(running) >= RUNNING_MAX:
        raise Refusal(f"{len(running)} orders are under way already: wait, or cancel one")
    over = [order for order in orders if order.state != "running"]
    forgotten = {order.id for order in over[: max(0, len(orders) + 1 - ORDERS_KEPT_MAX)]}
    return (*(order for order in orders if order.id not in forgotten), new)


class Progress:
    """What is asked for at the moment, and what is answered and not on record yet."""

    def __init__(self) -> None:
        self._asked: dict[DayWanted, tuple[str, int]] = {}
        self._answered: dict[str, dict[int, str]] = {}

    def next(self, orders: Iterable[Order]) -> list[DayWanted]:
        """Return units to ask for now: those of the first order that runs, a few at a time."""
        order = next((order for order in orders if order.state == "running"), None)
        if order is None:
            return []
        answered = self._answered.setdefault(order.id, {})
        refused = {*order.refused} | {
            order.unit(index).ticker for index, outcome in answered.items() if outcome == "refused"
        }
        mine = {index for order_id, index in self._asked.values() if order_id == order.id}
        found: list[DayWanted] = []
        for index in range(order.done, min(order.units, order.done + AHEAD_MAX)):
            if len(self._asked) >= ASKED_MAX:
                break
            if index in mine or index in answered or order.covers(index):
                continue
            wanted = order.unit(index)
            if wanted.ticker in refused:
                answered[index] = "refused"
                continue
            self._asked[wanted] = (order.id, index)
            found.append(wanted)
        return found

    def answered(self, wanted: DayWanted, outcome: str) -> bool:
        """Note what came of a unit; False when nobody waits for it."""
        place = self._asked.pop(wanted, None)
        if place is None:
            return False
        self._answered.setdefault(place[0], {})[place[1]] = outcome
        return True

    def again(self, wanted: DayWanted) -> None:
        """A unit has to be asked for once more: its bars found no room."""
        self._asked.pop(wanted, None)

    def settled(self, orders: Iterable[Order]) -> tuple[Order, ...]:
        """Return the orders with everything that was answered, for when all of it is stored."""
        return tuple(
            advanced(order, answers) if (answers := self._of(order)) else order for order in orders
        )

    def recorded(self, orders: Iterable[Order]) -> None:
        """Let go of what these orders, as they are on record now, know of."""
        known = {order.id: order for order in orders}
        self._answered = {
            order_id: left
            for order_id, answers in self._answered.items()
            if (order := known.get(order_id)) is not None and order.state == "running"
            if (left := {i: what for i, what in answers.items() if not order.covers(i)})
        }
        for wanted, (order_id, _) in list(self._asked.items()):
            if order_id not in known or known[order_id].state != "running":
                del self._asked[wanted]

    def _of(self, order: Order) -> list[tuple[int, str]]:
        return sorted(self._answered.get(order.id, {}).items()) if order.state == "running" else []


def _closed(start: dt.date, end: dt.date) -> list[str]:
    """Name the weekdays on which the exchange is closed."""
    open_days = {session.day for session in calendar.sessions(start, end)}
    weekdays = (start + dt.timedelta(n) for n in range((end - start).days + 1))
    shut = [str(day) for day in weekdays if day.weekday() < 5 and day not in open_days]
    return [f"{', '.join(shut)}: the exchange is closed"] if shut else []


def _span(first: dt.date, last: dt.date) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _bounded(lines: list[str]) -> tuple[str, ...]:
    if len(lines) <= LINES_MAX:
        return tuple(lines)
    return (*lines[: LINES_MAX - 1], "and more like these")


@lru_cache(maxsize=64)
def _days(first: str, last: str) -> tuple[int, ...]:
    sessions = calendar.sessions(dt.date.fromisoformat(first), dt.date.fromisoformat(last))
    return tuple(calendar.day_start_ms(session.open_ms) for session in sessions)
