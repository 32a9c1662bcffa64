"""Tickers added and removed while the socket lives, and what outlives a restart."""

from __future__ import annotations

from collections.abc import Callable

from libs.common.events import Bar, Gap, History, Tick
from services.ingest.desk import Desk
from tests.integration.ingest.desk import answered, command, until
from tests.integration.ingest.stage import DEADLINE_S, Running, Stage
from tests.waiting import eventually_async

Play = Callable[..., None]


def states(desk: Desk) -> dict[str, str]:
    """How each ticker stands."""
    return {each.ticker: each.state for each in desk.feed}


async def streaming(on: Stage, *tickers: str) -> None:
    """Wait until these tickers, and no others, are on the list and all of them stream."""
    wanted = dict.fromkeys(tickers, "streaming")
    await until(on.bus, lambda desk: states(desk) == wanted, f"{tickers} stream")


async def ticks_of(on: Stage, ticker: str) -> None:
    """Wait for a tick of a ticker."""

    async def found() -> bool:
        return any(tick.ticker == ticker for tick in await on.events(Tick))

    await eventually_async(found, DEADLINE_S, f"a tick of {ticker}")


def reconnects(running: Running) -> float:
    """How often the connection was lost."""
    return sum(
        running.metric("kite_ingest_reconnects_total", cause=cause)
        for cause in ("token", "denied", "silence", "evicted", "reconnect")
    )


def test_a_ticker_comes_and_goes_on_the_living_socket(play: Play) -> None:
    """Ticks, bars and the minutes before them; no reconnect; afterwards nothing more."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_TICKERS="QQQ,SPY") as running:
            await streaming(on, "QQQ", "SPY")
            answer = await answered(on.bus, "tickers-add", tickers=["NVDA"])
            assert (answer.ok, answer.text) == (True, "added NVDA; 3 tickers")
            await streaming(on, "QQQ", "SPY", "NVDA")
            await ticks_of(on, "NVDA")
            histories = await on.until(History, 6)
            assert {history.ticker for history in histories} == {"QQQ", "SPY", "NVDA"}
            answer = await answered(on.bus, "tickers-remove", tickers=["SPY"])
            assert (answer.ok, answer.text) == (True, "removed SPY; 2 tickers")
            await streaming(on, "QQQ", "NVDA")
            spy = [bar for bar in await on.events(Bar) if bar.ticker == "SPY"]
            nvda = [bar for bar in await on.events(Bar) if bar.ticker == "NVDA"]
            await eventually_async(
                lambda: _more_bars(on, "NVDA", len(nvda) + 2), DEADLINE_S, "bars of NVDA"
            )
            assert [bar for bar in await on.events(Bar) if bar.ticker == "SPY"] == spy
            assert reconnects(running) == 0
            assert not await on.dead_letters()
        added = [gap for gap in await on.events(Gap) if gap.ticker == "NVDA"]
        assert {gap.cause for gap in added} == {"added"}

    play(scenario, speed=120)


async def _more_bars(on: Stage, ticker: str, count: int) -> bool:
    return sum(bar.ticker == ticker for bar in await on.events(Bar)) >= count


def test_every_ticker_can_be_exchanged_without_an_empty_subscription(play: Play) -> None:
    """The last key leaves only when the first new one is there, or the broker would hang up."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_TICKERS="QQQ") as running:
            await streaming(on, "QQQ")
            await command(on.bus, "tickers-add", tickers=["SPY", "IWM"])
            await command(on.bus, "tickers-remove", tickers=["QQQ"])
            await streaming(on, "SPY", "IWM")
            answer = await answered(on.bus, "tickers-remove", tickers=["SPY", "IWM"])
            assert not answer.ok
            assert "one ticker has to stay" in answer.text
            assert reconnects(running) == 0

    play(scenario)


def test_the_list_outlives_a_restart_and_follows_the_setting(play: Play) -> None:
    """What was added stays; a ticker taken out of KITE_TICKERS goes, one put into it comes."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_TICKERS="QQQ,SPY"):
            await answered(on.bus, "tickers-add", tickers=["NVDA"])
            await answered(on.bus, "tickers-remove", tickers=["SPY"])
        async with on.ingest(KITE_TICKERS="QQQ,SPY"):
            await streaming(on, "QQQ", "NVDA")
        async with on.ingest(KITE_TICKERS="IWM,SPY"):
            await streaming(on, "IWM", "NVDA")

    play(scenario)


def test_the_order_of_the_list_decides_who_is_dropped(play: Play) -> None:
    """The broker says how many it takes; the first of the list are kept, and it is said."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_TICKERS="QQQ,SPY,IWM") as running:
            desk = await until(
                on.bus,
                lambda now: states(now).get("SPY") == "streaming",
                "the first two stream",
            )
            assert states(desk) == {"QQQ": "streaming", "SPY": "streaming", "IWM": "dropped"}
            assert desk.caps == {"CHART_EQUITY": 2}
            last = desk.feed[-1]
            assert (last.ticks, last.bars) == (True, False)
            assert last.reason == "the broker sends minute bars of 2 tickers at most"
            assert running.metric("kite_ingest_tickers_streaming") == 2
            answer = await answered(on.bus, "tickers-add", tickers=["NVDA"], first=True)
            assert answer.text.endswith("minute bars of 2 at most: without SPY, IWM")
            await until(
                on.bus,
                lambda now: states(now) == {
                    "NVDA": "streaming", "QQQ": "streaming", "SPY": "dropped", "IWM": "dropped",
                },
                "the new first one took the place of the last that had one",
            )  # fmt: skip
            assert reconnects(running) == 0

    play(scenario, charts_max=2)


def test_bad_commands_are_put_aside_and_the_next_one_is_taken(play: Play) -> None:
    """What cannot be understood is a dead letter with its reason, and is answered."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_TICKERS="QQQ") as running:
            await on.bus.append("commands.ingest", b"\xff no json")
            await command(on.bus, "sell-everything")
            await command(on.bus, "tickers-add", tickers=["qqq; drop table"])
            await command(on.bus, "tickers-add", symbols=["SPY"])
            answer = await answered(on.bus, "tickers-add", tickers=["SPY"])
            assert answer.ok
            letters = await on.dead_letters()
            assert [letter["reason"] for letter in letters] == ["bad_command"] * 4
            details = [letter["detail"] for letter in letters]
            assert details[0].startswith("not a command")
            assert details[1].startswith("ingest knows no command 'sell-everything'; it knows")
            assert all("tickers" in detail for detail in details[2:])
            assert running.metric("kite_ingest_commands_total", outcome="bad") == 4

    play(scenario)


def test_a_command_with_a_known_id_is_done_once(play: Play) -> None:
    """Whoever did not get an answer may ask again, and a ticker removed meanwhile stays away."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_TICKERS="QQQ") as running:
            first = await answered(on.bus, "tickers-add", "once", tickers=["SPY"])
            await answered(on.bus, "tickers-remove", tickers=["SPY"])
            again = await answered(on.bus, "tickers-add", "once", tickers=["SPY"])
            assert again == first
            await streaming(on, "QQQ")
            assert running.metric("kite_ingest_commands_total", outcome="repeated") == 1

    play(scenario)
