"""What hurts people who use Schwab's API, one test for each: named after it, and mended.

| pain | test |
|---|---|
| a login ends after seven days | `test_seven_day_login` |
| a client made by a login cannot refresh | `test_login_flow_client_dies` |
| the token file is torn | `test_token_file_torn` |
| the socket dies and stays dead | `test_socket_dies_no_reconnect` |
| a second session evicts the first | `test_second_session_evicts_first` |
| the broker hangs up on an empty subscription | `test_empty_subscription_stop` |
| an unanswered command wedges the client | `test_unanswered_command_wedges_client` |
| a handler's exception costs data, sockets stay open | `test_handler_exceptions_and_no_close` |
| a silent feed on a live socket | `test_silent_feed_with_live_socket` |
| ticks and bars are missing after a reconnect | `test_missing_ticks_and_bars_after_reconnect` |
| today's history is missing | `test_todays_history_missing` |
| a range within a day is ignored | `test_intraday_range_ignored` |
| field maps are wrong | `test_wrong_field_maps` |
| there is no time and sales | `test_no_time_and_sales` |
| a slow consumer goes stale | `test_slow_consumer_goes_stale` |

Callbacks that do not match are the simulator's (`tests/unit/simulator/test_oauth.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from libs.common import calendar
from libs.common.clock import SystemClock
from libs.common.events import Bar, Gap, History, Tick
from services.ingest.budget import RequestBudget
from services.ingest.schwab import Account
from tests.integration.ingest.stage import DEADLINE_S, TICKERS, Running, Stage
from tests.schwab_client import KEY, SECRET
from tests.waiting import eventually_async

pytestmark = pytest.mark.soak

Play = Callable[..., None]

T = TypeVar("T", Tick, Bar)

HOUR_MS = 3_600_000


async def ended(running: Running, cause: str, times: int = 1) -> None:
    """Wait until connections have ended that often for a cause."""
    await eventually_async(
        lambda: running.metric("kite_ingest_reconnects_total", cause=cause) >= times,
        DEADLINE_S, f"{times} ended by {cause}",
    )  # fmt: skip


async def more(on: Stage, kind: type[T], number: int = 3) -> None:
    """Wait for some more events of a kind."""
    await on.until(kind, len(await on.events(kind)) + number)


async def asks_for_a_login(running: Running) -> None:
    """Wait until readiness says that the token is the reason."""
    await eventually_async(
        lambda: running.runtime.health.reasons.get("schwab", "").startswith("token"),
        DEADLINE_S, "somebody has to log in",
    )  # fmt: skip


def test_seven_day_login(play: Play) -> None:
    """The week is over: it stays up, says so, and goes on with the next login by itself."""

    async def scenario(on: Stage) -> None:
        week_ms = 60_000  # a short week
        began_ms = on.simulation.now_ms()
        async with on.ingest() as running:
            await on.until(Tick, 3)
            await on.wait_for_broker_ms(began_ms + week_ms)
            await on.broker.faults(next={"drop": 1})
            await asks_for_a_login(running)
            assert running.metric("kite_ingest_token_refreshes_total", outcome="refused") > 0
            assert not running.task.done()
            await on.log_in()
            await more(on, Tick)
            assert {frame.epoch for _, frame in await on.frames()} == {1}, "no restart"

    play(scenario, refresh_token_s=60, speed=20)


def test_login_flow_client_dies(play: Play) -> None:
    """Access tokens end one after the other; the client can renew them for as long as it lives."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 3)
            for times in (1, 2, 3):
                await on.broker.faults(next={"drop": 1})
                await ended(running, "reconnect", times)
                await more(on, Tick)
            assert running.metric("kite_ingest_token_refreshes_total", outcome="renewed") >= 3
            assert running.metric("kite_ingest_reconnects_total", cause="token") == 0

    play(scenario, access_token_s=10, speed=20)


@pytest.mark.parametrize("content", [b"", b'{"creation_timestamp": 17', b"[]", b"\x00" * 200])
def test_token_file_torn(play: Play, content: bytes) -> None:
    """One clear line, nothing overwritten, and on it goes when the file is whole."""

    async def scenario(on: Stage) -> None:
        path = on.home / "token.json"
        whole = await asyncio.to_thread(path.read_bytes)
        await asyncio.to_thread(path.write_bytes, content)
        async with on.ingest() as running:
            await asks_for_a_login(running)
            assert "log in" in running.runtime.health.reasons["schwab"]
            assert await asyncio.to_thread(path.read_bytes) == content
            await asyncio.to_thread(path.write_bytes, whole)
            await on.until(Tick, 3)

    play(scenario)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"next": {"drop": 1}}, "reconnect"),
        ({"next": {"close": 1}}, "reconnect"),
        ({"next": {"stop": 1}}, "stopped"),
        ({"no_pongs": True}, "reconnect"),
    ],
    ids=["1006", "1000", "code 30", "1011"],
)
def test_socket_dies_no_reconnect(play: Play, fault: dict[str, Any], cause: str) -> None:
    """Without a close frame, with one, with a notice, without pongs: a new socket each time."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_INGEST_PING_MS="200") as running:
            await on.until(Tick, 3)
            await on.broker.faults(**fault)
            await ended(running, cause)
            await on.broker.faults("DELETE")
            await more(on, Tick)
            await on.until_settled()
        await on.check_bars()

    play(scenario, speed=60)


def test_second_session_evicts_first(play: Play) -> None:
    """No fight: it stays away, says why and that it does, and comes back much later."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_INGEST_EVICTED_PAUSE_MS="1500") as running:
            await on.until(Tick, 3)
            async with await on.broker.stream():
                await ended(running, "evicted")
                assert running.metric("kite_ingest_evicted") == 1
                assert running.runtime.health.reasons["schwab"] == (
                    "evicted: the broker says code 12 CLOSE_CONNECTION"
                )
                assert on.logins() == 2
            await more(on, Tick)
            assert running.metric("kite_ingest_evicted") == 0
            assert on.logins() == 3

    play(scenario)


def test_empty_subscription_stop(play: Play) -> None:
    """There is something to send from the first moment, so the broker has no reason to hang up."""

    async def scenario(on: Stage) -> None:
        began_ms = on.simulation.now_ms()
        async with on.ingest() as running:
            await on.until(Tick, 3)
            await on.wait_for_broker_ms(began_ms + 3 * 60_000)  # three times as long as it waits
            assert on.logins() == 1
            assert running.metric("kite_ingest_connected") == 1

    play(scenario, empty_stop_s=1, speed=60)


@pytest.mark.parametrize("skip", [0, 1, 2], ids=["login", "level one", "bars"])
def test_unanswered_command_wedges_client(play: Play, skip: int) -> None:
    """Whichever command stays without an answer: a new connection, and nothing is missing."""

    async def scenario(on: Stage) -> None:
        await on.broker.faults(next={"swallow_ack": 1}, skip={"swallow_ack": skip})
        async with on.ingest(KITE_INGEST_ANSWER_MS_MAX="500") as running:
            await on.until(Tick, 3)
            await ended(running, "reconnect")
            await more(on, Bar)
            await on.until_settled()
        await on.check_bars()

    play(scenario, speed=60)


@pytest.mark.parametrize(
    ("code", "cause"),
    [(9, "refused"), (11, "refused"), (20, "refused"), (21, "refused"), (22, ""), (24, "")],
)
def test_a_command_that_fails(play: Play, code: int, cause: str) -> None:
    """A failure without a reason is tried once more on the same socket; others on a new one."""

    async def scenario(on: Stage) -> None:
        await on.broker.faults(next={"fail_command": 1}, skip={"fail_command": 1}, fail_code=code)
        async with on.ingest() as running:
            await on.until(Tick, 3)
            await eventually_async(lambda: running.runtime.health.ready, DEADLINE_S, "ready")
            assert running.metric("kite_ingest_reconnects_total", cause="refused") == bool(cause)
            assert on.logins() == (2 if cause else 1)
            assert running.metric("kite_ingest_token_refreshes_total", outcome="renewed") <= 20

    play(scenario, speed=1)


def test_handler_exceptions_and_no_close(play: Play) -> None:
    """Garbage between good frames costs nothing but itself, and old sockets are closed."""

    async def scenario(on: Stage) -> None:
        await on.broker.faults(every_s={"hostile": 3, "malformed": 5})
        async with on.ingest() as running:
            await on.until(Tick, 30)
            assert on.logins() == 1, "no garbage ends a connection"
            assert running.metric("kite_ingest_dead_letters_total") > 0
            await on.broker.faults("PUT", next={"close": 1})
            await ended(running, "reconnect")
            await more(on, Tick)
            await eventually_async(lambda: on.connections() == 1, DEADLINE_S, "one socket")
        await eventually_async(lambda: on.connections() == 0, DEADLINE_S, "no socket")

    play(scenario, speed=60)


@pytest.mark.parametrize("heartbeats", [False, True], ids=["dead silent", "heartbeats only"])
def test_silent_feed_with_live_socket(play: Play, heartbeats: bool) -> None:
    """Noticed by the frame that stays away, or by the data that does."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_INGEST_SILENCE_MS="700", KITE_INGEST_FROZEN_MS="300") as running:
            await eventually_async(
                lambda: running.metric("kite_ingest_wire_frames_total") > 150, DEADLINE_S, "data"
            )
            await on.broker.faults(freeze_data=True, no_heartbeats=not heartbeats)
            await ended(running, "silence")
            await on.broker.faults("DELETE")
            await more(on, Tick)
        assert "silence" in {gap.cause for gap in await on.events(Gap)}

    play(scenario, speed=100)


def test_an_unexpected_close_is_no_silent_feed(play: Play) -> None:
    """Data stops because the market does: before it hangs up, it asks, and stays."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_INGEST_FROZEN_MS="300") as running:
            await eventually_async(
                lambda: running.metric("kite_ingest_wire_frames_total") > 150, DEADLINE_S, "data"
            )
            await on.broker.faults(freeze_data=True, early_days=["2026-11-20"])
            await eventually_async(
                lambda: "09:30 to 13:00" in running.runtime.health.notes.get("market hours", ""),
                DEADLINE_S, "it asked",
            )  # fmt: skip
            frames = running.metric("kite_ingest_wire_frames_total")
            await eventually_async(
                lambda: running.metric("kite_ingest_wire_frames_total") > frames + 20,
                DEADLINE_S, "heartbeats",
            )  # fmt: skip
            assert running.metric("kite_ingest_reconnects_total", cause="silence") == 0
            assert running.metric("kite_ingest_closed_unexpectedly") == 1
            assert "schwab" not in running.runtime.health.reasons

    play(scenario, speed=100, start="2026-11-20T13:30")


def test_missing_ticks_and_bars_after_reconnect(play: Play) -> None:
    """Bars come from price history, ticks cannot: both are named, and no key is there twice."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Bar, 3)
            await on.broker.faults(next={"drop": 1})
            await ended(running, "reconnect")
            await more(on, Bar)
            await on.until_settled()
        gaps = [gap for gap in await on.events(Gap) if gap.cause == "reconnect"]
        assert {gap.state for gap in gaps if gap.series == "ticks"} == {"unfillable"}
        assert {gap.ticker for gap in gaps if gap.series == "ticks"} == set(TICKERS)
        await on.check_bars()

    play(scenario, speed=60)


def test_todays_history_missing(play: Play) -> None:
    """The end is always named, because without it history ends with the day before."""

    async def scenario(on: Stage) -> None:
        async with on.ingest():
            await on.until_settled()
            histories = await on.until(History, 6)
        today_ms = calendar.day_start_ms(on.simulation.now_ms())
        today = {each.ticker: each for each in histories if each.day_ms == today_ms}
        assert set(today) == set(TICKERS)
        assert all(len(each.bars) >= 209 for each in today.values())  # 07:00 to 10:30

    play(scenario)


@pytest.mark.parametrize("whole_days", [True, False])
def test_intraday_range_ignored(play: Play, whole_days: bool) -> None:
    """An hour was asked for; an hour is what there is, whatever the broker answers."""

    async def scenario(on: Stage) -> None:
        session = calendar.session_at(on.simulation.now_ms())
        assert session is not None
        budget = RequestBudget(100, SystemClock())
        account = Account(KEY, SECRET, on.home / "token.json", on.broker.url, budget=budget)
        try:
            bars, bad = await account.minutes("QQQ", session.open_ms, session.open_ms + HOUR_MS)
        finally:
            await account.forget_client()
        assert bars is not None
        assert bad == 0
        assert [bar.ts_ms for bar in bars] == list(
            range(session.open_ms, session.open_ms + HOUR_MS, 60_000)
        )

    play(scenario, history_whole_days=whole_days, start="2026-11-20T12:00")


def test_wrong_field_maps(play: Play) -> None:
    """Prices, volumes and times of the stream are those that the broker's own history has."""

    async def scenario(on: Stage) -> None:
        async with on.ingest():
            await on.until(Bar, 12)
            await on.until_settled()
        await on.check_bars()  # open, high, low, close, volume, minute
        await on.check_ticks()  # last price, total volume
        quotes = [tick for tick in await on.events(Tick) if tick.bid and tick.ask]
        assert quotes
        assert all(tick.bid <= tick.ask for tick in quotes if tick.bid and tick.ask)

    play(scenario, speed=120)


def test_no_time_and_sales(play: Play) -> None:
    """What was traded between two ticks is the growth of the day's volume, not the last size."""

    async def scenario(on: Stage) -> None:
        async with on.ingest():
            await on.until(Tick, 60)
        for ticker in TICKERS:
            ticks = [tick for tick in await on.events(Tick) if tick.ticker == ticker]
            grown = ticks[-1].total_volume - ticks[0].total_volume
            assert sum(tick.volume for tick in ticks[1:]) == grown
            assert grown > 0

    play(scenario, speed=60)


def test_slow_consumer_goes_stale(play: Play) -> None:
    """Frames that come late and all at once are late, not lost, and how late can be seen."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 3)
            lag_ms = running.metric("kite_ingest_lag_ms")
            await on.broker.faults(next={"stall": 1}, stall_s=2.5)

            async def late() -> bool:
                """The metric is back within milliseconds; frames keep how late they were."""
                return any(
                    frame.received_ms - frame.sent_ms > lag_ms + 1_000
                    for _, frame in await on.frames()
                )

            await eventually_async(late, DEADLINE_S, "a frame that was late")
            await eventually_async(
                lambda: running.metric("kite_ingest_lag_ms") < lag_ms + 500, DEADLINE_S, "no lag"
            )
            await more(on, Tick)
        await on.check_ticks()

    play(scenario, speed=1)
