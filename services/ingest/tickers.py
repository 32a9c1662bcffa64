"""One ticker's two series and what of them outlives a restart."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from libs.common.errors import SchemaError
from libs.common.events import Gap, HistoryBar
from libs.common.state import pack, unpack
from services.ingest.checked import CheckedDays
from services.ingest.closures import Closures
from services.ingest.level_one import LevelOne
from services.ingest.minutes import Minutes

__all__ = ["Memory", "Ticker", "TickerMemory", "pack_memory", "unpack_memory"]

_VERSION = 1


class TickerMemory(Struct, frozen=True, array_like=True):
    """The cursors of both series: what was published, and what is known to be missing."""

    ticker: str
    last_tick_ms: int
    tick_gap_from_ms: int
    tick_gap_cause: str
    last_minute_ms: int
    day_ms: int
    day_count: int
    recent: tuple[HistoryBar, ...]
    gaps: tuple[Gap, ...]
    days: tuple[int, ...] = ()
    checked_newest: int = 0
    checked_mask: int = 0
    closed: tuple[int, ...] = ()


class Memory(Struct, frozen=True, array_like=True):
    """Everything that a checkpoint of one partition holds."""

    broker_ms: int
    epoch: int
    tickers: tuple[TickerMemory, ...]


class Ticker:
    """Level one and minute bars of one ticker."""

    __slots__ = ("level_one", "minutes")

    def __init__(self, name: str, closures: Closures | None = None) -> None:
        self.level_one = LevelOne(name)
        self.minutes = Minutes(name, closures)

    def memory(self) -> TickerMemory:
        """Return what outlives a restart."""
        level_one, minutes = self.level_one, self.minutes
        return TickerMemory(
            minutes.ticker,
            level_one.last_tick_ms,
            level_one.gap_from_ms,
            level_one.gap_cause,
            minutes.last_ms,
            minutes.day_ms,
            minutes.day_count,
            minutes.recent,
            tuple(minutes.gaps.values()),
            minutes.days.packed(),
            minutes.checked.newest,
            minutes.checked.mask,
            minutes.shut.packed(),
        )

    def recall(self, memory: TickerMemory) -> None:
        """Take up what `memory` gave in an earlier life."""
        self.level_one.last_tick_ms = memory.last_tick_ms
        self.level_one.gap_from_ms = memory.tick_gap_from_ms
        self.level_one.gap_cause = memory.tick_gap_cause
        self.minutes.recall(
            memory.last_minute_ms,
            memory.day_ms,
            memory.day_count,
            memory.recent,
            memory.gaps,
            memory.days,
            CheckedDays(memory.checked_newest, memory.checked_mask),
        )
        self.minutes.shut.unpack(memory.closed)


def pack_memory(broker_ms: int, epoch: int, tickers: Iterable[Ticker]) -> bytes:
    """Return a partition's memory as the bytes of a checkpoint."""
    memory = Memory(broker_ms, epoch, tuple(ticker.memory() for ticker in tickers))
    return pack(_VERSION, msgspec.to_builtins(memory))


def unpack_memory(state: bytes) -> Memory:
    """Return what `pack_memory` packed; raises SchemaError."""
    try:
        return msgspec.convert(unpack(_VERSION, state), Memory)
    except msgspec.ValidationError as error:
        raise SchemaError(f"a checkpoint of ingest does not decode: {error}") from error
