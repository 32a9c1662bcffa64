"""`./kite up` and its companions, as a newcomer uses them: one command, and everything flows."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from cli.processes import process_identity
from tests.e2e.stack import Stack
from tests.servers import temporary_home
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {"simulator", "ingest", "indicators", "signals", "writer", "gateway"}
SERVERS = {"nats", "postgres"}
TABLES = ("equity_data", "indicators", "candles", "stream_positions")
WITHIN_S = 60


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A running demo of two tickers on free ports, shared by the tests that only look."""
    with temporary_home() as home, Stack(home, "--tickers", "QQQ,SPY", *FREE_PORTS) as running:
        yield running


FREE_PORTS = ("--port", "0", "--nats-port", "0", "--postgres-port", "0")


def everybody(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return the state of servers and services alike."""
    status = stack.status()
    return {**status["servers"], **status["services"]}


def family(status: dict[str, Any]) -> list[int]:
    """Return the pids of the supervisor and of all that it looks after."""
    processes = {**status["servers"], **status["services"]}.values()
    return [status["supervisor"], *(process["pid"] for process in processes)]


def gone(pids: list[int]) -> bool:
    """Tell whether none of these processes runs any more."""
    return all(process_identity(pid) is None for pid in pids)


def count_rows(dsn: str) -> dict[str, int]:
    """Count the rows of the tables that a demo fills at once."""

    async def ask() -> dict[str, int]:
        connection = await asyncpg.connect(dsn)
        try:
            counts = [f"SELECT count(*) FROM {table}" for table in TABLES]  # noqa: S608 - ours
            return {
                table: await connection.fetchval(count)
                for table, count in zip(TABLES, counts, strict=True)
            }
        finally:
            await connection.close()

    return asyncio.run(ask())


class TestRunningStack:
    """What one can do with it while it runs."""

    def test_standard_output_is_one_line(self, stack: Stack) -> None:
        """Scripts read it: `ready` and an address."""
        assert [line.partition("://")[0] for line in stack.output] == ["ready http"]

    def test_status_lists_every_process_as_running(self, stack: Stack) -> None:
        """With pid, restarts and a metrics address that answers."""
        status = stack.status()
        assert status["running"]
        assert status["services"].keys() == SERVICES
        assert status["servers"].keys() == SERVERS
        assert {process["state"] for process in everybody(stack).values()} == {"running"}
        for service in status["services"].values():
            assert psutil.pid_exists(service["pid"])
            assert service["restarts"] == 0
            assert b"# HELP" in httpx.get(service["metrics"]).content

    def test_status_is_a_table_for_people(self, stack: Stack) -> None:
        """Every process has a line, and no line is wider than the terminal."""
        done = stack.kite("status")
        assert done.returncode == 0
        assert all(name in done.stdout for name in SERVICES | SERVERS)

    def test_tail_shows_ticks_and_candles(self, stack: Stack) -> None:
        """The public subjects, as JSON with their subject."""
        done = stack.kite("tail", "live.tick.>", "live.candle.1m.>", "-n", "8", "--json")
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(messages) == 8
        kinds = {message["subject"].split(".")[1] for message in messages}
        assert kinds == {"tick", "candle"}
        tick = next(message for message in messages if message["subject"].startswith("live.tick."))
        assert {"ticker", "ts_ms", "price", "sma9", "vwap", "epoch", "seq", "index"} <= tick.keys()

    def test_tail_shows_durable_frames_too(self, stack: Stack) -> None:
        """An observer may look at every subject."""
        done = stack.kite("tail", "market.*", "-n", "1", "--json")
        assert json.loads(done.stdout)["events"]

    def test_the_tables_fill_and_the_day_so_far_is_there(self, stack: Stack) -> None:
        """The demo opens an hour into the session, with that hour already in the rows."""
        eventually(lambda: all(count_rows(stack.postgres).values()), WITHIN_S, "rows everywhere")
        eventually(lambda: count_rows(stack.postgres)["candles"] > 120, WITHIN_S, "an hour filled")

    def test_health_is_good(self, stack: Stack) -> None:
        """Exit code 0 once the first report is there."""
        eventually(lambda: stack.kite("health").returncode == 0, WITHIN_S, "healthy")
        checks = json.loads(stack.kite("health", "--json").stdout)
        assert checks["healthy"]

    def test_a_second_up_on_the_same_home_is_refused(self, stack: Stack) -> None:
        """One clear line, exit code 2, and the first one does not notice."""
        done = stack.kite("up")
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "runs already" in done.stderr
        assert stack.status()["running"]

    def test_a_service_is_restarted_on_request(self, stack: Stack) -> None:
        """The command comes back when the new process is ready."""
        before = stack.pid("signals")
        assert stack.kite("restart", "signals").returncode == 0
        service = stack.status()["services"]["signals"]
        assert service["state"] == "running"
        assert service["pid"] != before

    def test_logs_are_readable(self, stack: Stack) -> None:
        """For people, and as the lines that were written."""
        assert "service.started" in stack.kite("logs", "writer").stdout
        first = stack.kite("logs", "writer", "--json", "-n", "1").stdout
        assert json.loads(first)["service"] == "writer"

    def test_the_schema_is_up_to_date(self, stack: Stack) -> None:
        """Bootstrap did it, a second time there is nothing to do."""
        done = stack.kite("db", "migrate")
        assert (done.returncode, done.stdout) == (0, "the schema is up to date\n")

    def test_the_public_and_the_reader_cannot_write(self, stack: Stack) -> None:
        """Credentials from `status` read everything and change nothing."""

        async def try_to_write() -> None:
            connection = await asyncpg.connect(stack.postgres)
            try:
                with pytest.raises(asyncpg.PostgresError):
                    await connection.execute("DELETE FROM candles")
            finally:
                await connection.close()

        asyncio.run(try_to_write())

    @pytest.mark.parametrize("name", sorted(SERVICES | SERVERS))
    def test_whatever_is_killed_comes_back(self, stack: Stack, name: str) -> None:
        """kill -9, then running again under another pid, and ticks flow."""
        before = everybody(stack)[name]
        os.kill(before["pid"], signal.SIGKILL)

        def back() -> bool:
            now = everybody(stack)[name]
            return now["state"] == "running" and now["pid"] not in (None, before["pid"])

        eventually(back, WITHIN_S, f"{name} runs again")
        assert everybody(stack)[name]["restarts"] == before["restarts"] + 1
        eventually(
            lambda: {each["state"] for each in everybody(stack).values()} == {"running"},
            WITHIN_S,
            "everybody is ready again",
        )
        assert stack.kite("tail", "live.tick.>", "-n", "1").returncode == 0


class TestEnds:
    """Every way in which it ends leaves nothing."""

    def test_down_and_ctrl_c_end_it_and_a_killed_one_is_cleared_up(self) -> None:
        """Four lives of one store: down, kill -9, Ctrl-C; rows stay from life to life."""
        with temporary_home() as home:
            with Stack(home, *FREE_PORTS) as stack:
                pids = family(stack.status())
                assert stack.kite("down").returncode == 0
                assert stack.wait() == 0
                assert gone(pids)
            with Stack(home, *FREE_PORTS) as stack:
                pids = family(stack.status())
                rows = count_rows(stack.postgres)
                os.kill(pids[0], signal.SIGKILL)
                eventually(lambda: gone(pids), WITHIN_S, "the children died with their parent")
                assert stack.kite("status").returncode == 1
            with Stack(home, *FREE_PORTS) as stack:
                pids = family(stack.status())
                now = count_rows(stack.postgres)
                assert all(now[table] >= rows[table] for table in TABLES)
                assert stack.stop() == 0
                assert gone(pids)


class TestRefusals:
    """What cannot work is said in one line, and nothing is left running."""

    def refused(self, home: Path, *options: str) -> str:
        """Run `up` that must refuse with exit code 2, and return its last line."""
        stack = Stack(home, *options)
        done = stack.kite("up", *options)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert stack.kite("status").returncode == 1
        return done.stderr

    def test_a_taken_port(self) -> None:
        """The option is named, and what to do."""
        with temporary_home() as home, socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert f"--nats-port {port}" in self.refused(home, "--nats-port", port)

    def test_a_store_of_another_source(self) -> None:
        """Whoever moved directories around is told what is in them."""
        with temporary_home() as home:
            store = home / "demo"
            store.mkdir()
            identity = {"source": "schwab", "partitions": 1, "version": 1}
            (store / "store.json").write_text(json.dumps(identity))
            assert "holds data of source schwab, not demo" in self.refused(home)

    def test_a_csv_with_a_bad_row(self) -> None:
        """The simulator names file and line, and `up` passes it on."""
        with temporary_home() as home:
            path = home / "QQQ-bad.csv"
            path.write_text("timestamp,open,high,low,close,volume\n2023-11-24 14:30:00,1,2,x,1,5\n")
            complaint = self.refused(home, "--csv", str(path), *FREE_PORTS)
            assert "QQQ-bad.csv" in complaint
            assert "simulator refuses to run" in complaint

    def test_an_unusable_home(self) -> None:
        """A file is no directory, for root neither."""
        done = Stack(Path("/dev/null/home")).kite("up")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "KITE_HOME" in done.stderr


def unprivileged_python() -> tuple[str, dict[str, str]]:
    """Return an interpreter that every account may run, and the environment it needs."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    version = f"python3.{sys.version_info.minor}"
    for candidate in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if candidate and all(
            parent.stat().st_mode & 0o001 for parent in Path(candidate).resolve().parents
        ):
            return candidate, {"PYTHONPATH": f"{ROOT}{os.pathsep}{packages}"}
    raise AssertionError(f"no {version} that the account 'nobody' may run")


def test_an_unprivileged_user_gets_the_same_and_exit_after_leaves_nothing() -> None:
    """Who owns nothing but a data home; as root the other tests never show that."""
    python, environ = unprivileged_python()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KITE_")}
    account: dict[str, Any] = {}
    with temporary_home() as home:
        own = {
            "KITE_HOME": str(home),
            "KITE_GATEWAY_DASHBOARD_DIR": str(home / "no-page"),
            "HOME": str(home),
        }
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
            account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        process = subprocess.Popen(
            [python, "-m", "cli", "up", "--exit-after", "2", *FREE_PORTS],
            env=clean | environ | own,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/", **account,
        )  # fmt: skip
        assert process.stdout is not None
        ready = process.stdout.readline()
        state = home / "run" / "state.json"
        pids = family(json.loads(state.read_text())) if ready else []
        rest, complaints = process.communicate(timeout=WITHIN_S)
        assert ready.startswith("ready http://127.0.0.1:"), complaints
        assert (process.returncode, rest) == (0, "")
        assert gone(pids)
        owner = account.get("user", os.geteuid())
        assert {path.lstat().st_uid for path in home.rglob("*")} == {owner}
