"""A backup as a whole: taken while others write, damaged, restored, restored again."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.backup import manifest as manifests
from cli.backup import restore, rows, streams, work
from cli.backup.errors import BackupDamaged, BackupFailed, NotEmpty
from cli.backup.manifest import MANIFEST, Manifest
from cli.backup.place import DirectoryPlace
from cli.backup.progress import Quiet
from cli.backup.take import Source
from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from libs.common.clock import SystemClock
from libs.common.errors import StoreMismatch, StoreUnavailable
from tests.databases import Database, connected, throw_away_database
from tests.integration.backup import stage

CLOCK, QUIET = SystemClock(), Quiet()


@pytest.fixture
def empty_target(postgres: PostgresServer) -> Iterator[Database]:
    """A database without any schema, as on a new machine."""
    with throw_away_database(postgres) as database:
        yield database


async def back_up(source: Source, root: Path) -> tuple[Path, Manifest]:
    """Make a backup in a directory of its own; return where it is."""
    made = await work.back_up(source, DirectoryPlace(root), root, CLOCK, QUIET)
    return root / made.name, made


async def into(nats: NatsServer, database: Database, parts: Path, made: Manifest) -> None:
    """Restore into servers."""
    url = nats.url("admin")
    await restore.into_servers(url, database.owner, parts, made, CLOCK, QUIET)


class TestWhole:
    """What goes well."""

    def test_everything_comes_back(
        self,
        fresh_nats: NatsServer,
        another_nats: NatsServer,
        migrated_database: Database,
        empty_target: Database,
        tmp_path: Path,
    ) -> None:
        """On servers that never saw any of it; the copy of the copy has the same digest."""

        async def act() -> None:
            await stage.fill(fresh_nats)
            await stage.fill_rows(migrated_database, [("MARKET", 0, 119)])
            clock_file = tmp_path / "clock"
            clock_file.write_text("{}")
            source = stage.source(
                fresh_nats, migrated_database, {"simulator-clock.json": clock_file}
            )
            parts, made = await back_up(source, tmp_path / "a")
            assert (made.source, made.partitions, made.store) == ("demo", stage.PARTITIONS, "demo")
            manifests.check_parts(parts, made)
            assert parts.stat().st_mode & 0o077 == 0, "others may read it"
            await into(another_nats, empty_target, parts, made)
            assert await stage.rows_of(empty_target.owner) == await stage.rows_of(
                migrated_database.owner
            )
            _, again = await back_up(stage.source(another_nats, empty_target), tmp_path / "b")
            assert again.digest == made.digest

        asyncio.run(act())

    def test_under_load_no_position_is_ahead_of_its_stream(
        self, fresh_nats: NatsServer, migrated_database: Database, tmp_path: Path
    ) -> None:
        """A writer whose rows follow the stream at once, while the backup is taken."""

        async def write(stop: asyncio.Event) -> int:
            count = 0
            async with (
                stage.admin(fresh_nats) as client,
                connected(migrated_database.owner) as connection,
            ):
                while not stop.is_set():
                    seq = await stage.publish(client, "market.0", [b"x" * 500])
                    await connection.execute(
                        "update public.stream_positions set seq = $1 where stream = 'MARKET'", seq
                    )
                    count += 1
            return count

        async def act() -> None:
            await stage.fill(fresh_nats)
            await stage.fill_rows(migrated_database, [("MARKET", 0, 1)])
            stop = asyncio.Event()
            writing = asyncio.create_task(write(stop))
            for turn in range(5):
                root = tmp_path / str(turn)
                parts, made = await back_up(stage.source(fresh_nats, migrated_database), root)
                text = b"".join(rows._texts(parts / "rows" / "stream_positions.zst"))
                position = int(text.split(b"\t")[2])
                market = next(stream for stream in made.streams if stream.name == "MARKET")
                assert 0 < position <= market.last_seq
            stop.set()
            assert await writing > 5

        asyncio.run(act())

    def test_an_older_schema_is_restored_and_brought_up_to_date(
        self,
        fresh_nats: NatsServer,
        another_nats: NatsServer,
        migrated_database: Database,
        empty_target: Database,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A migration that came after the backup is applied after its rows are in."""
        from deploy.supabase import migrate

        newer = tmp_path / "migrations"
        shutil.copytree(migrate.MIGRATIONS, newer)
        (newer / "20991231000000_later.sql").write_text(
            "alter table public.gaps add column later integer not null default 7;\n"
            "create table public.later (id integer primary key);\n"
        )

        async def act() -> None:
            await stage.fill(fresh_nats, messages=3)
            await stage.fill_rows(migrated_database)
            source = stage.source(fresh_nats, migrated_database)
            parts, made = await back_up(source, tmp_path / "a")
            monkeypatch.setattr(migrate, "MIGRATIONS", newer)
            monkeypatch.setattr(migrate.read, "__defaults__", (newer,))
            defaults = {**(migrate.migrate.__kwdefaults__ or {}), "directory": newer}
            monkeypatch.setattr(migrate.migrate, "__kwdefaults__", defaults)
            await into(another_nats, empty_target, parts, made)
            async with connected(empty_target.owner) as connection:
                assert await connection.fetchval("select later from public.gaps") == 7

        asyncio.run(act())


class TestRefused:
    """What is refused, before anything is changed."""

    def test_servers_that_hold_something(
        self,
        fresh_nats: NatsServer,
        another_nats: NatsServer,
        migrated_database: Database,
        empty_target: Database,
        tmp_path: Path,
    ) -> None:
        """Rows, or messages."""

        async def act() -> None:
            await stage.fill(fresh_nats, messages=2)
            await stage.fill_rows(migrated_database)
            parts, made = await back_up(stage.source(fresh_nats, migrated_database), tmp_path)
            with pytest.raises(NotEmpty, match="holds rows in"):
                await into(another_nats, migrated_database, parts, made)
            with pytest.raises(NotEmpty, match="holds messages in"):
                await into(fresh_nats, empty_target, parts, made)
            async with stage.admin(another_nats) as client:
                assert await streams.find_streams(client) == []

        asyncio.run(act())

    def test_streams_that_were_only_made_are_nothing(
        self,
        fresh_nats: NatsServer,
        another_nats: NatsServer,
        migrated_database: Database,
        empty_target: Database,
        tmp_path: Path,
    ) -> None:
        """The init job may have run before."""

        async def act() -> None:
            await stage.fill(fresh_nats, messages=2)
            await stage.fill_rows(migrated_database)
            parts, made = await back_up(stage.source(fresh_nats, migrated_database), tmp_path)
            await stage.make_streams(another_nats.url("admin"))
            await into(another_nats, empty_target, parts, made)

        asyncio.run(act())

    def test_damage_is_found_before_anything_is_changed(
        self, fresh_nats: NatsServer, migrated_database: Database, tmp_path: Path
    ) -> None:
        """Each part in turn: one bit flipped, cut short, gone. No manifest, no backup."""

        async def act() -> None:
            await stage.fill(fresh_nats, messages=5)
            await stage.fill_rows(migrated_database)
            parts, made = await back_up(stage.source(fresh_nats, migrated_database), tmp_path)
            place = DirectoryPlace(tmp_path)
            for part in made.parts:
                path = parts / part.path
                whole = path.read_bytes()
                flipped = bytearray(whole)
                flipped[len(whole) // 2] ^= 4
                for damaged in (bytes(flipped), whole[:-1], None):
                    path.unlink() if damaged is None else path.write_bytes(damaged)
                    with pytest.raises(BackupDamaged):
                        await work.check(place, made.name, tmp_path, QUIET)
                path.write_bytes(whole)
            await work.check(place, made.name, tmp_path, QUIET)
            (parts / MANIFEST).unlink()
            with pytest.raises(BackupFailed, match="there is no backup"):
                await work.check(place, "", tmp_path, QUIET)

        asyncio.run(act())

    def test_a_server_without_our_streams_or_schema(
        self,
        fresh_nats: NatsServer,
        migrated_database: Database,
        empty_target: Database,
        tmp_path: Path,
    ) -> None:
        """There is nothing to back up, and nothing is left in the place."""

        async def act() -> None:
            for database in (migrated_database, empty_target):
                with pytest.raises(StoreMismatch, match="nothing to back up"):
                    await back_up(stage.source(fresh_nats, database), tmp_path)
            assert os.listdir(tmp_path) == []  # noqa: PTH208  # fast, and in a coroutine

        asyncio.run(act())

    def test_a_database_that_is_away(self, fresh_nats: NatsServer, tmp_path: Path) -> None:
        """One sentence, and nothing is left."""

        async def act() -> None:
            source = Source(
                nats_url=fresh_nats.url("backup"), pg_dsn="postgresql://nobody:x@127.0.0.1:9/none"
            )
            with pytest.raises(StoreUnavailable):
                await back_up(source, tmp_path)
            assert os.listdir(tmp_path) == []  # noqa: PTH208  # fast, and in a coroutine

        asyncio.run(act())


class TestInterrupted:
    """What is broken off and begun anew."""

    @pytest.mark.parametrize("moment", ["_restore_streams", "_restore_rows", "_compare"])
    def test_a_restore_can_be_repeated(
        self,
        fresh_nats: NatsServer,
        another_nats: NatsServer,
        migrated_database: Database,
        empty_target: Database,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        moment: str,
    ) -> None:
        """It stops short of, or in the middle of, each of its steps; the next one goes through."""

        async def act() -> None:
            await stage.fill(fresh_nats)
            await stage.fill_rows(migrated_database)
            parts, made = await back_up(stage.source(fresh_nats, migrated_database), tmp_path)

            class Cut(Exception):
                pass

            async def cut(*_: object) -> None:
                raise Cut

            with monkeypatch.context() as patched:
                patched.setattr(restore, moment, cut)
                with pytest.raises(Cut):
                    await into(another_nats, empty_target, parts, made)
            if moment == "_compare":  # everything is in, only nobody has looked
                with pytest.raises(NotEmpty):
                    await into(another_nats, empty_target, parts, made)
                await rows.compare(empty_target.owner, made.tables)
                return
            await into(another_nats, empty_target, parts, made)
            assert await stage.rows_of(empty_target.owner) == await stage.rows_of(
                migrated_database.owner
            )

        asyncio.run(act())
