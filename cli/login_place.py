"""Where a login's token and its key are on this machine.

    <home>/<store>/login/schwab-token.json    the token, sealed
    <home>/keys/schwab-token.key              the key, made on first use

A store that is copied or backed up therefore holds nothing that opens the account.
KITE_SCHWAB_TOKEN_FILE names another place for the token; KITE_SCHWAB_TOKEN_KEY is the key itself,
KITE_SCHWAB_TOKEN_KEY_FILE a file of yours that holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from libs.common.errors import SettingsError
from libs.common.sealing import KeyInvalid, kept_key
from libs.common.token_file import private_folder

__all__ = ["TOKEN_FILE_NAME", "token_file", "token_settings"]

TOKEN_FILE_NAME = "schwab-token.json"  # noqa: S105 - the name of the file, not what is in it
_KEY_FILE_NAME = "schwab-token.key"
_KEY, _KEY_FILE = "KITE_SCHWAB_TOKEN_KEY", "KITE_SCHWAB_TOKEN_KEY_FILE"


def token_file(store: Path, environ: Mapping[str, str], *, named: bool = True) -> Path:
    """Return where the token of a store is; a person may name another place for the account's.

    One of an earlier version, directly in the store, moves to where it is now. Raises SettingsError
    when it cannot.
    """
    if named and (chosen := environ.get("KITE_SCHWAB_TOKEN_FILE")):
        return Path(chosen).absolute()
    place, old = store / "login" / TOKEN_FILE_NAME, store / TOKEN_FILE_NAME
    if old.is_file() and not place.exists():
        try:
            private_folder(place.parent)
            old.rename(place)
        except OSError as error:
            raise SettingsError([f"{old} cannot be moved to {place}: {error.strerror}"]) from None
    return place


def token_settings(home: Path, token: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a process is told of the token and its key; raises SettingsError.

    The key is made if there is none. A key of the caller's is handed on as it was given.
    """
    settings = {"KITE_SCHWAB_TOKEN_FILE": str(token)}
    for name in (_KEY, _KEY_FILE):
        if environ.get(name):
            return {**settings, name: environ[name]}
    place = home / "keys" / _KEY_FILE_NAME
    try:
        private_folder(place.parent)
        kept_key(place)
    except KeyInvalid as error:
        raise SettingsError([f"the token's key: {error}"]) from None
    except OSError as error:
        raise SettingsError([f"the token's key: {place}: {error.strerror}"]) from None
    return {**settings, _KEY_FILE: str(place)}
