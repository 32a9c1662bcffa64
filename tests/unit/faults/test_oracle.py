"""The judge of fault runs: silent when all is well, and red for each way in which it is not."""

from __future__ import annotations

import msgspec
import pytest

from tests.faults.ledger import Sent, SentTick
from tests.faults.oracle import TABLES, Book, same_day, same_minutes, same_rows
from tests.faults.watch import LiveTick

END_MS = 100_000
TIMES_MS = (1_000, 2_000, 3_000, 4_000)


def tick(ts_ms: int, price: float = 10.0) -> LiveTick:
    """A tick as it is stored and said live."""
    return LiveTick("QQQ", ts_ms, price, ts_ms // 1_000, None, price)


def book(*times_ms: int, gaps: tuple[tuple[int, int], ...] = ()) -> Book:
    """What the tables hold after these ticks; every table has one line for each."""
    lines = [(ts_ms, f"row of {ts_ms}") for ts_ms in times_ms]
    always = [(ts_ms, f"row of {ts_ms}") for ts_ms in TIMES_MS]
    tables = {table.name: lines for table in TABLES}
    essence = {f"essence of {name}": always for name in ("candles", "signals")}
    listed = [("QQQ", begin, end, "ticks", "unfillable") for begin, end in gaps]
    return Book(tables | essence, {"QQQ": [tick(ts_ms) for ts_ms in times_ms]}, listed, [])


SENT: Sent = {"QQQ": {ts_ms: SentTick(10.0, ts_ms // 1_000, False) for ts_ms in TIMES_MS}}
WHOLE = book(*TIMES_MS)
HOLED = book(1_000, 4_000, gaps=((1_001, 4_000),))


class TestNothingMissed:
    def test_equal_rows_are_silent(self) -> None:
        """The same rows, all that was sent, and nothing else."""
        live = [tick(ts_ms) for ts_ms in TIMES_MS]
        assert same_rows(WHOLE, WHOLE, SENT, live, END_MS) == []

    def test_rows_beyond_the_judged_time_do_not_count(self) -> None:
        """The stack plays on while it is judged."""
        later = {"QQQ": SENT["QQQ"] | {5_000: SentTick(10.0, 5, False)}}
        assert same_rows(book(*TIMES_MS, 5_000), WHOLE, later, [], 4_500) == []

    def test_a_lost_tick_is_found_twice(self) -> None:
        """Against the undisturbed run, and against the broker's ledger."""
        found = same_rows(book(1_000, 3_000, 4_000), WHOLE, SENT, [], END_MS)
        assert any("missing" in line for line in found)
        assert any("sent and not stored" in line for line in found)

    def test_a_doubled_row_is_found(self) -> None:
        """Sets would be equal; the number is not."""
        doubled = msgspec.structs.replace(
            WHOLE, lines=WHOLE.lines | {"signals": WHOLE.lines["signals"] * 2}
        )
        assert same_rows(doubled, WHOLE, SENT, [], END_MS) == [
            "signals: the same rows in another number, 8 instead of 4"
        ]

    def test_another_order_is_found(self) -> None:
        """The digest is over rows in order."""
        turned = msgspec.structs.replace(
            WHOLE, lines=WHOLE.lines | {"candles": WHOLE.lines["candles"][::-1]}
        )
        assert same_rows(turned, WHOLE, SENT, [], END_MS)

    def test_an_image_need_not_be_a_tick(self) -> None:
        """It opens a connection and tells of the past."""
        sent = {"QQQ": SENT["QQQ"] | {500: SentTick(9.0, 0, True)}}
        assert same_rows(WHOLE, WHOLE, sent, [], END_MS) == []

    def test_an_indicator_without_its_tick_is_found(self) -> None:
        """Both rows of a tick come from one wire frame."""
        torn = msgspec.structs.replace(WHOLE, orphans=[2_000])
        assert same_rows(torn, WHOLE, SENT, [], END_MS)


class TestInputMissed:
    def test_a_listed_hole_is_silent(self) -> None:
        """What is missing lies in the gap, and nothing else does."""
        assert same_day(HOLED, WHOLE, SENT, [], END_MS) == []

    @pytest.mark.parametrize(
        ("gap", "what"),
        [
            ((1_001, 3_000), "are in no gap"),
            ((2_001, 4_000), "are in no gap"),
            ((1_000, 4_000), "holds 1 stored ticks"),
            ((1_001, 4_001), "holds 1 stored ticks"),
        ],
    )
    def test_a_gap_is_exact(self, gap: tuple[int, int], what: str) -> None:
        """Neither shorter than the hole nor over a tick that is there."""
        found = same_day(book(1_000, 4_000, gaps=(gap,)), WHOLE, SENT, [], END_MS)
        assert len(found) == 1
        assert what in found[0]

    def test_candles_and_signals_must_be_equal_all_the_same(self) -> None:
        """The broker's history has the minutes that were missed."""
        lacking = msgspec.structs.replace(
            HOLED, lines=HOLED.lines | {"essence of candles": [(1_000, "row of 1000")]}
        )
        (found,) = same_day(lacking, WHOLE, SENT, [], END_MS)
        assert "3 that are missing" in found


class TestLies:
    def test_what_was_never_sent_is_found(self) -> None:
        """A tick at another time, or with another price."""
        for invented in (tick(2_500), tick(2_000, price=11.0)):
            ticks = {"QQQ": [*WHOLE.ticks["QQQ"], invented]}
            lying = msgspec.structs.replace(WHOLE, ticks=ticks)
            assert any("never sent" in line for line in same_day(lying, WHOLE, SENT, [], END_MS))

    def test_what_was_said_live_must_be_stored(self) -> None:
        """It was said after it was acknowledged; an acknowledged tick may not vanish or change."""
        assert any("live" in line for line in same_day(HOLED, WHOLE, SENT, [tick(2_000)], END_MS))
        assert any(
            "live" in line for line in same_rows(WHOLE, WHOLE, SENT, [tick(2_000, 9.0)], END_MS)
        )


class TestFigures:
    def test_a_volume_that_the_wire_did_not_say_is_found(self) -> None:
        """The growth of the day's volume between two items, and nothing else."""
        sent = {"QQQ": {1_000: SentTick(10.0, 1, False, 7)}}
        told = msgspec.structs.replace(book(1_000), volumes={"QQQ": [7]})
        assert not [line for line in same_day(told, told, sent, [], END_MS) if "volumes" in line]
        wrong = msgspec.structs.replace(told, volumes={"QQQ": [8]})
        assert any("not the wire's" in line for line in same_day(wrong, told, sent, [], END_MS))

    def test_a_value_that_does_not_follow_is_found(self) -> None:
        """The stored vwap is not that of the stored ticks."""
        wrong = msgspec.structs.replace(
            WHOLE,
            ticks={"QQQ": [msgspec.structs.replace(tick(1_000), vwap=10.000001)]},
            volumes={"QQQ": [1]},
        )
        assert any("do not follow" in line for line in same_day(wrong, WHOLE, SENT, [], END_MS))


class TestFramesLost:
    """The undisturbed run has four minutes; the wire brought some of their bars."""

    MINUTES = (0, 60_000, 120_000, 180_000)

    def judged(self, brought: set[int], gaps: tuple[tuple[int, int], ...] = ()) -> list[str]:
        """What is found when these bars were sent and these gaps are listed."""
        lines = [(at_ms + 60_000, f"QQQ|1m|{at_ms}") for at_ms in self.MINUTES]
        others = [(300_000, "QQQ|5m|0")]
        expected = msgspec.structs.replace(WHOLE, lines=WHOLE.lines | {"candles": lines + others})
        listed = [("QQQ", begin, end, "bars", "filled") for begin, end in gaps]
        found = msgspec.structs.replace(WHOLE, gaps=listed)
        return same_minutes(found, expected, SENT, [], 200_000, {"QQQ": brought})

    def test_what_came_needs_no_gap(self) -> None:
        """And what is beyond the judged time does not count; only minutes have bars."""
        assert self.judged({0, 60_000, 120_000}) == []

    def test_what_never_came_must_be_in_a_gap(self) -> None:
        """Whatever became of it, as long as it is listed."""
        assert self.judged({0}, ((60_000, 180_000),)) == []
        assert self.judged({0}, ((60_000, 120_000),)) == [
            "1 minutes of QQQ never came and are in no gap: 120000"
        ]

    def test_of_a_ticker_that_never_came_every_minute_counts(self) -> None:
        """A gap of ticks is no reason for a bar to be missing."""
        ticks = [("QQQ", 0, 300_000, "ticks", "unfillable")]
        found = msgspec.structs.replace(WHOLE, gaps=ticks)
        lines = WHOLE.lines | {"candles": [(60_000, "QQQ|1m|0")]}
        expected = msgspec.structs.replace(WHOLE, lines=lines)
        assert len(same_minutes(found, expected, SENT, [], END_MS, {})) == 1

    def test_candles_and_signals_must_be_equal_all_the_same(self) -> None:
        """Price history has them."""
        whole = msgspec.structs.replace(WHOLE, lines=WHOLE.lines | {"candles": []})
        torn = msgspec.structs.replace(whole, lines=whole.lines | {"essence of candles": []})
        assert same_minutes(whole, whole, SENT, [], END_MS, {}) == []
        (found,) = same_minutes(torn, whole, SENT, [], END_MS, {})
        assert "4 that are missing" in found
