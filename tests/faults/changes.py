"""Mends after which trials that were made before still count, and for which scenes they do not.

A campaign takes hours, and what it finds is mended. A mend that only some scenes can feel sends
their rows to the start; for all others the code does what it did. The page names each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CHANGES", "Change", "counts"]


@dataclass(frozen=True)
class Change:
    """From one digest of the code to the next; `scenes` are those that can feel it."""

    before: str
    after: str
    what: str
    scenes: frozenset[str]


CHANGES: tuple[Change, ...] = (
    Change(
        "fee673a69595",
        "6ff8d3e4ac7e",
        "an access token that cannot be saved is also used for the next login to the streamer",
        frozenset({"small disk"}),
    ),
)


def counts(code: str, scene: str, now: str, changes: Sequence[Change] = CHANGES) -> bool:
    """Return whether trials of that code and scene count for the code of `now`."""
    while code != now:
        step = next((each for each in changes if each.before == code), None)
        if step is None or scene in step.scenes:
            return False
        code = step.after
    return True
