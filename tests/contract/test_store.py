"""What every store of the writer promises; each implementation runs the whole suite.

A new implementation joins by adding itself to `STORES` and to `_open`. Rows are read back from the
database itself, not through the store. The store behind a REST interface has a stand-in for it that
runs the same functions as the same roles, in a real Postgres.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from cli.servers.postgres import PostgresServer
from libs.common.errors import RowsRefused, StoreFenced, StoreMismatch
from libs.common.events import SESSION_CHECK
from services.writer.core import Position
from services.writer.rest import RestStore
from services.writer.store import PostgresStore, Report, Store
from tests.databases import Database
from tests.postgrest import postgrest, service_key
from tests.supabase import authenticator
from tests.writer_frames import (
    CREATED_MS,
    TS_MS,
    batch_of,
    candle,
    gap,
    signal,
    tick,
    tick_indicator,
)

STORES = ("postgres", "rest")

Query = Callable[..., Awaitable[list[dict[str, Any]]]]


@asynccontextmanager
async def _open(kind: str, server: PostgresServer, database: Database) -> AsyncIterator[Store]:
    limits: dict[str, Any] = {"connections_max": 2, "statement_timeout_s": 10}
    if kind == "postgres":
        async with PostgresStore(database.owner, **limits) as store:
            yield store
    else:
        login = await asyncio.to_thread(authenticator, server, database.name)
        with postgrest(login) as url:
            async with RestStore(url, service_key(), **limits) as store:
                yield store


@pytest.fixture(params=STORES)
def within(
    request: pytest.FixtureRequest, postgres: PostgresServer, migrated_database: Database
) -> Callable[[Callable[[Store, Query], Awaitable[None]]], None]:
    """Run a scenario with an open store and a way to look into its database."""

    def run(scenario: Callable[[Store, Query], Awaitable[None]]) -> None:
        async def main() -> None:
            reader = await asyncpg.connect(migrated_database.superuser)

            async def query(sql: str, *arguments: object) -> list[dict[str, Any]]:
                return [dict(row) for row in await reader.fetch(sql, *arguments)]

            try:
                async with _open(request.param, postgres, migrated_database) as store:
                    await scenario(store, query)
            finally:
                await reader.close()

        asyncio.run(main())

    return run


Within = Callable[[Callable[[Store, Query], Awaitable[None]]], None]


class TestPosition:
    """The position moves with the rows, from where it was or not at all."""

    def test_absent_before_the_first_commit(self, within: Within) -> None:
        """A store that was never written to has no position."""

        async def scenario(store: Store, query: Query) -> None:
            assert await store.position("MARKET", 0) is None

        within(scenario)

    def test_follows_each_commit(self, within: Within) -> None:
        """Each commit leaves the position behind its last frame, also when it has no rows."""

        async def scenario(store: Store, query: Query) -> None:
            first = batch_of([tick()], [])
            await store.commit(first)
            assert await store.position("MARKET", 0) == Position(CREATED_MS, 2, 2)
            await store.commit(batch_of([], before=first.after))
            assert await store.position("MARKET", 0) == Position(CREATED_MS, 3, 3)

        within(scenario)

    def test_is_kept_apart_by_stream_and_partition(self, within: Within) -> None:
        """Lanes do not share positions."""

        async def scenario(store: Store, query: Query) -> None:
            await store.commit(batch_of([tick()]))
            await store.commit(batch_of([], [], partition=1))
            await store.commit(batch_of([], [], [], stream="SIGNALS"))
            assert (await store.position("MARKET", 0)) == Position(CREATED_MS, 1, 1)
            assert (await store.position("MARKET", 1)) == Position(CREATED_MS, 2, 2)
            assert (await store.position("SIGNALS", 0)) == Position(CREATED_MS, 3, 3)

        within(scenario)

    @pytest.mark.parametrize("written_first", [0, 1])
    def test_moved_by_another_writer_refuses_the_batch(
        self, within: Within, written_first: int
    ) -> None:
        """A batch that follows another position than the stored one is fenced, rows and all."""

        async def scenario(store: Store, query: Query) -> None:
            position = Position(CREATED_MS)
            for _ in range(written_first):
                batch = batch_of([], before=position)
                await store.commit(batch)
                position = batch.after
            await store.commit(batch_of([tick(TS_MS)], before=position))
            with pytest.raises(StoreFenced):
                await store.commit(batch_of([tick(TS_MS + 1)], before=position))
            assert len(await query("SELECT * FROM equity_data")) == 1
            assert (await store.position("MARKET", 0)) == Position(
                CREATED_MS, position.seq + 1, position.n + 1
            )

        within(scenario)

    def test_of_another_incarnation_is_fenced(self, within: Within) -> None:
        """A position of a stream that was made anew is not moved."""

        async def scenario(store: Store, query: Query) -> None:
            await store.commit(batch_of([tick()]))
            with pytest.raises(StoreFenced):
                await store.commit(batch_of([], before=Position(CREATED_MS + 1, 1, 1)))

        within(scenario)

    def test_many_writers_at_once_leave_one_winner(self, within: Within) -> None:
        """Of commits that follow the same position exactly one succeeds."""

        async def scenario(store: Store, query: Query) -> None:
            batches = [batch_of([tick(TS_MS + n)]) for n in range(8)]
            results = await asyncio.gather(
                *(store.commit(batch) for batch in batches), return_exceptions=True
            )
            assert sorted(type(result).__name__ for result in results) == [
                "NoneType",
                *["StoreFenced"] * 7,
            ]
            assert len(await query("SELECT * FROM equity_data")) == 1

        within(scenario)


class TestAppendOnlyRows:
    """Ticks and tick indicators are stored exactly, once."""

    def test_every_field_comes_back(self, within: Within) -> None:
        """Text, time, prices and nulls are read back as they were sent."""

        async def scenario(store: Store, query: Query) -> None:
            odd = 'A\\.B\t"\n\\N'
            await store.commit(
                batch_of(
                    [tick(TS_MS + 7, ticker=odd, price=0.0001), tick_indicator(TS_MS + 7)],
                    [tick(TS_MS + 8, bid=None, ask=99_999_999.9999)],
                )
            )
            rows = await query("SELECT * FROM equity_data ORDER BY timestamp")
            assert [row["ticker"] for row in rows] == [odd, "QQQ"]
            assert [row["price"] for row in rows] == [Decimal("0.0001"), Decimal("389.5125")]
            assert [row["ask"] for row in rows] == [None, Decimal("99999999.9999")]
            assert [row["timestamp"].timestamp() * 1000 for row in rows] == [TS_MS + 7, TS_MS + 8]
            (indicator,) = await query("SELECT * FROM indicators")
            assert (indicator["sma9"], indicator["vwap"]) == (None, Decimal("389.123457"))

        within(scenario)

    def test_a_key_twice_is_refused(self, within: Within) -> None:
        """The same tick again is a contradiction: nothing of its batch is stored."""

        async def scenario(store: Store, query: Query) -> None:
            first = batch_of([tick()])
            await store.commit(first)
            with pytest.raises(RowsRefused, match="QQQ"):
                await store.commit(batch_of([tick(TS_MS + 1)], [tick()], before=first.after))
            assert len(await query("SELECT * FROM equity_data")) == 1
            assert await store.position("MARKET", 0) == first.after

        within(scenario)

    def test_a_value_too_large_is_refused(self, within: Within) -> None:
        """What the column's type cannot hold is final, not repeated for ever."""

        async def scenario(store: Store, query: Query) -> None:
            with pytest.raises(RowsRefused):
                await store.commit(batch_of([tick(price=1e300)]))
            with pytest.raises(RowsRefused):
                await store.commit(batch_of([candle(volume=2**63)], stream="INDICATORS"))

        within(scenario)

    def test_of_two_lanes_that_need_a_partition_both_get_it(self, within: Within) -> None:
        """However close together they come to a new day, neither fails."""

        async def scenario(store: Store, query: Query) -> None:
            positions = [Position(CREATED_MS), Position(CREATED_MS)]
            for day in range(15):
                moment_ms = TS_MS + day * 86_400_000
                batches = [
                    batch_of([tick(moment_ms, ticker=f"T{n}")], partition=n, before=before)
                    for n, before in enumerate(positions)
                ]
                await asyncio.gather(*map(store.commit, batches))
                positions = [batch.after for batch in batches]
            assert len(await query("SELECT * FROM equity_data")) == 30

        within(scenario)

    def test_days_far_apart_in_one_batch(self, within: Within) -> None:
        """Rows of any day find their partition, on both sides of New York's midnight."""

        async def scenario(store: Store, query: Query) -> None:
            moments = [TS_MS + hours * 3_600_000 for hours in (0, 14, 15, 24 * 40, -24 * 4000)]
            await store.commit(batch_of([tick(ts_ms) for ts_ms in moments]))
            await store.commit(batch_of([candle(ts_ms) for ts_ms in moments], stream="INDICATORS"))
            assert len(await query("SELECT * FROM equity_data")) == len(moments)
            assert len(await query("SELECT * FROM candles")) == len(moments)

        within(scenario)


class TestCandles:
    """The newest revision of a candle, and all before it."""

    def test_equal_ones_change_nothing(self, within: Within) -> None:
        """A repeated candle, or one that rounds to the stored one, is no revision."""

        async def scenario(store: Store, query: Query) -> None:
            first = batch_of([candle(extras={"ema9": 1.5, "atr": None})], stream="INDICATORS")
            await store.commit(first)
            again = candle(
                extras={"atr": None, "ema9": 1.5}, sma9=389.1234560000001, source="history"
            )
            await store.commit(batch_of([again], stream="INDICATORS", before=first.after))
            (row,) = await query("SELECT * FROM candles")
            assert (row["revision"], row["source"]) == (0, "stream")
            assert await query("SELECT * FROM candle_revisions") == []

        within(scenario)

    @pytest.mark.parametrize(
        "change",
        [
            {"open": 389.6}, {"high": 391.0}, {"low": 388.0}, {"close": 389.5}, {"volume": 1201},
            {"sma9": 389.123457}, {"sma9": None}, {"vwap": 389.0}, {"extras": {"rsi": 55.5}},
        ],
        ids=str,
    )  # fmt: skip
    def test_any_changed_value_is_a_revision(self, within: Within, change: dict[str, Any]) -> None:
        """A candle that differs in one value replaces the stored one, which is kept."""

        async def scenario(store: Store, query: Query) -> None:
            first = batch_of([candle()], stream="INDICATORS")
            await store.commit(first)
            changed = candle(source="history", revision=1, **change)
            await store.commit(batch_of([changed], stream="INDICATORS", before=first.after))
            (row,) = await query("SELECT * FROM candles")
            (old,) = await query("SELECT * FROM candle_revisions")
            assert (row["revision"], row["source"]) == (1, "history")
            assert (old["revision"], old["source"]) == (0, "stream")
            assert old["close"] == Decimal("389.75")
            assert old["sma9"] == Decimal("389.123456")

        within(scenario)

    def test_several_of_one_key_in_one_batch_keep_their_order(self, within: Within) -> None:
        """A batch with many versions of a candle ends as many batches with one each would."""

        async def scenario(store: Store, query: Query) -> None:
            closes = [389.1, 389.2, 389.2, 389.3, 389.1]
            batch = batch_of(
                *([candle(close=close), candle(TS_MS + 60_000)] for close in closes),
                stream="INDICATORS",
            )
            await store.commit(batch)
            rows = await query("SELECT revision, close FROM candles ORDER BY timestamp")
            assert [(row["revision"], row["close"]) for row in rows] == [
                (3, Decimal("389.1")), (0, Decimal("389.75")),
            ]  # fmt: skip
            rows = await query("SELECT close FROM candle_revisions ORDER BY revision")
            assert [row["close"] for row in rows] == [
                Decimal("389.1"), Decimal("389.2"), Decimal("389.3"),
            ]  # fmt: skip

        within(scenario)

    def test_those_between_the_stored_ones_are_new(self, within: Within) -> None:
        """What is stored before, between and behind others of its series is told apart exactly."""

        async def scenario(store: Store, query: Query) -> None:
            minutes = [TS_MS + minute * 60_000 for minute in range(6)]
            first = batch_of(
                [
                    *(candle(ts_ms) for ts_ms in minutes[1::2]),
                    candle(minutes[0], ticker="SPY"), candle(minutes[0], timeframe="5m"),
                ],
                stream="INDICATORS",
            )  # fmt: skip
            await store.commit(first)
            day = [candle(ts_ms, close=389.5, high=391.0) for ts_ms in minutes]
            await store.commit(batch_of(day, stream="INDICATORS", before=first.after))
            rows = await query(
                "SELECT revision FROM candles WHERE ticker = 'QQQ' AND timeframe = '1m' "
                "ORDER BY timestamp"
            )
            assert [row["revision"] for row in rows] == [0, 1, 0, 1, 0, 1]
            assert len(await query("SELECT * FROM candle_revisions")) == 3
            assert len(await query("SELECT * FROM candles")) == 8

        within(scenario)


class TestRowsWithAnId:
    """Gaps and signals are replaced by what is known later."""

    def test_a_gap_says_why_it_cannot_be_filled(self, within: Within) -> None:
        """The reason is a column of its own, empty while there is none."""

        async def scenario(store: Store, query: Query) -> None:
            lost = gap(TS_MS + 1, state="unfillable", reason="no_trade")
            await store.commit(batch_of([gap(), lost]))
            rows = await query("SELECT reason FROM gaps ORDER BY started_at")
            assert [row["reason"] for row in rows] == ["", "no_trade"]

        within(scenario)

    def test_a_session_that_was_checked_is_no_gap(self, within: Within) -> None:
        """It has a row of its own, with the number of its bars, and the last word counts."""

        async def scenario(store: Store, query: Query) -> None:
            told: dict[str, Any] = {
                "id": "QQQ:session:1",
                "cause": SESSION_CHECK,
                "state": "filled",
            }
            first = batch_of([gap(**told, bars=3), gap(**told, bars=4)])
            assert first.rows["session_checks"] == 1
            await store.commit(first)
            sql = "SELECT ticker, bars FROM session_checks"
            assert await query(sql) == [{"ticker": "QQQ", "bars": 4}]
            unknown = told | {"state": "unfillable", "reason": "no_history"}
            await store.commit(batch_of([gap(**unknown)], before=first.after))
            assert await query(sql) == [{"ticker": "QQQ", "bars": None}]
            assert await query("SELECT * FROM gaps") == []

        within(scenario)

    def test_a_gap_becomes_what_the_last_event_says(self, within: Within) -> None:
        """An open gap is closed by its id, within a batch and across batches."""

        async def scenario(store: Store, query: Query) -> None:
            first = batch_of([gap(), gap(TS_MS + 1), gap(TS_MS + 1, state="unfillable")])
            await store.commit(first)
            await store.commit(batch_of([gap(state="filled")], before=first.after))
            rows = await query("SELECT state FROM gaps ORDER BY started_at")
            assert [row["state"] for row in rows] == ["filled", "unfillable"]

        within(scenario)

    def test_a_signal_is_replaced_by_a_higher_revision_only(self, within: Within) -> None:
        """A superseding revision wins; an older one that comes late does not."""

        async def scenario(store: Store, query: Query) -> None:
            first = batch_of(
                [signal(), signal(revision=2, state="superseded"), signal(revision=1)],
                stream="SIGNALS",
            )
            await store.commit(first)
            late = signal(revision=1, price=1.0)
            await store.commit(batch_of([late], stream="SIGNALS", before=first.after))
            (row,) = await query("SELECT * FROM signals")
            assert (row["revision"], row["state"]) == (2, "superseded")
            assert row["price"] == Decimal("389.75")

        within(scenario)


class TestTheStoreItself:
    """Whose it is, and what it keeps about the stream's health."""

    def test_belongs_to_whoever_claims_it_first(self, within: Within) -> None:
        """A claim can be repeated; one for another source is refused and says how to mend it."""

        async def scenario(store: Store, query: Query) -> None:
            await store.claim({"source": "demo", "partitions": "1"})
            await store.claim({"source": "demo", "partitions": "1"})
            with pytest.raises(StoreMismatch, match="KITE_SOURCE=demo"):
                await store.claim({"source": "schwab", "partitions": "1"})

        within(scenario)

    def test_notes_what_is_kept(self, within: Within) -> None:
        """And, once ticks are kept again, up to where there are none."""

        async def scenario(store: Store, query: Query) -> None:
            async def noted() -> dict[str, str]:
                return {row["key"]: row["value"] for row in await query("SELECT * FROM kite_meta")}

            await store.keep("ticks")
            await store.commit(batch_of([tick()]))
            assert await noted() == {"store": "ticks"}
            await store.keep("minutes")
            await store.keep("minutes")
            assert await noted() == {"store": "minutes"}
            await store.keep("ticks")
            since = (await noted())["ticks_since"]
            assert json.loads(since) == [["MARKET", 0, CREATED_MS, 1, 1]]

        within(scenario)

    def test_tells_what_is_used(self, within: Within) -> None:
        """Tables with their partitions and indexes; at least the connection that asks."""

        async def scenario(store: Store, query: Query) -> None:
            before = await store.usage()
            await store.commit(batch_of([tick(TS_MS + n) for n in range(1000)]))
            after = await store.usage()
            grown = {
                table
                for table, count_bytes in after.table_bytes.items()
                if count_bytes > before.table_bytes[table]
            }
            assert grown == {"equity_data"}
            assert after.table_bytes["equity_data"] > 50_000
            assert 1 <= after.connections <= after.connections_max

        within(scenario)

    def test_prunes_old_reports(self, within: Within) -> None:
        """Reports from before an instant go, the others stay."""

        async def scenario(store: Store, query: Query) -> None:
            for now_ms in (TS_MS, TS_MS + 1, TS_MS + 2):
                await store.report(Report("a:1", now_ms, None, None, "running", 0, 0, 0, 0.0))
            await store.prune_reports(TS_MS + 1)
            rows = await query("SELECT timestamp FROM streaming_metrics ORDER BY timestamp")
            assert [round(row["timestamp"].timestamp() * 1000) for row in rows] == [
                TS_MS + 1, TS_MS + 2,
            ]  # fmt: skip

        within(scenario)

    def test_keeps_reports(self, within: Within) -> None:
        """A report is a row of streaming_metrics; the same one again is no second row."""

        async def scenario(store: Store, query: Query) -> None:
            report = Report("a:1", TS_MS + 1, TS_MS, True, "running", 3, 700, 1, 12.5)
            await store.report(report)
            await store.report(report)
            (row,) = await query("SELECT * FROM streaming_metrics")
            assert (row["service"], row["records_processed"], row["errors"]) == ("writer", 700, 1)
            assert row["broker_timestamp"].timestamp() * 1000 == TS_MS

        within(scenario)

    def test_answers(self, within: Within) -> None:
        """A ping returns when the database is there."""

        async def scenario(store: Store, query: Query) -> None:
            await store.ping()

        within(scenario)
