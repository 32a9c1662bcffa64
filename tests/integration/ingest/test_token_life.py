"""The token's life: 30 minutes, 7 days, and whatever happens to its file in between."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.clock import SystemClock
from libs.common.events import Bar, Tick
from libs.common.sealing import Key
from libs.common.token_file import TokenFile, TokenInvalid
from services.ingest.auth import Desk
from services.ingest.budget import RequestBudget
from services.ingest.login import App
from services.ingest.schwab import Account, RefreshOutcome, RequestFailed
from tests.integration.ingest.desk import answered
from tests.integration.ingest.login_steps import begin, code_of, consent, letter, newest
from tests.integration.ingest.stage import DEADLINE_S, ROOT, Process, Running, Stage
from tests.schwab_client import CALLBACK, KEY, SECRET, Broker, simulator
from tests.waiting import eventually_async

Play = Callable[..., None]
ENDED_S = 1_700_000_000
# At 20 times the pace: an access token lives two seconds of ours, a login some more.
SHORT = {"access_token_s": 40, "refresh_token_s": 160}


def app(broker: Broker) -> App:
    """The application that the simulated broker knows."""
    return App(KEY, SECRET, CALLBACK, broker.url)


def account_of(
    token_file: TokenFile,
    broker: Broker,
    on_refresh: Callable[[RefreshOutcome], None] = lambda outcome: None,
) -> Account:
    """An account with that token and a budget of its own."""
    budget = RequestBudget(110, SystemClock())
    return Account(KEY, SECRET, token_file.path, broker.url, on_refresh, budget=budget)


async def log_in(broker: Broker, token_file: TokenFile) -> None:
    """Go through a whole login, as `./kite auth` does it."""
    desk = Desk(app(broker), token_file, lambda _: None, SystemClock())
    page = await broker.http.get(desk.url())
    await desk.finish_received(page.headers["location"])


async def until_ready(running: Running) -> None:
    """Wait until it says that it can work."""
    await eventually_async(lambda: running.runtime.health.ready, DEADLINE_S, "ready")


async def until_reason(running: Running, word: str) -> str:
    """Wait until it is not ready because of the login, and says this word."""

    def reason() -> str:
        found = running.runtime.health.reasons.get("login", "")
        return found if word in found else ""

    return await eventually_async(reason, DEADLINE_S, f"not ready: {word}")


class TestService:
    """A running ingest."""

    def test_an_access_token_is_renewed_while_nobody_asks_for_anything(self, play: Play) -> None:
        """So that a socket which breaks in the night finds a token that works."""

        async def scenario(on: Stage) -> None:
            async with on.ingest() as running:
                await until_ready(running)
                first = on.token_file.read()["token"]["access_token"]

                def renewed() -> bool:
                    return bool(on.token_file.read()["token"]["access_token"] != first)

                await eventually_async(renewed, DEADLINE_S, "another access token")
                assert running.metric("kite_ingest_access_token_age_seconds") < 30
                assert running.metric("kite_ingest_token_refreshes_total", outcome="refused") == 0

        play(scenario, access_token_s=40)

    def test_a_login_that_ends_leaves_it_up_and_the_next_one_is_taken_over(
        self, play: Play
    ) -> None:
        """Not ready, with the reason; and ready again after a login, without a restart."""

        async def scenario(on: Stage) -> None:
            async with on.ingest() as running:
                await on.until(Bar, 1)
                reason = await until_reason(running, "refused the token")
                assert "./kite auth login" in reason
                assert running.metric("kite_ingest_token_refreshes_total", outcome="refused") >= 1
                before = len(await on.events(Tick))
                await log_in(on.broker, on.token_file)
                await until_ready(running)
                assert not running.task.done()
                await on.until(Tick, before + 1, "more ticks")
            login = on.token_file.read()
            assert login["creation_timestamp"] > ENDED_S

        play(scenario, **SHORT)

    def test_a_login_of_last_month_is_no_reason_to_stop(self, play: Play) -> None:
        """It waits for a person, and works as soon as one has logged in, however long it waits."""

        async def scenario(on: Stage) -> None:
            token = on.token_file.read()["token"]
            ended = {**token, "refresh_token": "ended", "expires_at": ENDED_S}
            on.token_file.write({"creation_timestamp": ENDED_S, "token": ended})
            async with on.ingest(KITE_INGEST_RECONNECT_FIRST_MS="60000") as running:
                assert "days old; Schwab keeps one for 7" in await until_reason(running, "ended")
                assert running.metric("kite_ingest_token_age_seconds") > 7 * 86_400
                await log_in(on.broker, on.token_file)
                await on.until(Bar, 1)
                await until_ready(running)
                assert running.metric("kite_ingest_token_age_seconds") < 3_600

        play(scenario)

    @pytest.mark.parametrize(
        ("harm", "word"),
        [
            (lambda path: path.unlink(), "there is no token"),
            (lambda path: path.chmod(0o644), "chmod 600"),
            (lambda path: path.write_bytes(path.read_bytes()[:99]), "damaged"),
            (lambda path: path.with_suffix(".key").write_text(Key.new().text), "KITE_SCHWAB_TOKEN"),
        ],
        ids=["missing", "world-readable", "torn", "wrong key"],
    )
    def test_a_token_file_that_cannot_be_used_is_told_and_left_alone(
        self, play: Play, harm: Callable[[Path], Any], word: str
    ) -> None:
        """Up, not ready, with the reason; nothing overwritten; well again once it is mended."""

        async def scenario(on: Stage) -> None:
            path, key = on.token_file.path, on.token_file.key_file
            good = path.read_bytes(), key.read_bytes()
            harm(path)
            harmed = path.read_bytes() if path.exists() else None
            async with on.ingest() as running:
                reason = await until_reason(running, word)
                assert "log in" in reason
                assert (path.read_bytes() if path.exists() else None) == harmed
                path.write_bytes(good[0])
                path.chmod(0o600)
                key.write_bytes(good[1])
                await until_ready(running)

        play(scenario)

    def test_a_file_of_schwab_py_becomes_encrypted(self, play: Play) -> None:
        """By the first renewal; the token is the same until then."""

        async def scenario(on: Stage) -> None:
            on.token_file.path.write_text(json.dumps(on.token_file.read()))
            async with on.ingest() as running:
                await until_ready(running)
                await eventually_async(
                    lambda: on.token_file.sealed, DEADLINE_S, "the file is encrypted"
                )
                assert on.token_file.read()["token"]["token_type"] == "Bearer"

        play(scenario, access_token_s=40)

    def test_the_command_line_and_the_service_renew_side_by_side(self, play: Play) -> None:
        """Whoever comes second takes over what the first one got; no refresh is refused."""

        async def scenario(on: Stage) -> None:
            async with on.ingest() as running:
                await until_ready(running)
                for _ in range(3):
                    code = await asyncio.to_thread(refresh, on)
                    assert code == 0
                await until_ready(running)
                assert running.metric("kite_ingest_token_refreshes_total", outcome="refused") == 0
                assert on.token_file.read()["token"]["access_token"]

        play(scenario, access_token_s=40, rotate_refresh_token=True)


def refresh(on: Stage) -> int:
    """Run `auth refresh` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "services.ingest.auth", "refresh"],
        cwd=ROOT, env=os.environ | on.environment(), capture_output=True, check=False, timeout=60,
    ).returncode  # fmt: skip


class TestOneRefresher:
    """Two clients of one token, as command line and service are."""

    def test_only_one_asks_the_broker(self, tmp_path: Path) -> None:
        """The other one finds the new token in the file."""

        async def main() -> None:
            async with simulator(rotate_refresh_token=True) as broker:
                token_file = TokenFile(tmp_path / "token.json")
                await log_in(broker, token_file)
                wrapped = token_file.read()
                wrapped["token"]["expires_at"] -= 60  # made a minute ago, not in this second
                token_file.write(wrapped)
                heard: list[str] = []
                accounts = [account_of(token_file, broker, heard.append) for _ in range(4)]
                for account in accounts:
                    account.client()
                await asyncio.gather(*(account.refresh() for account in accounts))
                held = {each.client().token_metadata.token["access_token"] for each in accounts}
                assert heard == ["renewed"]
                assert held == {token_file.read()["token"]["access_token"]}
                for account in accounts:
                    assert (await account.client().get_user_preferences()).status_code == 200
                    await account.forget_client()

        asyncio.run(main())

    def test_a_renewal_that_fails_leaves_the_token_at_hand(self, tmp_path: Path) -> None:
        """In memory as on the disk: an answer of 429 is no token, and the next try works."""

        async def main() -> None:
            async with simulator() as broker:
                token_file = TokenFile(tmp_path / "token.json")
                await log_in(broker, token_file)
                for status in (429, 403, 500, 400, 503):
                    before = token_file.path.read_bytes()
                    account = account_of(token_file, broker)
                    at_hand = account.client().session.token["access_token"]
                    await broker.faults(token_status=status)
                    with pytest.raises((RequestFailed, TokenInvalid)):
                        await account.refresh()
                    assert token_file.path.read_bytes() == before
                    assert account.client().session.token["access_token"] == at_hand
                    await account.forget_client()
                    await broker.faults("DELETE")
                    account = account_of(token_file, broker)  # with a budget that is not paused
                    await account.refresh()
                    assert token_file.path.read_bytes() != before
                    assert (await account.client().get_user_preferences()).status_code == 200
                    await account.forget_client()

        asyncio.run(main())

    def test_a_token_that_could_not_be_saved_is_not_given_up_for_the_old_one(
        self, tmp_path: Path
    ) -> None:
        """What the file holds is older then, and the broker may not take it any more."""

        async def main() -> None:
            async with simulator() as broker:
                token_file = TokenFile(tmp_path / "token.json")
                await log_in(broker, token_file)
                heard: list[str] = []
                account = account_of(token_file, broker, heard.append)
                account.client()
                before = token_file.path.read_bytes()
                token_file.path.chmod(0o644)
                await account.refresh()
                token_file.path.chmod(0o600)
                assert token_file.path.read_bytes() == before
                await account.refresh()
                assert heard == ["renewed", "renewed"]
                assert token_file.path.read_bytes() != before
                await account.forget_client()

        asyncio.run(main())


def test_no_secret_leaves_the_token_file(play: Play, server_home: Path) -> None:
    """Not into logs, metrics, streams or tracebacks, however much goes wrong; a canary for each."""

    async def scenario(on: Stage) -> None:
        secrets = set(on.secrets())
        process = on.process(KITE_LOG_LEVEL="debug")
        try:
            await on.until(Bar, 1)
            metrics = process.said("service.started")[0]["metrics"]
            for status in (429, 400, 401, 403, 500, 503):
                await on.broker.faults(token_status=status, rest_status=401)
                secrets |= set(on.secrets())
                await trouble(process, on)
            on.token_file.path.chmod(0o644)
            await eventually_async(
                lambda: (
                    any("chmod 600" in line["reason"] for line in process.said("token.no_login"))
                    or process.said("token.not_saved")
                ),
                DEADLINE_S,
                "the open file is told",
            )
            on.token_file.path.chmod(0o600)
            await on.broker.faults("DELETE")
            await log_in(on.broker, on.token_file)
            secrets |= set(on.secrets()) | await codes_by_command(on)
            async with httpx.AsyncClient() as client:
                shown = (await client.get(metrics)).text
        finally:
            process.terminate()
        secrets |= set(on.secrets())
        said = (on.home / "ingest.log").read_bytes()
        stored = await asyncio.to_thread(content_of, server_home)
        assert b"QQQ" in stored, "the streams were not looked at"
        for secret in secrets:
            for where, text in (("log", said), ("metrics", shown.encode()), ("streams", stored)):
                assert secret.encode() not in text, f"a secret is in the {where}"
                assert secret.rstrip("@=").encode() not in text, f"a secret is in the {where}"

    play(scenario, access_token_s=40)


async def codes_by_command(on: Stage) -> set[str]:
    """Log in by command, first with a code that the broker refuses; returns what was pasted."""
    codes = set()
    for guessed, ends in (("C0.a-canary-that-was-guessed", "failed"), ("", "done")):
        login = await begin(on)
        address = await consent(on, login)
        codes |= {code_of(address)}
        if guessed:
            address = address.replace(code_of(address), guessed)
            codes |= {guessed}
        await answered(on.bus, "login-finish", **letter(login, f"http://strange/{address}"))
        await answered(on.bus, "login-finish", **letter(login, address))
        await newest(on, ends)
    return codes


def content_of(folder: Path) -> bytes:
    """Everything that stands in any file of a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def trouble(process: Process, on: Stage) -> None:
    """Wait until the log tells of one more failure with the token."""

    def told() -> int:
        events = ("schwab.disconnected", "schwab.refresh_failed", "token.not_renewed")
        return sum(len(process.said(event)) for event in events)

    before = told()
    await on.broker.faults(next={"drop": 1})
    await eventually_async(lambda: told() > before, DEADLINE_S, "one more failure")
