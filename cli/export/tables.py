"""What can be exported: its columns, where they are in the database, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["TABLES", "Column", "Kind", "Table", "Unit"]

Kind = Literal["text", "whole", "price", "average", "time", "wall_time", "date", "flag"]
Unit = Literal["day", "month"]


@dataclass(frozen=True)
class Column:
    """One column of a file; `source` is what it is made of, where the name does not say it."""

    name: str
    kind: Kind = "text"
    source: str = ""

    @property
    def sql(self) -> str:
        """What reads it, as the text that a file holds."""
        value = self.source or f't."{self.name}"'
        if self.kind == "time":  # all of ours are whole milliseconds
            return f"""to_char({value}, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "{self.name}\""""
        if self.kind == "wall_time":
            return f"""to_char({value}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as "{self.name}\""""
        cast = "::text" if self.kind in ("text", "flag") else ""
        return f'({value}){cast} as "{self.name}"'


@dataclass(frozen=True)
class Table:
    """One kind of rows.

    `ticker` names the column that `--tickers` chooses by, `at` the one of the time; rows that last
    have an `until` as well. `unit` is what a partition holds, if there are partitions.
    """

    name: str
    relation: str
    columns: tuple[Column, ...]
    order: str
    ticker: str = "ticker"
    at: str = "timestamp"
    until: str = ""
    unit: Unit | None = None
    has_timeframe: bool = False
    joined: str = ""


_TICKER = Column("ticker")
_AT = Column("timestamp", "time")
_CANDLE = (
    _TICKER, Column("timeframe"), _AT, Column("open", "price"), Column("high", "price"),
    Column("low", "price"), Column("close", "price"), Column("volume", "whole"),
    Column("sma9", "average"), Column("vwap", "average"), Column("extras"), Column("source"),
    Column("revision", "whole"),
)  # fmt: skip
_BY_TIME: Final = 't."timestamp"'

_CANDLES = Table(
    "candles", "candles", _CANDLE, f"t.timeframe, {_BY_TIME}", unit="month", has_timeframe=True
)
_TICKS = Table(
    "ticks",
    "equity_data",
    (
        _TICKER, _AT, Column("price", "price"), Column("volume", "whole"),
        Column("total_volume", "whole"), Column("bid", "price"), Column("ask", "price"),
        Column("sma9", "average", "i.sma9"), Column("vwap", "average", "i.vwap"),
    ),
    _BY_TIME,
    unit="day",
    # The bounds are said twice, so that the other table's partitions are chosen by them, too.
    joined="left join public.indicators i on i.ticker = t.ticker "
    'and i."timestamp" = t."timestamp" and i.ticker = $1 '
    'and i."timestamp" >= $2 and i."timestamp" < $3',
)  # fmt: skip
_SIGNALS = Table(
    "signals",
    "signals",
    (
        Column("id"), _TICKER, Column("timeframe"), _AT, Column("kind"), Column("direction"),
        Column("price", "price"), Column("sma9", "average"), Column("vwap", "average"),
        Column("state"), Column("late", "flag"), Column("revision", "whole"),
    ),
    f"{_BY_TIME}, t.timeframe, t.id",
    has_timeframe=True,
)  # fmt: skip
_GAPS = Table(
    "gaps",
    "gaps",
    (
        Column("id"), _TICKER, Column("series"), Column("started_at", "time"),
        Column("ended_at", "time"), Column("cause"), Column("state"), Column("reason"),
    ),
    "t.started_at, t.id",
    at="started_at",
    until="ended_at",
)  # fmt: skip
_REVISIONS = Table(
    "revisions",
    "candle_revisions",
    (*_CANDLE, Column("superseded_at", "wall_time")),
    f"t.timeframe, {_BY_TIME}, t.revision",
    has_timeframe=True,
)
_OPTIONS = Table(
    "options",
    "option_prices",
    (
        Column("symbol"), _AT, Column("underlying"), Column("expiry", "date"),
        Column("strike", "price"), Column("right"), Column("bid", "price"), Column("ask", "price"),
        Column("last", "price"), Column("bid_size", "whole"), Column("ask_size", "whole"),
        Column("volume", "whole"), Column("open_interest", "whole"),
        *(Column(name, "average") for name in (
            "implied_volatility", "delta", "gamma", "theta", "vega", "rho")),
    ),
    f"t.symbol, {_BY_TIME}",
    ticker="underlying",
    unit="month",
)  # fmt: skip

TABLES: Final[Mapping[str, Table]] = MappingProxyType(
    {table.name: table for table in (_CANDLES, _TICKS, _SIGNALS, _GAPS, _REVISIONS, _OPTIONS)}
)
