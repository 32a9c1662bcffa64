"""What sources disagree about, each way: ingest does not depend on how the broker really does it.

| unsettled | switch of the simulator |
|---|---|
| the refresh token stays or rotates | `rotate_refresh_token` |
| after a rotation the one before lives or ends | `refresh_token_once` |
| a login ends earlier refresh tokens | `login_ends_older` |
| success is 0, or 26 to 29 | `success_codes` |
| 19 and 24 come in two frames or one | `limit_in_one_frame` |
| the text of a 19 names the cap or not | `limit_named` |
| the cap of level one, and of bars | `equities_max`, `charts_max` |
| minutes go back 45, 48 or 90 days | `minute_depth_days` |
| a second connection is tolerated | `connections_max` |
| the body of a 429, and whether it says when to come back | `too_many_body`, `retry_after_s` |
| a code lives 30 or 60 s | `code_s` |
| how the socket ends after code 12 or 30 | `close_code` |
| history of an unknown symbol is empty, or 404 | `unknown_symbol` |
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest

from libs.common import calendar
from libs.common.events import Bar, Gap, History, Tick
from tests.integration.ingest.stage import DEADLINE_S, TICKERS, Running, Stage
from tests.waiting import eventually_async

pytestmark = pytest.mark.soak

Play = Callable[..., None]

both = pytest.mark.parametrize("switch", [False, True], ids=["off", "on"])


async def reconnected(running: Running, cause: str, times: int = 1) -> None:
    """Wait until connections have ended that often for a cause, and it is connected again."""
    await eventually_async(
        lambda: (
            running.metric("kite_ingest_reconnects_total", cause=cause) >= times
            and running.metric("kite_ingest_connected") == 1
        ),
        DEADLINE_S,
        f"{cause}, and back",
    )


async def refreshes(running: Running, outcome: str, times: int) -> None:
    """Wait for that many tries to fetch an access token."""
    await eventually_async(
        lambda: running.metric("kite_ingest_token_refreshes_total", outcome=outcome) >= times,
        DEADLINE_S,
        f"{times} {outcome}",
    )


@pytest.mark.parametrize(
    ("rotates", "once"),
    [(False, False), (True, False), (True, True)],
    ids=["stays", "rotates", "once"],
)
def test_rotation_of_the_refresh_token(play: Play, rotates: bool, once: bool) -> None:
    """Three access tokens one after the other; what is on disk is good for the next process."""

    async def scenario(on: Stage) -> None:
        first = on.token_file.read()
        async with on.ingest() as running:
            await on.until(Tick, 3)
            for times in (1, 2, 3):
                await on.broker.login()  # ends the access token that ingest has
                await on.broker.faults(next={"drop": 1})
                await reconnected(running, "reconnect", times)
                await refreshes(running, "renewed", times)
        last = on.token_file.read()
        assert (last["token"]["refresh_token"] != first["token"]["refresh_token"]) is rotates
        assert last["creation_timestamp"] == first["creation_timestamp"]
        count = len(await on.events(Tick))
        await on.broker.login()
        async with on.ingest() as running:
            await on.until(Tick, count + 3)
            assert running.metric("kite_ingest_token_refreshes_total", outcome="refused") == 0

    # At the pace of real life, because the library renews what lives less than five minutes.
    play(scenario, rotate_refresh_token=rotates, refresh_token_once=once, speed=1)


@both
def test_a_login_elsewhere_and_the_older_refresh_token(play: Play, switch: bool) -> None:
    """If it dies, somebody is told, and a new login is taken up; if not, nothing happens."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 3)
            await on.broker.login()
            await on.broker.faults(next={"drop": 1})
            if switch:
                await refreshes(running, "refused", 1)
                await eventually_async(
                    lambda: "token" in running.runtime.health.reasons.get("schwab", ""),
                    DEADLINE_S, "somebody has to log in",
                )  # fmt: skip
                await on.log_in()
            await reconnected(running, "reconnect")
            await on.until(Tick, len(await on.events(Tick)) + 3)

    play(scenario, login_ends_older=switch)


@both
def test_codes_of_success(play: Play, switch: bool) -> None:
    """26 to 29 are as good as 0."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Bar, 3)
            await on.until_settled()
            assert running.metric("kite_ingest_reconnects_total", cause="refused") == 0
        await on.check_bars()
        await on.check_ticks()

    play(scenario, success_codes=switch, speed=60)


async def seen(on: Stage, since_ms: int) -> tuple[set[str], set[str]]:
    """Tickers with ticks, and those with bars of the stream, since an instant."""
    ticking = {tick.ticker for tick in await on.events(Tick) if tick.ts_ms > since_ms}
    return ticking, {bar.ticker for bar in await on.events(Bar) if bar.ts_ms > since_ms}


@pytest.mark.parametrize("one_frame", [False, True], ids=["two frames", "one frame"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("feed", ["LEVELONE_EQUITIES", "CHART_EQUITY"])
def test_a_cap_on_symbols(play: Play, feed: str, named: bool, one_frame: bool) -> None:
    """The first of the list are kept, the last is left out, and it is said in three places."""
    cap = {"LEVELONE_EQUITIES": "equities_max", "CHART_EQUITY": "charts_max"}[feed]
    kept = 2 if named else 1  # without a number the list is halved until it is taken

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 4)
            await eventually_async(lambda: running.runtime.health.ready, DEADLINE_S, "ready")
            left_out = ", ".join(TICKERS[kept:])
            assert running.runtime.health.notes == {
                feed: f"the broker takes {kept} symbols; without, from the end of the list: "
                f"{left_out}"
            }
            assert running.metric("kite_ingest_symbols_left_out", feed=feed) == 3 - kept
            # The next connection of the day asks for as many as there is room for.
            await on.broker.faults(next={"drop": 1})
            await reconnected(running, "reconnect")
            # Before the cap was known, the broker itself had chosen.
            since_ms = on.simulation.now_ms()

            async def all_seen() -> bool:
                ticking, barred = await seen(on, since_ms)
                return len(ticking) + len(barred) >= kept + len(TICKERS)

            await eventually_async(all_seen, DEADLINE_S, "bars and ticks")
            await on.until_settled()
        ticking, barred = await seen(on, since_ms)
        assert (ticking if feed == "LEVELONE_EQUITIES" else barred) == set(TICKERS[:kept])
        assert (barred if feed == "LEVELONE_EQUITIES" else ticking) == set(TICKERS)
        # Whoever has no bars of the stream has those of price history.
        assert {history.ticker for history in await on.events(History)} == set(TICKERS)
        await on.check_bars()

    play(scenario, limit_named=named, limit_in_one_frame=one_frame, speed=120, **{cap: 2})


def test_a_cap_is_no_cap_when_it_is_large_enough(play: Play) -> None:
    """The other way: exactly as many as there are tickers."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 4)
            await eventually_async(lambda: running.runtime.health.ready, DEADLINE_S, "ready")
            assert running.runtime.health.notes == {}

    play(scenario, equities_max=3, charts_max=3)


@pytest.mark.parametrize("days", [45, 48, 90])
def test_depth_of_minutes(play: Play, days: int) -> None:
    """After two months away: what is older than any answer stands as lost, the rest is there."""

    async def before(on: Stage) -> None:
        async with on.ingest():
            await on.until(Bar, 3)
            await on.until_settled()

    async def after(on: Stage) -> None:
        async with on.ingest():
            await on.until(Bar, len(await on.events(Bar)) + 3)
            await on.until_settled()
        gaps = [gap for gap in await on.events(Gap) if gap.series == "bars"]
        lost = {gap.ticker: gap for gap in gaps if gap.state == "unfillable"}
        assert set(lost) == set(TICKERS)
        end = calendar.day_of(lost["QQQ"].to_ms)
        filled = {calendar.day_of(gap.from_ms) for gap in gaps if gap.state == "filled"}
        sessions = {item.day for item in calendar.sessions(end, dt.date(2026, 11, 20))}
        assert sessions <= filled
        assert len(sessions) > 25

    play(before, start="2026-09-18T10:30", minute_depth_days=days, speed=60)
    play(after, start="2026-11-20T10:30", minute_depth_days=days, speed=60)


@pytest.mark.parametrize("connections", [1, 2])
def test_a_second_connection_of_the_same_user(play: Play, connections: int) -> None:
    """Thrown out, and away for long; or nothing at all."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 3)
            async with await on.broker.stream() as other:
                if connections == 1:
                    await eventually_async(
                        lambda: running.metric("kite_ingest_evicted") == 1, DEADLINE_S, "evicted"
                    )
                    assert "code 12" in running.runtime.health.reasons["schwab"]
                    assert not running.runtime.health.ready
                else:
                    await other.raw.level_one_equity_subs(["QQQ"])
                    await on.until(Tick, len(await on.events(Tick)) + 6)
                    assert running.metric("kite_ingest_reconnects_total", cause="evicted") == 0
        assert on.logins() == 2, "it does not fight"

    play(scenario, connections_max=connections)


@pytest.mark.parametrize("close_code", [1000, 1001, 1006, 1008, 1011])
@pytest.mark.parametrize("cause", ["evicted", "stopped"])
def test_how_the_socket_ends_after_a_notice(play: Play, cause: str, close_code: int) -> None:
    """The notice counts, not the close code: 12 is an eviction, 30 costs a moment."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_INGEST_EVICTED_PAUSE_MS="200") as running:
            await on.until(Tick, 3)
            if cause == "stopped":
                await on.broker.faults(next={"stop": 1})
            else:
                other = await on.broker.stream()
                await other.close()
            await reconnected(running, cause)
            assert running.metric("kite_ingest_reconnects_total", cause="reconnect") == 0
            await on.until(Tick, len(await on.events(Tick)) + 3)
        assert cause in {gap.cause for gap in await on.events(Gap)}

    play(scenario, close_code=close_code)


@pytest.mark.parametrize("retry_after_s", [0, 1])
@pytest.mark.parametrize("body", ["json", "text", "none"])
def test_too_many_requests(play: Play, body: str, retry_after_s: int) -> None:
    """Whatever a 429 looks like: a failed request, a pause, no harm to the token or the stream."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await eventually_async(
                lambda: running.metric("kite_ingest_history_requests_total", outcome="failed") > 0,
                DEADLINE_S, "a refused request",
            )  # fmt: skip
            await on.until(Tick, 6)
            assert running.metric("kite_ingest_reconnects_total", cause="reconnect") == 0
            await eventually_async(lambda: running.runtime.health.ready, DEADLINE_S, "ready")
        assert on.token_file.read()["token"]["access_token"].startswith("I0.")

    play(scenario, requests_per_minute=3, too_many_body=body, retry_after_s=retry_after_s)


@pytest.mark.parametrize("code_s", [30, 60])
def test_life_of_a_code(play: Play, code_s: int) -> None:
    """A login that is exchanged at once is good either way, and ingest runs on it."""

    async def scenario(on: Stage) -> None:
        async with on.ingest():
            await on.until(Tick, 3)

    play(scenario, code_s=code_s)


@pytest.mark.parametrize("answer", ["empty", "404"])
def test_history_of_an_unknown_symbol(play: Play, answer: str) -> None:
    """A ticker that does not exist harms no other one; what misses of it is no open question."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_TICKERS="IWM,QQQ,SPY,NO-SUCH") as running:
            await on.until(Bar, 6)
            await eventually_async(
                lambda: running.metric("kite_ingest_backfill_jobs") == 0, DEADLINE_S, "all asked"
            )
            await on.until_settled()
        assert "NO-SUCH" not in {bar.ticker for bar in await on.events(Bar)}
        await on.check_bars()

    play(scenario, unknown_symbol=answer, speed=120)
