"""The store behind Supabase's REST interface: what `store.Store` promises, one function a call.

A commit is one request and one transaction: `kite_commit` moves the position first and stores the
rows, or does neither. Partitions are made before, in requests of their own, so that no lane holds
locks while another makes a table. What the other sink can do besides and this one cannot: end the
session of a writer that was frozen in the middle. It needs not to, since no transaction here waits
for its client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec

from libs.common import failpoints
from libs.common.errors import StoreUnavailable
from libs.common.opening import OpensWith
from services.writer.columns import commit_arguments
from services.writer.core import Batch, Position
from services.writer.rest_api import Refused, RestApi
from services.writer.store import PARTITIONS_CACHED_MAX, TABLES, Report, Usage, require_owner

__all__ = ["RestStore"]

# While others get answers there is no need to ask whether there would be one.
_PING_AFTER_S = 10.0
_IS_THERE = "42P07"  # duplicate_table


class RestStore(OpensWith):
    """Rows by `kite_commit`; used as a context manager."""

    def __init__(
        self, url: str, key: str, *, connections_max: int, statement_timeout_s: int
    ) -> None:
        self._api = RestApi(
            url, key, connections_max=connections_max, statement_timeout_s=statement_timeout_s
        )
        super().__init__(self._api)
        self._partitions: set[tuple[str, date]] = set()
        self._answered_s = float("-inf")

    async def claim(self, meta: Mapping[str, str]) -> None:
        """See Store."""
        found = await self._call("kite_claim", {"meta": dict(meta)}, dict[str, str])
        for key, wanted in meta.items():
            require_owner(key, wanted, found.get(key))

    async def keep(self, what: str) -> None:
        """See Store."""
        await self._call("kite_keep", {"what": what}, bool)

    async def position(self, stream: str, partition: int) -> Position | None:
        """See Store."""
        rows = await self._call("kite_positions", {}, list[tuple[str, int, int, int, int]])
        found = {(name, number): Position(*rest) for name, number, *rest in rows}
        return found.get((stream, partition))

    async def commit(self, batch: Batch) -> None:
        """See Store."""
        await self._ensure_partitions(batch)
        failpoints.reach("writer.transaction.before")
        try:
            answer = await self._call("kite_commit", commit_arguments(batch), dict[str, int])
        except StoreUnavailable:
            self._partitions.clear()  # somebody may have removed one: make it again
            raise
        if answer != {"seq": batch.after.seq}:
            raise StoreUnavailable(f"kite_commit answers something else than a position: {answer}")

    async def _ensure_partitions(self, batch: Batch) -> None:
        if len(self._partitions) > PARTITIONS_CACHED_MAX:
            self._partitions.clear()
        for table, day in sorted(batch.partitions - self._partitions):
            arguments = {"parent": table, "day": day.isoformat()}
            try:
                await self._call("kite_ensure_partition", arguments, bool)
            except StoreUnavailable as error:
                # Another lane made it while this one waited for the lock: ask once more.
                if not isinstance(error.__cause__, Refused) or error.__cause__.code != _IS_THERE:
                    raise
                await self._call("kite_ensure_partition", arguments, bool)
            self._partitions.add((table, day))

    async def ping(self) -> None:
        """See Store; a request that was answered a moment ago says as much."""
        if asyncio.get_running_loop().time() - self._answered_s >= _PING_AFTER_S:
            await self.position("", 0)

    async def size_bytes(self) -> int:
        """See Store."""
        found: int = await self._call("kite_database_bytes", {}, int)
        return found

    async def usage(self) -> Usage:
        """See Store."""
        found: Usage = await self._call("kite_usage", {"tables": list(TABLES)}, Usage)
        return found

    async def report(self, report: Report) -> None:
        """See Store."""
        await self._call("kite_report", {"report": msgspec.to_builtins(report)}, bool)

    async def prune_reports(self, before_ms: int) -> None:
        """See Store."""
        await self._call("kite_prune_reports", {"before_ms": before_ms}, bool)

    async def _call(self, function: str, arguments: Mapping[str, Any], kind: Any) -> Any:
        answer = await self._api.call(function, arguments, kind)
        self._answered_s = asyncio.get_running_loop().time()
        return answer
