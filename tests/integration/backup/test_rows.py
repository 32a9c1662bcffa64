"""Rows out of one database and into another, whatever they hold and whoever serves them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from cli.backup import rows
from cli.backup.errors import BackupDamaged, BackupFailed
from cli.backup.manifest import TablePart
from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate
from tests.databases import Database, connected, throw_away_database
from tests.integration.backup import stage


async def dump(database: Database, root: Path) -> list[TablePart]:
    """Copy every piece below `root` with the rights of a reader."""
    (root / "rows").mkdir(exist_ok=True)
    async with rows.reading(database.backup) as connection:
        return [
            await rows.dump(connection, piece, root / "rows" / f"{piece.name}.zst", lambda _: None)
            for piece in await rows.pieces(connection)
        ]


def test_our_tables_are_those_of_the_schema(migrated_database: Database) -> None:
    """A table of a later migration is not forgotten: the schema itself is asked."""

    async def act() -> set[str]:
        async with connected(migrated_database.owner) as connection:
            found = await connection.fetch(
                "select relname from pg_class where relnamespace = 'public'::regnamespace"
                " and relkind in ('r', 'p') and not relispartition"
            )
        return {row["relname"] for row in found} - {"kite_migrations"}

    assert asyncio.run(act()) == set(rows.our_tables())


def test_rows_come_back_as_they_were(
    postgres: PostgresServer, migrated_template: str, migrated_database: Database, tmp_path: Path
) -> None:
    """Text with everything that a text may hold, partitions, nulls; and a second copy is equal."""

    async def act(target: Database) -> None:
        await stage.fill_rows(migrated_database, [("MARKET", 0, 7)])
        parts = await dump(migrated_database, tmp_path)
        assert sum(part.rows for part in parts) == 3 * 600 + 1 + 2 + 1
        await rows.load(target.owner, tmp_path, parts, lambda _: None)
        await rows.compare(target.backup, parts)
        assert await stage.rows_of(target.owner) == await stage.rows_of(migrated_database.owner)

    with throw_away_database(postgres, template=migrated_template) as target:
        asyncio.run(act(target))


def test_another_version_of_postgres_takes_them(
    postgres_15: PostgresServer, migrated_database: Database, tmp_path: Path
) -> None:
    """Copied from 18, restored into 15, with the same digests."""

    async def act(target: Database) -> None:
        await stage.fill_rows(migrated_database)
        parts = await dump(migrated_database, tmp_path)
        await migrate(target.owner)
        await rows.load(target.owner, tmp_path, parts, lambda _: None)
        await rows.compare(target.owner, parts)

    with throw_away_database(postgres_15) as target:
        asyncio.run(act(target))


def test_all_is_one_moment(migrated_database: Database, tmp_path: Path) -> None:
    """What is committed while rows are read is in none of the parts."""

    async def act() -> None:
        await stage.fill_rows(migrated_database)
        (tmp_path / "rows").mkdir()
        async with rows.reading(migrated_database.backup) as connection:
            async with connected(migrated_database.owner) as writer:
                await writer.execute("insert into public.kite_meta (key, value) values ('new', '')")
                await writer.execute("delete from public.gaps")
            pieces = {piece.name: piece for piece in await rows.pieces(connection)}
            for name, expected in (("kite_meta", 2), ("gaps", 1)):
                path = tmp_path / "rows" / f"{name}.zst"
                part = await rows.dump(connection, pieces[name], path, lambda _: None)
                assert part.rows == expected

    asyncio.run(act())


def test_a_single_changed_value_is_found(
    postgres: PostgresServer, migrated_template: str, migrated_database: Database, tmp_path: Path
) -> None:
    """Also a missing row, and one too many; each names its table."""
    changes = (
        "update public.equity_data set bid = 2 where ticker = 'spy' and volume = 100",
        "delete from public.gaps",
        "insert into public.kite_meta (key, value) values ('more', '')",
    )

    async def act(target: Database) -> None:
        await stage.fill_rows(migrated_database)
        parts = await dump(migrated_database, tmp_path)
        await rows.load(target.owner, tmp_path, parts, lambda _: None)
        for change in changes:
            async with connected(target.owner) as connection:
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute(change)
                await transaction.commit()
            with pytest.raises(BackupDamaged, match="rows"):
                await rows.compare(target.owner, parts)

    with throw_away_database(postgres, template=migrated_template) as target:
        asyncio.run(act(target))


def test_a_load_that_fails_leaves_nothing(
    postgres: PostgresServer, migrated_template: str, migrated_database: Database, tmp_path: Path
) -> None:
    """All tables or none, also when the very last part is not what it should be."""

    async def act(target: Database) -> None:
        await stage.fill_rows(migrated_database)
        parts = await dump(migrated_database, tmp_path)
        last = max(parts, key=lambda part: part.rows)
        others = [part for part in parts if part is not last]
        wrong = TablePart(
            last.table, last.partition, last.columns, last.rows, last.text_bytes, "0" * 64,
            last.path,
        )  # fmt: skip
        with pytest.raises(BackupDamaged):
            await rows.load(target.owner, tmp_path, [*others, wrong], lambda _: None)
        assert await rows.first_filled(target.owner) == ""
        (tmp_path / last.path).write_bytes(b"no zstd")
        with pytest.raises(BackupDamaged, match="unpacked"):
            await rows.load(target.owner, tmp_path, [*others, last], lambda _: None)
        assert await rows.first_filled(target.owner) == ""

    with throw_away_database(postgres, template=migrated_template) as target:
        asyncio.run(act(target))


def test_a_reader_cannot_load(migrated_database: Database, tmp_path: Path) -> None:
    """The login of a backup is not enough to change anything."""

    async def act() -> None:
        parts = await dump(migrated_database, tmp_path)
        with pytest.raises(BackupFailed):
            await rows.load(migrated_database.backup, tmp_path, parts, lambda _: None)
        connection = await asyncpg.connect(migrated_database.backup)
        try:
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(
                    "insert into public.kite_meta (key, value) values ('', '')"
                )
        finally:
            await connection.close()

    asyncio.run(act())


@pytest.mark.parametrize("failure", [RuntimeError("nobody listens"), BackupFailed("no room")])
def test_a_failure_at_the_last_piece_ends_at_once(
    migrated_database: Database, tmp_path: Path, failure: Exception
) -> None:
    """All rows have come, so there is nothing to cancel: what failed is said, nothing hangs."""

    def refuse(_: int) -> None:
        raise failure

    async def act() -> None:
        await stage.fill_rows(migrated_database)
        async with rows.reading(migrated_database.backup) as connection:
            pieces = [each for each in await rows.pieces(connection) if each.table == "gaps"]
        with pytest.raises(type(failure), match=str(failure)):
            async with asyncio.timeout(30), rows.reading(migrated_database.backup) as connection:
                await rows.dump(connection, pieces[0], tmp_path / "gaps.zst", refuse)

    asyncio.run(act())


def test_a_disk_that_is_full_is_not_taken_for_the_database(
    migrated_database: Database, tmp_path: Path
) -> None:
    """What cannot be written is named, by the first of its rows."""

    async def act() -> None:
        await stage.fill_rows(migrated_database)
        async with asyncio.timeout(30), rows.reading(migrated_database.backup) as connection:
            for piece in await rows.pieces(connection):
                await rows.dump(connection, piece, Path("/dev/full"), lambda _: None)

    with pytest.raises(BackupFailed, match="cannot be written: No space left"):
        asyncio.run(act())
