"""Which tickers are asked for, in which order, and who has to go when the broker takes fewer.

The list is ordered by priority: the first are kept, the last are dropped first. It begins as
KITE_TICKERS says; `add` and `remove` change it, and the changes outlive restarts. A changed
KITE_TICKERS is a change, too: what was put into it is added, what was taken out of it is removed,
and everything else that was added or removed meanwhile stays as it is (`merged`). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.ingest.settings import TICKERS_MAX

__all__ = ["Refusal", "added", "merged", "planned", "removed"]

Tickers = tuple[str, ...]


class Refusal(Exception):
    """What was asked for is understood and not done; the text says why, and what to do."""


def merged(tickers: Tickers, before: Tickers, now: Tickers) -> Tickers:
    """Return the list after KITE_TICKERS went from `before` to `now`.

    When it did not change, neither does the list. Otherwise its tickers come first, in its order.
    """
    if before == now:
        return tickers
    taken_out = set(before) - set(now)
    put_in = set(now) - set(before)
    kept = [ticker for ticker in tickers if ticker not in taken_out]
    wanted = {*kept, *put_in}
    first = [ticker for ticker in now if ticker in wanted]
    found = tuple(dict.fromkeys([*first, *kept]))
    return found[:TICKERS_MAX] or now


def added(tickers: Tickers, new: Sequence[str], *, first: bool) -> Tickers:
    """Return the list with more tickers, at its end or its beginning; raises Refusal.

    Who is there already stays in place, unless the beginning was asked for.
    """
    fresh = tuple(dict.fromkeys(new))
    found = (
        fresh + tuple(ticker for ticker in tickers if ticker not in fresh)
        if first
        else tuple(dict.fromkeys([*tickers, *fresh]))
    )
    if len(found) > TICKERS_MAX:
        raise Refusal(
            f"that makes {len(found)} tickers, but Schwab sends minute bars for at most "
            f"{TICKERS_MAX}: remove {len(found) - TICKERS_MAX} others first"
        )
    return found


def removed(tickers: Tickers, gone: Sequence[str]) -> Tickers:
    """Return the list without some tickers; raises Refusal."""
    strangers = [ticker for ticker in dict.fromkeys(gone) if ticker not in tickers]
    if strangers:
        raise Refusal(f"not on the list: {', '.join(strangers)}")
    left = tuple(ticker for ticker in tickers if ticker not in gone)
    if not left:
        raise Refusal(
            "one ticker has to stay, because the broker hangs up on whoever wants nothing: "
            "add another one first"
        )
    return left


def planned(
    taken: Sequence[str], wanted: Sequence[str], cap: int | None
) -> tuple[list[str], list[str]]:
    """Return whom to leave and whom to ask for, in this order of priority, within the cap."""
    target = wanted[:cap]
    goal, there = set(target), set(taken)
    return [t for t in taken if t not in goal], [t for t in target if t not in there]
