"""OAuth of the broker: authorization codes, access tokens and refresh tokens on injected time.

Tokens carry their own issue time and are signed with the seed, so a simulator that was killed knows
its tokens when it comes back; only codes, and what was revoked, live in memory. Token time is that
of `VirtualClock.token_ms`; codes count wall time, because a person and a browser handle them.

The 7 days of a refresh token run from the login and do not start again when it is refreshed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

__all__ = ["OAuth", "OAuthError", "OAuthRules"]

_CODES_MAX = 256
_SPENT_MAX = 4_096
_SIGNATURE_BYTES = 12


class OAuthError(Exception):
    """A refusal: `status` is the HTTP status, `body` the JSON that goes with it."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(f"{status} {error}")
        self.status = status
        self.body = {"error": error, "error_description": description}


@dataclass(frozen=True, slots=True)
class OAuthRules:
    """The registered application, and how long things live (seconds)."""

    app_key: str
    app_secret: str
    callbacks: tuple[str, ...]
    code_life_s: int = 30
    access_life_s: int = 1_800
    refresh_life_s: int = 7 * 86_400
    rotate_refresh: bool = False
    refresh_once: bool = False
    login_ends_older: bool = False
    revoke_on_authorize: bool = True


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    login_ms: int
    issued_ms: int
    serial: int


class OAuth:
    """One application and its user."""

    def __init__(self, rules: OAuthRules, seed: str) -> None:
        self._rules = rules
        self._key = hashlib.sha256(f"oauth/{seed}/{rules.app_secret}".encode()).digest()
        self._codes: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._serial = 0
        self._revoked_before_ms = 0
        self._logins_ended_before_ms = 0
        self._spent: OrderedDict[int, None] = OrderedDict()  # serials of refresh tokens used once

    def authorize(
        self, client_id: str, redirect_uri: str, response_type: str, wall_ms: int, token_ms: int
    ) -> str:
        """Return a new code for the redirect back.

        Raises OAuthError when the application is unknown or the callback is not registered, byte
        for byte; the broker then shows a page, and the browser never returns.
        """
        rules = self._rules
        if client_id != rules.app_key or response_type != "code":
            raise OAuthError(401, "invalid_client", "Unauthorized")
        if redirect_uri not in rules.callbacks:
            raise OAuthError(403, "access_denied", "Access Denied")
        if rules.revoke_on_authorize:
            self._revoked_before_ms = token_ms
        code = "C0." + self._sign(_Claims("code", wall_ms, wall_ms, self._next_serial())) + "@"
        self._codes[code] = (wall_ms, redirect_uri)
        if len(self._codes) > _CODES_MAX:
            self._codes.popitem(last=False)
        return code

    def token(
        self, authorization: str, form: dict[str, str], wall_ms: int, token_ms: int, speed: float
    ) -> dict[str, Any]:
        """Answer the token endpoint; raises OAuthError."""
        self._check_client(authorization)
        grant = form.get("grant_type", "")
        if grant == "authorization_code":
            self._redeem(form, wall_ms)
            if self._rules.login_ends_older:
                self._logins_ended_before_ms = token_ms
            return self._reply(token_ms, token_ms, speed, None)
        if grant == "refresh_token":
            text = form.get("refresh_token", "")
            claims = self._open(text, "refresh")
            if claims is None or not self._refresh_valid(claims, token_ms):
                raise OAuthError(
                    400,
                    "unsupported_token_type",
                    '400 Bad Request: "{"error_description":"Exception while authenticating '
                    'refresh token","error":"refresh_token_authentication_error"}"',
                )
            if self._rules.rotate_refresh and self._rules.refresh_once:
                self._spend(claims.serial)
            kept = None if self._rules.rotate_refresh else text
            return self._reply(claims.login_ms, token_ms, speed, kept)
        raise OAuthError(400, "unsupported_grant_type", "grant_type is not supported")

    def access_valid(self, token: str, token_ms: int, speed: float) -> bool:
        """Tell whether an access token is good now."""
        claims = self._open(token, "access")
        if claims is None or claims.issued_ms < self._revoked_before_ms:
            return False
        return token_ms - claims.issued_ms < self._access_life_ms(speed)

    def _refresh_valid(self, claims: _Claims, token_ms: int) -> bool:
        return (
            token_ms - claims.login_ms < self._rules.refresh_life_s * 1000
            and claims.login_ms >= self._logins_ended_before_ms
            and claims.serial not in self._spent
        )

    def _spend(self, serial: int) -> None:
        self._spent[serial] = None
        if len(self._spent) > _SPENT_MAX:
            self._spent.popitem(last=False)

    def _access_life_ms(self, speed: float) -> float:
        """A second of wall time is the least that a client can count."""
        return max(self._rules.access_life_s, speed) * 1000

    def _check_client(self, authorization: str) -> None:
        expected = f"{self._rules.app_key}:{self._rules.app_secret}".encode()
        scheme, _, text = authorization.partition(" ")
        try:
            given = base64.b64decode(text, validate=True) if scheme.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            given = b""
        if not hmac.compare_digest(given, expected):
            raise OAuthError(401, "invalid_client", "Unauthorized")

    def _redeem(self, form: dict[str, str], wall_ms: int) -> None:
        issued_ms, callback = self._codes.pop(form.get("code", ""), (None, ""))
        if issued_ms is None or wall_ms - issued_ms > self._rules.code_life_s * 1000:
            raise OAuthError(400, "invalid_grant", "AuthorizationCode has expired or is invalid")
        if form.get("redirect_uri") != callback:
            raise OAuthError(400, "invalid_grant", "redirect_uri does not match")

    def _reply(
        self, login_ms: int, token_ms: int, speed: float, refresh: str | None
    ) -> dict[str, Any]:
        if refresh is None:
            refresh = self._sign(_Claims("refresh", login_ms, token_ms, self._next_serial())) + "@"
        access = self._sign(_Claims("access", login_ms, token_ms, self._next_serial()))
        return {
            "expires_in": max(1, int(self._access_life_ms(speed) / 1000 / speed)),
            "token_type": "Bearer",
            "scope": "api",
            "refresh_token": refresh,
            "access_token": f"I0.{access}@",
            "id_token": f"{_base64(b'{}')}.{_base64(b'{}')}.{_base64(self._key[:8])}",
        }

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _sign(self, claims: _Claims) -> str:
        body = msgspec.json.encode(claims)
        return _base64(body + hmac.digest(self._key, body, "sha256")[:_SIGNATURE_BYTES])

    def _open(self, token: str, kind: str) -> _Claims | None:
        try:
            text = token.removeprefix("I0.").removesuffix("@").encode()
            raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
            body, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
            if not hmac.compare_digest(
                hmac.digest(self._key, body, "sha256")[:_SIGNATURE_BYTES], signature
            ):
                return None
            claims = msgspec.json.decode(body, type=_Claims)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            return None
        return claims if claims.kind == kind else None


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
