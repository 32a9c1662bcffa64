"""Keeps the access token fresh, and the readiness honest about the login, whatever else goes on.

The library renews a token when somebody asks for something. A live socket asks for nothing for
hours, so that a login which has ended would be noticed at the worst of moments, when the socket
breaks. The keeper looks every few seconds: a login that somebody has made meanwhile is taken over,
a token that ends soon is renewed, and while there is none that works the service is not ready and
says why. It never ends the service: what is stored stays readable, and a new login mends it.
"""

from __future__ import annotations

import asyncio

from libs.common.clock import Clock
from libs.common.runner import Runtime
from libs.common.token_file import LOGIN_LIFE_S, TokenInvalid
from services.ingest.oauth import TOKEN_LEEWAY_S
from services.ingest.schwab import Account, RequestFailed
from services.ingest.settings import Settings

__all__ = ["TokenKeeper"]

_LOOK_S = 2.0
# Early enough that a request never has to wait for it.
_RENEW_LEFT_S = TOKEN_LEEWAY_S + 120.0
_REFUSED_PAUSE_S = 60.0
_FAILED_PAUSE_S = 15.0
_HOW = "log in: ./kite auth login, or docker compose run --rm ingest auth login"


class TokenKeeper:
    """Looks after one account's token until it is cancelled."""

    def __init__(self, runtime: Runtime[Settings], account: Account) -> None:
        self._clock: Clock = runtime.clock
        self._health = runtime.health
        self._log = runtime.log
        self._account = account
        self._reason = ""
        self._ask_again_s = 0.0
        self._login_s: float | None = None
        self._looking = asyncio.Lock()

    @property
    def trouble(self) -> str:
        """Why no login works; empty while one does, or nobody has looked yet."""
        return self._reason

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Take over a newer login, renew what ends soon, and say whether the login works."""
        async with self._looking:  # who has just logged in does not wait for the next turn
            await self._look()

    async def _look(self) -> None:
        try:
            login_s = await self._account.take_over()
        except TokenInvalid as error:
            self._lacks(f"{error}")
            return
        taken_over = self._login_s not in (None, login_s)
        self._login_s = login_s
        if taken_over:
            self._log.info("token.login_taken_over")
            self._ask_again_s = 0.0
        if taken_over or self._ends_soon():
            await self._renew()
        elif not self._reason:
            self._health.met("login")

    def _ends_soon(self) -> bool:
        """Whether to renew now: a short-lived token of a hurried simulator not at every look."""
        now_ms = self._clock.now_ms()
        left_s = self._account.access_token_left_s(now_ms)
        if left_s is None or asyncio.get_running_loop().time() < self._ask_again_s:
            return False
        life_s = left_s + self._account.access_token_age_s(now_ms)
        return bool(self._reason) or left_s < min(_RENEW_LEFT_S, life_s / 2)

    async def _renew(self) -> None:
        now_s = asyncio.get_running_loop().time()
        try:
            await self._account.refresh()
        except TokenInvalid as error:
            self._ask_again_s = now_s + _REFUSED_PAUSE_S
            self._lacks(self._explained(error))
        except RequestFailed as error:
            # The one at hand still works, mostly; the alarm counts how often this happens.
            self._ask_again_s = now_s + _FAILED_PAUSE_S
            self._log.warning("token.not_renewed", reason=str(error))
        else:
            if self._reason:
                self._log.info("token.works_again")
            self._reason = ""
            self._health.met("login")

    def _explained(self, error: TokenInvalid) -> str:
        age_s = self._account.token_age_s(self._clock.now_ms())
        if age_s < LOGIN_LIFE_S:
            return str(error)
        return f"the login has ended, {age_s / 86_400:.1f} days old; Schwab keeps one for 7"

    def _lacks(self, reason: str) -> None:
        text = reason if "log in" in reason else f"{reason}; {_HOW}"
        if text != self._reason:
            self._log.error("token.no_login", reason=text)
        self._reason = text
        self._health.require("login", text)
