"""What `./kite auth` does, and in ingest's container the command `auth`: log in, look, renew.

    auth login     print an address, wait for the browser or a pasted address, keep the token
    auth status    how old the login is, when it ends; exit code 1 if none works
    auth refresh   fetch a new access token now
    auth url       print the address alone; `auth login --received ADDRESS` finishes it

Each takes the token file's lock where it changes something, so that a service may run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from libs.common.clock import Clock, SystemClock
from libs.common.errors import KiteError, SettingsError
from libs.common.settings import load
from libs.common.token_file import (
    TokenFile,
    TokenInvalid,
    TokenMissing,
    TokenUnsafe,
    private_folder,
)
from services.ingest import callback, login_status
from services.ingest.budget import RequestBudget
from services.ingest.login import App, Began, LoginFailed, begin, code_address, finish
from services.ingest.login_status import LoginStatus
from services.ingest.schwab import Account, RequestFailed
from services.ingest.settings import Settings

__all__ = ["Desk", "main"]

_LOGIN_S_MAX = 900.0
_READ_BYTES = 4_096
_REQUESTS_MAX = 10  # a minute; what serves the market has a budget of its own
_PASTE_BYTES_MAX = 16 << 10
_RECEIVED = "Received. Look at the terminal: it says whether the login worked. Close this page."

Say = Callable[[str], None]


@dataclass(frozen=True)
class Desk:
    """One account's login: the application, its token file, and how to talk to the person."""

    app: App
    token_file: TokenFile
    say: Say
    clock: Clock

    # -- login --

    async def log_in(
        self, *, paste: bool, open_browser: Callable[[str], object] | None, stdin: int
    ) -> None:
        """Log in, with a browser here or anywhere; raises KiteError and then changes nothing."""
        self.app.check()
        self.token_file.require_replaceable()
        began = begin(self.app)
        self.say(f"Log in to {self.app.broker}. Open this address in a browser:\n")
        self.say(f"  {began.url}\n")
        async with AsyncExitStack() as stack:
            came: asyncio.Queue[str | None] = asyncio.Queue()
            listens = not paste and await self._listen(stack, began, came)
            self._explain(listens=listens)
            if listens and open_browser is not None:
                await asyncio.to_thread(open_browser, began.url)
            address = await self._address(began, came, _pasted(stdin), listens=listens)
        await finish(self.app, began, address, self.token_file, self.clock)
        self._said_so()

    async def finish_received(self, address: str) -> None:
        """Finish the login that `url` has begun, with the address at which the browser ended."""
        self.app.check()
        self.token_file.require_replaceable()
        try:
            began = msgspec.json.decode(self._begun_file.read_bytes(), type=Began)
        except (OSError, msgspec.MsgspecError):
            raise LoginFailed(
                "no login has been begun here; take the address of: auth url"
            ) from None
        await finish(self.app, began, address, self.token_file, self.clock)
        self._begun_file.unlink(missing_ok=True)
        self._said_so()

    def url(self) -> str:
        """Return the address of a new login, and remember it for `finish_received`."""
        self.app.check()
        self.token_file.require_replaceable()
        began = begin(self.app)
        folder = self._begun_file.parent
        try:
            private_folder(folder)
            descriptor = os.open(
                self._begun_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(began))
        except OSError as error:
            raise LoginFailed(f"{folder}: {error.strerror}") from None
        return began.url

    @property
    def _begun_file(self) -> Path:
        return self.token_file.path.with_suffix(".begun")

    async def _listen(
        self, stack: AsyncExitStack, began: Began, came: asyncio.Queue[str | None]
    ) -> bool:
        """Wait at the callback for the browser; whether that is possible here."""

        def judge(address: str) -> str:
            try:
                came.put_nowait(code_address(self.app, began, address))
            except LoginFailed as error:
                self.say(f"{error}")
                return "This does not belong to the login that the terminal waits for."
            return _RECEIVED

        try:
            await stack.enter_async_context(
                callback.listening(self.app.callback, self.clock, judge)
            )
        except callback.CannotListen as error:
            self.say(f"({error}; so paste the address by hand)\n")
            return False
        return True

    def _explain(self, *, listens: bool) -> None:
        if listens:
            self.say(
                f"The browser comes back to {self.app.callback} and warns of an unknown "
                "certificate: it is ours, go on.\nIs the browser on another machine, it cannot "
                "connect: copy its address line then, and paste it here."
            )
        else:
            self.say(
                f"The browser ends at {self.app.callback} and cannot connect; that is as it should "
                "be.\nCopy its address line at once (it is good for half a minute) and paste it "
                "here:"
            )

    async def _address(
        self,
        began: Began,
        came: asyncio.Queue[str | None],
        pasted: AsyncIterator[str],
        *,
        listens: bool,
    ) -> str:
        """Return the first address that fits, from the browser or from the person."""

        async def read() -> None:
            async for line in pasted:
                try:
                    address = code_address(self.app, began, line)
                except LoginFailed as error:
                    self.say(f"{error}")
                else:
                    came.put_nowait(address)
                    return
            if not listens:
                came.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            async with asyncio.timeout(_LOGIN_S_MAX):
                address = await came.get()
        except TimeoutError:
            raise LoginFailed(
                f"nobody came back within {_LOGIN_S_MAX / 60:g} minutes; begin again"
            ) from None
        finally:
            reading.cancel()
        if address is None:
            raise LoginFailed("no address was given, so nothing has changed")
        return address

    def _said_so(self) -> None:
        status = self.status()
        self.say("\nLogged in. A service that runs takes the login over by itself.")
        for line in login_status.lines(status):
            self.say(line)

    # -- what there is --

    def status(self) -> LoginStatus:
        """Return how the login is; never raises for what is wrong with it."""
        return login_status.read(self.app.broker, self.token_file, self.clock.now_ms())

    async def refresh(self) -> LoginStatus:
        """Fetch a new access token; raises LoginFailed or TokenInvalid, and keeps the old one."""
        self.app.check()
        account = Account(
            self.app.key,
            self.app.secret,
            self.token_file.path,
            self.app.base_url,
            budget=RequestBudget(_REQUESTS_MAX, self.clock),
            token_key=self.token_file.key,
        )
        try:
            await account.refresh()
        except RequestFailed as error:
            raise LoginFailed(f"not renewed, the old one is kept: {error}") from None
        except (TokenMissing, TokenUnsafe):
            raise
        except TokenInvalid as error:
            raise LoginFailed(f"{error}; log in again: auth login") from None
        finally:
            await account.forget_client()
        return self.status()


async def _pasted(descriptor: int) -> AsyncIterator[str]:
    """Yield the lines that a person enters, until the end of the input.

    A thread waits for them, because a terminal cannot be waited for by every loop; it dies with us.
    """
    loop = asyncio.get_running_loop()
    entered: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        found = b" "
        while found:
            try:
                found = os.read(descriptor, _READ_BYTES)
            except OSError:
                found = b""
            try:
                loop.call_soon_threadsafe(entered.put_nowait, found)
            except RuntimeError:
                return  # the loop is gone: nobody waits any more

    threading.Thread(target=read, daemon=True).start()
    rest = b""
    while found := await entered.get():
        rest = (rest + found)[-_PASTE_BYTES_MAX:]
        *whole, rest = rest.split(b"\n")
        for line in whole:
            if line.strip():
                yield line.decode("utf-8", "replace")
    if rest.strip():
        yield rest.decode("utf-8", "replace")


# -- the command in the container ------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command with the container's settings; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        return _run(_desk(load(Settings, os.environ)), given)
    except SettingsError as error:
        for problem in error.problems:
            print(f"auth: {problem}", file=sys.stderr)
        return error.exit_code
    except KiteError as error:
        print(f"auth: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="auth", description="The weekly login to the broker.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="login|status|refresh|url")
    login = verbs.add_parser("login", help="log in with a browser on any machine")
    login.add_argument("--received", metavar="ADDRESS", help="finish what `auth url` has begun")
    status = verbs.add_parser("status", help="how old the login is, and when it ends")
    refresh = verbs.add_parser("refresh", help="fetch a new access token now")
    for verb in (status, refresh):
        verb.add_argument("--json", action="store_true", dest="as_json", help="write JSON")
    verbs.add_parser("url", help="print the address to open, and nothing else")
    return parser


def _desk(settings: Settings) -> Desk:
    token_file = TokenFile(Path(settings.schwab_token_file), settings.schwab_token_key)
    if token_file.path.parent == Path(settings.ingest_data_dir):
        try:
            private_folder(token_file.path.parent)
        except OSError as error:
            raise SettingsError(
                [f"KITE_INGEST_DATA_DIR: {settings.ingest_data_dir}: {error.strerror}"]
            ) from None
    return Desk(
        App.of(settings),
        token_file,
        lambda text: print(text, file=sys.stderr, flush=True),
        SystemClock(),
    )


def _run(desk: Desk, given: argparse.Namespace) -> int:
    if given.verb == "login" and given.received:
        asyncio.run(desk.finish_received(given.received))
    elif given.verb == "login":
        # No browser reaches this container, so the address is pasted.
        asyncio.run(desk.log_in(paste=True, open_browser=None, stdin=sys.stdin.fileno()))
    elif given.verb == "url":
        print(desk.url())
    else:
        status = asyncio.run(desk.refresh()) if given.verb == "refresh" else desk.status()
        print(shown(status, as_json=given.as_json))
        return 0 if status.works else 1
    return 0


def shown(status: LoginStatus, *, as_json: bool) -> str:
    """Return a status as text."""
    if as_json:
        return msgspec.json.format(msgspec.json.encode(status), indent=2).decode()
    return "\n".join(login_status.lines(status))


if __name__ == "__main__":
    sys.exit(main())
