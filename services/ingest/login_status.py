"""What there is to say about a login: how old it is, when it ends, when it was last renewed.

The token file's content and the time go in, words and numbers come out, and nothing secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from libs.common.spans import span_text
from libs.common.token_file import LOGIN_LIFE_S, TokenFile, TokenInvalid, TokenMissing

__all__ = ["LoginStatus", "describe", "lines", "read", "unusable"]

# From here on the alarms get louder: see docs/runbooks/TokenExpires.md.
SOON_S = 48 * 3_600
_STORED = {
    None: "",
    True: " (encrypted)",
    False: " (in the open; the next refresh encrypts it)",
}

State = Literal["ok", "ends_soon", "ended", "missing", "unusable"]


class LoginStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a login; times are ISO 8601 in UTC, null where there is no token."""

    state: State
    broker: str
    token_file: str
    reason: str = ""
    encrypted: bool | None = None
    logged_in_at: str | None = None
    login_age_s: int | None = None
    login_ends_at: str | None = None
    login_left_s: int | None = None
    next_login_due_at: str | None = None
    refreshed_at: str | None = None
    access_token_age_s: int | None = None
    access_token_ends_at: str | None = None
    access_token_left_s: int | None = None

    @property
    def works(self) -> bool:
        """Whether nobody needs to log in now."""
        return self.state in ("ok", "ends_soon")


def read(broker: str, token_file: TokenFile, now_ms: int) -> LoginStatus:
    """Return the status of the login that is kept; never raises for what is wrong with it."""
    place = str(token_file.path)
    try:
        wrapped = token_file.read()
        encrypted = token_file.sealed
    except TokenMissing:
        return unusable(broker, place, "missing", "there is none yet: auth login makes it")
    except TokenInvalid as error:
        return unusable(broker, place, "unusable", str(error))
    return describe(broker, place, wrapped, now_ms, encrypted=encrypted)


def unusable(broker: str, token_file: str, state: State, reason: str) -> LoginStatus:
    """Return the status of a login that cannot be read."""
    return LoginStatus(state=state, broker=broker, token_file=token_file, reason=reason)


def describe(
    broker: str, token_file: str, wrapped: dict[str, Any], now_ms: int, *, encrypted: bool
) -> LoginStatus:
    """Return the status of a login, from what the token file holds.

    The next login is due a day before the end, so that there is one more evening to think of it.
    """
    now_s, login_s = now_ms / 1000, float(wrapped["creation_timestamp"])
    token = wrapped["token"]
    expires_s = float(token["expires_at"])
    life_s = token.get("expires_in")
    refreshed_s = expires_s - float(life_s) if isinstance(life_s, int | float) else None
    left_s = login_s + LOGIN_LIFE_S - now_s
    return LoginStatus(
        state="ended" if left_s <= 0 else "ends_soon" if left_s < SOON_S else "ok",
        reason="Schwab keeps a login for 7 days" if left_s <= 0 else "",
        broker=broker,
        token_file=token_file,
        encrypted=encrypted,
        logged_in_at=_time(login_s),
        login_age_s=int(now_s - login_s),
        login_ends_at=_time(login_s + LOGIN_LIFE_S),
        login_left_s=int(left_s),
        next_login_due_at=_time(login_s + LOGIN_LIFE_S - 86_400),
        refreshed_at=None if refreshed_s is None else _time(refreshed_s),
        access_token_age_s=None if refreshed_s is None else int(now_s - refreshed_s),
        access_token_ends_at=_time(expires_s),
        access_token_left_s=int(expires_s - now_s),
    )


def lines(status: LoginStatus) -> Iterator[str]:
    """Yield the status as people read it."""
    yield f"login      {_words(status)}"
    if status.logged_in_at is not None:
        yield f"made       {_when(status.logged_in_at, status.login_age_s)}"
        yield f"ends       {_when(status.login_ends_at, status.login_left_s, ahead=True)}"
        yield f"next one   {_clock(status.next_login_due_at)}, or any time before"
        if status.refreshed_at is not None:
            yield f"refreshed  {_when(status.refreshed_at, status.access_token_age_s)}"
        yield f"access     {_access(status)}"
    yield f"broker     {status.broker}"
    yield f"file       {status.token_file}{_STORED[status.encrypted]}"


def _words(status: LoginStatus) -> str:
    if status.state == "ok":
        return "works"
    if status.state == "ends_soon":
        return f"works, and ends in {span_text(status.login_left_s or 0)}: log in again before"
    if status.state == "ended":
        return f"has ended: {status.reason}; log in again"
    return status.reason


def _access(status: LoginStatus) -> str:
    left_s = status.access_token_left_s or 0
    if left_s > 0:
        return f"token good for {span_text(left_s)}"
    return "token ended; the next request renews it"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(int(at_s), UTC).isoformat()


def _clock(iso: str | None) -> str:
    """Write a time as the reader's clock shows it."""
    return datetime.fromisoformat(iso or "").astimezone().strftime("%a %d %b %Y, %H:%M %Z")


def _when(iso: str | None, span_s: int | None, *, ahead: bool = False) -> str:
    span = span_s or 0
    relation = f"in {span_text(span)}" if ahead and span > 0 else f"{span_text(abs(span))} ago"
    return f"{_clock(iso)} ({relation})"
