"""What the database holds, asked through Supabase's REST interface (see `stored.StoredRows`).

`kite_tally` counts by the fingerprints of `ledger.ROWS`, and reads the position at the same moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import Any

from msgspec import Struct

from libs.common.opening import OpensWith
from libs.common.subjects import INDICATORS, MARKET
from services.writer.core import Position
from services.writer.findings import Lane
from services.writer.ledger import ROWS, Group, Rows, Span, Tally
from services.writer.rest_api import RestApi
from services.writer.stored import STRANGERS_MAX, Minute, Snapshot, columns_of

__all__ = ["RestRows"]

_STREAMS = {ROWS[stream].table: stream for stream in (MARKET, INDICATORS)}
_NO_PARTITION = -1


class _Tallied(Struct):
    position: tuple[int, int, int] | None
    groups: list[tuple[str, int, int, str]]
    strangers: list[tuple[str, int, int, str]]


class RestRows(OpensWith):
    """Reads through functions; an async context manager."""

    def __init__(self, url: str, key: str, *, statement_timeout_s: int) -> None:
        self._api = RestApi(url, key, connections_max=1, statement_timeout_s=statement_timeout_s)
        super().__init__(self._api)

    async def positions(self) -> dict[Lane, Position]:
        """See StoredRows."""
        rows = await self._api.call("kite_positions", {}, list[tuple[str, int, int, int, int]])
        return {(stream, partition): Position(*rest) for stream, partition, *rest in rows}

    async def ticks_since(self) -> dict[Lane, Position]:
        """See StoredRows."""
        rows = await self._api.call("kite_ticks_since", {}, list[tuple[str, int, int, int, int]])
        return {(stream, partition): Position(*rest) for stream, partition, *rest in rows}

    async def groups(self, rows: Rows, spans: Sequence[Span]) -> dict[Group, Tally]:
        """See StoredRows."""
        if not spans:
            return {}
        tallied = await self._tally((_STREAMS[rows.table], _NO_PARTITION), spans, None)
        return _groups(tallied.groups)

    async def snapshot(
        self,
        lane: Lane,
        rows: Rows,
        spans: Sequence[Span],
        *,
        strangers_from_ms: int | None,
    ) -> Snapshot:
        """See StoredRows."""
        tallied = await self._tally(lane, spans, strangers_from_ms)
        position = None if tallied.position is None else Position(*tallied.position)
        return Snapshot(position, _groups(tallied.groups), _groups(tallied.strangers))

    async def first_day(self, table: str) -> date | None:
        """See StoredRows."""
        found: date | None = await self._api.call("kite_first_day", {"parent": table}, date | None)
        return found

    async def first_gap_ms(self) -> int | None:
        """See StoredRows."""
        found: int | None = await self._api.call("kite_first_gap", {}, int | None)
        return found

    async def session_minutes(self, from_ms: int, to_ms: int, *, over: bool) -> Counter[str]:
        """See StoredRows."""
        asked = {"since_ms": from_ms, "until_ms": to_ms, "is_over": over}
        return Counter(await self._api.call("kite_session_minutes", asked, dict[str, int]))

    async def traded_minutes(self, from_ms: int, to_ms: int) -> set[Minute]:
        """See StoredRows."""
        asked = {"since_ms": from_ms, "until_ms": to_ms}
        found: set[Minute] = await self._api.call("kite_traded_minutes", asked, set[Minute])
        return found

    async def open_minutes(self, minutes: Collection[Minute]) -> set[Minute]:
        """See StoredRows."""
        asked = dict(zip(("tickers", "minutes_ms"), columns_of(minutes), strict=True))
        found: set[Minute] = await self._api.call("kite_open_minutes", asked, set[Minute])
        return found

    async def _tally(
        self, lane: Lane, spans: Sequence[Span], strangers_from_ms: int | None
    ) -> _Tallied:
        arguments: dict[str, Any] = {
            "stream": lane[0],
            "partition": lane[1],
            "tickers": [span.ticker for span in spans],
            "since_ms": [span.from_ms for span in spans],
            "until_ms": [span.to_ms for span in spans],
            "strangers_from_ms": strangers_from_ms,
            "strangers_max": STRANGERS_MAX,
        }
        tallied: _Tallied = await self._api.call("kite_tally", arguments, _Tallied)
        return tallied


def _groups(found: Iterable[tuple[str, int, int, str]]) -> dict[Group, Tally]:
    return {
        (ticker, minute_ms): Tally(count, int(digest)) for ticker, minute_ms, count, digest in found
    }
