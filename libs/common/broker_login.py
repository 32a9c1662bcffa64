"""What ingest tells of the login to its broker, and of the one that somebody goes through.

It stands in ingest's desk (see `commands.py`), where the gateway reads it to show a page. Neither a
code nor a token is ever in it: the address at which a browser ends travels sealed for `letterbox`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["BEGIN", "FINISH", "BrokerLogin", "LoginTry", "TryState"]

# The commands: `login-begin` without arguments, `login-finish` with `login` and `sealed`.
BEGIN = "login-begin"
FINISH = "login-finish"

# Waits for its browser, exchanges the code, and what became of it. `lost` is one whose secrets were
# in the memory of a process that has ended.
TryState = Literal["open", "exchanging", "done", "failed", "expired", "lost"]


class LoginTry(Struct, frozen=True, kw_only=True):
    """One login from its begin to its end; `text` says in one line what became of it.

    `before_at` is when the login was made that was there at its begin.
    Only while it is open it has the `url` to open, and the `letterbox` for the address at which the
    browser ends, until `expires_ms`.
    """

    id: str
    state: TryState
    began_ms: int
    expires_ms: int
    before_at: str | None = None
    url: str = ""
    letterbox: str = ""
    text: str = ""


class BrokerLogin(Struct, frozen=True, kw_only=True):
    """How the login is; times are ISO 8601 in UTC, null where there is no token.

    `state` and the times are those of `./kite auth status`. `missing` says what is not set, so that
    nobody can log in. `newest` is the login that was begun last.
    """

    broker: str
    state: str
    reason: str = ""
    made_at: str | None = None
    ends_at: str | None = None
    due_at: str | None = None
    missing: str = ""
    newest: LoginTry | None = None
