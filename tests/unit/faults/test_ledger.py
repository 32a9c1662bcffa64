"""The ledger as the harness reads it: what was sent becomes ticks, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.faults.ledger import SentTick, read_ledger

IMAGE = {"key": "QQQ", "cusip": "1", "3": 10.0, "8": 100, "35": 1_000}


def sent(folder: Path, *items: dict[str, Any]) -> dict[int, SentTick]:
    """Read a ledger of one item a frame, and a torn line at the end."""
    frames = [
        {"data": [{"service": "LEVELONE_EQUITIES", "timestamp": 1, "content": [item]}]}
        for item in items
    ]
    path = folder / "ledger"
    path.write_text("".join(f"5 {json.dumps(frame)}\n" for frame in frames) + '6 {"data":[{"ser')
    return read_ledger(path).get("QQQ", {})


def test_changes_become_ticks_with_their_growth(tmp_path: Path) -> None:
    """Fields that are not named stay what they were; an image says nothing about growth."""
    found = sent(tmp_path, IMAGE, {"key": "QQQ", "8": 130, "35": 2_000})
    assert found == {1_000: SentTick(10.0, 100, True), 2_000: SentTick(10.0, 130, False, 30)}


def test_quotes_are_no_ticks(tmp_path: Path) -> None:
    """Bid and ask change without a trade."""
    assert sent(tmp_path, IMAGE, {"key": "QQQ", "1": 9.9, "34": 3_000}).keys() == {1_000}


def test_an_image_tells_a_trade_again(tmp_path: Path) -> None:
    """After a reset of the volume the day's volume differs; either may have been heard first."""
    trade = {"key": "QQQ", "8": 5, "35": 2_000}
    found = sent(tmp_path, IMAGE, trade, {**IMAGE, "8": 500, "35": 2_000})
    tick = found[2_000]
    assert (tick.image, tick.volume) == (False, None)
    assert tick.tells(tick.price, 5)
    assert tick.tells(tick.price, 500)
    assert not tick.tells(tick.price, 501)


def test_an_image_with_another_price_excuses_no_tick(tmp_path: Path) -> None:
    """What was sent as a tick must be stored, whatever an image says of that moment later."""
    trade = {"key": "QQQ", "8": 130, "35": 2_000}
    found = sent(tmp_path, IMAGE, trade, {**IMAGE, "3": 11.0, "8": 130, "35": 2_000})
    assert not found[2_000].image


def test_the_daily_reset_is_no_tick(tmp_path: Path) -> None:
    """The volume falls by itself; the tick before it stays what it was."""
    found = sent(
        tmp_path, IMAGE, {"key": "QQQ", "8": 130, "35": 2_000}, {"key": "QQQ", "8": 0}
    )  # fmt: skip
    assert found[2_000] == SentTick(10.0, 130, False, 30)


def test_a_reset_with_a_trade_is_a_tick_without_volume(tmp_path: Path) -> None:
    """What was traded before is not known any more."""
    found = sent(tmp_path, IMAGE, {"key": "QQQ", "8": 5, "35": 2_000})
    assert found[2_000] == SentTick(10.0, 5, False, 0)
