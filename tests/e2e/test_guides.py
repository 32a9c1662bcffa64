"""The guides, typed as they are printed: what they command works, what they say is true."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from cli.servers.host import choose_port
from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from deploy.simulated_app import APP_KEY, APP_SECRET
from tests.api_keys import PUBLISHABLE_KEY, SECRET_KEY
from tests.e2e.account import BROKER
from tests.e2e.guide import Follower, blocks, labels, starting
from tests.e2e.stack import REPOSITORY, Stack
from tests.integration.writer.stage import feed
from tests.postgrest import postgrest
from tests.servers import temporary_home
from tests.supabase import authenticator, hosted_database
from tests.waiting import eventually, eventually_async
from tests.writer_frames import TS_MS, candle

SCHWAB = "schwab.md"
WITHIN_S = 120
# A week of the guide, long enough to be ready before its end on a slow machine too.
WEEK = {"KITE_SIM_REFRESH_TOKEN_S": "60", "KITE_SIM_ACCESS_TOKEN_S": "20"}


class AccountStack(Stack):
    """A `kite up --schwab` whose broker is the simulator."""

    module = "tests.e2e.account"


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """A Schwab in a process of its own, on the day after those that the guide asks for."""
    port = choose_port()
    day = {"KITE_SIM_START": "2026-11-23T10:30", "KITE_SIM_PORT": str(port), **WEEK}
    app = {"KITE_SIM_APP_KEY": APP_KEY, "KITE_SIM_APP_SECRET": APP_SECRET}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.simulator"],
        cwd=REPOSITORY, env=os.environ | day | app, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        eventually(listens, WITHIN_S, "the broker listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(WITHIN_S)


def state_of_ingest(stack: Stack) -> str:
    """How the stack says ingest is."""
    found: str = stack.status()["services"]["ingest"]["state"]
    return found


@pytest.mark.soak
@pytest.mark.weeks
@pytest.mark.timeout(600)
def test_the_way_without_an_account() -> None:
    """The demo of the guide: logins in both ways, the end of one, and the next."""
    start, first, by_hand, second, _ = blocks(SCHWAB, "## Without an account")
    settings, options = starting(start)
    assert settings.keys() == WEEK.keys()
    with (
        temporary_home() as folder,
        Stack(folder / "home", *options, repository=REPOSITORY, **WEEK) as stack,
    ):
        follower = Follower(folder, "cli", KITE_HOME=str(folder / "home"))
        command, status = first.splitlines()
        assert "Logged in" in follower.log_in(command)
        assert "login      works" in follower.do(status)
        assert "Logged in" in follower.do(by_hand)

        eventually(lambda: state_of_ingest(stack) == "unready", WITHIN_S, "the login has ended")
        assert "unready" in follower.do("./kite status")
        assert "token.no_login" in follower.do("./kite logs ingest")

        command, logs, status = second.splitlines()
        follower.log_in(command)
        eventually(lambda: state_of_ingest(stack) == "running", WITHIN_S, "ready again")
        told = follower.do(logs)
        assert 0 < told.find("token.login_taken_over") < told.find("token.works_again")
        assert re.search(r"^ingest +running", follower.do(status), re.MULTILINE)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_way_of_an_account() -> None:
    """From the app's key to the second weekly login, word by word; the broker is simulated."""
    login, by_script = blocks(SCHWAB, "## 2. Log in")
    (answer,) = blocks(SCHWAB, "## 2. Log in", "")
    (start,) = blocks(SCHWAB, "## 3. Start")
    (look,) = blocks(SCHWAB, "## 4. Look")
    (weekly,) = blocks(SCHWAB, "## 5. Every week")
    (more,) = blocks(SCHWAB, "## 6. Other tickers, and weeks before")
    with temporary_home() as folder, broker() as url:
        home = folder / "home"
        follower = Follower(folder, AccountStack.module, KITE_HOME=str(home), **{BROKER: url})
        *keys, command = login.splitlines()
        typed = follower.type("\n".join([*keys, "env"]), f"{APP_KEY}\n{APP_SECRET}\n").stdout
        for name in ("KITE_SCHWAB_APP_KEY", "KITE_SCHWAB_APP_SECRET"):
            follower.environment[name] = re.findall(rf"^{name}=(.*)$", typed, re.MULTILINE)[0]

        said = follower.log_in(command)
        printed = said[said.index("Logged in.") :]
        assert labels(printed) == labels(answer)
        assert printed.splitlines()[0] == answer.splitlines()[0]
        assert "schwab/login/schwab-token.json (encrypted)" in printed

        address, received = by_script.splitlines()
        got = "curl -s -o /dev/null -w '%{redirect_url}'"
        back = follower.do(f'{got} "$({address.partition("#")[0].strip()})"').strip()
        assert "Logged in" in follower.do(received.replace("https://127.0.0.1:8182/?code=…", back))

        _, options = starting(start)
        known = {BROKER: url, "KITE_SCHWAB_APP_KEY": APP_KEY, "KITE_SCHWAB_APP_SECRET": APP_SECRET}
        with AccountStack(home, *options, repository=REPOSITORY, **known) as stack:
            follower.do(look)
            for week in ("the first", "the second"):
                eventually(lambda: state_of_ingest(stack) == "unready", WITHIN_S, f"{week} ended")
                assert "Logged in" in follower.log_in(weekly)
                eventually(lambda: state_of_ingest(stack) == "running", WITHIN_S, f"after {week}")
            added, backfill, health = more.splitlines()
            assert "added NVDA, TSLA" in follower.do(added)
            assert stack.status()["tickers"] == ["QQQ", "SPY", "NVDA", "TSLA"]
            assert "done, 40 of 40 days" in follower.do(backfill)
            # Right after so many rows something may not be fresh yet; the minutes are.
            assert "unexplained minutes: 0" in follower.type(health).stdout


class Project:
    """A new project at Supabase, as far as a guide's reader sees it."""

    ADDRESS = "https://abcdefgh.supabase.co"
    KEYS: ClassVar = {"sb_secret_…": SECRET_KEY, "sb_publishable_…": PUBLISHABLE_KEY}

    def __init__(self, url: str) -> None:
        self._url = url

    def own(self, printed: str) -> str:
        """Return what is printed with this project's address and keys in it."""
        for theirs, ours in ({self.ADDRESS: self._url} | self.KEYS).items():
            printed = printed.replace(theirs, ours)
        return printed


def test_the_rows_of_a_hosted_project(
    tmp_path: Path, postgres: PostgresServer, fresh_nats: NatsServer
) -> None:
    """A writer with the printed settings fills it; the printed request reads it, and health."""
    ((_, migrate),) = (block.splitlines() for block in blocks("supabase.md", "## 3. The schema"))
    (settings,) = blocks("supabase.md", "## 4. Rows")
    (request,) = blocks("supabase.md", "## 5. The page")
    with hosted_database(postgres) as dsn:
        database = urlsplit(dsn).path.removeprefix("/")
        own = {"KITE_HOME": str(tmp_path / "home"), "KITE_PG_DSN": dsn, "KITE_TICKERS": "QQQ"}
        follower = Follower(tmp_path, "cli", **own)
        follower.do(migrate)
        with postgrest(authenticator(postgres, database)) as url:
            project = Project(url)
            environ = dict(line.split("=", 1) for line in project.own(settings).split())
            follower.environment |= {"KITE_NATS_URL": fresh_nats.url("writer"), **environ}

            async def write() -> str:
                async with feed(fresh_nats) as source:
                    candles = [candle(TS_MS + minute * 60_000) for minute in range(5)]
                    await source.send("INDICATORS", 0, candles)
                    with follower.running("services.writer"):
                        return await eventually_async(
                            lambda: asyncio.to_thread(newest), WITHIN_S, "three minutes"
                        )

            def newest() -> str:
                told = follower.type(project.own(request)).stdout
                return told if len(json.loads(told)) == 3 else ""

            rows = json.loads(asyncio.run(write()))
        assert [row["timestamp"] for row in rows] == sorted(
            (row["timestamp"] for row in rows), reverse=True
        )
        assert {row["ticker"] for row in rows} == {"QQQ"}
        del follower.environment["KITE_NATS_URL"]
        health = follower.type("./kite health").stdout
        assert re.search(r"✓ +database +reachable", health)
        assert re.search(r"✓ +errors +0.0%", health)
        assert "freshness" in health


def test_the_schema_of_a_hosted_project(tmp_path: Path, postgres: PostgresServer) -> None:
    """Each migration is a line, a second run says that there is nothing to do."""
    (block,) = blocks("supabase.md", "## 3. The schema")
    export, migrate = block.splitlines()
    with hosted_database(postgres) as dsn:
        follower = Follower(tmp_path, "cli", KITE_HOME=str(tmp_path / "home"))
        own = f"export KITE_PG_DSN='{dsn}'"
        assert re.fullmatch(r"export KITE_PG_DSN='postgresql://[^']+'", export)
        applied = follower.do(f"{own}\n{migrate}").splitlines()
        files = sorted((REPOSITORY / "deploy" / "supabase" / "migrations").glob("*.sql"))
        assert len(applied) == len(files)
        assert all(line.startswith("applied ") for line in applied)
        assert follower.do(f"{own}\n{migrate}") == "the schema is up to date\n"
