"""A gateway within the test's process, on real servers, wired as the service wires it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from libs.common import calendar
from libs.common.clock import SystemClock
from libs.common.runner import Runtime
from libs.common.telemetry import Health, Metrics, get_logger
from services.gateway.service import listen, run, url_of
from services.gateway.settings import Settings
from tests.databases import connected
from tests.waiting import eventually_async

__all__ = ["CREATED_MS", "DAY", "SESSION", "Gateway", "add_candles", "add_ticks", "fill", "gateway"]

DAY = dt.date(2026, 1, 7)
_FOUND = calendar.session(DAY)
assert _FOUND is not None
SESSION = _FOUND
CREATED_MS = 1_700_000_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_READY_S = 20.0


class Gateway:
    """One gateway, and a client that does not forget cookies."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runtime = Runtime(
            "gateway", settings, Metrics(), Health(), SystemClock(), get_logger(), asyncio.Event()
        )
        self._listener = listen(settings)
        self.url = url_of(self._listener)
        self.client = httpx.AsyncClient(base_url=self.url, timeout=20)
        self._task: asyncio.Task[None] | None = None

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the JSON of a good answer."""
        answer = await self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refusal(self, path: str, **parameters: str) -> tuple[int, str, str | None]:
        """Return status, code and parameter of an error in the form that all errors have."""
        answer = await self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code >= 400
        error = answer.json()["error"]
        assert error["message"]
        return answer.status_code, error["code"], error.get("parameter")

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of its metrics, 0 when there is none yet."""
        return self.runtime.metrics.registry.get_sample_value(f"kite_{name}", labels) or 0.0

    async def __aenter__(self) -> Gateway:
        beat = asyncio.create_task(self.runtime.health.beat())
        self._task = asyncio.create_task(run(self.runtime, self._listener))
        self._task.add_done_callback(lambda _: beat.cancel())
        return self

    async def ready(self) -> Gateway:
        """Return when bus and database answer."""
        task = self._task
        assert task is not None
        await eventually_async(
            lambda: task.done() or self.runtime.health.ready, _READY_S, "the gateway is ready"
        )
        if task.done():
            task.result()
        return self

    async def stop(self) -> None:
        """Stop in order and raise what it ended with."""
        self.runtime.stop.set()
        assert self._task is not None
        await self._task

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        await self.stop()


@asynccontextmanager
async def gateway(nats_url: str, dsn: str, **settings: Any) -> AsyncIterator[Gateway]:
    """Yield a ready gateway on any free port."""
    values: dict[str, Any] = {"gateway_port": 0, "gateway_requests_per_minute_max": 100_000}
    async with Gateway(Settings(nats_url=nats_url, pg_dsn=dsn, **(values | settings))) as found:
        yield await found.ready()


# -- rows, written with SQL -----------------------------------------------------------------------


def moment(ts_ms: int) -> dt.datetime:
    """Return epoch milliseconds as Postgres takes them."""
    return _EPOCH + dt.timedelta(milliseconds=ts_ms)


async def _partitions(connection: asyncpg.Connection, ts_ms: int, *tables: str) -> None:
    for table in tables:
        day = calendar.day_of(ts_ms)
        await connection.execute("SELECT kite_ensure_partition($1, $2)", table, day)


async def add_ticks(
    connection: asyncpg.Connection,
    ticker: str,
    ticks: Sequence[tuple[int, float]],
    *,
    priced: bool = True,
) -> None:
    """Write ticks (time and price) with averages, with their prices unless told otherwise."""
    await _partitions(connection, ticks[0][0], "equity_data", "indicators")
    await connection.copy_records_to_table(
        "indicators", columns=["ticker", "timestamp", "sma9", "vwap"],
        records=[(ticker, moment(ts_ms), None, price + 0.5) for ts_ms, price in ticks],
    )  # fmt: skip
    if priced:
        await connection.copy_records_to_table(
            "equity_data", columns=["ticker", "timestamp", "price", "volume", "total_volume"],
            records=[(ticker, moment(ts_ms), price, 100, 100) for ts_ms, price in ticks],
        )  # fmt: skip


async def add_candles(
    connection: asyncpg.Connection,
    ticker: str,
    timeframe: str,
    candles: Sequence[tuple[int, float]],
) -> None:
    """Write candles (start and close)."""
    for ts_ms, _ in candles:
        await _partitions(connection, ts_ms, "candles")
    await connection.executemany(
        """INSERT INTO candles VALUES
            ($1, $2, $3, $4::float8, $4::float8 + 1, $4::float8 - 1, $4::float8, 500, NULL,
             $4::float8 + 0.25, '{"ema9": 1.5}', 'stream', 0)""",
        [(ticker, timeframe, moment(ts_ms), close) for ts_ms, close in candles],
    )


async def fill(dsn: str) -> None:
    """Write the day before and DAY: ticks, candles, signals, gaps, positions."""
    before = calendar.previous_session(DAY)
    open_ms = SESSION.open_ms
    async with connected(dsn) as connection:
        await add_candles(connection, "QQQ", "1m", [(before.close_ms - 60_000, 400.0)])
        await add_candles(
            connection, "QQQ", "1m", [(open_ms + 60_000 * n, 401.0 + n) for n in range(30)]
        )
        await add_candles(
            connection, "QQQ", "15m", [(open_ms + 900_000 * n, 401.0 + n) for n in range(2)]
        )
        await add_candles(connection, "QQQ", "1h", [(open_ms, 430.0)])
        await add_candles(connection, "SPY", "1m", [(open_ms, 600.0)])
        await add_ticks(
            connection, "QQQ", [(open_ms + 1000 * n + 123, 400 + n / 4) for n in range(100)]
        )
        await connection.executemany(
            "INSERT INTO signals VALUES "
            "($1, $2, $3, $4, 'QQQ', $5, $6, 'sma9_vwap', $7, 402, 401.5, 401)",
            [
                ("QQQ:1m:1", 0, "active", False, "1m", moment(open_ms + 60_000), "up"),
                ("QQQ:1m:2", 1, "superseded", True, "1m", moment(open_ms + 120_000), "down"),
                ("QQQ:5m:3", 0, "active", False, "5m", moment(open_ms + 300_000), "up"),
            ],
        )
        await connection.executemany(
            "INSERT INTO gaps VALUES ($1, $2, 'bars', $3, $4, 'wire', $5)",
            [
                ("QQQ:bars:1", "QQQ", moment(open_ms), moment(open_ms + 60_000), "filled"),
                ("QQQ:bars:2", "QQQ", moment(open_ms - 86_400_000 * 2), moment(open_ms), "open"),
                ("SPY:bars:3", "SPY", moment(open_ms + 86_400_000), moment(open_ms + 86_460_000),
                 "unfillable"),
            ],
        )  # fmt: skip
        await connection.execute("UPDATE gaps SET reason = 'no_trade' WHERE id = 'SPY:bars:3'")
        await connection.execute(
            "INSERT INTO stream_positions VALUES ('INDICATORS', 0, 70, 70, $1), "
            "('SIGNALS', 0, 7, 7, $1)",
            CREATED_MS,
        )
        # The broker's time as the writer noted it: the afternoon of DAY.
        await connection.execute(
            "INSERT INTO streaming_metrics VALUES "
            "('writer', 'one', now(), $1, true, 'running', 3, 300, 0, 12.5)",
            moment(SESSION.close_ms - 3_600_000),
        )
