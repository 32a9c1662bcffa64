"""The weekly login by command, beside everything that runs: `login-begin`, then `login-finish`.

Whoever asks, the gateway's page for one, gets an address to open and a letterbox; into that goes
the address at which the browser ends, sealed on its way. What the two open is in this process's
memory alone, for ten minutes, so a login does not outlive its ingest: then it is `lost`, and begins
again. The exchange of the code is the broker's to answer and takes its time, so it has a task of
its own; whoever asked looks at the desk.

A code is good once. So a login goes from open to its end in one direction, whichever commands come
twice: while its code is exchanged, and after that, `login-finish` starts nothing and says what
became of it. A process that died in the middle has either left a token or not, and that decides.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct
from msgspec.structs import replace

from libs.common.broker_login import BEGIN, FINISH, BrokerLogin, LoginTry, TryState
from libs.common.clock import Clock
from libs.common.errors import KiteError, SettingsError
from libs.common.sealing import Damaged, Letterbox
from libs.common.token_file import TokenFile
from services.ingest import login_status
from services.ingest.commands import Done, Handler
from services.ingest.desk import Desk
from services.ingest.login import App, Began, Hooks, begin, code_address, finish
from services.ingest.login_status import LoginStatus
from services.ingest.metrics import IngestMetrics
from services.ingest.watchlist import Refusal

__all__ = ["LIFE_MS", "Logins"]

LIFE_MS = 600_000
_READ_EVERY_MS = 2_000
_SEALED_CHARS_MAX = 12_000
_DONE = "logged in; what runs has taken the login over"
_LOST = "ingest was restarted meanwhile, and that login is gone; begin again"
_EXPIRED = f"nobody came back within {LIFE_MS // 60_000} minutes; begin again"


class Begin(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `login-begin`: none."""


class Finish(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `login-finish`: which login, and where its browser ended, for its letterbox."""

    login: Annotated[str, Meta(max_length=64)]
    sealed: Annotated[str, Meta(max_length=_SEALED_CHARS_MAX)]


class Keeper(Protocol):
    """Who looks after the token at hand."""

    @property
    def trouble(self) -> str:
        """Why no login works."""
        ...

    async def look(self) -> None:
        """Take over a login that was made meanwhile."""
        ...


class _Secrets(Struct, frozen=True):
    """What an open login needs, and nobody else may have."""

    began: Began
    box: Letterbox

    def __repr__(self) -> str:
        return "_Secrets()"


class Logins:
    """The newest login by command, and how the one that is kept stands."""

    def __init__(
        self,
        app: App,
        token_file: TokenFile,
        keeper: Keeper,
        metrics: IngestMetrics,
        clock: Clock,
        log: Any,
        hooks: Hooks | None = None,
    ) -> None:
        self._app = app
        self._token_file = token_file
        self._keeper = keeper
        self._ended = metrics.logins
        self._clock = clock
        self._log = log
        self._hooks = hooks
        self._newest: LoginTry | None = None  # of this life
        self._secrets: _Secrets | None = None
        self._exchanges: asyncio.Queue[tuple[Began, str]] = asyncio.Queue()
        self._status: LoginStatus | None = None
        self._status_ms = 0

    def handlers(self) -> dict[str, Handler[Any]]:
        """Return the commands by name."""
        return {BEGIN: Handler(Begin, self._begin), FINISH: Handler(Finish, self._finish)}

    def refreshed(self, desk: Desk) -> Desk:
        """Return the desk with how the login is now."""
        return replace(desk, login=self._standing(self._current(desk)))

    async def run(self) -> None:
        """Exchange what comes, for ever."""
        while True:
            began, address = await self._exchanges.get()
            await self._exchange(began, address)

    # -- commands --

    async def _begin(self, _asked: Begin, _: str, desk: Desk) -> Done:
        if missing := self._missing():
            raise Refusal(missing)
        self._token_file.require_replaceable()
        newest, now_ms = self._current(desk), self._clock.now_ms()
        if newest is not None and newest.state == "exchanging":
            return Done(desk, "a login is being finished at this moment")
        if newest is not None and newest.state == "open" and self._has_time(newest, now_ms):
            # Asked for by a second tap, or by a command that came twice.
            return Done(self._shown(desk, newest), "a login is under way: open its address")
        self._status = None  # somebody may have logged in a moment ago
        began, box = begin(self._app), Letterbox()
        self._secrets = _Secrets(began, box)
        self._newest = LoginTry(
            id=secrets.token_hex(8), state="open", began_ms=now_ms, expires_ms=now_ms + LIFE_MS,
            before_at=self._read_status().logged_in_at, url=began.url, letterbox=box.address,
        )  # fmt: skip
        text = f"open its address within {LIFE_MS // 60_000} minutes"
        return Done(self._shown(desk, self._newest), text)

    async def _finish(self, asked: Finish, _: str, desk: Desk) -> Done:
        newest = self._current(desk)
        if newest is None or asked.login != newest.id:
            raise Refusal("a newer login was begun since; go on with that, or begin again")
        if newest.state == "exchanging":
            return Done(desk, "that login is being finished")
        if newest.state == "done":
            return Done(desk, newest.text)
        if newest.state != "open" or self._secrets is None:
            raise Refusal(newest.text)
        kept = self._secrets
        try:
            text = kept.box.open(asked.sealed).decode("utf-8", "replace")
        except Damaged:
            raise Refusal("what came was not sealed for that login; begin again") from None
        address = code_address(self._app, kept.began, text)
        self._close("exchanging")
        self._exchanges.put_nowait((kept.began, address))
        return Done(
            self._shown(desk, self._newest), "the address fits; the login is being finished"
        )

    def _shown(self, desk: Desk, newest: LoginTry | None) -> Desk:
        return replace(desk, login=self._standing(newest))

    # -- one login --

    def _current(self, desk: Desk) -> LoginTry | None:
        """Return the newest login as it is now, also one that an earlier life has left."""
        recorded = desk.login.newest if desk.login is not None else None
        if self._newest is None and recorded is not None:
            self._newest = recorded
            if recorded.state in ("open", "exchanging"):
                self._inherit(recorded)
        newest, now_ms = self._newest, self._clock.now_ms()
        if newest is not None and newest.state == "open" and now_ms >= newest.expires_ms:
            self._close("expired", _EXPIRED)
        return self._newest

    def _inherit(self, recorded: LoginTry) -> None:
        """Find out how far an earlier life came: its secrets are gone, its token is not."""
        made_at = self._read_status().logged_in_at
        if made_at is not None and made_at != recorded.before_at:
            self._close("done", _DONE)
        else:
            self._close("lost", _LOST)

    def _has_time(self, newest: LoginTry, now_ms: int) -> bool:
        """Whether a person who begins now can still finish it."""
        return newest.expires_ms - now_ms > LIFE_MS // 2

    def _close(self, state: TryState, text: str = "") -> None:
        """Take the newest login one step on; nobody can open it any more."""
        assert self._newest is not None, "only what was begun ends"
        self._newest = replace(self._newest, state=state, url="", letterbox="", text=text)
        self._secrets = None
        if state != "exchanging":
            self._ended.labels(state).inc()

    async def _exchange(self, began: Began, address: str) -> None:
        try:
            await finish(self._app, began, address, self._token_file, self._clock, self._hooks)
        except KiteError as error:
            self._log.warning("login.failed", reason=str(error))
            self._close("failed", str(error))
        except Exception as error:  # noqa: BLE001 - it must not stop the feed; it may hold the code
            self._log.error("login.failed", reason=type(error).__name__)
            self._close("failed", f"the login failed ({type(error).__name__}); begin again")
        else:
            self._log.info("login.done")
            await self._keeper.look()
            self._close("done", _DONE)
        self._status = None

    # -- how the login is --

    def _standing(self, newest: LoginTry | None) -> BrokerLogin:
        status = self._read_status()
        state, reason = status.state, status.reason
        if status.works and self._keeper.trouble:
            # The file cannot know what the broker thinks of it.
            state, reason = "unusable", self._keeper.trouble
        return BrokerLogin(
            broker=self._app.broker,
            state=state,
            reason=reason,
            made_at=status.logged_in_at,
            ends_at=status.login_ends_at,
            due_at=status.next_login_due_at,
            missing=self._missing(),
            newest=newest,
        )

    def _read_status(self) -> LoginStatus:
        """Look into the token file, every now and then."""
        now_ms = self._clock.now_ms()
        if self._status is None or not 0 <= now_ms - self._status_ms < _READ_EVERY_MS:
            self._status = login_status.read(self._app.broker, self._token_file, now_ms)
            self._status_ms = now_ms
        return self._status

    def _missing(self) -> str:
        try:
            self._app.check()
        except SettingsError as error:
            return str(error)
        return ""
