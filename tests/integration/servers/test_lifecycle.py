"""Local servers through their lives: first start, kill -9, leftovers, other versions, full disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from cli.servers import host
from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from cli.servers.server import LocalServer, ServerFrozen
from deploy.private_files import Account, explain_os_errors
from libs.common.errors import ServerError
from tests.databases import connected
from tests.servers import Running, temporary_home
from tests.waiting import eventually

Make = Callable[[Path], LocalServer]
BOTH = pytest.mark.parametrize("make", [PostgresServer, NatsServer])


@pytest.fixture
def home(server_home: Path) -> Iterator[Path]:
    """A data home for this test alone; only the copies of programs are shared."""
    runtime = server_home / "runtime"
    runtime.mkdir(exist_ok=True)
    with temporary_home() as directory:
        (directory / "runtime").symlink_to(runtime)
        yield directory


@pytest.fixture(scope="module")
def settled(server_home: Path) -> Iterator[Path]:
    """A data home with a Postgres in it, for tests that leave it stopped and whole."""
    runtime = server_home / "runtime"
    runtime.mkdir(exist_ok=True)
    with temporary_home() as directory:
        (directory / "runtime").symlink_to(runtime)
        PostgresServer(directory).prepare()
        yield directory


def ask(server: PostgresServer, query: str) -> object:
    """Run one query as the owner and return its value."""

    async def run() -> object:
        async with connected(server.dsn()) as connection:
            value: object = await connection.fetchval(query)
            return value

    return asyncio.run(run())


def test_what_postgres_acknowledged_survives_kill_9(settled: Path) -> None:
    """Killed with all its processes, it starts again on the same port with every commit."""
    server = PostgresServer(settled)
    with Running(server, settled / "log") as running:
        for name, value in (
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("listen_addresses", "127.0.0.1"),
            ("password_encryption", "scram-sha-256"),
            ("data_checksums", "on"),
        ):
            assert ask(server, f"SHOW {name}") == value
        ask(server, "CREATE TABLE kept AS SELECT 42 AS n")
        dsn = server.dsn()
        running.kill()
        running.start()
        assert server.dsn() == dsn
        assert ask(server, "SELECT n FROM kept") == 42


def test_postgres_starts_while_the_last_ones_processes_are_ending(settled: Path) -> None:
    """A backend that outlives the killed main process delays the next start and no more."""
    server = PostgresServer(settled)
    with Running(server, settled / "log") as running:

        async def busy() -> None:
            async with connected(server.dsn()) as connection:
                backend = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()"))
                backend.suspend()
                running.kill()
                loop = asyncio.get_running_loop()
                started = loop.run_in_executor(None, running.start)
                os.kill(backend.pid, signal.SIGCONT)
                await started

        asyncio.run(busy())
        assert ask(server, "SELECT 1") == 1


def test_a_stale_pid_file_does_not_stop_postgres(settled: Path) -> None:
    """Not even when its number belongs to another live process by now."""
    server = PostgresServer(settled)
    with Running(server, settled / "log") as running:
        running.kill()
        pid_file = settled / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        running.start()
        assert ask(server, "SELECT 1") == 1


@BOTH
def test_a_leftover_server_is_found_and_stopped(make: Make, settled: Path) -> None:
    """A second object on the same home refuses to start beside it, and can stop it."""
    with Running(make(settled), settled / "log") as running:
        second = make(settled)
        with pytest.raises(ServerError, match=f"pid {running.pid}"):
            second.prepare()
        assert second.stop_leftover() is True
        eventually(lambda: not running.alive, 5, "the first server ended")
        assert second.stop_leftover() is False
        second.prepare()


@BOTH
def test_a_server_stops_in_good_order(make: Make, settled: Path) -> None:
    """Its stop signal ends it with code 0, also while a client is connected."""
    running = Running(make(settled), settled / "log")
    running.start()
    if isinstance(running.server, PostgresServer):
        server = running.server

        async def stop_under_a_client() -> int:
            async with connected(server.dsn()):
                return running.stop()

        assert asyncio.run(stop_under_a_client()) == 0
    else:
        assert running.stop() == 0


def test_an_interrupted_first_start_is_begun_anew(home: Path) -> None:
    """What a killed initdb left behind is cleared away."""
    staged = home / ".postgres.new"
    staged.mkdir()
    (staged / "PG_VERSION").write_text("18\n")
    server = PostgresServer(home)
    server.prepare()
    assert not staged.exists()
    assert (home / "postgres" / "PG_VERSION").exists()


def test_lost_passwords_are_renewed(settled: Path) -> None:
    """Without the file of passwords the data is not lost: new ones are made and applied."""
    with Running(PostgresServer(settled), settled / "log") as running:
        server = running.server
        assert isinstance(server, PostgresServer)
        old = server.dsn()
        running.stop()
        (settled / "credentials.json").unlink()
        running.start()
        assert server.dsn() != old
        assert ask(server, "SELECT 1") == 1
        with pytest.raises(asyncpg.InvalidPasswordError):
            asyncio.run(asyncpg.connect(old))


def test_secrets_are_for_their_owner_only(settled: Path) -> None:
    """Every file that holds one is unreadable for others, and no log or argument has one.

    Of a service's key the server's configuration has the public half; of two users the password.
    """
    postgres, nats = PostgresServer(settled), NatsServer(settled)
    with Running(postgres, settled / "log"), Running(nats, settled / "log") as running:
        files = [path for path in settled.rglob("*") if path.is_file()]
        for address, expected in (
            (nats.url("ingest"), {"credentials.json"}),
            (nats.url("observer"), {"credentials.json", "nats-server.json"}),
            (postgres.dsn(), {"credentials.json"}),
        ):
            secret = address.split(":")[2].split("@")[0]
            holders = [path for path in files if secret in path.read_text("latin-1")]
            assert {path.name for path in holders} == expected
            for path in holders:
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert secret not in " ".join(psutil.Process(running.pid).cmdline())


def test_passwords_that_others_can_read_are_refused(home: Path) -> None:
    """The line names the file and what to do."""
    server = NatsServer(home)
    server.prepare()
    (home / "credentials.json").chmod(0o644)
    with pytest.raises(ServerError, match=r"credentials\.json is readable by others: chmod 600"):
        NatsServer(home).prepare()


def test_data_of_another_major_version_is_refused(settled: Path) -> None:
    """The line names both versions and a way out."""
    server = PostgresServer(settled)
    server.prepare()
    (settled / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(ServerError, match="belongs to Postgres 17, the programs are Postgres 18"):
        PostgresServer(settled).prepare()
    (settled / "postgres" / "PG_VERSION").write_text("18\n")


@pytest.mark.parametrize("make", [lambda h, p: PostgresServer(h, port=p),
                                  lambda h, p: NatsServer(h, port=p)])  # fmt: skip
def test_a_taken_port_is_named(make: Callable[[Path, int], LocalServer], home: Path) -> None:
    """Somebody else's port is refused before anything is started."""
    with socket.create_server((host.LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} for .* is taken by another program"):
            make(home, port).prepare()


@BOTH
def test_an_unwritable_home_is_named(make: Make, home: Path) -> None:
    """A home that cannot be made is refused with the setting that changes it."""
    (home / "file").touch()
    with pytest.raises(ServerError, match="KITE_HOME"):
        make(home / "file" / "home").prepare()


def test_a_home_out_of_the_accounts_reach_is_named(home: Path) -> None:
    """A directory that is closed to the account that the servers get cannot hold their home."""
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    stranger = Account("stranger", 54_321, 54_321)
    with pytest.raises(ServerError, match=f"'stranger', who may not enter {closed.resolve()}"):
        host.make_home(closed / "home", stranger)
    host.make_home(home / "open", stranger)


@BOTH
def test_a_disk_that_is_nearly_full_is_named(
    make: Make, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather a refusal now than a crash an hour later."""
    usage = shutil.disk_usage(home)._replace(free=5 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ServerError, match="only 5 MiB left on the disk"):
        make(home).prepare()


def test_a_database_goes_on_with_less_room_than_a_new_one_needs(
    settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash on a disk that is nearly full it must come back."""
    usage = shutil.disk_usage(settled)._replace(free=100 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    PostgresServer(settled).prepare()


def test_a_stream_that_met_a_write_error_is_told_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a server takes no more messages until it is restarted, however long one waits."""
    server = NatsServer(home)
    server.prepare()
    answers: dict[str, dict[str, object]] = {
        "/varz": {"server_name": server.server_name},
        "/healthz": {
            "status": "unavailable",
            "error": "JetStream stream 'KITE > X' write error: no space left on device",
        },
    }

    async def monitor(_: NatsServer, path: str) -> dict[str, object]:
        return answers[path]

    monkeypatch.setattr(NatsServer, "_monitor", monitor)
    with pytest.raises(ServerFrozen, match="the disk is full"):
        asyncio.run(server.wait_ready(deadline_s=60))


def test_a_full_disk_while_writing_is_named(home: Path) -> None:
    """ENOSPC from the system becomes one line."""
    complaint = pytest.raises(ServerError, match="no space left on the disk of")
    with complaint, explain_os_errors(home):
        Path("/dev/full").write_text("x")


@pytest.mark.parametrize(
    ("server", "log", "said"),
    [
        (PostgresServer, "FATAL:  could not write lock file: No space left on device", "full"),
        (PostgresServer, "LOG:  could not bind IPv4 address: Address already in use", "port"),
        (NatsServer, "[FTL] Error listening on port: bind: address already in use", "port"),
        (NatsServer, "JetStream failed: no space left on device", "full"),
    ],
)
def test_a_servers_last_words_are_explained(
    server: Make, log: str, said: str, tmp_path: Path
) -> None:
    """Known causes of a failed start are told in plain words; unknown ones are left alone."""
    explained = server(tmp_path).explain(log)
    assert explained is not None
    assert said in explained
    assert server(tmp_path).explain("something else") is None


def test_servers_do_not_run_as_root_and_do_not_see_our_environment(
    settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both run unprivileged, and secrets in our environment are not theirs."""
    monkeypatch.setenv("KITE_SCHWAB_SECRET", "hush")
    for server in (PostgresServer(settled), NatsServer(settled)):
        with Running(server, settled / "log") as running:
            process = psutil.Process(running.pid)
            assert process.uids().effective != 0
            assert process.gids().effective != 0
            assert "hush" not in process.environ().values()
