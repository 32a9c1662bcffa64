"""What the rows must be, counted out of the frames a second time: the pure half of the reconciler.

A `Walk` goes through one partition's frames in order and tallies the rows that they make, by ticker
and minute: how many, and a digest. The digest of a set of rows is the sum of one number per row, so
it does not depend on their order, and the database can add up the same sum by itself: the number is
the first 60 bits of the MD5 of the row as text (`ROWS` has that text in SQL, `row_texts` in
Python). A row that is missing, doubled or changed in one field gives another count or sum.

A minute can be compared once it is complete. The times of one ticker grow strictly from frame to
frame, so a minute of it is complete as soon as a later minute began, and everything of that ticker
between two of its minutes must be empty in the database too: rows that no frame made are found as
well. `Span` is such a stretch of time of one ticker. What the walk does not know, it does not
claim: where the stream has lost its beginning by age, a ticker's first minute is left out.

Pure: nothing is read or sent here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from libs.common.events import Event, Frame, Tick, TickIndicator
from libs.common.subjects import INDICATORS, MARKET

__all__ = [
    "MINUTE_MS",
    "ROWS",
    "Difference",
    "Group",
    "Rows",
    "Span",
    "Tally",
    "Walk",
    "differences",
    "fingerprint",
]

MINUTE_MS: Final = 60_000
# No tick lies further ahead of its frame's broker time; generous against rounding.
_AHEAD_MS_MAX = 60_000
_HEX_DIGITS = 15

# A ticker and the start of a minute.
Group = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows, and the sum of their fingerprints."""

    count: int = 0
    digest: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Return the tally of both sets together."""
        return Tally(self.count + other.count, self.digest + other.digest)


@dataclass(frozen=True)
class Rows:
    """Which rows a stream's frames make one for one: the event, its text, the same text in SQL."""

    table: str
    event: type[Event]
    text: Callable[[Any], str]
    sql: str


def fingerprint(text: str) -> int:
    """Return the number that stands for one row in a digest."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return int(digest[:_HEX_DIGITS], 16)


def _tick_text(tick: Tick) -> str:
    return (
        f"{tick.ts_ms}000|{tick.price:.4f}|{tick.volume}|{tick.total_volume}"
        f"|{_fixed(tick.bid, 4)}|{_fixed(tick.ask, 4)}|{tick.ticker}"
    )


def _indicator_text(indicator: TickIndicator) -> str:
    return (
        f"{indicator.ts_ms}000|{_fixed(indicator.sma9, 6)}|{_fixed(indicator.vwap, 6)}"
        f"|{indicator.ticker}"
    )


def _fixed(value: float | None, decimals: int) -> str:
    """Write a number as its column gives it back; a zero has no sign there."""
    if value is None:
        return "-"
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and not float(text) else text


_MICROSECONDS = '(extract(epoch FROM e."timestamp") * 1000000)::bigint'

# By stream. Tables whose rows are changed after they were written are not among them.
ROWS: Final[Mapping[str, Rows]] = MappingProxyType(
    {
        MARKET: Rows(
            "equity_data",
            Tick,
            _tick_text,
            f"concat_ws('|', {_MICROSECONDS}, e.price, e.volume, e.total_volume, "
            "coalesce(e.bid::text, '-'), coalesce(e.ask::text, '-'), e.ticker)",
        ),
        INDICATORS: Rows(
            "indicators",
            TickIndicator,
            _indicator_text,
            f"concat_ws('|', {_MICROSECONDS}, coalesce(e.sma9::text, '-'), "
            "coalesce(e.vwap::text, '-'), e.ticker)",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch `[from_ms, to_ms)` of one ticker; `to_ms` None has no end."""

    ticker: str
    from_ms: int
    to_ms: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One ticker and minute of which stream and table hold different rows."""

    ticker: str
    minute_ms: int
    stream: Tally
    table: Tally


def differences(stream: Mapping[Group, Tally], table: Mapping[Group, Tally]) -> list[Difference]:
    """Compare what both hold of the same spans; in order of time, then ticker."""
    nothing = Tally()
    found = [
        Difference(*group, stream.get(group, nothing), table.get(group, nothing))
        for group in stream.keys() | table.keys()
        if stream.get(group, nothing) != table.get(group, nothing)
    ]
    return sorted(found, key=lambda each: (each.minute_ms, each.ticker))


@dataclass(slots=True)
class _Ticker:
    """One ticker's open minute, and from where on nothing of it was compared."""

    from_ms: int
    minute_ms: int
    last_ms: int
    known: bool  # whether all rows of the open minute are in frames that were walked
    open: Tally = field(default_factory=Tally)


class Walk:
    """Tallies one partition's frames, which are given in order.

    It begins behind the message `seq` with number `n`, 0 if that is not known; `first` says that
    the frames begin with the stream's very first, so that nothing came before. `seq` and `n` are
    those of the last frame. Complete minutes pile up until `take` takes them: memory is bounded by
    taking them every now and then.
    """

    def __init__(self, rows: Rows | None, *, first: bool, seq: int = 0, n: int = 0) -> None:
        self._rows = rows
        self._first = first
        self.seq = seq
        self.n = n
        self.disorder: list[tuple[str, int]] = []
        self._sent_ms: int | None = None
        self._tickers: dict[str, _Ticker] = {}
        self._complete: dict[Group, Tally] = {}
        self._from_ms: dict[str, int] = {}

    @property
    def tickers(self) -> frozenset[str]:
        """Every ticker that had a row."""
        return frozenset(self._tickers)

    @property
    def claims_from_ms(self) -> int | None:
        """From when on any row must come from one of these frames; None before the first frame."""
        if self._first:
            return 0
        return None if self._sent_ms is None else self._sent_ms + _AHEAD_MS_MAX

    @property
    def groups(self) -> int:
        """How many minutes wait to be taken."""
        return len(self._complete)

    def misses(self, seq: int, n: int, *, sole: bool) -> bool:
        """Tell whether the frame numbered `n` at `seq` is not the next one.

        `sole` says that the partition has the stream for itself, so that every sequence is its own.
        """
        if self.n or self._first:
            return n != self.n + 1
        return sole and seq != self.seq + 1

    def skip(self, seq: int, n: int | None = None) -> None:
        """Pass over the frame at `seq`, or all up to number `n`."""
        if n is None:
            n = self.n + 1 if self.n or self._first else 0
        self.seq, self.n = seq, n

    def add(self, seq: int, frame: Frame) -> None:
        """Tally the rows of the next frame."""
        self.seq, self.n = seq, frame.n
        if self._sent_ms is None:
            self._sent_ms = frame.sent_ms
        if self._rows is None:
            return
        wanted, text = self._rows.event, self._rows.text
        for event in frame.events:
            if type(event) is wanted:
                row: Any = event
                self._row(row.ticker, row.ts_ms, text(row))

    def _row(self, name: str, ts_ms: int, text: str) -> None:
        minute_ms = ts_ms - ts_ms % MINUTE_MS
        ticker = self._tickers.get(name)
        if ticker is None:
            ticker = _Ticker(0 if self._first else minute_ms, minute_ms, -1, self._first)
            self._tickers[name] = ticker
        if ts_ms <= ticker.last_ms:
            self.disorder.append((name, ts_ms))
            return
        if minute_ms != ticker.minute_ms:
            self._close(name, ticker, minute_ms)
        ticker.last_ms = ts_ms
        ticker.open = Tally(ticker.open.count + 1, ticker.open.digest + fingerprint(text))

    def _close(self, name: str, ticker: _Ticker, next_minute_ms: int) -> None:
        if ticker.known:
            self._from_ms.setdefault(name, ticker.from_ms)
            self._complete[name, ticker.minute_ms] = ticker.open
        ticker.from_ms = ticker.minute_ms + MINUTE_MS
        ticker.minute_ms, ticker.open, ticker.known = next_minute_ms, Tally(), True

    def take(self) -> tuple[list[Span], dict[Group, Tally]]:
        """Return the spans that were completed since the last call, and all rows in them."""
        spans = [
            Span(name, from_ms, self._tickers[name].from_ms)
            for name, from_ms in self._from_ms.items()
        ]
        complete, self._complete, self._from_ms = self._complete, {}, {}
        return spans, complete

    def rest(self) -> list[Span]:
        """Return what is not compared yet, up to the end of time, of every known ticker.

        Call it when nothing waits to be taken.
        """
        return [
            Span(name, ticker.from_ms if ticker.known else ticker.minute_ms + MINUTE_MS, None)
            for name, ticker in self._tickers.items()
        ]

    def take_rest(self, spans: Iterable[Span]) -> dict[Group, Tally]:
        """Return all rows of what `rest` had returned, those of open minutes included.

        The open minutes stay open: they are compared again when they are complete.
        """
        wanted = {span.ticker: span.from_ms for span in spans}
        found = {group: tally for group, tally in self._complete.items() if group[0] in wanted}
        for group in found:
            del self._complete[group]
        for name, from_ms in wanted.items():
            self._from_ms.pop(name, None)
            ticker = self._tickers[name]
            if ticker.open.count and ticker.minute_ms >= from_ms:
                found[name, ticker.minute_ms] = ticker.open
        return found
