"""The second calculation of sma9 and vwap over ticks agrees with hand-made figures."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from libs.common.calendar import NEW_YORK
from tests.faults.tick_values import wrong_values
from tests.faults.watch import LiveTick


def at_ms(hour: int, minute: int, day: int = 10) -> int:
    """An instant in New York, in epoch ms."""
    return int(dt.datetime(2023, 7, day, hour, minute, tzinfo=NEW_YORK).timestamp() * 1000)


def tick(ts_ms: int, price: float, sma9: float | None, vwap: float | None) -> LiveTick:
    """A stored tick."""
    return LiveTick("QQQ", ts_ms, price, 0, sma9, vwap)


FLAT = [tick(at_ms(8, minute), 10.0, None, 10.0) for minute in range(8)]
NINTH = tick(at_ms(8, 8), 19.0, 11.0, 11.0)
OPENED = tick(at_ms(9, 30), 20.0, 12.111111, 20.0)
NEXT_DAY = tick(at_ms(8, 0, day=11), 30.0, None, None)
ALL = [*FLAT, NINTH, OPENED, NEXT_DAY]
VOLUMES = [1] * 10 + [0]


def test_right_values_pass() -> None:
    """The ninth tick has a mean; the open and the day begin anew; no volume, no vwap."""
    assert wrong_values(ALL, VOLUMES) == []


@pytest.mark.parametrize("field", ["sma9", "vwap"])
def test_a_wrong_value_is_found(field: str) -> None:
    """A millionth is enough."""
    value = getattr(OPENED, field)
    wrong = msgspec.structs.replace(OPENED, **{field: value + 0.000001})
    assert wrong_values([*FLAT, NINTH, wrong], VOLUMES[:10]) == [wrong]


def test_a_tick_that_was_not_counted_is_found() -> None:
    """Values that skip a stored tick do not follow from it."""
    assert NINTH in wrong_values([FLAT[0], *FLAT[2:], NINTH], VOLUMES[:8])
