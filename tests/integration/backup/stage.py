"""What is backed up in these tests: streams as the bootstrap makes them, and rows of every kind."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
from nats.aio.client import Client

from cli.backup.take import Source
from cli.servers.nats import NatsServer
from libs.common.bus import nats as nats_bus
from libs.common.bus import topology
from libs.common.bus.link import bare_client
from tests.databases import Database, connected
from tests.servers import Running, temporary_home

__all__ = [
    "PARTITIONS",
    "admin",
    "fill",
    "fill_rows",
    "make_streams",
    "other_nats",
    "publish",
    "rows_of",
    "source",
]

PARTITIONS = 2
ODD_TEXT = "tab\t newline\n back\\slash quote' \u00e9\u20ac \\N end"
DAYS = (dt.date(2026, 11, 20), dt.date(2026, 11, 19), dt.date(2026, 7, 1))
_TICKS = """
    insert into public.equity_data (ticker, "timestamp", price, volume, total_volume, bid)
    select ticker, $1::timestamptz + n * interval '1 second', 100 + n / 7.0, n, n * n,
        nullif(n % 3, 0)
    from unnest(array['QQQ', 'spy', 'BRK.B']) ticker, generate_series(1, 200) n"""


@contextmanager
def other_nats() -> Iterator[NatsServer]:
    """A nats-server without any stream, as on another machine."""
    with temporary_home() as home:
        server = NatsServer(home, partitions=PARTITIONS)
        with Running(server, home / "nats.log"):
            yield server


async def make_streams(url: str) -> None:
    """Make all streams and consumers."""
    bus = await nats_bus.connect(url, name="test")
    try:
        await topology.apply(bus, topology.plan(PARTITIONS, "demo", stream_bytes_max=64 << 20))
    finally:
        await bus.close()


@asynccontextmanager
async def admin(server: NatsServer) -> AsyncIterator[Client]:
    """Connect as the administrator."""
    client = await bare_client(server.url("admin"))
    try:
        yield client
    finally:
        await client.close()


async def publish(client: Client, subject: str, payloads: Sequence[bytes]) -> int:
    """Store messages, with a header each as services send it; return the last sequence."""
    jetstream = client.jetstream()
    seq = 0
    for payload in payloads:
        seq = (await jetstream.publish(subject, payload, headers={"Test": f"{len(payload)}"})).seq
    return seq


async def fill(server: NatsServer, messages: int = 60) -> None:
    """Make the streams and put messages of several sizes into most of them."""
    await make_streams(server.url("admin"))
    async with admin(server) as client:
        for stream in ("market", "indicators", "signals"):
            for partition in range(PARTITIONS):
                payloads = [bytes([n % 256]) * (n * 37 % 3000) for n in range(messages)]
                await publish(client, f"{stream}.{partition}", payloads)
        await publish(client, "state.ingest.0", [b"old", b"older", b"newest"])
        await publish(client, "deadletter.ingest", [b"\xff\x00broken"])


async def fill_rows(database: Database, seqs: Sequence[tuple[str, int, int]] = ()) -> None:
    """Put rows into tables with and without partitions, and positions."""
    async with connected(database.owner) as connection:
        for day in DAYS:
            for table in ("equity_data", "candles"):
                await connection.execute("select public.kite_ensure_partition($1, $2)", table, day)
            noon = dt.datetime.combine(day, dt.time(17), dt.UTC)
            await connection.execute(_TICKS, noon)
        await connection.execute(
            "insert into public.gaps values ('A:bars:1', 'A', 'bars', now(), now(), $1, 'open')",
            ODD_TEXT,
        )
        await connection.execute(
            "insert into public.kite_meta (key, value) values ('source', 'demo'), ('odd', $1)",
            ODD_TEXT,
        )
        for stream, partition, seq in seqs:
            await connection.execute(
                "insert into public.stream_positions values ($1, $2, $3, $3, 1)",
                stream, partition, seq,
            )  # fmt: skip


async def rows_of(dsn: str) -> dict[str, list[tuple[Any, ...]]]:
    """Read the tables that `fill_rows` fills."""
    tables = ("equity_data", "gaps", "kite_meta", "stream_positions")
    connection = await asyncpg.connect(dsn)
    try:
        return {
            table: [tuple(row) for row in await connection.fetch(f"table {table} order by 1, 2")]
            for table in tables
        }
    finally:
        await connection.close()


def source(server: NatsServer, database: Database, files: dict[str, Path] | None = None) -> Source:
    """The source with the rights that a backup has, and no more."""
    return Source(nats_url=server.url("backup"), pg_dsn=database.backup, files=files or {})
