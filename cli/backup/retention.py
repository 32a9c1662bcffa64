"""Which backups may go: pure.

A policy keeps the newest so many, and the newest of each New York day and each week for so many
days and weeks that have one. Whatever one of the three keeps is kept; the newest is never deleted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Hashable, Sequence

from msgspec import Struct

from cli.backup.manifest import made_ms_of
from libs.common.calendar import NEW_YORK
from libs.common.errors import SettingsError

__all__ = ["Policy", "doomed", "parse"]

_COUNT_MAX = 10_000


class Policy(Struct, frozen=True):
    """How many to keep of the newest, of the days', of the weeks'."""

    last: int = 1
    daily: int = 0
    weekly: int = 0


def parse(text: str) -> Policy:
    """Read `last=3,daily=7,weekly=5`; raises SettingsError naming what is wrong."""
    counts: dict[str, int] = {}
    for item in (item.strip() for item in text.split(",") if item.strip()):
        name, _, count = item.partition("=")
        if name not in Policy.__struct_fields__ or not count.isdecimal():
            raise SettingsError(
                [f"{item!r} says nothing about what to keep; write last=3,daily=7,weekly=5"]
            )
        if int(count) > _COUNT_MAX:
            raise SettingsError([f"{item!r}: at most {_COUNT_MAX}"])
        counts[name] = int(count)
    if not any(counts.values()):
        raise SettingsError([f"{text!r} keeps nothing; write for example last=3,daily=7,weekly=5"])
    return Policy(**{"last": 1, **counts})


def doomed(names: Sequence[str], policy: Policy) -> list[str]:
    """Return those of the backups that the policy does not keep, oldest first."""
    newest_first = sorted(names, reverse=True)
    kept = set(newest_first[: max(policy.last, 1)])
    kept |= _newest_of(newest_first, lambda day: day, policy.daily)
    kept |= _newest_of(newest_first, lambda day: day.isocalendar()[:2], policy.weekly)
    return sorted(set(names) - kept)


def _newest_of(
    newest_first: Sequence[str], period: Callable[[dt.date], Hashable], count: int
) -> set[str]:
    """Return the newest of each of the last `count` periods that have one."""
    found: dict[Hashable, str] = {}
    for name in newest_first:
        moment = dt.datetime.fromtimestamp(made_ms_of(name) / 1000, NEW_YORK)
        found.setdefault(period(moment.date()), name)
    return set(list(found.values())[:count])
