"""Level one deltas become ticks: what is a change, what is volume, what is old."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.events import Tick
from services.ingest.level_one import (
    TICK_MOVED,
    TICK_OUT_OF_SESSION,
    TICK_RESET,
    LevelOne,
)
from services.ingest.wire import BadItem, LevelOneItem
from tests.unit.ingest.builders import OPEN_MS


def item(
    last: float | None = None,
    volume: int | None = None,
    quote: int | None = None,
    trade: int | None = None,
    bid: float | None = None,
    ask: float | None = None,
) -> LevelOneItem:
    """An item of QQQ; times count from the open."""
    return LevelOneItem(
        "QQQ", bid, ask, last, volume,
        None if quote is None else OPEN_MS + quote,
        None if trade is None else OPEN_MS + trade,
        False,
    )  # fmt: skip


def imaged(last: float = 10.0, volume: int = 1_000, trade: int = 0) -> LevelOne:
    """A ticker that has its image."""
    level_one = LevelOne("QQQ")
    assert level_one.take(item(last, volume, trade, trade), OPEN_MS) == "image"
    return level_one


def tick(found: object) -> Tick:
    """Insist that it is a tick."""
    assert isinstance(found, Tick)
    return found


class TestImage:
    def test_the_first_image_is_no_tick(self) -> None:
        """Its volume is a baseline, not a trade."""
        made = tick(imaged(volume=1_000).take(item(10.1, 1_005, 900, 900), OPEN_MS + 1_000))
        assert (made.volume, made.total_volume, made.price) == (5, 1_005, 10.1)

    def test_items_before_the_image_make_no_tick(self) -> None:
        """Without a total there is nothing that volume could grow from."""
        level_one = LevelOne("QQQ")
        assert level_one.take(item(last=10.0), OPEN_MS) == "before_image"
        assert level_one.take(item(volume=1_000), OPEN_MS) == "image"

    def test_after_an_interruption_the_next_image_is_a_baseline_again(self) -> None:
        """What was traded while nobody listened is a gap, not the volume of one tick."""
        level_one = imaged(volume=1_000)
        level_one.take(item(10.1, 1_005, 900, 900), OPEN_MS + 1_000)
        level_one.interrupted("reconnect", OPEN_MS)
        assert level_one.take(item(10.5, 9_000, 5_000, 5_000), OPEN_MS + 5_100) == "image"
        made = tick(level_one.take(item(10.6, 9_007, 6_000, 6_000), OPEN_MS + 6_100))
        gap = level_one.gap_until(made.ts_ms)
        assert made.volume == 7
        assert gap is not None
        assert (gap.from_ms, gap.to_ms, gap.cause) == (OPEN_MS + 901, OPEN_MS + 6_000, "reconnect")
        assert level_one.gap_until(made.ts_ms) is None, "a gap is told once"

    def test_before_the_first_tick_of_all_they_are_missing_since_the_session_began(self) -> None:
        """Also when an earlier life heard some and died before it could store one."""
        level_one = LevelOne("QQQ")
        level_one.interrupted("restart", OPEN_MS)
        level_one.interrupted("reconnect", OPEN_MS)
        assert level_one.take(item(10.5, 9_000, 5_000, 5_000), OPEN_MS + 5_100) == "image"
        gap = level_one.gap_until(tick(level_one.take(item(trade=6_000), OPEN_MS + 6_100)).ts_ms)
        assert gap is not None
        assert (gap.from_ms, gap.to_ms, gap.cause) == (OPEN_MS, OPEN_MS + 6_000, "restart")

    def test_when_nothing_trades_no_tick_is_missing_before_the_first(self) -> None:
        """Who listens before the market opens hears all of it."""
        level_one = LevelOne("QQQ")
        level_one.interrupted("restart", 0)
        level_one.take(item(10.5, 9_000, 5_000, 5_000), OPEN_MS + 5_100)
        made = tick(level_one.take(item(trade=6_000), OPEN_MS + 6_100))
        assert level_one.gap_until(made.ts_ms) is None


class TestTick:
    @pytest.mark.parametrize(
        "change",
        [item(last=10.2), item(volume=1_010), item(trade=500)],
        ids=["price", "volume", "trade time"],
    )
    def test_each_of_three_changes_makes_one(self, change: LevelOneItem) -> None:
        """Last price, total volume and trade time count."""
        tick(imaged().take(change, OPEN_MS + 600))

    @pytest.mark.parametrize("same", [item(bid=9.9), item(last=10.0), item(quote=500)])
    def test_other_changes_make_none(self, same: LevelOneItem) -> None:
        """Quotes alone and repeated values are no ticks."""
        assert imaged().take(same, OPEN_MS + 600) is None

    def test_it_carries_the_latest_quote(self) -> None:
        """Bid and ask are merged from earlier items; 0 means there is none."""
        level_one = imaged()
        level_one.take(item(bid=9.98, ask=10.02), OPEN_MS + 100)
        level_one.take(item(ask=0.0), OPEN_MS + 200)
        made = tick(level_one.take(item(last=10.01), OPEN_MS + 300))
        assert (made.bid, made.ask) == (9.98, None)

    def test_two_never_share_a_time(self) -> None:
        """A second change at one trade time moves by a millisecond and says so."""
        level_one = imaged()
        first = tick(level_one.take(item(10.1, 1_001, 500, 500), OPEN_MS + 600))
        second = tick(level_one.take(item(10.2, 1_002), OPEN_MS + 700))
        third = tick(level_one.take(item(10.3, 1_003, 600, 400), OPEN_MS + 800))
        assert [first.ts_ms, second.ts_ms, third.ts_ms] == [OPEN_MS + n for n in (500, 501, 502)]
        assert [made.flags for made in (first, second, third)] == [0, TICK_MOVED, TICK_MOVED]

    def test_a_falling_total_is_a_reset(self) -> None:
        """The day's volume began anew: the growth is unknown, so it is not counted."""
        level_one = imaged(volume=1_000)
        made = tick(level_one.take(item(10.1, 20, 900, 900), OPEN_MS + 1_000))
        assert (made.volume, made.flags) == (0, TICK_RESET)
        assert tick(level_one.take(item(volume=25), OPEN_MS + 2_000)).volume == 5

    def test_a_reset_alone_is_no_tick(self) -> None:
        """Nothing was traded when only the total falls."""
        assert imaged(volume=1_000).take(item(volume=0), OPEN_MS + 1_000) == "reset"

    def test_one_outside_the_sessions_flows_with_a_flag(self) -> None:
        """Trades before 07:00 are passed on."""
        night = -3 * 3_600_000  # 06:30
        level_one = imaged(trade=night)
        made = tick(level_one.take(item(10.1, trade=night + 5), OPEN_MS + night + 10))
        assert made.flags == TICK_OUT_OF_SESSION


class TestTime:
    def test_an_old_image_is_ignored(self) -> None:
        """Both times behind the state: sent again, and not to be believed."""
        level_one = imaged(last=10.0, trade=5_000)
        assert level_one.take(item(9.0, 500, 4_000, 4_000), OPEN_MS + 6_000) == "stale_image"
        made = tick(level_one.take(item(10.1, 1_001, 6_000, 6_000), OPEN_MS + 6_100))
        assert made.volume == 1

    def test_one_older_time_is_not_enough(self) -> None:
        """A late trade report has a fresh quote time."""
        level_one = imaged(trade=5_000)
        tick(level_one.take(item(9.9, 1_001, 5_500, 4_000), OPEN_MS + 6_000))

    @pytest.mark.parametrize("future", [item(trade=5_001), item(quote=5_001)])
    def test_the_future_is_refused_before_it_is_merged(self, future: LevelOneItem) -> None:
        """More than five seconds ahead of the frame's own time is not believed."""
        level_one = imaged()
        with pytest.raises(BadItem, match="future_time"):
            level_one.take(future, OPEN_MS)
        tick(level_one.take(item(trade=5_000), OPEN_MS))


DELTAS = st.lists(
    st.builds(
        item,
        last=st.none() | st.sampled_from([9.9, 10.0, 10.1]),
        volume=st.none() | st.integers(0, 3_000),
        quote=st.none() | st.integers(0, 4_000),
        trade=st.none() | st.integers(0, 4_000),
    ),
    max_size=30,
)


@given(DELTAS)
def test_times_rise_and_volumes_add_up(deltas: list[LevelOneItem]) -> None:
    """No two ticks share a time; between resets, volumes are the growth of the total."""
    level_one = imaged(volume=0)
    made = [level_one.take(delta, OPEN_MS + 1_000) for delta in deltas]
    ticks = [found for found in made if isinstance(found, Tick)]
    times = [found.ts_ms for found in ticks]
    assert times == sorted(set(times))
    total, expected = 0, 0
    for delta, found in zip(deltas, made, strict=True):
        if found == "stale_image":
            continue
        if delta.total_volume is not None:
            expected += max(0, delta.total_volume - total)
            total = delta.total_volume
    assert sum(found.volume for found in ticks) == expected
