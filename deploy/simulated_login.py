"""The browser's part of the broker's login, done by program: only ever against the simulator.

Authorize, take the code out of the redirect, exchange it, write the token file. Skipped while the
refresh token at hand is still accepted. A token file that cannot be used is replaced, which happens
to no account's: what opens a simulator is worth nothing. Blocks; the standard library's client is
enough for three requests, and quick to import.
"""

from __future__ import annotations

import base64
import http.client
import time
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from deploy.private_files import explain_os_errors
from libs.common.clock import SystemClock
from libs.common.errors import KiteError
from libs.common.token_file import TokenFile, TokenInvalid, TokenUnsafe, private_folder

__all__ = ["App", "LoginError", "log_in"]

_ANSWER_WAIT_S = 5.0
_ANSWER_BYTES_MAX = 1 << 20
_POLL_S = 0.05
_OK = 200


class LoginError(KiteError):
    """The simulator's login did not go as it should."""


@dataclass(frozen=True)
class App:
    """The application that logs in, and at which simulator."""

    base_url: str
    key: str
    secret: str
    callback: str


class _Token(msgspec.Struct):
    """The broker's answer, as far as it is checked; the file keeps all of it."""

    access_token: str
    refresh_token: str
    expires_in: int


def log_in(app: App, token_file: TokenFile, *, deadline_s: float) -> bool:
    """Leave a working token in `token_file`; return False when the one in it still works.

    Waits for the simulator to answer. Raises LoginError at the deadline or when it refuses.
    """
    _await_answer(app, deadline_s)
    if _still_good(app, token_file):
        return False
    query = {"response_type": "code", "client_id": app.key, "redirect_uri": app.callback}
    status, location, _ = _request(app, "GET", f"/v1/oauth/authorize?{urlencode(query)}")
    code = parse_qs(urlsplit(location).query).get("code")
    if not code:
        raise LoginError(f"the simulator gave no code: HTTP {status}")
    grant = {"grant_type": "authorization_code", "code": code[0], "redirect_uri": app.callback}
    token = _token(app, grant)
    now_s = SystemClock().now_ms() // 1000
    token["expires_at"] = now_s + int(token["expires_in"])
    _keep(token_file, {"creation_timestamp": now_s, "token": token})
    return True


def _keep(token_file: TokenFile, wrapped: dict[str, object]) -> None:
    """Write the token; raises LoginError or ServerError."""
    place = token_file.path
    with explain_os_errors(place.parent):
        private_folder(place.parent)
        with token_file.locked():
            try:
                token_file.require_replaceable()
            except TokenUnsafe:
                place.unlink(missing_ok=True)
            try:
                token_file.write(wrapped)
            except TokenInvalid as error:
                raise LoginError(str(error)) from error


def _await_answer(app: App, deadline_s: float) -> None:
    """Return as soon as somebody answers, whatever the answer is."""
    end_s = time.monotonic() + deadline_s
    while True:
        try:
            _request(app, "GET", "/")
        except LoginError:
            if time.monotonic() >= end_s:
                raise
            time.sleep(_POLL_S)
        else:
            return


def _still_good(app: App, token_file: TokenFile) -> bool:
    """Tell whether the refresh token in the file is accepted; the file may be missing or broken."""
    try:
        refresh = token_file.read()["token"]["refresh_token"]
        _token(app, {"grant_type": "refresh_token", "refresh_token": refresh})
    except (TokenInvalid, LoginError):
        return False
    return True


def _token(app: App, grant: dict[str, str]) -> dict[str, str | int]:
    status, _, body = _request(app, "POST", "/v1/oauth/token", urlencode(grant))
    if status != _OK:
        raise LoginError(f"the simulator refuses a token: HTTP {status}")
    try:
        msgspec.json.decode(body, type=_Token)
        return msgspec.json.decode(body, type=dict[str, str | int])
    except msgspec.MsgspecError as error:
        raise LoginError(f"the simulator's token cannot be read: {error}") from error


def _request(app: App, method: str, path: str, form: str = "") -> tuple[int, str, bytes]:
    """Return status, Location and body; raises LoginError when nobody answers."""
    login = base64.b64encode(f"{app.key}:{app.secret}".encode()).decode()
    headers = {
        "Authorization": f"Basic {login}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    parts = urlsplit(app.base_url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=_ANSWER_WAIT_S
    )
    try:
        connection.request(method, path, form or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location", ""), answer.read(_ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise LoginError(f"the simulator does not answer: {error}") from error
    finally:
        connection.close()
