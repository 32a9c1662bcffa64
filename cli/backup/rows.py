"""The rows: out of a database in one snapshot, into another one, and compared.

Tables are those that the migrations make; what else lives in a hosted database is not ours. Each
table, and each partition of one, is one part: COPY text in the order of the primary key, under
settings that make text of the same rows the same on every server. So the digest of a part is a
digest of its rows, whatever server, version or layout they come from.

Reading needs a login that may read, nothing more: all of it is one `repeatable read`, read-only
transaction. Loading needs the owner, and is one transaction, too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import asyncpg
import zstandard

from cli.backup.errors import BackupDamaged, BackupFailed
from cli.backup.manifest import MigrationMark, TablePart
from cli.snapshot import ERRORS, SETTINGS, one_line, reading
from deploy.supabase import migrate
from libs.common.errors import StoreMismatch

__all__ = [
    "Piece",
    "applied",
    "compare",
    "dump",
    "first_filled",
    "load",
    "mark_restoring",
    "migrations",
    "our_tables",
    "pieces",
    "reading",
    "restoring",
    "server_version",
]

_LEVEL: Final = 3
_CHUNK_BYTES = 1 << 18
_MADE = re.compile(
    r"^\s*create table (?:if not exists )?public\.(\w+)", re.IGNORECASE | re.MULTILINE
)
_DAY_SUFFIX = re.compile(r"_(\d{4})(\d{2})(\d{2})?$")

# Tables and their partitions, with columns and key. A partition without a parent in `public` is
# detached, which is somebody's unfinished work: it is not read.
_PIECES = """
    select parent.relname as parent, leaf.relname as leaf, space.nspname as schema,
        (select array_agg(attname::text order by attnum) from pg_attribute
         where attrelid = parent.oid and attnum > 0 and not attisdropped and attgenerated = '')
            as columns,
        (select array_agg(a.attname::text || case when a.attcollation = 0 then '' else '*' end
                          order by array_position(i.indkey::int2[], a.attnum))
         from pg_index i
         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
         where i.indrelid = parent.oid and i.indisprimary) as key
    from pg_class parent
    join pg_namespace home on home.oid = parent.relnamespace and home.nspname = 'public'
    join pg_class leaf on leaf.oid = parent.oid and parent.relkind = 'r'
        or parent.relkind = 'p' and leaf.oid in (
            select inhrelid from pg_inherits where inhparent = parent.oid)
    join pg_namespace space on space.oid = leaf.relnamespace
    where parent.relname = any ($1) and not parent.relispartition
    order by parent.relname, leaf.relname"""
_KNOWN = """
    select relname from pg_class
    where relname = any ($1) and relnamespace = 'public'::regnamespace order by relname"""

# Stands in the database as long as a restore into it is on its way.
_MARKED = "select value from public.kite_meta where key = 'restoring'"
_SET_MARK = "insert into public.kite_meta (key, value) values ('restoring', $1)"
_UNMARK = "delete from public.kite_meta where key = 'restoring'"
_BUT_MARK = "where key <> 'restoring'"


@dataclass(frozen=True)
class Piece:
    """One table or partition: where it is, what it holds, by what it is ordered."""

    table: str
    partition: str
    relation: str
    columns: tuple[str, ...]
    order: str

    @property
    def name(self) -> str:
        """The name of its part."""
        return self.partition or self.table

    @property
    def query(self) -> str:
        """What reads its rows."""
        columns = ", ".join(_quoted(column) for column in self.columns)
        source = f"only {self.relation} order by {self.order}"
        return f"select {columns} from {source}"  # noqa: S608  # names of the catalog, quoted


def our_tables() -> list[str]:
    """Return the tables that the migrations make."""
    return sorted({name for step in migrate.read() for name in _MADE.findall(step.sql)})


async def server_version(connection: asyncpg.Connection) -> str:
    """Return the server's version."""
    return str(await connection.fetchval("show server_version"))


async def migrations(connection: asyncpg.Connection) -> tuple[MigrationMark, ...]:
    """Return what was applied; raises StoreMismatch where this schema was never made."""
    if await connection.fetchval("select to_regclass('public.kite_migrations')") is None:
        raise StoreMismatch("the database has no schema of ours: nothing to back up")
    rows = await connection.fetch(
        "select version, name, checksum from public.kite_migrations order by version"
    )
    return tuple(MigrationMark(row["version"], row["name"], row["checksum"]) for row in rows)


async def pieces(connection: asyncpg.Connection) -> list[Piece]:
    """Return every table and partition of ours, in order of their names."""
    found = []
    for row in await connection.fetch(_PIECES, our_tables()):
        if row["key"] is None:
            raise StoreMismatch(f"table {row['parent']} has no primary key to order it by")
        partition = row["leaf"] if row["leaf"] != row["parent"] else ""
        relation = f"{_quoted(row['schema'])}.{_quoted(row['leaf'])}"
        order = ", ".join(_ordered(key) for key in row["key"])
        found.append(Piece(row["parent"], partition, relation, tuple(row["columns"]), order))
    return found


def _ordered(key: str) -> str:
    """Order text by its bytes, whatever the database's language is."""
    return f'{_quoted(key[:-1])} collate "C"' if key.endswith("*") else _quoted(key)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# -- out -------------------------------------------------------------------------------------------


async def dump(
    connection: asyncpg.Connection, piece: Piece, path: Path, advance: Callable[[int], None]
) -> TablePart:
    """Write a piece's rows to `path`, compressed; `advance` hears of each bite of text.

    Raises BackupFailed when they cannot be written, and what `advance` raises. The connection is of
    no use then: its COPY was given up.
    """
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
    # Unbuffered, so that what the disk refuses is not found when the file is closed.
    with path.open("wb", buffering=0) as file:

        def write(text: bytes) -> None:
            _write(file, compressor.compress(text))
            advance(len(text))

        counted = await _copy_out(connection, piece, write)
        _write(file, compressor.flush())
    return TablePart(
        piece.table, piece.partition, piece.columns, counted.rows, counted.text_bytes,
        counted.sha256, f"rows/{path.name}",
    )  # fmt: skip


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it; an OSError would be taken for the server's."""
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise BackupFailed(f"{file.name} cannot be written: {error.strerror}") from error


@dataclass(frozen=True)
class _Counted:
    rows: int
    text_bytes: int
    sha256: str


async def _copy_out(
    connection: asyncpg.Connection, piece: Piece, write: Callable[[bytes], None]
) -> _Counted:
    digest = hashlib.sha256()
    rows = text_bytes = 0

    async def take(text: bytes) -> None:
        nonlocal rows, text_bytes
        digest.update(text)
        rows += text.count(b"\n")  # within a value it is escaped
        text_bytes += len(text)
        write(text)

    await connection.copy_from_query(piece.query, output=take, format="text")
    return _Counted(rows, text_bytes, digest.hexdigest())


async def compare(
    dsn: str, tables: Sequence[TablePart], advance: Callable[[int], None] = lambda _: None
) -> None:
    """Read the rows again; raises BackupDamaged naming the first table that differs."""
    async with reading(dsn) as connection:
        found = {(piece.table, piece.partition): piece for piece in await pieces(connection)}
        for part in tables:
            piece = found.pop((part.table, part.partition), None)
            if piece is None:
                raise BackupDamaged(f"{part.partition or part.table} was not restored")
            narrowed = Piece(
                piece.table, piece.partition, piece.relation, part.columns, piece.order
            )
            counted = await _copy_out(connection, narrowed, lambda text: advance(len(text)))
            if counted.sha256 != part.text_sha256:
                raise BackupDamaged(
                    f"{piece.name}: {counted.rows} rows were restored, which are not the "
                    f"{part.rows} of the backup"
                )
        for piece in found.values():
            if (await _copy_out(connection, piece, lambda _: None)).rows:
                raise BackupDamaged(f"{piece.name} holds rows that are not in the backup")


# -- in --------------------------------------------------------------------------------------------


async def applied(dsn: str) -> frozenset[str]:
    """Return the versions of the migrations that a database has; none where there is no schema."""
    async with reading(dsn) as connection:
        if await connection.fetchval("select to_regclass('public.kite_migrations')") is None:
            return frozenset()
        return frozenset(mark.version for mark in await migrations(connection))


async def first_filled(dsn: str) -> str:
    """Return the name of a table of ours that holds rows, or "" when none does."""
    async with reading(dsn) as connection:
        for row in await connection.fetch(_KNOWN, our_tables()):
            table = f"public.{_quoted(row['relname'])}"
            only = _BUT_MARK if row["relname"] == "kite_meta" else ""
            query = f"select exists (select from {table} {only})"  # noqa: S608  # names of ours
            if await connection.fetchval(query):
                return str(row["relname"])
    return ""


async def restoring(dsn: str) -> str:
    """Return the name of the backup whose restore into this database has begun and not ended."""
    async with reading(dsn) as connection:
        if await connection.fetchval("select to_regclass('public.kite_meta')") is None:
            return ""
        return str(await connection.fetchval(_MARKED) or "")


async def mark_restoring(dsn: str, name: str) -> None:
    """Write down that a backup is being restored; `load` takes the mark away again."""
    connection = await migrate.connect(dsn)
    try:
        await connection.execute(_UNMARK)
        await connection.execute(_SET_MARK, name)
    except ERRORS as error:
        raise BackupFailed(f"the database cannot be written: {one_line(error)}") from error
    finally:
        connection.terminate()


async def load(
    dsn: str, root: Path, tables: Sequence[TablePart], advance: Callable[[int], None]
) -> None:
    """Put the rows of a backup below `root` into empty tables, all of them or none.

    Raises BackupDamaged when a part does not hold what it should, BackupFailed when the database
    does not take it.
    """
    connection = await migrate.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(SETTINGS)
            await connection.execute(_UNMARK)
            for part in tables:
                await _ensure_partition(connection, part)
                await _copy_in(connection, root / part.path, part, advance)
        await connection.execute("analyze")
    except ERRORS as error:
        raise BackupFailed(f"the database does not take the rows: {one_line(error)}") from error
    finally:
        connection.terminate()


async def _ensure_partition(connection: asyncpg.Connection, part: TablePart) -> None:
    if not part.partition:
        return
    match = _DAY_SUFFIX.search(part.partition)
    if match is None:
        raise BackupDamaged(f"{part.partition} is no name of a partition")
    day = dt.date(int(match[1]), int(match[2]), int(match[3] or 1))
    await connection.execute("select public.kite_ensure_partition($1, $2)", part.table, day)


async def _copy_in(
    connection: asyncpg.Connection, path: Path, part: TablePart, advance: Callable[[int], None]
) -> None:
    digest = hashlib.sha256()

    async def text() -> AsyncIterator[bytes]:
        for chunk in _texts(path):
            digest.update(chunk)
            advance(len(chunk))
            yield chunk

    await connection.copy_to_table(
        part.table, schema_name="public", columns=list(part.columns), source=text(), format="text"
    )
    if digest.hexdigest() != part.text_sha256:
        raise BackupDamaged(f"{part.path} does not hold the rows that were backed up")


def _texts(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                yield chunk
    except zstandard.ZstdError as error:
        raise BackupDamaged(f"{path.name} cannot be unpacked: {error}") from error
