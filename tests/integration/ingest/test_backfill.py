"""Weeks of minutes that somebody asked for: within the budget, over kill -9, without repeats."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from libs.common import calendar
from libs.common.events import History
from services.ingest.desk import Desk
from services.ingest.orders import Order
from tests.integration.ingest.desk import answered, command, until
from tests.integration.ingest.stage import DEADLINE_S, Process, Stage
from tests.waiting import eventually_async

Play = Callable[..., None]

# The simulator's today is 2026-11-20; the list has one ticker only, which wants two days itself.
WEEK = {"from": "2026-11-09", "to": "2026-11-13"}
LISTED = {"KITE_TICKERS": "QQQ"}


def order_of(desk: Desk) -> Order:
    """The newest order."""
    return desk.orders[-1]


async def done(on: Stage, count: int = 1) -> Order:
    """Wait until so many orders are done, and return the last."""

    def all_done(desk: Desk) -> bool:
        return [order.state for order in desk.orders] == ["done"] * count

    return order_of(await until(on.bus, all_done, f"{count} orders are done"))


async def histories(on: Stage) -> Counter[tuple[str, str]]:
    """How often each ticker's day was published."""
    return Counter(
        (each.ticker, calendar.day_of(each.day_ms).isoformat()) for each in await on.events(History)
    )


def days(*tickers: str) -> set[tuple[str, str]]:
    """The days of WEEK for some tickers."""
    return {(ticker, f"2026-11-{day:02}") for ticker in tickers for day in range(9, 14)}


def test_days_are_fetched_and_a_second_time_nothing_is_new(play: Play) -> None:
    """Each day once as a History; asked again, every day is compared and none published."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(**LISTED) as running:
            await until(on.bus, lambda desk: desk.feed[0].state == "streaming", "broker time")
            answer = await answered(on.bus, "backfill", "a", tickers=["SPY", "IWM"], **WEEK)
            assert answer.text == "a: 10 days of 2 tickers to ask for"
            order = await done(on)
            assert (order.counts, order.lines) == ({"stored": 10}, ())
            published = await histories(on)
            assert {key for key in published if key[0] != "QQQ"} == days("SPY", "IWM")
            await on.until_settled()
            before = await histories(on)
            await command(on.bus, "backfill", "b", tickers=["SPY", "IWM"], **WEEK)
            assert (await done(on, 2)).counts == {"unchanged": 10}
            assert await histories(on) == before
            assert running.metric("kite_ingest_backfill_days_total", outcome="stored") == 10
            assert running.metric("kite_ingest_backfill_days_left") == 0
        async with on.ingest(**LISTED):
            await command(on.bus, "backfill", "c", tickers=["IWM"], **WEEK)
            assert (await done(on, 3)).counts == {"unchanged": 5}, "a restart remembers the days"
        assert {k: n for k, n in (await histories(on)).items() if k[0] != "QQQ"} == dict.fromkeys(
            days("SPY", "IWM"), 1
        )

    play(scenario)


def test_what_cannot_be_had_is_one_line_each(play: Play) -> None:
    """Too old, not over, a holiday, an unknown symbol."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(**LISTED):
            await until(on.bus, lambda desk: desk.feed[0].state == "streaming", "broker time")
            refused = [
                await answered(on.bus, "backfill", tickers=["SPY"], **arguments)
                for arguments in (
                    {"from": "2026-11-14", "to": "2026-11-15"},
                    {"from": "2026-08-03", "to": "2026-08-07"},
                    {"from": "2026-11-20", "to": "2026-11-20"},
                    {"from": "2026-11-19", "to": "2026-11-18"},
                )
            ]
            assert not any(answer.ok for answer in refused)
            assert [answer.text for answer in refused] == [
                "no trading day in 2026-11-14 to 2026-11-15",
                "2026-08-03 to 2026-08-07: beyond the 45 days of minutes that the broker keeps; "
                "left out",
                "2026-11-20: is not over; the stream and its gaps bring those minutes",
                "--from 2026-11-19 is later than --to 2026-11-18",
            ]
            await command(on.bus, "backfill", tickers=["SPY"], **{"from": "2026-09-01"})
            order = await done(on)
            assert order.lines == (
                "2026-09-01 to 2026-10-05: beyond the 45 days of minutes that the broker keeps; "
                "left out",
            )
            assert order.counts == {"stored": order.units}

    play(scenario)


@pytest.mark.parametrize("answer", ["404", "empty"])
def test_an_unknown_symbol_is_one_line(play: Play, tmp_path: Path, answer: str) -> None:
    """However the broker says it; the other tickers get their days."""
    files = []
    for ticker in ("QQQ", "SPY"):
        rows = [
            f"2026-11-{day:02}T15:{minute:02}:00Z,10,11,9,10,100"
            for day in (16, 17, 18, 19, 20)
            for minute in range(60)
        ]
        file = tmp_path / f"{ticker}-bars.csv"
        file.write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]))
        files.append(str(file))

    async def scenario(on: Stage) -> None:
        async with on.ingest(**LISTED):
            await until(on.bus, lambda desk: desk.feed[0].state == "streaming", "broker time")
            span = {"from": "2026-11-16", "to": "2026-11-19"}
            await command(on.bus, "backfill", tickers=["NOPE", "SPY"], **span)
            order = await done(on)
        why = "the broker has no such history" if answer == "404" else "no minute on any of these"
        assert len(order.lines) == 1
        assert order.lines[0].startswith(f"NOPE: {why}")
        assert order.counts == {"stored": 4, "refused" if answer == "404" else "empty": 4}

    play(scenario, csv=tuple(files), unknown_symbol=answer, start="2026-11-20T10:05", speed=1)


def test_an_order_can_be_cancelled_and_joined(play: Play) -> None:
    """The same request while it is under way is the same work; a cancelled one stops."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(**LISTED, KITE_INGEST_REQUESTS_PER_MINUTE_MAX="8"):
            await until(on.bus, lambda desk: desk.feed[0].state == "streaming", "broker time")
            await answered(on.bus, "backfill", "slow", tickers=["SPY", "IWM"], **WEEK)
            again = await answered(on.bus, "backfill", "other", tickers=["SPY", "IWM"], **WEEK)
            assert again.ok
            assert again.text.startswith("slow: under way already")
            answer = await answered(on.bus, "backfill-cancel")
            assert answer.text == "cancelled slow"
            desk = await until(on.bus, lambda now: now.orders[0].state == "cancelled", "the end")
            assert len(desk.orders) == 1
            assert not (await answered(on.bus, "backfill-cancel")).ok

    play(scenario)


@pytest.mark.parametrize(
    "point", ["ingest.publish.sent", "ingest.publish.stored", "ingest.command.before",
              "ingest.command.stored", None],
)  # fmt: skip
def test_a_kill_in_the_middle_loses_and_repeats_nothing(
    play: Play, start: Callable[..., Process], point: str | None
) -> None:
    """Each day is published exactly once, whenever the process dies."""

    async def scenario(on: Stage) -> None:
        armed = on.home / "failpoint"
        environment = {**LISTED, "KITE_FAILPOINT_FILE": str(armed)}
        process = start(on, **environment)
        await until(on.bus, lambda desk: desk.feed[0].state == "streaming", "it streams")
        await on.until_settled()
        await command(on.bus, "backfill", "x", tickers=["SPY", "IWM"], **WEEK)
        for died in range(3):
            await eventually_async(
                partial(_so_many, on, 3 * died), DEADLINE_S, "some days are published"
            )
            if point is None:
                process.kill()
            else:
                arm(armed, point)
                await asyncio.to_thread(process.popen.wait, DEADLINE_S)
            process = start(on, **environment)
        order = await done(on)
        assert order.finished == order.units == 10
        await begun(process)
        assert process.terminate() == 0
        published = await histories(on)
        assert {key: n for key, n in published.items() if key[0] != "QQQ"} == dict.fromkeys(
            days("SPY", "IWM"), 1
        )

    async def _so_many(on: Stage, count: int) -> bool:
        return sum(n for key, n in (await histories(on)).items() if key[0] != "QQQ") >= count

    play(scenario)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start processes that never outlive the test: they would go on with the next one's streams."""
    started: list[Process] = []

    def run(on: Stage, **environment: str) -> Process:
        started.append(on.process(**environment))
        return started[-1]

    yield run
    for process in started:
        process.kill()


async def begun(process: Process) -> None:
    """Wait until this process is at work; its log is that of all its lives."""

    def at_work() -> bool:
        started, recalled = process.said("service.started"), process.said("ingest.recalled")
        return bool(recalled) and (
            started[-1]["pid"] == process.popen.pid
            and recalled[-1]["timestamp"] > started[-1]["timestamp"]
        )

    await eventually_async(at_work, DEADLINE_S, "it is at work")


def arm(file: Path, point: str) -> None:
    """Let the next process that reaches a point die there."""
    written = file.with_suffix(".new")
    written.write_text(point)
    written.replace(file)


def test_a_command_is_done_once_over_a_kill(play: Play, start: Callable[..., Process]) -> None:
    """Dead before it is on record: done by the next life. Dead after: not done again."""

    async def scenario(on: Stage) -> None:
        armed = on.home / "failpoint"
        environment = {**LISTED, "KITE_FAILPOINT_FILE": str(armed)}
        for number, point in enumerate(("ingest.command.before", "ingest.command.stored")):
            process = start(on, **environment)
            await begun(process)
            arm(armed, point)
            ticker = ("SPY", "IWM")[number]
            seq = await command(on.bus, "tickers-add", tickers=[ticker])
            await asyncio.to_thread(process.popen.wait, DEADLINE_S)
            process = start(on, **environment)
            desk = await until(on.bus, lambda now, s=seq: now.commands_seq == s, "it is taken")
            assert desk.tickers[-1] == ticker
            answers = [answer for answer in desk.answers if answer.seq == seq]
            assert [answer.text for answer in answers] == [f"added {ticker}; {number + 2} tickers"]
            await begun(process)
            assert process.terminate() == 0

    play(scenario)
