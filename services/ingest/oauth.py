"""The HTTP session of the account: authlib's, with one renewal of the token at a time.

The command line and the service share the token file. Who wants to renew the token takes the file's
lock first, and looks whether somebody has done it meanwhile: then that token is taken over, and the
broker is not asked. An answer that is no token leaves the session with the token that it had.

Whoever finds out that the token is no good closes the session, so that the next one reads the file
anew. Others may be in the middle of a request then; what they use is closed when they are through.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

with warnings.catch_warnings(record=True):
    # authlib says at import that httpx is old; `record` because it overrides filters.
    warnings.simplefilter("ignore", DeprecationWarning)
    from authlib.integrations.httpx_client import AsyncOAuth2Client
    from authlib.oauth2.rfc6749 import OAuth2Token

from libs.common.token_file import TokenFile, TokenInvalid
from services.ingest.origin import RewriteTransport

__all__ = ["API_ORIGIN", "TOKEN_LEEWAY_S", "AccountSession", "mounts"]

API_ORIGIN = "https://api.schwabapi.com"
# A token that ends within this is renewed before the next request.
TOKEN_LEEWAY_S = 300


def mounts(base_url: str | None) -> dict[str, httpx.AsyncBaseTransport] | None:
    """Return what leads requests for the broker to a simulator; None for the broker itself."""
    if base_url is None:
        return None
    return {API_ORIGIN: RewriteTransport(httpx.URL(base_url))}


class AccountSession(AsyncOAuth2Client):  # type: ignore[misc]  # the library has no types
    """A session that renews its token under the lock of the token file.

    `taken_over(wrapped)` hears of a token that somebody else has put into the file.
    """

    def __init__(
        self,
        token_file: TokenFile,
        created_s: float,
        taken_over: Callable[[dict[str, Any]], None],
        **arguments: Any,
    ) -> None:
        super().__init__(leeway=TOKEN_LEEWAY_S, **arguments)
        self._token_file = token_file
        self._created_s = created_s
        self._taken_over = taken_over
        self._users = 0
        self._retired = False

    async def request(self, *arguments: Any, **named: Any) -> Any:
        """Ask the broker; raises as the library does."""
        async with self._in_use():
            return await super().request(*arguments, **named)

    async def aclose(self) -> None:
        """Close as soon as nobody uses it."""
        self._retired = True
        if self._users == 0:
            await super().aclose()

    @asynccontextmanager
    async def _in_use(self) -> AsyncIterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._retired:
                await self.aclose()

    async def refresh_token(self, *arguments: Any, **named: Any) -> Any:
        """Renew the token, or take over the one that is newer; raises as the library does."""
        async with self._in_use(), self._token_file.lock():
            found = self._newer()
            if found is not None:
                self.token = OAuth2Token.from_dict(found["token"])
                self._taken_over(found)
                return self.token
            kept = self.token
            named["refresh_token"] = kept.get("refresh_token")
            try:
                return await super().refresh_token(*arguments, **named)
            except BaseException:
                self.token = kept
                raise

    def _newer(self) -> dict[str, Any] | None:
        """Return what the file holds if it is another token of this login, or one of a later."""
        try:
            found = self._token_file.read()
        except TokenInvalid:
            return None
        token, created_s = OAuth2Token.from_dict(found["token"]), found["creation_timestamp"]
        if created_s < self._created_s or token["access_token"] == self.token["access_token"]:
            return None
        if token["expires_at"] <= self.token["expires_at"] and created_s == self._created_s:
            return None  # ours could not be saved
        return None if token.is_expired(leeway=TOKEN_LEEWAY_S) else found
