"""The file that says who is told: TOML in, channels out, every mistake in a line of its own.

    zone = "America/New_York"        # of quiet hours, unless a channel has its own

    [heartbeat]
    url = "https://…"                # asked for as long as Alertmanager's Watchdog arrives

    [channels.phone]
    url = "ntfys://…"                # an address as Apprise writes them
    tickers = ["QQQ"]

Addresses are secrets: they are in no error, no log and no `repr`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from libs.common.errors import SettingsError
from services.notifier.core import Channel

__all__ = ["CHANNELS_MAX", "Book", "Entry", "Secret", "load", "parse"]

CHANNELS_MAX: Final = 32
_FILE_BYTES_MAX: Final = 256 * 1024
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_VARIABLE: Final = "KITE_NOTIFY_FILE"
_ZONE: Final = "America/New_York"

_Address = Annotated[str, Meta(min_length=1, max_length=4096)]


class Secret:
    """A text that does not show itself by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "***"


class Entry(Struct, frozen=True):
    """One channel: its name, its address, and what it wants."""

    name: str
    url: Secret
    channel: Channel


class Book(Struct, frozen=True):
    """Everybody who is told, and the address that is to hear the heartbeat."""

    entries: tuple[Entry, ...] = ()
    heartbeat: Secret | None = None


def load(path: str) -> Book:
    """Read the file at `path`, or return an empty book for an empty path.

    Raises SettingsError with a line for each mistake.
    """
    if not path:
        return Book()
    try:
        with Path(path).open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError([f"{_VARIABLE}: {path} cannot be read: {error.strerror}"]) from None
    if len(data) > _FILE_BYTES_MAX:
        raise SettingsError([f"{_VARIABLE}: {path} has more than {_FILE_BYTES_MAX} bytes"])
    try:
        return parse(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise SettingsError([f"{_VARIABLE}: {path} is not UTF-8 text"]) from None
    except SettingsError as error:
        raise SettingsError([f"{path}: {problem}" for problem in error.problems]) from None


def parse(text: str) -> Book:
    """Turn the file's text into a book; raises SettingsError with a line for each mistake."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Its message may quote the line, which may hold an address.
        place = re.search(r"\(at [^)]*\)", str(error))
        where = place[0][1:-1] if place else "somewhere"
        raise SettingsError([f"it is not TOML: a mistake {where}"]) from None
    problems = [
        f"{key}: unknown; there are zone, heartbeat and channels"
        for key in found
        if key not in ("zone", "heartbeat", "channels")
    ]
    zone = found.get("zone", _ZONE)
    if wrong := _zone_problems("zone", zone):
        problems += wrong
        zone = _ZONE
    heartbeat = _heartbeat(found.get("heartbeat"), problems)
    entries = _entries(found.get("channels", {}), zone, problems)
    if problems:
        raise SettingsError(problems)
    return Book(tuple(entries), heartbeat)


def _entries(tables: Any, zone: str, problems: list[str]) -> list[Entry]:
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        problems.append("channels: expected tables such as [channels.phone]")
        return []
    if len(tables) > CHANNELS_MAX:
        problems.append(f"channels: {len(tables)} of them, {CHANNELS_MAX} at most")
    entries = []
    for name, table in tables.items():
        before = len(problems)
        where = f"channels.{name}"
        if not _NAME.fullmatch(name):
            problems.append(
                f"{where}: a name has up to 32 of a-z, 0-9, _ and -, and begins with one of the "
                "first two"
            )
        url = _secret(f"{where}.url", table.get("url"), problems)
        values = _values(where, {"zone": zone, **table}, problems)
        if len(problems) == before and url is not None:
            entries.append(Entry(name, url, Channel(**values)))
    return entries


def _values(where: str, table: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Convert each field by itself, so that each mistake gets its line."""
    fields = {field.name: field for field in msgspec.structs.fields(Channel)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "url":
            continue
        if key not in fields:
            problems.append(f"{where}.{key}: unknown; there are url, {', '.join(fields)}")
            continue
        try:
            values[key] = msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as error:
            said = str(error)
            problems.append(f"{where}.{key}: {said[:1].lower()}{said[1:]}")
            continue
        if key == "zone":
            problems += _zone_problems(f"{where}.zone", value)
    return values


def _zone_problems(where: str, zone: Any) -> list[str]:
    try:
        ZoneInfo(zone)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return [f"{where}: {zone!r} is no time zone, expected one such as America/New_York"]
    return []


def _heartbeat(table: Any, problems: list[str]) -> Secret | None:
    if table is None:
        return None
    if not isinstance(table, dict) or set(table) != {"url"}:
        problems.append("heartbeat: expected a table with one entry, url")
        return None
    url = _secret("heartbeat.url", table["url"], problems)
    if url is None:
        return None
    try:
        parts = urlsplit(url.reveal())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        problems.append("heartbeat.url: its value is no http:// or https:// address")
    return url


def _secret(where: str, value: Any, problems: list[str]) -> Secret | None:
    if value is None:
        problems.append(f"{where}: required, but not there")
        return None
    try:
        return Secret(msgspec.convert(value, _Address))
    except msgspec.ValidationError:
        problems.append(f"{where}: its value is no text of 1 to 4096 characters")
        return None
