"""The servers' passwords and keys: random, made once, kept in one file that only we can read."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from deploy.policy import BUS_USERS
from deploy.private_files import write_private
from libs.common.bus import nkey
from libs.common.errors import ServerError

__all__ = ["Credentials", "load_credentials"]

FILE_NAME = "credentials.json"
_PASSWORD_BYTES = 24


class Credentials(msgspec.Struct, frozen=True):
    """Passwords by user, for the bus mostly keys (see `libs.common.bus.nkey`).

    `server_id` lets a server be told from a stranger on the same port.
    """

    server_id: str
    nats: dict[str, str]
    postgres: dict[str, str]


def load_credentials(
    home: Path, *, nats_users: tuple[str, ...] = (), postgres_users: tuple[str, ...] = ()
) -> Credentials:
    """Return the passwords and keys kept in `home`, making those that are missing.

    Raises ServerError when the file cannot be read, is not ours to trust, or is broken.
    """
    path = home / FILE_NAME
    kept = _read(path)
    wanted = Credentials(
        server_id=kept.server_id if kept else secrets.token_hex(8),
        nats=_with_keys(kept.nats if kept else {}, nats_users),
        postgres=_complete(kept.postgres if kept else {}, postgres_users),
    )
    if wanted != kept:
        encoded = msgspec.json.format(msgspec.json.encode(wanted), indent=2)
        write_private(path, encoded.decode() + "\n")
    return wanted


def _read(path: Path) -> Credentials | None:
    try:
        if path.stat().st_mode & 0o077:
            raise ServerError(f"{path} is readable by others: chmod 600 it, or delete it to renew")
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServerError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ServerError(f"{path} is broken ({error}): delete it, a new one is made") from error


def _with_keys(kept: dict[str, str], users: tuple[str, ...]) -> dict[str, str]:
    """Add what is missing on the bus; a password from before there were keys becomes one."""
    by_key = [user for user in users if not BUS_USERS[user].has_password]
    made = {user: nkey.new_seed() for user in by_key if not nkey.is_seed(kept.get(user, ""))}
    return _complete({**kept, **made}, users)


def _complete(kept: dict[str, str], users: tuple[str, ...]) -> dict[str, str]:
    missing = {user: secrets.token_urlsafe(_PASSWORD_BYTES) for user in users if user not in kept}
    return {**kept, **missing}
