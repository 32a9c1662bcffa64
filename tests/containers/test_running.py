"""The demo in containers does what it does elsewhere: rows, live messages, a page; and it lives on.

What they survive is in `test_losses.py`. Needs a Docker daemon (`make containers`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shlex
import urllib.request
from typing import Any

import nats
import pytest

from tests.containers.definitions import (
    HOSTED,
    JOBS,
    LASTING,
    MONITORING,
    OUR_SERVICES,
    define,
)
from tests.containers.project import Project
from tests.containers.weight import too_heavy
from tests.e2e.guide import blocks
from tests.faults.page import Page
from tests.waiting import eventually, eventually_async

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1_800)]

WITHIN_S = 60


def ask(project: Project, path: str) -> Any:
    """What the gateway answers on its published port."""
    url = f"http://127.0.0.1:{project.ports['gateway']}{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def newest_tick(project: Project) -> str:
    """When the latest stored trade was."""
    (newest,) = project.rows("SELECT max(timestamp) FROM equity_data")
    return newest


@pytest.mark.parametrize(
    "environment",
    [{}, {"COMPOSE_PROFILES": "schwab"}, {"COMPOSE_PROFILES": "nano", "KITE_PG_DSN": HOSTED}],
    ids=["demo", "schwab", "nano"],
)
def test_compose_understands_the_profiles_as_we_do(environment: dict[str, str]) -> None:
    """What the other tests read out of the file is what would run."""
    with Project(**environment) as project:
        listed = project.compose("config", "--services").split()
    assert set(listed) == set(define(**environment).services)


def test_rows_arrive(demo: Project) -> None:
    """Ticks, candles with averages, and who computed them, in the container's database."""
    eventually(lambda: int(demo.rows("SELECT count(*) FROM equity_data")[0]), WITHIN_S, "ticks")
    counted = "SELECT count(*) FROM candles WHERE sma9 IS NOT NULL"
    assert int(demo.rows(counted)[0]) > 0
    before = newest_tick(demo)
    eventually(lambda: newest_tick(demo) > before, WITHIN_S, "newer ticks")


def test_live_answers_from_outside(demo: Project) -> None:
    """Whoever has the address hears ticks on the published port, and may not speak."""
    url = demo.init("python", "-m", "deploy.init", "live-url").strip()
    assert f"@127.0.0.1:{demo.ports['nats']}" in url

    async def listen() -> dict[str, Any]:
        refused = asyncio.Event()

        async def on_error(_: Exception) -> None:
            refused.set()

        client = await nats.connect(url, error_cb=on_error)
        try:
            ticks = await client.subscribe("live.tick.>")
            message = await ticks.next_msg(timeout=WITHIN_S)
            await client.publish("live.tick.QQQ", b"{}")
            await client.flush()
            await asyncio.wait_for(refused.wait(), WITHIN_S)
            tick: dict[str, Any] = json.loads(message.data)
            return tick
        finally:
            await client.close()

    assert {"ts_ms", "price"} <= set(asyncio.run(listen()))


def test_the_page_and_its_api_answer(demo: Project) -> None:
    """The gateway's image holds the built page."""
    url = f"http://127.0.0.1:{demo.ports['gateway']}/"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"<script" in answer.read()
    tickers = ask(demo, "/api/v1/tickers")
    assert "QQQ" in json.dumps(tickers)


def test_the_page_moves(demo: Project) -> None:
    """Who has it open is told new ticks over its connection, without asking again."""
    day = dt.date.fromisoformat(ask(demo, "/api/v1/clock")["date"])
    page = Page("QQQ", day, lambda: f"http://127.0.0.1:{demo.ports['gateway']}")

    async def look() -> None:
        page.open()
        try:
            await eventually_async(lambda: page.told > 1, WITHIN_S, "ticks on the page")
        finally:
            await page.close()

    asyncio.run(look())
    assert page.contradictions == []


def test_a_ticker_is_added_while_everything_runs(demo: Project) -> None:
    """By the command of the guide; it streams, its rows come, and it goes again."""

    def ask_ingest(*words: str) -> str:
        return demo.compose("run", "--rm", "-T", "cli", *words)

    added = json.loads(ask_ingest("tickers", "add", "TSLA", "--json"))
    assert added["tickers"][-1]["ticker"] == "TSLA"
    counted = "SELECT count(*) FROM indicators WHERE ticker = 'TSLA'"
    eventually(lambda: int(demo.rows(counted)[0]), WITHIN_S, "ticks of TSLA")
    assert "TSLA" in ask_ingest("tickers", "list")
    assert "removed TSLA" in ask_ingest("tickers", "remove", "TSLA")
    refused = demo.attempt("run", "--rm", "-T", "cli", "up")
    assert refused.returncode == 2
    assert "No such command 'up'" in refused.stderr


def test_the_login_of_the_guide_is_taken_up(demo: Project) -> None:
    """As docs/guides/schwab.md prints it: made in one container, read by the one that runs."""
    *_, printed = blocks("schwab.md", "## Without an account")
    program, compose, *words = shlex.split(printed)
    assert (program, compose) == ("docker", "compose")
    demo.compose(words[0], "-T", *words[1:])

    def taken_over() -> bool:
        return "token.login_taken_over" in demo.compose("logs", "--no-color", "ingest")

    eventually(taken_over, WITHIN_S, "ingest takes the login up")
    status = json.loads(demo.compose("run", "--rm", "-T", "ingest", "auth", "status", "--json"))
    assert status["state"] == "ok", status
    before = newest_tick(demo)
    eventually(lambda: newest_tick(demo) > before, WITHIN_S, "trades go on")


def test_the_jobs_can_run_again(demo: Project) -> None:
    """A second `up` repeats them, changes nothing, and disturbs nobody."""
    before = {name: demo.inspect(name)["Id"] for name in LASTING}
    credentials = demo.init("cat", "/run/kite/init/credentials.json")
    demo.up([*JOBS, *LASTING])
    demo.init()
    assert demo.init("cat", "/run/kite/init/credentials.json") == credentials
    assert {name: demo.inspect(name)["Id"] for name in LASTING} == before


def test_no_log_holds_a_secret(demo: Project) -> None:
    """Not of any container, from its first line on."""
    kept = json.loads(demo.init("cat", "/run/kite/init/credentials.json"))
    said = demo.compose("logs", "--no-color")
    for password in (*kept["nats"].values(), *kept["postgres"].values()):
        assert password not in said


def test_a_stop_is_in_good_order(demo: Project) -> None:
    """Every service of ours drains and ends by itself, and goes on at the next start."""
    demo.compose("stop")
    codes = {name: demo.state(name)["ExitCode"] for name in OUR_SERVICES}
    demo.up(LASTING)
    assert codes == dict.fromkeys(OUR_SERVICES, 0)
    before = newest_tick(demo)
    eventually(lambda: newest_tick(demo) > before, WITHIN_S, "newer ticks after the start")


def test_the_watchers_see_everything(demo: Project) -> None:
    """Prometheus reaches all that it is told to, and understands our rules; who else watches runs.

    Every service of ours that runs is among its targets.
    """
    demo.up(MONITORING)

    def down() -> set[str]:
        targets = watcher(demo, "prometheus", "/api/v1/targets?state=active")["activeTargets"]
        known = {each["labels"]["job"]: each["health"] for each in targets}
        missing = {*OUR_SERVICES, "prometheus", "alertmanager"} - known.keys()
        return missing | {job for job, health in known.items() if health != "up"}

    eventually(lambda: not down(), WITHIN_S, "every target is up")
    groups = watcher(demo, "prometheus", "/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > len(OUR_SERVICES)
    assert not [rule["name"] for rule in rules if rule["health"] == "err"]
    assert watcher(demo, "prometheus", "/api/v1/alertmanagers")["activeAlertmanagers"]


def watcher(project: Project, name: str, path: str) -> Any:
    """What Prometheus says."""
    url = f"http://127.0.0.1:{project.ports[name]}{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def test_it_fits_on_a_small_machine(demo: Project, report: list[str]) -> None:
    """The memory that the containers use after all of the above."""
    assert too_heavy(demo, "at the pace of the market", report) == []
