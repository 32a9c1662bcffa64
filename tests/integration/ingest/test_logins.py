"""The weekly login by command while ingest runs, on a real bus, against the simulated broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from libs.common.broker_login import LoginTry
from libs.common.commands import Answer
from libs.common.events import Tick
from tests.integration.ingest.desk import answered, command, until
from tests.integration.ingest.login_steps import begin, consent, letter, newest
from tests.integration.ingest.stage import Running, Stage
from tests.waiting import eventually_async

Play = Callable[..., None]

DEADLINE_S = 30.0


async def paste(on: Stage, login: LoginTry, address: str) -> Answer:
    """Finish a login with what a person pasted."""
    return await answered(on.bus, "login-finish", **letter(login, address))


def played(
    scene: Callable[[Stage, Running], Awaitable[None]],
) -> Callable[[Stage], Awaitable[None]]:
    """Give a scene an ingest that streams."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as ingest:
            await on.until(Tick, 1)
            await scene(on, ingest)

    return scenario


def test_what_runs_takes_the_login_over(play: Play) -> None:
    """Commanded twice it is exchanged once, both hear the same, and the old login is of no use."""

    async def scene(on: Stage, ingest: Running) -> None:
        before = on.token_file.read()
        login = await begin(on)
        arguments = letter(login, await consent(on, login))
        await command(on.bus, "login-finish", "first", **arguments)
        second = await answered(on.bus, "login-finish", "second", **arguments)
        assert second.ok, second.text
        done = await newest(on, "done", "failed")
        assert (done.state, done.url, done.letterbox) == ("done", "", "")
        third = await answered(on.bus, "login-finish", "third", **arguments)
        assert (third.ok, third.text) == (True, done.text)
        # The broker takes a code once: a second exchange would have been refused.
        assert ingest.metric("kite_ingest_logins_total", outcome="failed") == 0
        after = on.token_file.read()
        assert after["token"]["refresh_token"] != before["token"]["refresh_token"]
        health = ingest.runtime.health
        await eventually_async(lambda: health.ready, DEADLINE_S, "it is ready")
        assert ingest.metric("kite_ingest_logins_total", outcome="done") == 1

        seen = len(await on.events(Tick))
        await on.broker.faults(next={"drop": 1})
        await on.until(Tick, seen + 1, "ticks by the new login")

    play(played(scene), login_ends_older=True)


def test_a_code_that_is_no_good_ends_the_login(play: Play) -> None:
    """The broker's refusal is told in one line; the token at hand stays."""

    async def scene(on: Stage, ingest: Running) -> None:
        before = on.token_file.read()
        login = await begin(on)
        address = await consent(on, login)
        head, _, rest = address.partition("code=")
        answer = await paste(on, login, f"{head}code=C0.guessed%40&{rest.partition('&')[2]}")
        assert answer.ok, "the address is one of this login"
        failed = await newest(on, "failed")
        assert "refuses the code (invalid_grant)" in failed.text
        assert failed.text.endswith("begin again")
        again = await paste(on, login, address)
        assert (again.ok, again.text) == (False, failed.text)
        # The access token may be another one: who begins a login ends that at the broker.
        after = on.token_file.read()
        assert after["creation_timestamp"] == before["creation_timestamp"]
        assert after["token"]["refresh_token"] == before["token"]["refresh_token"]
        assert ingest.metric("kite_ingest_logins_total", outcome="failed") == 1
        assert (await begin(on)).id != login.id

    play(played(scene))


def test_another_login_at_the_same_time_has_the_lock(play: Play) -> None:
    """The exchange waits for its turn; meanwhile frames and other commands go on."""

    async def scene(on: Stage, _: Running) -> None:
        login = await begin(on)
        address = await consent(on, login)
        async with on.token_file.lock():
            assert (await paste(on, login, address)).ok
            await newest(on, "exchanging")
            seen = len(await on.events(Tick))
            await on.until(Tick, seen + 1, "ticks while it waits")
            assert (await answered(on.bus, "tickers-add", tickers=["NVDA"])).ok
            assert (await newest(on, "exchanging", "done")).state == "exchanging"
        await newest(on, "done")

    play(played(scene))


def test_an_ingest_that_died_has_forgotten_the_login(play: Play) -> None:
    """After kill -9 what was open is lost: the page's next step is refused, in one line."""

    async def scenario(on: Stage) -> None:
        process = on.process()
        login = await begin(on)
        address = await consent(on, login)
        process.kill()
        await command(on.bus, "login-finish", "left", **letter(login, address))
        async with on.ingest():
            desk = await until(on.bus, lambda now: now.answer_to("left"), "the answer")
            answer = desk.answer_to("left")
            assert answer is not None
            assert not answer.ok
            assert "restarted meanwhile" in answer.text
            await newest(on, "lost")
            again = await begin(on)
            assert (await paste(on, again, await consent(on, again))).ok
            await newest(on, "done")

    play(scenario)
