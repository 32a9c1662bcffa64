"""One rule on one ticker in one timeframe: its session, and the signals of the last days.

Only the regular session counts; outside it nothing is looked at. The signals of a day are kept to
tell, when the day comes again as a correction, which vanished, which changed and which are new:

- a vanished one is published again as superseded, a changed one with its new values, each with the
  revision after its last;
- a new one begins with the number of the correction. No earlier revision of it can be higher, since
  a correction raises a revision by one at most, even if the day is so long ago that it was
  forgotten. Of a forgotten day every signal is published again; those that vanished cannot be
  known any more.

Whatever a correction brings is late: it must not be traded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from libs.common import calendar
from libs.common.events import Direction, Signal
from services.signals import rules
from services.signals.rules import Sample

__all__ = ["DAYS_MAX", "TICK", "Track"]

TICK = "tick"
DAYS_MAX = 5  # the current one and those before it that had signals
_KEPT_MAX = 64  # signals of earlier days; the current day has at most one a minute

_DEFAULT_KIND = "cross"
_MINUTE_MS = 60_000
_MICROS = 1e6


class _Record(Struct, frozen=True, gc=False):
    """A published signal as it is remembered; prices in millionths of a dollar."""

    up: bool
    price: int
    sma9: int
    vwap: int
    active: bool
    revision: int

    def packed(self) -> tuple[int, ...]:
        """Return few small numbers: where averages cross they are close to each other."""
        return (
            self.revision * 4 + self.active * 2 + self.up,
            self.price, self.sma9 - self.price, self.vwap - self.sma9,
        )  # fmt: skip

    @classmethod
    def unpacked(cls, state: int, price: int, sma9_less_price: int, vwap_less_sma9: int) -> _Record:
        """Undo `packed`."""
        sma9 = price + sma9_less_price
        return cls(bool(state & 1), price, sma9, sma9 + vwap_less_sma9, bool(state & 2), state >> 2)

    def differs(self, other: _Record) -> bool:
        """Whether anything but the revision differs."""
        return self != replace(other, revision=self.revision)


class Track:
    """The state of one rule on one ticker in one timeframe."""

    __slots__ = (
        "_close_ms", "_day_ms", "_days", "_kind", "_open_ms", "_rule", "_ticker", "_timeframe",
        "_until_ms",
    )  # fmt: skip

    def __init__(self, ticker: str, timeframe: str, kind: str) -> None:
        self._ticker = ticker
        self._timeframe = timeframe
        self._kind = kind
        self._rule = rules.make(kind)
        self._day_ms = -1
        self._until_ms = 0  # end of the day
        self._open_ms = self._close_ms = 0  # the day's regular session, empty if there is none
        self._days: dict[int, dict[int, _Record]] = {}  # day -> minute of the day -> signal

    def see(self, sample: Sample) -> Signal | None:
        """Take the next live sample; those of an earlier day are ignored."""
        ts_ms = sample.ts_ms
        if ts_ms >= self._until_ms:
            self._turn(calendar.day_start_ms(ts_ms))
        if not self._open_ms <= ts_ms < self._close_ms:
            return None
        direction = self._rule.update(sample)
        if direction is None:
            return None
        record = _record(direction, sample, revision=0)
        if self._timeframe != TICK:  # ticks are never corrected
            minute = (ts_ms - self._day_ms) // _MINUTE_MS
            signals = self._days.setdefault(self._day_ms, {})
            if minute in signals:
                record = replace(record, revision=signals[minute].revision + 1)
            signals[minute] = record
        return self._signal(ts_ms, record, late=False)

    def correct(self, day_ms: int, revision: int, samples: Iterable[Sample]) -> Iterator[Signal]:
        """Take all samples of a day anew; yield what changes by that, in order of time."""
        if day_ms > self._day_ms:
            self._turn(day_ms)
        rule = rules.make(self._kind)
        found = dict(self._find(rule, day_ms, samples, revision))
        if day_ms == self._day_ms:
            self._rule = rule
        known = self._days.get(day_ms, {})
        for minute in sorted(found.keys() | known.keys()):
            old, new = known.get(minute), found.get(minute)
            if old is not None:
                new = replace(new or replace(old, active=False), revision=old.revision + 1)
                if not new.differs(old):
                    continue
            assert new is not None
            known[minute] = new
            yield self._signal(day_ms + minute * _MINUTE_MS, new, late=True)
        if known:
            self._days[day_ms] = known
            self._forget()

    def snapshot(self) -> list[Any]:
        """Return the whole state."""
        days = [
            [day_ms, [[minute, *record.packed()] for minute, record in sorted(signals.items())]]
            for day_ms, signals in sorted(self._days.items())
        ]
        return [
            self._day_ms, self._until_ms, self._open_ms, self._close_ms,
            self._rule.snapshot(), days,
        ]  # fmt: skip

    def restore(self, state: Sequence[Any]) -> None:
        """Take up a state that `snapshot` gave and MessagePack carried."""
        self._day_ms, self._until_ms, self._open_ms, self._close_ms, memory, days = state
        self._rule.restore(memory)
        self._days = {
            day_ms: {minute: _Record.unpacked(*record) for minute, *record in signals}
            for day_ms, signals in days
        }

    def _find(
        self, rule: rules.Rule, day_ms: int, samples: Iterable[Sample], revision: int
    ) -> Iterator[tuple[int, _Record]]:
        session = calendar.session_at(day_ms)
        if session is None:
            return
        for sample in samples:
            if session.open_ms <= sample.ts_ms < session.close_ms:
                direction = rule.update(sample)
                if direction is not None:
                    minute = (sample.ts_ms - day_ms) // _MINUTE_MS
                    yield minute, _record(direction, sample, revision)

    def _turn(self, day_ms: int) -> None:
        """Enter a New York day: the rule begins anew, days too long ago are forgotten."""
        day = calendar.day_of(day_ms)
        session = calendar.session(day)
        self._day_ms, self._until_ms = calendar.day_bounds_ms(day)
        self._open_ms, self._close_ms = (0, 0) if session is None else (
            session.open_ms, session.close_ms,
        )  # fmt: skip
        self._rule.restore(None)
        self._forget()

    def _forget(self) -> None:
        earlier = sorted(day_ms for day_ms in self._days if day_ms != self._day_ms)
        kept = sum(len(self._days[day_ms]) for day_ms in earlier)
        while len(earlier) >= DAYS_MAX or kept > _KEPT_MAX:
            kept -= len(self._days.pop(earlier.pop(0)))

    def _signal(self, ts_ms: int, record: _Record, *, late: bool) -> Signal:
        name = f"{self._ticker}:{self._timeframe}:{ts_ms}"
        return Signal(
            id=name if self._kind == _DEFAULT_KIND else f"{name}:{self._kind}",
            revision=record.revision,
            state="active" if record.active else "superseded",
            late=late,
            ticker=self._ticker,
            timeframe=self._timeframe,
            ts_ms=ts_ms,
            kind=self._kind,
            direction="up" if record.up else "down",
            price=record.price / _MICROS,
            sma9=record.sma9 / _MICROS,
            vwap=record.vwap / _MICROS,
        )


def _record(direction: Direction, sample: Sample, revision: int) -> _Record:
    return _Record(
        up=direction == "up",
        price=_micros(sample.price),
        sma9=_micros(sample.sma9),
        vwap=_micros(sample.vwap),
        active=True,
        revision=revision,
    )


def _micros(value: float) -> int:
    return round(value * _MICROS)
