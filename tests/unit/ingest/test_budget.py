"""One budget for every request: a bound for each minute, a reserve, and pauses that are kept."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import ManualClock
from services.ingest.budget import (
    PAUSE_S_MAX,
    BudgetPaused,
    RequestBudget,
    kind_of,
    live_requests,
)

NOW_MS = 1_795_185_000_000


class _Selector(selectors.SelectSelector):
    """Instead of waiting it moves its loop's time."""

    now_s = 1_000.0

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready now, after the time-out has passed at once."""
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will ever happen")
        self.now_s += timeout
        return super().select(0)


class QuickLoop(asyncio.SelectorEventLoop):
    """A loop on which minutes pass at once, in order."""

    def __init__(self) -> None:
        self._quick = _Selector()
        super().__init__(self._quick)

    def time(self) -> float:
        """Return its own time."""
        return self._quick.now_s


def play(scenario: Coroutine[Any, Any, Any]) -> Any:
    """Run a scenario on a quick loop."""
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        return runner.run(scenario)


async def passed_by(seconds: float) -> None:
    """Let the loop's time pass."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


def budget(per_minute_max: int = 110) -> RequestBudget:
    """A fresh one."""
    return RequestBudget(per_minute_max, ManualClock(NOW_MS))


def now_s() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


class TestBound:
    @given(
        st.integers(1, 30),
        st.lists(
            st.tuples(
                st.sampled_from(["history", "live", "token", "login", "other"]), st.floats(0, 40)
            ),
            min_size=1, max_size=120,
        ),
    )  # fmt: skip
    def test_no_sixty_seconds_ever_hold_more(
        self, most: int, wanted: list[tuple[str, float]]
    ) -> None:
        """Whoever asks when and for what: any window of a minute holds at most so many."""

        async def scenario() -> list[float]:
            limited, passed = budget(most), []

            async def one(kind: str, after_s: float) -> None:
                await passed_by(after_s)
                await limited.take(kind)
                passed.append(now_s())

            await asyncio.gather(*(one(*each) for each in wanted))
            return passed

        passed = play(scenario())
        assert len(passed) == len(wanted)
        for begin_s in passed:
            assert sum(begin_s <= at_s < begin_s + 59.999 for at_s in passed) <= most

    def test_live_requests_go_before_the_history_that_waits(self) -> None:
        """A feed that is polled keeps its pace while weeks of the past are fetched."""

        async def scenario() -> None:
            limited = budget(20)
            history = [asyncio.create_task(limited.take()) for _ in range(100)]
            await passed_by(1)
            assert sum(task.done() for task in history) == 18
            live = [asyncio.create_task(limited.take("live")) for _ in range(10)]
            await passed_by(60)
            assert all(task.done() for task in live)
            assert sum(task.done() for task in history) == 18 + 8
            await asyncio.gather(*history)

        play(scenario())

    def test_what_is_asked_for_live_is_told_by_who_asks(self) -> None:
        """The same address serves a feed that is polled and the past; logins stay logins."""

        async def scenario() -> list[str]:
            kinds: list[str] = []
            limited = RequestBudget(110, ManualClock(NOW_MS), kinds.append)
            transport = httpx.MockTransport(lambda _: httpx.Response(200))
            async with httpx.AsyncClient(transport=transport, event_hooks=limited.hooks) as client:
                for path in ("marketdata/v1/pricehistory", "v1/oauth/token"):
                    await client.get(f"https://broker/{path}")
                    with live_requests():
                        await asyncio.create_task(client.get(f"https://broker/{path}"))
            return kinds

        assert play(scenario()) == ["history", "live", "token", "token"]

    def test_a_login_overtakes_the_history_that_waits(self) -> None:
        """A night's history of 300 tickers waits; the way back to the feed is open at once."""

        async def scenario() -> None:
            limited = budget()
            history = [asyncio.create_task(limited.take()) for _ in range(300)]
            await passed_by(1)
            assert sum(task.done() for task in history) == 100
            begun_s = now_s()
            await limited.take("login")
            await limited.take("token")
            assert now_s() == begun_s
            assert limited.used(now_s()) == 102
            await asyncio.gather(*history)
            assert now_s() - begun_s < 181

        play(scenario())

    def test_history_passes_in_the_order_in_which_it_came(self) -> None:
        """The newest gap, which was wanted first, is filled first."""

        async def scenario() -> list[int]:
            limited, order = budget(2), []

            async def one(number: int) -> None:
                await limited.take()
                order.append(number)

            await asyncio.gather(*(one(number) for number in range(7)))
            return order

        assert play(scenario()) == list(range(7))


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "html", "retry_after", "pause_s"),
        [
            (429, False, None, 10.0),
            (429, False, "42", 42.0),
            (429, False, "3", 10.0),
            (429, False, "99999999999999", PAUSE_S_MAX),
            (429, False, "Fri, 20 Nov 2026 14:30:25 GMT", 25.0),
            (429, False, "Fri, 20 Nov 2020 14:30:25 GMT", 10.0),
            (429, False, "soon", 10.0),
            (403, True, None, 5.0),
            (403, False, None, 0.0),
            (401, False, None, 0.0),
            (503, True, "30", 0.0),
        ],
    )
    def test_nobody_asks_while_the_broker_wants_peace(
        self, status: int, html: bool, retry_after: str | None, pause_s: float
    ) -> None:
        """As long as it says, and never shorter than is known to be needed."""

        async def scenario() -> float:
            limited = budget()
            await limited.take()
            limited.answered(status, html=html, retry_after=retry_after)
            begun_s = now_s()
            assert limited.pause_s(begun_s) == pytest.approx(pause_s)
            await limited.take()
            return now_s() - begun_s

        assert play(scenario()) == pytest.approx(pause_s, abs=0.01)

    def test_a_login_fails_at_once_and_says_for_how_long(self) -> None:
        """It has a deadline of its own; the broker is left alone all the same."""

        async def scenario() -> None:
            limited = budget()
            limited.answered(429)
            for kind in ("login", "token"):
                with pytest.raises(BudgetPaused, match="none is made for 10 s"):
                    await limited.take(kind)
            assert limited.used(now_s()) == 0

        play(scenario())

    def test_after_the_pause_one_request_alone_finds_out(self) -> None:
        """Each refusal doubles the pause; the first good answer lets all of them go."""

        async def scenario() -> None:
            limited, passed = budget(), []

            async def one() -> None:
                await limited.take()
                passed.append(now_s())

            limited.answered(429)
            waiting = [asyncio.create_task(one()) for _ in range(5)]
            await passed_by(10.5)
            assert len(passed) == 1
            limited.answered(429)
            assert limited.pause_s(now_s()) == 20.0
            await passed_by(20.5)
            assert len(passed) == 2
            limited.answered(200)
            await asyncio.gather(*waiting)
            assert passed[-1] - passed[1] < 1
            limited.answered(429)
            assert limited.pause_s(now_s()) == 10.0

        play(scenario())

    def test_refusals_of_one_burst_are_one_refusal(self) -> None:
        """Four requests were under way: the pause is not sixteen times as long."""

        async def scenario() -> float:
            limited = budget()
            for _ in range(4):
                limited.answered(429)
            return limited.pause_s(now_s())

        assert play(scenario()) == 10.0

    def test_an_answer_that_never_comes_does_not_stop_all_others(self) -> None:
        """A request that breaks has no answer to learn from."""

        async def scenario() -> float:
            limited = budget()
            limited.answered(403, html=True)
            await limited.take()  # and nobody ever hears of it
            begun_s = now_s()
            await limited.take()
            return now_s() - begun_s

        assert play(scenario()) == pytest.approx(60.0, abs=0.01)

    def test_each_is_counted(self) -> None:
        """By kind and by status, for the metrics."""

        async def scenario() -> None:
            seen: list[object] = []
            limited = RequestBudget(9, ManualClock(), seen.append, seen.append)
            await limited.take("token")
            limited.answered(403, html=True)
            assert seen == ["token", 403]

        play(scenario())


def test_every_request_of_a_session_takes_a_pass() -> None:
    """Also those that the library makes by itself; what is refused pauses the next."""

    async def scenario() -> None:
        kinds: list[str] = []
        limited = RequestBudget(9, ManualClock(NOW_MS), kinds.append)

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/oauth/token":
                return httpx.Response(429, headers={"Retry-After": "33"}, json={})
            return httpx.Response(200, json={})

        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(
            transport=transport, event_hooks=limited.hooks, base_url="https://broker.test"
        ) as session:
            await session.get("/marketdata/v1/pricehistory", params={"symbol": "QQQ"})
            await session.get("/trader/v1/userPreference")
            await session.get("/marketdata/v1/quotes")
            await session.post("/v1/oauth/token")
            with pytest.raises(BudgetPaused, match="33 s"):
                await session.get("/trader/v1/userPreference")
        assert kinds == ["history", "login", "other", "token"]

    asyncio.run(scenario())


def test_paths_have_kinds() -> None:
    """What is not known is not urgent."""
    assert kind_of("/marketdata/v1/markets") == "other"
