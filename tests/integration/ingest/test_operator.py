"""The command line of the containers: what its image holds, on a real bus, as the operator."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.servers.nats import NatsServer
from deploy.nats.policy import OPERATOR
from tests.integration.ingest.stage import ROOT, Stage

Play = Callable[..., None]
SPAN = ("--from", "2026-11-18", "--to", "2026-11-18")


class Image:
    """The folder `/app` of its image, asked as `docker compose run --rm cli` does."""

    def __init__(self, folder: Path) -> None:
        self._app = folder / "app"
        self._secret = folder / "nats-url"
        ignored = shutil.ignore_patterns("__pycache__")
        for place in ("libs", "deploy", "cli", "services/ingest"):
            shutil.copytree(ROOT / place, self._app / place, ignore=ignored)
        shutil.copy(ROOT / "services" / "__init__.py", self._app / "services")

    def log_in_to(self, server: NatsServer) -> None:
        """Leave its login where the job `secrets` does."""
        self._secret.write_text(f"{server.url(OPERATOR)}\n")

    async def ask(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, output and complaints."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("KITE_", "PYTHON"))}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "cli.operator", *arguments,
            env={
                **inherited, "PYTHONPATH": str(self._app),
                "KITE_NATS_URL_FILE": str(self._secret),
            },
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, complaints = await process.communicate()
        return process.returncode or 0, output.decode(), complaints.decode()


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """The folder, without a login yet."""
    return Image(tmp_path / "image")


def test_tickers_and_past_days_are_asked_for(play: Play, image: Image) -> None:
    """The whole way with the operator's login alone, and what is wrong is one line."""

    async def scenario(on: Stage) -> None:
        image.log_in_to(on.server)
        async with on.ingest(KITE_TICKERS="QQQ"):
            code, output, complaints = await image.ask("tickers", "add", "nvda", "--json")
            assert code == 0, complaints
            answer = json.loads(output)
            assert answer["answer"] == "added NVDA; 2 tickers"
            assert [each["ticker"] for each in answer["tickers"]] == ["QQQ", "NVDA"]

            code, output, complaints = await image.ask("backfill", "--ticker", "NVDA", *SPAN)
            assert code == 0, complaints
            assert "1 of 1 days: 1 stored" in output
            assert "done" in (await image.ask("backfill"))[1]

            assert (await image.ask("tickers", "remove", "NVDA"))[0] == 0
            output = (await image.ask("tickers", "list"))[1]
            assert "QQQ" in output
            assert "NVDA" not in output

            code, _, complaints = await image.ask("tickers", "remove", "QQQ")
            assert code == 1
            assert complaints.count("\n") == 1
            assert "one ticker has to stay" in complaints

    play(scenario)


def test_help_and_hints_name_the_command_of_the_containers(image: Image) -> None:
    """Nobody is sent to a `./kite` that is not there; a verb of it that is not here is refused."""

    async def ask() -> None:
        for words in ((), ("tickers", "add"), ("backfill",)):
            code, output, _ = await image.ask(*words, "--help")
            assert code == 0
            assert "docker compose run --rm cli" in output
            assert "./kite " not in output
        code, _, complaints = await image.ask("up")
        assert (code, complaints.count("\n")) == (2, 1)
        assert "No such command 'up'" in complaints

    asyncio.run(ask())


def test_without_a_login_it_says_what_is_missing(image: Image) -> None:
    """One line, without a traceback."""
    code, _, complaints = asyncio.run(image.ask("tickers", "list"))
    assert code == 2
    assert complaints.startswith("kite: KITE_NATS_URL")
    assert complaints.count("\n") == 1
