"""The judge of `test_losses.py` complains when it should, and every image has a stand-in.

Needs no Docker.
"""

from __future__ import annotations

import pytest

from tests.containers import standins
from tests.containers.judge import wrong_ticks
from tests.faults.ledger import SentTick
from tests.faults.oracle import Book
from tests.faults.watch import LiveTick

# Of a Monday at 10:00 New York, one a second.
TIMES_MS = tuple(1_689_000_000_000 + 1_000 * number for number in range(3))


def sent() -> dict[str, dict[int, SentTick]]:
    """What went over the wire."""
    ticks = {ts: SentTick(10.0, 100 + n, False, 1) for n, ts in enumerate(TIMES_MS)}
    return {"QQQ": ticks}


def book(*without: int, gaps: list[tuple[str, int, int, str, str]] | None = None) -> Book:
    """What is stored, which is all but those at some places."""
    ticks = [
        LiveTick("QQQ", ts, 10.0, 100 + n, None, 10.0)
        for n, ts in enumerate(TIMES_MS)
        if n not in without
    ]
    lines: dict[str, list[tuple[int, str]]] = {
        "essence of candles": [],
        "essence of signals": [],
    }
    return Book(lines, {"QQQ": ticks}, gaps or [], [], {"QQQ": [1] * len(ticks)})


def test_a_whole_day_is_right() -> None:
    """Everything that was sent is stored as it was sent."""
    assert wrong_ticks(book(), sent(), []) == []


def test_a_lost_tick_is_found_unless_a_gap_tells_of_it() -> None:
    """What is not stored must lie in a listed gap."""
    (complaint,) = wrong_ticks(book(1), sent(), [])
    assert "1 ticks of QQQ are in no gap" in complaint
    gap = ("QQQ", TIMES_MS[1], TIMES_MS[2], "ticks", "unfillable")
    assert wrong_ticks(book(1, gaps=[gap]), sent(), []) == []


def test_a_tick_that_was_never_sent_is_found() -> None:
    """Nothing is made up."""
    wire = sent()
    del wire["QQQ"][TIMES_MS[2]]
    assert any("never sent" in complaint for complaint in wrong_ticks(book(), wire, []))


def test_what_was_said_live_and_is_not_stored_is_found() -> None:
    """Whoever heard it may rely on it."""
    said = LiveTick("QQQ", TIMES_MS[0], 11.0, 100, None, 11.0)
    assert any("live" in complaint for complaint in wrong_ticks(book(), sent(), [said]))


@pytest.mark.parametrize("image", standins.wanted())
def test_every_image_has_a_stand_in(image: str) -> None:
    """Whoever adds an image to the compose file says what stands in for it."""
    assert standins.has_stand_in(image)
