"""The migration runner: once each, all or nothing, and never over somebody's edits."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.servers.postgres import PostgresServer
from deploy.supabase import migrate as runner
from deploy.supabase.migrate import MIGRATIONS, MigrationError, migrate, read
from libs.common.errors import StoreMismatch, StoreUnavailable
from tests.databases import Database, as_superuser, connected, throw_away_database
from tests.waiting import eventually

LABELS = [migration.label for migration in read()]


def write(directory: Path, *files: tuple[str, str]) -> Path:
    """Put migrations into a directory: (number, SQL) each."""
    for number, sql in files:
        (directory / f"2026010100000{number}_step.sql").write_text(sql)
    return directory


async def tables(dsn: str) -> set[str]:
    """Name the tables of the public schema."""
    async with connected(dsn) as connection:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p')"
        )
    return {row["relname"] for row in rows}


def test_every_migration_is_applied_once_and_reported(blank: Database) -> None:
    """A first run applies all files in order, a second one none."""
    reported: list[str] = []
    first = asyncio.run(migrate(blank.owner, report=lambda step: reported.append(step.label)))
    assert [step.label for step in first] == reported == LABELS
    assert asyncio.run(migrate(blank.owner)) == []


def test_two_runs_at_once_share_the_work(blank: Database) -> None:
    """Whoever comes second waits, and between them each migration is applied once."""

    async def both() -> list[str]:
        runs = await asyncio.gather(migrate(blank.owner), migrate(blank.owner))
        return [step.label for run in runs for step in run]

    assert sorted(asyncio.run(both())) == LABELS


def test_a_refused_migration_leaves_nothing(blank: Database, tmp_path: Path) -> None:
    """What the statements before the error made is gone, and the error is told in one line."""
    write(tmp_path, ("1", "create table public.whole (n int);"))
    write(tmp_path, ("2", "create table public.half (n int); select 1 / 0;"))
    with pytest.raises(MigrationError, match="step: division by zero"):
        asyncio.run(migrate(blank.owner, directory=tmp_path))
    assert asyncio.run(tables(blank.owner)) == {"whole", "kite_migrations"}
    write(tmp_path, ("2", "create table public.half (n int);"))
    assert len(asyncio.run(migrate(blank.owner, directory=tmp_path))) == 1


def test_kill_in_mid_migration_leaves_nothing(
    blank: Database, any_postgres: PostgresServer, tmp_path: Path
) -> None:
    """A run that is killed with -9 inside a migration is as if it had not begun it."""
    write(tmp_path, ("1", "create table public.half (n int); select pg_sleep(600);"))
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from deploy.supabase.migrate import migrate;"
        "asyncio.run(migrate(sys.argv[1], directory=Path(sys.argv[2])))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, blank.owner, str(tmp_path)])

    async def sleeping() -> int:
        async with connected(blank.superuser) as connection:
            found: int = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
                " AND datname = current_database()"
            )
        return found

    try:
        eventually(lambda: asyncio.run(sleeping()), 20, "the migration sleeps")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The server notices the lost client by itself within seconds; the test does not wait for that.
    as_superuser(
        any_postgres,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE wait_event = 'PgSleep'",
    )
    assert asyncio.run(tables(blank.owner)) == set()
    assert [step.label for step in asyncio.run(migrate(blank.owner))] == LABELS


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ([("1", "select 1;"), ("3", "select 33;")], "step was edited after it was applied"),
        ([("1", "select 1;")], "20260101000003, which this version does not know"),
        ([("1", "select 1;"), ("2", "select 2;"), ("3", "select 3;")], "older than 20260101000003"),
    ],
    ids=["edited", "unknown", "too late"],
)
def test_a_past_that_does_not_fit_is_refused(
    blank: Database, tmp_path: Path, files: list[tuple[str, str]], complaint: str
) -> None:
    """Edited, unknown and late files stop the run, with what to do about it."""
    write(tmp_path, ("1", "select 1;"), ("3", "select 3;"))
    asyncio.run(migrate(blank.owner, directory=tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    write(tmp_path, *files)
    with pytest.raises(StoreMismatch, match=complaint):
        asyncio.run(migrate(blank.owner, directory=tmp_path))


def test_it_takes_over_from_supabases_command_line(blank: Database) -> None:
    """Files that `supabase db push` applied under the same number are noted, not run again."""

    async def push_two() -> None:
        async with connected(blank.owner) as connection:
            await connection.execute(
                "CREATE SCHEMA supabase_migrations;"
                "CREATE TABLE supabase_migrations.schema_migrations (version text, name text)"
            )
            for migration in read()[:2]:
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO supabase_migrations.schema_migrations VALUES ($1, $2)",
                    migration.version,
                    migration.name,
                )

    asyncio.run(push_two())
    assert [step.label for step in asyncio.run(migrate(blank.owner))] == LABELS[2:]


def test_absent_web_roles_are_asked_for_or_made(any_postgres: PostgresServer) -> None:
    """Without `anon` an ordinary owner is told what to ask for; one who may make roles makes it.

    Roles belong to the whole server, so the test puts the real one out of the way meanwhile.
    """
    as_superuser(any_postgres, "ALTER ROLE anon RENAME TO anon_away")
    try:
        with throw_away_database(any_postgres) as database:
            with pytest.raises(MigrationError, match="create role anon nologin;"):
                asyncio.run(migrate(database.owner))
            assert len(asyncio.run(migrate(database.superuser))) == len(LABELS)
        as_superuser(any_postgres, "DROP ROLE anon")
    finally:
        as_superuser(any_postgres, "ALTER ROLE anon_away RENAME TO anon")


def test_no_file_ends_its_transaction() -> None:
    """A COMMIT inside a file would break the promise of all or nothing."""
    for path in MIGRATIONS.glob("*.sql"):
        found = re.findall(r"^(begin|commit|rollback|end)\b *;", path.read_text(), re.M | re.I)
        assert not found, path.name


def test_the_command_tells_what_it_did(
    blank: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json every migration is a line, and the last line says that the schema is current."""
    monkeypatch.setenv("KITE_PG_DSN", blank.owner)
    assert runner.main(["--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("applied") for line in lines] == [*LABELS, len(LABELS)]
    assert runner.main([]) == 0
    assert capsys.readouterr().out == "the schema is up to date\n"


def test_an_absent_database_is_one_line_without_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unused_port: int
) -> None:
    """No traceback and no secret when nobody listens; exit code 2 when no address is set."""
    address = f"postgresql://kite_owner:hush@127.0.0.1:{unused_port}/kite"
    with pytest.raises(StoreUnavailable):
        asyncio.run(migrate(address))
    monkeypatch.setenv("KITE_PG_DSN", address)
    assert runner.main([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "hush" not in said
    monkeypatch.delenv("KITE_PG_DSN")
    assert runner.main([]) == 2
