"""What the gateway needs to know, from the environment."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from libs.common.addresses import is_loopback
from libs.common.postgres import DatabaseSettings
from libs.common.settings import Port, Positive

__all__ = ["Settings"]


class Settings(DatabaseSettings, frozen=True, kw_only=True):
    """Where the gateway listens, who may use it, and how much of it.

    `pg_dsn` is a Postgres connection string; the role `kite_gateway` is enough. `gateway_port` 0
    takes any free port. `gateway_auth` `password` asks for a login: give the password, or better
    its argon2id hash. Without a login the gateway listens on a loopback address only, unless
    `gateway_allow_remote` says that something else protects it.
    `gateway_origins` are further web pages that may call it, e.g. `https://kite.example.com`;
    `public_market` serves market data without a login.

    A client address may make `gateway_requests_per_minute_max` requests and hold
    `gateway_connections_per_address_max` of at most `gateway_connections_max` live connections.
    `gateway_dashboard_dir` holds the built page.
    """

    pg_dsn: str
    gateway_host: str = "127.0.0.1"
    gateway_port: Port = 8080
    gateway_auth: Literal["none", "password"] = "none"
    gateway_password_hash: str = ""
    gateway_password: str = ""
    gateway_allow_remote: bool = False
    gateway_origins: tuple[str, ...] = ()
    public_market: bool = False
    gateway_body_bytes_max: Annotated[int, Meta(ge=1024, le=16 << 20)] = 64 * 1024
    gateway_message_bytes_max: Annotated[int, Meta(ge=256, le=1 << 20)] = 8 * 1024
    gateway_connections_max: Annotated[int, Meta(ge=1, le=10_000)] = 200
    gateway_connections_per_address_max: Annotated[int, Meta(ge=1, le=10_000)] = 50
    gateway_requests_per_minute_max: Positive = 600
    gateway_dashboard_dir: str = "dashboard/dist"

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, all of it at once, without repeating any secret."""
        problems = [*self._address_problems(), *self._login_problems()]
        problems += [
            _ORIGIN.format(origin) for origin in self.gateway_origins if not _is_origin(origin)
        ]
        if problems:
            raise ValueError("; ".join(problems))

    def _address_problems(self) -> list[str]:
        problems = []
        if (fault := self.pg_fault(self.pg_dsn)) is not None:
            problems.append(fault)
        unprotected = self.gateway_auth == "none" and not self.gateway_allow_remote
        if unprotected and not is_loopback(self.gateway_host):
            problems.append(_REMOTE.format(self.gateway_host))
        return problems

    def _login_problems(self) -> list[str]:
        if self.gateway_auth == "none":
            return []
        given = [text for text in (self.gateway_password, self.gateway_password_hash) if text]
        problems = []
        if len(given) != 1:
            problems.append(_EXACTLY_ONE)
        if self.gateway_password_hash and not self.gateway_password_hash.startswith("$argon2id$"):
            problems.append(_HASH)
        if self.gateway_password and len(self.gateway_password) < _PASSWORD_LENGTH_MIN:
            problems.append(_SHORT)
        return problems


_PASSWORD_LENGTH_MIN = 8
_REMOTE = (
    "KITE_GATEWAY_HOST: {!r} may be reached from outside, and KITE_GATEWAY_AUTH is none: set "
    "KITE_GATEWAY_AUTH=password, listen on 127.0.0.1, or set KITE_GATEWAY_ALLOW_REMOTE=1 if "
    "something else keeps strangers out"
)
_EXACTLY_ONE = (
    "KITE_GATEWAY_AUTH: password needs exactly one of KITE_GATEWAY_PASSWORD_HASH and "
    "KITE_GATEWAY_PASSWORD"
)
_HASH = (
    "KITE_GATEWAY_PASSWORD_HASH: its value is no argon2id hash, which begins with $argon2id$; "
    "docs/api.md says how to make one"
)
_SHORT = f"KITE_GATEWAY_PASSWORD: its value has fewer than {_PASSWORD_LENGTH_MIN} characters"
_ORIGIN = (
    "KITE_GATEWAY_ORIGINS: {!r} is no origin: expected https://host or http://host:port, without "
    "a path"
)


def _is_origin(text: str) -> bool:
    try:
        origin = urlsplit(text)
        port = origin.port
    except ValueError:
        return False
    rebuilt = f"{origin.scheme}://{origin.netloc}"
    has_host = bool(origin.hostname) and "@" not in origin.netloc and port != 0
    return origin.scheme in ("http", "https") and has_host and rebuilt == text
