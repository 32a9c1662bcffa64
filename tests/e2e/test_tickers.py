"""Tickers and past days as a person asks for them, on the whole running stack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.e2e.stack import Stack
from tests.servers import temporary_home
from tests.waiting import eventually

pytestmark = pytest.mark.soak

DEADLINE_S = 60.0
SPAN = ("--from", "2026-11-09", "--to", "2026-11-13")
_START = "2026-11-20T10:30"
# Signals of the span; those of today come and go by themselves.
LATE = "SELECT sum(revision), count(*) FROM signals WHERE \"timestamp\" < '2026-11-14 05:00+00'"
FREE_PORTS = ("--port", "0", "--nats-port", "0", "--postgres-port", "0")


def rows(stack: Stack, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Ask the database."""

    async def ask() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(stack.postgres)
        try:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def answer(stack: Stack, *arguments: str) -> Any:
    """What a command says with --json."""
    done = stack.kite(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def candles(stack: Stack) -> dict[str, int]:
    """How many minutes of the span each ticker has."""
    query = """
        SELECT ticker, count(*) FROM candles WHERE timeframe = '1m'
        AND "timestamp" BETWEEN '2026-11-09 05:00+00' AND '2026-11-14 05:00+00' GROUP BY ticker
    """
    return dict(rows(stack, query))


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty data home that the servers' own account can reach."""
    with temporary_home() as made:
        yield made / "home"


def test_a_new_ticker_reaches_rows_and_page(home: Path) -> None:
    """And its past days do, over kills of everything on the way, each candle once."""
    with Stack(home, "--tickers", "QQQ", *FREE_PORTS, KITE_SIM_START=_START) as stack:
        listed = answer(stack, "tickers", "add", "nvda")
        assert [each["ticker"] for each in listed["tickers"]] == ["QQQ", "NVDA"]
        eventually(
            lambda: rows(stack, "SELECT 1 FROM indicators WHERE ticker = 'NVDA' LIMIT 1"),
            DEADLINE_S, "ticks of NVDA with indicators",
        )  # fmt: skip

        def on_page() -> bool:
            reply = httpx.get(f"{stack.gateway}/api/v1/tickers").json()
            return "NVDA" in {each["ticker"] for each in reply["tickers"]}

        eventually(on_page, DEADLINE_S, "NVDA on the page")
        placed = answer(stack, "backfill", "--ticker", "QQQ,MSFT", *SPAN, "--no-wait")
        for service in ("ingest", "indicators", "writer"):
            stack.kill(service)
        order = answer(stack, "backfill", "--ticker", "QQQ,MSFT", *SPAN)
        assert order["state"] == "done"
        assert order["days_finished"] == order["days"] == placed["days"] == 10
        whole = {"QQQ": 5 * 780, "MSFT": 5 * 780}
        eventually(lambda: candles(stack) == whole, DEADLINE_S, "all minutes are rows")
        before = rows(stack, LATE)
        again = answer(stack, "backfill", "--ticker", "QQQ,MSFT", *SPAN)
        assert again["counts"] == {"unchanged": 10}
        assert rows(stack, "SELECT count(*) FROM candle_revisions") == [(0,)]
        assert rows(stack, LATE) == before
        stack.kill("ingest")
        listed = answer(stack, "tickers", "list")
        assert [each["ticker"] for each in listed["tickers"]] == ["QQQ", "NVDA"]
        wrong = stack.kite("tickers", "remove", "IWM")
        assert (wrong.returncode, wrong.stderr) == (1, "kite: not on the list: IWM\n")


def test_days_of_a_file_go_into_a_store_of_files_only(home: Path, tmp_path: Path) -> None:
    """Those before the playing day; a second time nothing is new."""
    recorded = Path(__file__).parents[1] / "data" / "FXY-1min-2023-11.csv"
    lines = recorded.read_text().splitlines()
    old, new = tmp_path / "FXY-old.csv", tmp_path / "FXY-new.csv"
    old.write_text("\n".join([lines[0], *(line for line in lines if line < "2023-11-04")]))
    new.write_text("\n".join([lines[0], *(line for line in lines[1:] if line > "2023-11-06")]))
    with Stack(home, "--csv", str(new), *FREE_PORTS) as stack:
        first, second = (stack.kite("import", str(old)) for _ in range(2))
        assert (first.returncode, first.stdout) == (0, "3 days stored, 0 unchanged, 0 refused\n")
        assert second.stdout == "0 days stored, 3 unchanged, 0 refused\n"
        query = (
            "SELECT count(*) FROM candles WHERE timeframe = '1m' AND \"timestamp\" < '2023-11-04'"
        )
        eventually(lambda: rows(stack, query)[0][0] > 200, DEADLINE_S, "the minutes are rows")
        future = stack.kite("import", str(new))
        assert future.returncode == 1
        assert "not over yet for this store" in future.stderr
    with Stack(home, *FREE_PORTS, KITE_SIM_START=_START) as stack:
        refused = stack.kite("import", str(old))
        assert refused.returncode == 1
        assert "this store holds data of the source demo" in refused.stderr
