"""INDICATORS frame in, signals out: the pure operator of one partition.

Promises:

- a closed candle (or, if asked for, a tick) of the regular session that changes a rule's mind is
  one Signal, once; a Correction and the candles behind it give what that changed about the day;
- the output depends on the events and their order alone: not on how they were cut into frames (a
  Correction and its candles always share one), not on where the run was interrupted, not on other
  tickers;
- the newest revision of each id is the truth, so whoever keeps the highest one is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from libs.common.events import (
    Candle,
    Correction,
    Event,
    Frame,
    Signal,
    TickIndicator,
)
from libs.common.state import pack, unpack
from services.signals.rules import Sample
from services.signals.track import TICK, Track

__all__ = ["Operator"]

_STATE_VERSION = 1


class Operator:
    """All tickers of one partition, in the timeframes and by the rules asked for."""

    def __init__(
        self, timeframes: Iterable[str] = ("1m",), rule_names: Iterable[str] = ("cross",)
    ) -> None:
        self._timeframes = frozenset(timeframes)
        self._candle_timeframes = sorted(self._timeframes - {TICK})
        self._ticks = TICK in self._timeframes
        self._rule_names = tuple(rule_names)
        self._tracks: dict[tuple[str, str], tuple[Track, ...]] = {}

    def step(self, frame: Frame) -> tuple[Event, ...]:
        """Take one INDICATORS frame and return the signals that follow from it."""
        out: list[Signal] = []
        corrected_to = -1  # index of the last candle that a Correction took with it
        for index, event in enumerate(frame.events):
            if type(event) is TickIndicator:
                if self._ticks:
                    self._see(event, TICK, event.price, out)
            elif type(event) is Candle:
                if index > corrected_to and event.timeframe in self._timeframes:
                    self._see(event, event.timeframe, event.close, out)
            elif type(event) is Correction:
                candles = list(_candles_of(event, frame.events[index + 1 :]))
                corrected_to = index + len(candles)
                self._correct(event, candles, out)
        return tuple(out)

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        tracks = [
            [ticker, timeframe, [track.snapshot() for track in tracks]]
            for (ticker, timeframe), tracks in self._tracks.items()
        ]
        return pack(_STATE_VERSION, tracks)

    def restore(self, state: bytes) -> None:
        """Take up a state that `snapshot` gave, or start fresh; raises SchemaError."""
        self._tracks = {}
        if not state:
            return
        for ticker, timeframe, saved in unpack(_STATE_VERSION, state):
            tracks = self._tracks_of(ticker, timeframe)
            for track, its in zip(tracks, saved, strict=True):
                track.restore(its)

    def _see(
        self, event: Candle | TickIndicator, timeframe: str, price: float, out: list[Signal]
    ) -> None:
        if event.sma9 is None or event.vwap is None:
            return
        sample = Sample(event.ts_ms, price, event.sma9, event.vwap)
        for track in self._tracks_of(event.ticker, timeframe):
            signal = track.see(sample)
            if signal is not None:
                out.append(signal)

    def _correct(
        self, correction: Correction, candles: Iterable[Candle], out: list[Signal]
    ) -> None:
        for timeframe in self._candle_timeframes:
            samples = [
                Sample(candle.ts_ms, candle.close, candle.sma9, candle.vwap)
                for candle in candles
                if candle.timeframe == timeframe
                and candle.sma9 is not None
                and candle.vwap is not None
            ]
            for track in self._tracks_of(correction.ticker, timeframe):
                out += track.correct(correction.day_ms, correction.revision, samples)

    def _tracks_of(self, ticker: str, timeframe: str) -> tuple[Track, ...]:
        key = (ticker, timeframe)
        tracks = self._tracks.get(key)
        if tracks is None:
            tracks = tuple(Track(ticker, timeframe, name) for name in self._rule_names)
            self._tracks[key] = tracks
        return tracks


def _candles_of(correction: Correction, events: Iterable[Event]) -> Iterator[Candle]:
    """Yield the candles that a Correction brings: they stand right behind it."""
    for event in events:
        if (
            type(event) is not Candle
            or event.ticker != correction.ticker
            or event.revision != correction.revision
        ):
            return
        yield event
