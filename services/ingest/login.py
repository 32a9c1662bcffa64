"""The weekly login: an address to open, the address at which the browser comes back, a token.

`begin` makes the first, `code_address` looks at the second, `finish` exchanges it for the token and
writes that under the lock of the token file. Between the two stands a random `state`, so that
nobody can slip in an answer to another question. schwab-py makes the address, and authlib, which it
stands on, exchanges the code: schwab-py's own way to do so leads to Schwab alone and makes a client
that cannot renew its token. No text for people holds a code, a token or a secret.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec

with warnings.catch_warnings(record=True):
    # Both say at import that they stand on old libraries; `record` because authlib overrides
    # filters.
    warnings.simplefilter("ignore", DeprecationWarning)
    from authlib.common.errors import AuthlibBaseError
    from authlib.integrations.httpx_client import AsyncOAuth2Client
    from schwab.auth import TOKEN_ENDPOINT, get_auth_context
    from schwab.debug import register_redactions

from libs.common.clock import Clock
from libs.common.errors import KiteError, SettingsError
from libs.common.token_file import TokenFile
from services.ingest.budget import BudgetPaused
from services.ingest.oauth import API_ORIGIN, mounts
from services.ingest.settings import Settings

__all__ = ["App", "Began", "Hooks", "LoginFailed", "begin", "code_address", "finish"]

_ANSWER_S_MAX = 30.0
_CALLBACK_CHARS_MAX = 255
_AGAIN = "begin again"

# What an HTTP session calls around each request; a budget's make it wait for its pass.
Hooks = Mapping[str, Sequence[Callable[..., Any]]]


class LoginFailed(KiteError):
    """The login did not come to its end; no token was written."""


class App(msgspec.Struct, frozen=True):
    """The application that logs in; `base_url` is a simulator, None Schwab itself."""

    key: str
    secret: str
    callback: str
    base_url: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> App:
        """Return the one that the settings name."""
        return cls(
            settings.schwab_app_key,
            settings.schwab_app_secret,
            settings.schwab_callback,
            settings.schwab_base_url,
        )

    def __repr__(self) -> str:
        return f"App({self.callback!r}, {self.base_url!r})"

    def check(self) -> None:
        """Raise SettingsError with a line for all that cannot work."""
        problems = [
            f"{name}: not set; it is in the app's details on developer.schwab.com"
            for name, value in (
                ("KITE_SCHWAB_APP_KEY", self.key),
                ("KITE_SCHWAB_APP_SECRET", self.secret),
            )
            if not value
        ]
        if problem := _callback_problem(self.callback):
            problems.append(f"KITE_SCHWAB_CALLBACK: {self.callback!r} {problem}")
        if problems:
            raise SettingsError(problems)

    @property
    def broker(self) -> str:
        """Who is logged in to, in words."""
        return "Schwab" if self.base_url is None else f"the simulated broker at {self.base_url}"


class Began(msgspec.Struct, frozen=True):
    """A login that waits for its browser."""

    url: str
    state: str


def _callback_problem(callback: str) -> str:
    try:
        parts = urlsplit(callback)
        port = parts.port
    except ValueError:
        return "is no address; register https://127.0.0.1:8182 with the app"
    if parts.scheme != "https" or not parts.hostname:
        return "must begin with https:// and be one that is registered with the app, byte for byte"
    if parts.query or parts.fragment or any(sign.isspace() for sign in callback):
        return "may hold no ?, # or space"
    if len(callback) > _CALLBACK_CHARS_MAX or "," in callback:
        return f"must be one address of at most {_CALLBACK_CHARS_MAX} characters"
    return "names port 0" if port == 0 else ""


def begin(app: App, state: str | None = None) -> Began:
    """Return the address to open in a browser, and the state that has to come back."""
    context = get_auth_context(app.key, app.callback, state)
    url = context.authorization_url
    if app.base_url is not None:
        url = app.base_url.rstrip("/") + url.removeprefix(API_ORIGIN)
    return Began(url, context.state)


def code_address(app: App, began: Began, text: str) -> str:
    """Return the address at which a browser came back; raises LoginFailed if it is not that."""
    found = "".join(text.split())
    try:
        parts, wanted = urlsplit(found), urlsplit(app.callback)
        query = parse_qs(parts.query)
    except ValueError:
        raise LoginFailed("that is no address; paste all of the browser's address line") from None
    if (parts.scheme, parts.netloc) != (wanted.scheme, wanted.netloc):
        raise LoginFailed(
            f"that address does not begin with {app.callback}: paste the one at which the browser "
            "ends after the login, and see that KITE_SCHWAB_CALLBACK is what the app has"
        )
    if "error" in query:
        raise LoginFailed(f"the login was refused; {_AGAIN}")
    if len(query.get("code", ())) != 1:
        raise LoginFailed("that address has no code=…; paste all of the browser's address line")
    if query.get("state") != [began.state]:
        raise LoginFailed(f"that address belongs to another login; {_AGAIN}")
    return found


async def finish(
    app: App,
    began: Began,
    address: str,
    token_file: TokenFile,
    clock: Clock,
    hooks: Hooks | None = None,
) -> None:
    """Exchange the code in `address` and write the token.

    Raises LoginFailed, TokenInvalid or TokenBusy.
    """
    async with token_file.lock():
        token_file.require_replaceable()
        token = await _exchange(app, began, code_address(app, began, address), hooks)
        wrapped = {"creation_timestamp": clock.now_ms() // 1000, "token": token}
        try:
            token_file.write(wrapped)
        except OSError as error:
            raise LoginFailed(f"{token_file.path}: {error.strerror}; {_AGAIN}") from None


async def _exchange(app: App, began: Began, address: str, hooks: Hooks | None) -> dict[str, Any]:
    session = AsyncOAuth2Client(
        app.key,
        client_secret=app.secret,
        redirect_uri=app.callback,
        mounts=mounts(app.base_url),
        timeout=_ANSWER_S_MAX,
        event_hooks=hooks,
    )
    try:
        async with session:
            token = await session.fetch_token(
                TOKEN_ENDPOINT,
                authorization_response=address,
                client_id=app.key,
                auth=(app.key, app.secret),
                state=began.state,
            )
        if not isinstance(token, dict) or "access_token" not in token:
            raise LoginFailed(f"{app.broker} gave no token; wait a minute, then {_AGAIN}")
    except AuthlibBaseError as error:
        raise LoginFailed(_explained(app, str(error.error))) from None
    except BudgetPaused as error:
        raise LoginFailed(
            f"{app.broker} refuses requests; wait {error.pause_s:.0f} s, then {_AGAIN}"
        ) from None
    except httpx.HTTPStatusError as error:
        raise LoginFailed(
            f"{app.broker} answered HTTP {error.response.status_code}; wait a minute, then {_AGAIN}"
        ) from None
    except httpx.HTTPError as error:
        raise LoginFailed(
            f"{app.broker} does not answer ({type(error).__name__}); {_AGAIN}"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise LoginFailed(
            f"{app.broker} answered what makes no sense ({type(error).__name__}); {_AGAIN}"
        ) from None
    register_redactions(token)
    return dict(token)


def _explained(app: App, error: str) -> str:
    if error == "invalid_client":
        return (
            f"{app.broker} refuses key and secret (invalid_client): compare KITE_SCHWAB_APP_KEY "
            "and KITE_SCHWAB_APP_SECRET with the app's details; it must be Ready For Use"
        )
    if error == "invalid_grant":
        return (
            f"{app.broker} refuses the code (invalid_grant): it lives for half a minute and works "
            f"once, and the callback must be the app's; {_AGAIN}"
        )
    return f"{app.broker} refuses the login ({error[:60]}); {_AGAIN}"
