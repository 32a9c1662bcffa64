"""The server's snapshot protocol, spoken with real servers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from nats.aio.client import Client

from cli.backup import streams
from cli.backup.errors import BackupDamaged, BackupFailed
from cli.backup.streams import StreamState
from cli.servers.nats import NatsServer
from libs.common.bus import nats as nats_bus
from libs.common.errors import BusUnavailable
from tests.integration.backup import stage
from tests.servers import Running, temporary_home

BACKUP_INBOX, ADMIN_INBOX = "_INBOX_backup", "_INBOX_admin"


async def copy(server: NatsServer, name: str, path: Path) -> StreamState:
    """Copy a stream with the rights of a backup."""
    async with streams.connected(server.url("backup"), BACKUP_INBOX) as client:
        with path.open("wb") as file:
            return await streams.snapshot(client, name, file.write)


async def put_back(server: NatsServer, name: str, state: StreamState, path: Path) -> StreamState:
    """Make a stream of a copy."""
    async with streams.connected(server.url("admin"), ADMIN_INBOX) as client:
        with path.open("rb") as file:
            chunks = iter(lambda: file.read(50_000), b"")
            return await streams.restore(client, name, state, chunks)


def test_a_stream_comes_back_with_all_that_refers_to_it(
    fresh_nats: NatsServer, another_nats: NatsServer, tmp_path: Path
) -> None:
    """Sequences, times, headers, payloads, consumers, and when it was first made."""

    async def act() -> None:
        await stage.fill(fresh_nats, messages=300)
        async with stage.admin(fresh_nats) as here:  # more than fits one chunk
            await stage.publish(here, "market.1", [os.urandom(100_000) for _ in range(30)])
        for name in ("MARKET", "STATE", "COMMANDS"):
            state = await copy(fresh_nats, name, tmp_path / name)
            restored = await put_back(another_nats, name, state, tmp_path / name)
            assert (restored.created_ms, restored.last_seq, restored.messages) == (
                state.created_ms, state.last_seq, state.messages,
            )  # fmt: skip
            assert restored.consumers == state.consumers
        async with stage.admin(fresh_nats) as here, stage.admin(another_nats) as there:
            before = await streams.digest_runs(here, "MARKET", 1, 630)
            assert await streams.digest_runs(there, "MARKET", 1, 630) == before
            assert sum(run.messages for run in before) == 630
            assert await stage.publish(there, "market.0", [b"next"]) == 631

    asyncio.run(act())


def test_services_see_the_stream_that_it_was(
    fresh_nats: NatsServer, another_nats: NatsServer, tmp_path: Path
) -> None:
    """The bus tells the original's time, so positions fit; also when copied a second time."""

    async def act() -> None:
        await stage.fill(fresh_nats, messages=3)
        bus = await nats_bus.connect(fresh_nats.url("admin"), name="test")
        original = await bus.stream("MARKET")
        await bus.close()
        state = await copy(fresh_nats, "MARKET", tmp_path / "first")
        await put_back(another_nats, "MARKET", state, tmp_path / "first")
        again = await copy(another_nats, "MARKET", tmp_path / "second")
        assert again.created_ms == original.created_ms
        bus = await nats_bus.connect(another_nats.url("admin"), name="test")
        assert (await bus.stream("MARKET")).created_ms == original.created_ms
        await bus.close()

    asyncio.run(act())


def test_a_copy_of_a_stream_that_is_written_to(
    fresh_nats: NatsServer, another_nats: NatsServer, tmp_path: Path
) -> None:
    """It holds at least what was there when it began, whole and in order."""

    async def write_on(client: Client, stop: asyncio.Event) -> int:
        count = 0
        while not stop.is_set():
            await stage.publish(client, f"market.{count % 2}", [b"x" * 2000])
            count += 1
        return count

    async def act() -> None:
        await stage.fill(fresh_nats, messages=1000)
        stop = asyncio.Event()
        async with stage.admin(fresh_nats) as client:
            writing = asyncio.create_task(write_on(client, stop))
            state = await copy(fresh_nats, "MARKET", tmp_path / "MARKET")
            stop.set()
            assert await writing > 0
            before = await streams.digest_runs(client, "MARKET", 1, state.last_seq)
        restored = await put_back(another_nats, "MARKET", state, tmp_path / "MARKET")
        assert restored.last_seq >= state.last_seq >= 2000
        assert restored.messages == restored.last_seq
        async with stage.admin(another_nats) as client:
            assert await streams.digest_runs(client, "MARKET", 1, state.last_seq) == before

    asyncio.run(act())


def test_a_copy_with_less_in_it_is_refused_by_the_server(
    fresh_nats: NatsServer, another_nats: NatsServer, tmp_path: Path
) -> None:
    """And leaves no stream behind."""

    async def act() -> None:
        await stage.fill(fresh_nats, messages=200)
        state = await copy(fresh_nats, "MARKET", tmp_path / "MARKET")
        whole = (tmp_path / "MARKET").read_bytes()
        (tmp_path / "MARKET").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BackupDamaged, match="cannot be restored"):
            await put_back(another_nats, "MARKET", state, tmp_path / "MARKET")
        async with stage.admin(another_nats) as client:
            assert await streams.find_streams(client) == []

    asyncio.run(act())


def test_what_is_derived_is_copied_before_what_it_is_derived_from(
    fresh_nats: NatsServer,
) -> None:
    """So no position in the copy is ahead of its stream."""

    async def act() -> None:
        await stage.make_streams(fresh_nats.url("admin"))
        async with streams.connected(fresh_nats.url("backup"), BACKUP_INBOX) as client:
            order = await streams.find_streams(client)
        places = [order.index(name) for name in ("STATE", "SIGNALS", "INDICATORS", "MARKET")]
        assert places == sorted(places)

    asyncio.run(act())


def test_a_backup_s_login_changes_nothing(fresh_nats: NatsServer) -> None:
    """It can neither delete, nor make, nor write."""

    async def act() -> None:
        await stage.fill(fresh_nats, messages=2)
        async with streams.connected(fresh_nats.url("backup"), BACKUP_INBOX) as client:
            await client.publish("market.0", b"forged")
            await client.publish("$JS.API.STREAM.DELETE.MARKET", b"")
            await client.publish("$JS.API.STREAM.PURGE.MARKET", b"")
            state = await streams.stream_state(client, "MARKET")
        assert state is not None
        assert state.last_seq == 4

    asyncio.run(act())


def test_a_server_that_goes_away_ends_the_copy(tmp_path: Path) -> None:
    """With one sentence, soon."""

    async def act(server: NatsServer, running: Running) -> None:
        await stage.make_streams(server.url("admin"))
        async with stage.admin(server) as client:  # more than is sent without an acknowledgement
            await stage.publish(client, "market.0", [os.urandom(100_000) for _ in range(300)])

        def die(_: bytes) -> None:
            if running.alive:
                running.kill()

        async with asyncio.timeout(60):
            with pytest.raises((BusUnavailable, BackupFailed)):
                async with streams.connected(server.url("backup"), BACKUP_INBOX) as client:
                    await streams.snapshot(client, "MARKET", die)

    with temporary_home() as home:
        server = NatsServer(home, partitions=stage.PARTITIONS)
        with Running(server, home / "nats.log") as running:
            asyncio.run(act(server, running))
