"""The weekly login, as a person goes through it, against the simulated broker's own pages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.clock import SystemClock
from libs.common.errors import SettingsError
from libs.common.sealing import Key
from libs.common.token_file import TokenFile, TokenUnsafe
from services.ingest.auth import Desk
from services.ingest.login import App, LoginFailed
from tests.schwab_client import KEY, SECRET, Broker, simulator

ROOT = Path(__file__).resolve().parents[3]
SEALING_KEY = Key(bytes(range(32))).text


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Person:
    """Somebody at a terminal, with a browser."""

    def __init__(self, broker: Broker, callback: str, folder: Path) -> None:
        self.broker = broker
        self.callback = callback
        self.token_file = TokenFile(folder / "login" / "token.json", SEALING_KEY)
        self.said: list[str] = []
        self.app = App(KEY, SECRET, callback, broker.url)
        self._stdin, self._keyboard = os.pipe()

    def desk(self, app: App | None = None) -> Desk:
        """What the command talks to."""
        return Desk(app or self.app, self.token_file, self.said.append, SystemClock())

    async def log_in(self, *, paste: bool) -> None:
        """Run the command, without a browser of this machine."""
        await self.desk().log_in(paste=paste, open_browser=None, stdin=self._stdin)

    async def address(self) -> str:
        """The address that the terminal shows, once it does."""
        while True:
            for line in self.said:
                if line.strip().startswith(self.broker.url):
                    return line.strip()
            await asyncio.sleep(0)

    async def consent(self, address: str) -> str:
        """Open the address in a browser and log in; returns where the browser is sent."""
        page = await self.broker.http.get(address)
        assert page.status_code == 302, page.text
        return page.headers["location"]

    def enter(self, text: str) -> None:
        """Paste a line."""
        os.write(self._keyboard, f"{text}\n".encode())

    def leave(self) -> None:
        """End the input."""
        with contextlib.suppress(OSError):
            os.close(self._keyboard)


@contextlib.asynccontextmanager
async def person(folder: Path, **settings: Any) -> AsyncIterator[Person]:
    """A person in front of a simulated broker."""
    callback = f"https://127.0.0.1:{free_port()}"
    async with simulator(callbacks=(callback,), **settings) as broker:
        found = Person(broker, callback, folder)
        try:
            yield found
        finally:
            found.leave()


def play(scene: Callable[[Person], Awaitable[None]], folder: Path, **settings: Any) -> None:
    """Run a scene."""

    async def main() -> None:
        async with person(folder, **settings) as found:
            await scene(found)

    asyncio.run(main())


async def browse(url: str) -> httpx.Response:
    """Go to an address as a browser whose owner has waved the certificate through."""
    async with httpx.AsyncClient(verify=False) as browser:  # noqa: S501 - as a person does here
        return await browser.get(url)


def test_the_browser_comes_back_by_itself(tmp_path: Path) -> None:
    """The address is opened, and nothing needs to be copied."""

    async def scene(person: Person) -> None:
        working = asyncio.create_task(person.log_in(paste=False))
        page = await browse(await person.consent(await person.address()))
        assert page.status_code == 200
        assert "Look at the terminal" in page.text
        await working
        assert person.token_file.sealed
        token = person.token_file.read()["token"]
        client = await person.broker.client(token)
        assert (await client.get_user_preferences()).status_code == 200
        assert person.desk().status().state == "ok"

    play(scene, tmp_path)


def test_what_else_comes_to_the_callback_is_refused_and_waited_through(tmp_path: Path) -> None:
    """A browser asks for an icon, a stranger guesses; neither ends the login, nor begins one."""

    async def scene(person: Person) -> None:
        working = asyncio.create_task(person.log_in(paste=False))
        back = await person.consent(await person.address())
        assert (await browse(f"{person.callback}/favicon.ico")).status_code == 404
        assert (await browse(f"{person.callback}/")).status_code == 404
        strange = await browse(f"{person.callback}/?code=C0.guessed%40&state=guessed")
        assert "does not belong" in strange.text
        assert "guessed" not in strange.text
        async with httpx.AsyncClient(verify=False) as browser:  # noqa: S501 - as above
            assert (await browser.post(back)).status_code == 400
        assert not working.done()
        assert not person.token_file.path.exists()
        await browse(back)
        await working

    play(scene, tmp_path)


def test_the_address_can_be_pasted_on_a_machine_without_a_browser(tmp_path: Path) -> None:
    """Whatever else is pasted before is explained, and the wait goes on."""

    async def scene(person: Person) -> None:
        working = asyncio.create_task(person.log_in(paste=True))
        back = await person.consent(await person.address())
        for wrong in (
            "yes",
            "https://127.0.0.1:1/?code=C0.a%40",
            person.callback,
            f"{person.callback}/?error=access_denied",
            f"{person.callback}/?code=C0.a%40&state=another",
            "https://[::1/?code=a",
        ):
            person.enter(wrong)
        person.enter(f"  {back[:40]}\t{back[40:]} ")
        await working
        text = "\n".join(person.said)
        for word in ("does not begin", "no code", "was refused", "another login", "no address;"):
            assert word in text
        assert person.desk().status().works

    play(scene, tmp_path)


def test_pasting_works_while_the_callback_waits(tmp_path: Path) -> None:
    """Nobody has to know beforehand where the browser will be."""

    async def scene(person: Person) -> None:
        working = asyncio.create_task(person.log_in(paste=False))
        person.enter(await person.consent(await person.address()))
        await working
        assert person.desk().status().works

    play(scene, tmp_path)


def test_a_callback_port_that_is_taken_leaves_pasting(tmp_path: Path) -> None:
    """It is said, and the login goes on."""

    async def scene(person: Person) -> None:
        port = int(person.callback.rpartition(":")[2])
        with socket.create_server(("127.0.0.1", port)):
            working = asyncio.create_task(person.log_in(paste=False))
            person.enter(await person.consent(await person.address()))
            await working
        assert "cannot listen" in "\n".join(person.said)

    play(scene, tmp_path)


def test_an_end_of_the_input_changes_nothing(tmp_path: Path) -> None:
    """A script without an address is told so."""

    async def scene(person: Person) -> None:
        person.leave()
        with pytest.raises(LoginFailed, match="no address"):
            await person.log_in(paste=True)
        assert not person.token_file.path.exists()

    play(scene, tmp_path)


def test_a_login_in_two_steps(tmp_path: Path) -> None:
    """One command prints the address, another one finishes; each answer works once."""

    async def scene(person: Person) -> None:
        with pytest.raises(LoginFailed, match="auth url"):
            await person.desk().finish_received(f"{person.callback}/?code=a&state=b")
        back = await person.consent(person.desk().url())
        await person.desk().finish_received(back)
        assert person.desk().status().works
        with pytest.raises(LoginFailed, match="no login has been begun"):
            await person.desk().finish_received(back)

    play(scene, tmp_path)


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (400, "unsupported_token_type"),
        (401, "KITE_SCHWAB_APP_SECRET"),
        (403, "HTTP 403|no sense"),
        (429, "gave no token"),
        (500, "HTTP 500"),
        (503, "HTTP 503"),
    ],
)
def test_a_broker_that_gives_no_token_leaves_the_old_one(
    tmp_path: Path, fault: int, word: str
) -> None:
    """Whatever it answers instead; one line says what to do, and holds no secret."""

    async def scene(person: Person) -> None:
        person.token_file.write(OLD)
        before = person.token_file.path.read_bytes()
        desk = person.desk()
        back = await person.consent(desk.url())
        await person.broker.faults(token_status=fault)
        with pytest.raises(LoginFailed, match=word) as caught:
            await desk.finish_received(back)
        code = back.partition("code=")[2][:40]
        assert code not in str(caught.value)
        assert SECRET not in str(caught.value)
        assert person.token_file.path.read_bytes() == before

    play(scene, tmp_path)


OLD = {
    "creation_timestamp": 1_795_000_000,
    "token": {
        "access_token": "old", "refresh_token": "old", "token_type": "Bearer",
        "expires_in": 1800, "expires_at": 1_795_001_800,
    },
}  # fmt: skip


def test_wrong_keys_and_an_old_code_are_told_apart(tmp_path: Path) -> None:
    """Each has its own remedy."""

    async def scene(person: Person) -> None:
        stranger = App(KEY, "another secret", person.callback, person.broker.url)
        back = await person.consent(person.desk(stranger).url())
        with pytest.raises(LoginFailed, match=r"invalid_client.*KITE_SCHWAB_APP_KEY"):
            await person.desk(stranger).finish_received(back)
        back = await person.consent(person.desk().url())
        begun = person.token_file.path.with_suffix(".begun").read_bytes()
        await person.desk().finish_received(back)
        person.token_file.path.with_suffix(".begun").write_bytes(begun)
        with pytest.raises(LoginFailed, match=r"invalid_grant.*half a minute"):
            await person.desk().finish_received(back)
        assert person.desk().status().works

    play(scene, tmp_path)


def test_nobody_is_sent_to_a_browser_in_vain(tmp_path: Path) -> None:
    """A token file that may not be replaced, or settings that cannot work, are told before."""

    async def scene(person: Person) -> None:
        person.token_file.write(OLD)
        person.token_file.path.chmod(0o644)
        with pytest.raises(TokenUnsafe, match="chmod 600"):
            await person.log_in(paste=True)
        with pytest.raises(TokenUnsafe):
            person.desk().url()
        assert person.said == []
        assert person.desk().status().state == "unusable"

    play(scene, tmp_path)


@pytest.mark.parametrize(
    "callback",
    ["", "127.0.0.1:8182", "http://127.0.0.1:8182", "https://", "https://a/?b", "https://a:x",
     "https://a,https://b", "https://a b", "https://a:0", "https://" + "a" * 250],
)  # fmt: skip
def test_a_callback_that_cannot_be_registered_is_refused(tmp_path: Path, callback: str) -> None:
    """Together with whatever else is missing."""
    desk = Desk(
        App("", "", callback), TokenFile(tmp_path / "token.json"), lambda _: None, SystemClock()
    )
    with pytest.raises(SettingsError) as refusal:
        desk.url()
    assert len(refusal.value.problems) == 3
    assert refusal.value.problems[2].startswith("KITE_SCHWAB_CALLBACK")


# -- as a program of its own, which is what the container has --------------------------------------


def auth(person: Person, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the container's command `auth`."""
    environment = {
        "KITE_NATS_URL": "nats://nobody",
        "KITE_TICKERS": "QQQ",
        "KITE_SCHWAB_APP_KEY": KEY,
        "KITE_SCHWAB_APP_SECRET": SECRET,
        "KITE_SCHWAB_CALLBACK": person.callback,
        "KITE_SCHWAB_BASE_URL": person.broker.url,
        "KITE_SCHWAB_TOKEN_FILE": str(person.token_file.path),
        "KITE_SCHWAB_TOKEN_KEY": SEALING_KEY,
        "KITE_INGEST_DATA_DIR": str(person.token_file.path.parent),
        **changes,
    }
    return subprocess.run(
        [sys.executable, "-m", "services.ingest.auth", *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def test_the_command_of_the_container(tmp_path: Path) -> None:
    """From no login to a renewed one; codes and JSON for scripts, and no secret in what it says."""

    async def scene(person: Person) -> None:
        run = asyncio.to_thread
        person.token_file.path.parent.mkdir(mode=0o755)  # as the volume of an earlier version
        missing = await run(auth, person, "status", "--json")
        assert (missing.returncode, json.loads(missing.stdout)["state"]) == (1, "missing")
        begun = await run(auth, person, "url")
        back = await person.consent(begun.stdout.strip())
        done = await run(auth, person, "login", "--received", back)
        assert done.returncode == 0, done.stderr
        assert person.token_file.path.parent.stat().st_mode & 0o777 == 0o700
        token = person.token_file.read()["token"]
        refreshed = await run(auth, person, "refresh", "--json")
        status = json.loads(refreshed.stdout)
        assert (refreshed.returncode, status["state"], status["encrypted"]) == (0, "ok", True)
        newer = person.token_file.read()["token"]
        assert newer["access_token"] != token["access_token"]
        bad = await run(auth, person, "status", KITE_SCHWAB_TOKEN_KEY=Key(bytes(32)).text)
        assert bad.returncode == 1
        assert "KITE_SCHWAB_TOKEN_KEY" in bad.stdout
        nothing = await run(auth, person, "login")
        assert nothing.returncode == 1
        assert "no address was given" in nothing.stderr
        wrong = await run(auth, person, "status", KITE_TICKERS="")
        assert wrong.returncode == 2
        for result in (missing, done, refreshed, bad, nothing, wrong):
            said = result.stdout + result.stderr
            assert "Traceback" not in said
            for secret in (SECRET, SEALING_KEY, *map(str, (token[n] for n in SECRETS))):
                assert secret not in said

    play(scene, tmp_path)


SECRETS = ("access_token", "refresh_token")


def test_a_refresh_that_is_refused_keeps_the_token_and_says_so(tmp_path: Path) -> None:
    """Also an answer of 429, which the library takes for a token."""

    async def scene(person: Person) -> None:
        await person.desk().finish_received(await person.consent(person.desk().url()))
        before = person.token_file.path.read_bytes()
        for fault in (400, 401, 403, 429, 500, 503):
            await person.broker.faults(token_status=fault)
            result = await asyncio.to_thread(auth, person, "refresh")
            assert result.returncode == 1, fault
            assert "Traceback" not in result.stderr
            assert len(result.stderr.splitlines()) == 1
            assert person.token_file.path.read_bytes() == before
        await person.broker.faults("DELETE")
        assert (await asyncio.to_thread(auth, person, "refresh")).returncode == 0

    play(scene, tmp_path)
