"""The writer's batcher: frames in, batches out; and where it may begin."""

from __future__ import annotations

import dataclasses
import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import PositionError, SchemaError
from libs.common.events import Bar, Clock, Correction, Event, History, HistoryBar
from services.writer.core import Batcher, Limits, Position, judge_position
from tests.writer_frames import (
    CREATED_MS,
    LIMITS,
    TS_MS,
    batch_of,
    candle,
    frame,
    gap,
    signal,
    tick,
    tick_indicator,
)

START = Position(CREATED_MS)


class TestRows:
    """What becomes of each event."""

    def test_ticks_and_indicators_are_lines(self) -> None:
        """A tick is one line of text in the column order of its table."""
        batch = batch_of([tick(TS_MS + 7)], [tick_indicator(TS_MS + 1000)])
        assert batch.ticks.data == (
            b"QQQ\t2023-11-24 14:30:00.007+00\t389.5125\t100\t5000\t389.5100\t\\N\n"
        )
        assert batch.indicators.data == b"QQQ\t2023-11-24 14:30:01.000+00\t\\N\t389.123457\n"
        assert batch.rows == {
            "equity_data": 1, "indicators": 1, "candles": 0, "gaps": 0, "session_checks": 0,
            "signals": 0,
        }  # fmt: skip

    def test_the_newest_tick_is_known_to_the_second(self) -> None:
        """Of ticks in any order, in this batch alone; other events do not count."""
        batch = batch_of([tick(TS_MS + 61_500), tick(TS_MS + 2_000), candle(TS_MS + 900_000)])
        assert batch.newest_tick_s == TS_MS // 1000 + 61
        assert batch_of([candle()]).newest_tick_s == 0

    def test_events_for_others_are_no_rows(self) -> None:
        """Clocks, bars, histories and correction marks move the position and nothing else."""
        bars = (HistoryBar(TS_MS, 1.0, 1.0, 1.0, 1.0, 1),)
        batch = batch_of(
            [Clock(TS_MS), Bar("QQQ", "1m", TS_MS, 1.0, 1.0, 1.0, 1.0, 1)],
            [History("QQQ", TS_MS, bars)],
            [Correction("QQQ", TS_MS, 1)],
        )
        assert sum(batch.rows.values()) == 0
        assert batch.after == Position(CREATED_MS, 3, 3)

    def test_waves_keep_the_order_of_one_key(self) -> None:
        """The n-th candle of a key is in the n-th wave; other keys do not wait for it."""
        first, second, third = candle(close=1.0), candle(close=2.0), candle(close=1.0)
        other = candle(timeframe="5m")
        batch = batch_of([first, other, second], [third], stream="INDICATORS")
        assert [list(wave) for wave in batch.candles] == [[first, other], [second], [third]]

    def test_the_last_gap_and_the_highest_revision_count(self) -> None:
        """Of one id one row remains, and rows come in the order of their ids."""
        batch = batch_of(
            [gap(TS_MS + 1), gap(TS_MS), gap(TS_MS, state="filled")],
            [signal(revision=3), signal(revision=4), signal(revision=2)],
        )
        assert [each.state for each in batch.gaps] == ["filled", "open"]
        assert [each.revision for each in batch.signals] == [4]

    def test_partitions_are_new_york_days_of_tables_with_rows(self) -> None:
        """A tick before midnight in New York belongs to that day, whatever UTC says."""
        late = TS_MS + 14 * 3_600_000 + 1_800_000  # 00:00 in New York, 05:00 UTC
        batch = batch_of([tick(late - 1), tick(late), candle(late)])
        assert batch.partitions == {
            ("equity_data", date(2023, 11, 24)),
            ("equity_data", date(2023, 11, 25)),
            ("candles", date(2023, 11, 25)),
        }

    @pytest.mark.parametrize(
        "event",
        [
            tick(price=math.nan), tick(bid=math.inf), tick_indicator(vwap=-math.inf),
            candle(sma9=math.nan), candle(extras={"rsi": math.inf}), signal(vwap=math.nan),
            tick(ticker="Q\0"), tick(ts_ms=-1), tick(ts_ms=10**17), candle(ts_ms=10**15),
            gap(to_ms=10**18), signal(ts_ms=-5),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_no_column_can_hold_is_refused(self, event: Event) -> None:
        """NaN, infinities, NUL and impossible times raise before anything is sent."""
        with pytest.raises(SchemaError):
            batch_of([event])

    def test_tickers_may_spell_no_number(self) -> None:
        """Letters that look like NaN are fine in a name."""
        assert batch_of([tick(ticker="nan"), tick(TS_MS + 1, ticker="info")]).ticks.count == 2


class TestMinutesOnly:
    """A store without ticks."""

    def test_ticks_leave_no_rows_and_move_the_position(self) -> None:
        """Nor is a partition made for them; what is fresh is known."""
        batcher = Batcher("MARKET", 0, START, LIMITS, with_ticks=False)
        batcher.add(1, frame(1, tick(), tick_indicator(), tick(TS_MS + 5_000), gap()), 10, 0.0)
        batch = batcher.take()
        assert (batch.after.seq, batch.after.n) == (1, 1)
        assert {table for table, count in batch.rows.items() if count} == {"gaps"}
        assert batch.partitions == frozenset()
        assert batch.newest_tick_s == (TS_MS + 5_000) // 1000
        batcher.add(2, frame(2, candle()), 10, 0.0)
        batch = batcher.take()
        assert batch.rows["candles"] == 1
        assert batch.newest_tick_s == 0

    @pytest.mark.parametrize("ts_ms", [-1, 1 << 60])
    def test_an_impossible_time_is_refused_as_ever(self, ts_ms: int) -> None:
        """What no row could hold stops the writer in both ways."""
        batcher = Batcher("MARKET", 0, START, LIMITS, with_ticks=False)
        with pytest.raises(SchemaError):
            batcher.add(1, frame(1, tick(ts_ms)), 10, 0.0)


class TestBatches:
    """What is written together, and when."""

    def test_due_a_while_after_the_first_frame(self) -> None:
        """The clock of a batch begins with its first frame, not with its last."""
        batcher = Batcher("MARKET", 0, START, LIMITS)
        assert batcher.wait_s(5.0) == math.inf
        batcher.add(1, frame(1), 10, 5.0)
        batcher.add(2, frame(2), 10, 5.2)
        assert not batcher.due(5.24)
        assert batcher.wait_s(5.2) == pytest.approx(0.05)
        assert batcher.due(5.25)
        assert batcher.take().frames == 2
        assert not batcher.due(100.0)

    @pytest.mark.parametrize(
        "limits",
        [Limits(250, 3, 1 << 30), Limits(250, 1 << 30, 200)],
        ids=["rows", "bytes"],
    )
    def test_full_at_its_bounds(self, limits: Limits) -> None:
        """Rows and bytes of input are bounded."""
        batcher = Batcher("MARKET", 0, START, limits)
        batcher.add(1, frame(1, tick(), tick(TS_MS + 1)), 199, 0.0)
        before = batcher.full
        batcher.add(2, frame(2, tick(TS_MS + 2)), 1, 0.0)
        at_the_bound = batcher.full
        batcher.take()
        assert (before, at_the_bound, batcher.full) == (False, True, False)

    def test_each_batch_follows_the_one_before(self) -> None:
        """Positions join without a gap, and sequences of other partitions may lie between."""
        batcher = Batcher("MARKET", 0, Position(CREATED_MS, 10, 4), LIMITS)
        batcher.add(12, frame(5), 10, 0.0)
        batcher.add(17, frame(6), 10, 0.0)
        first = batcher.take()
        batcher.add(18, frame(7), 10, 0.0)
        second = batcher.take()
        assert (first.before, first.after) == (
            Position(CREATED_MS, 10, 4), Position(CREATED_MS, 17, 6),
        )  # fmt: skip
        assert (second.before, second.after) == (first.after, Position(CREATED_MS, 18, 7))

    def test_repeated_frames_are_passed_over(self) -> None:
        """A frame at or before the position adds nothing."""
        batcher = Batcher("MARKET", 0, Position(CREATED_MS, 2, 2), LIMITS)
        batcher.add(2, frame(2, tick()), 10, 0.0)
        assert batcher.frames == 0
        batcher.add(3, frame(3, tick()), 10, 0.0)
        batcher.add(3, frame(3, tick()), 10, 0.0)
        assert batcher.take().ticks.count == 1

    @pytest.mark.parametrize(("position", "n"), [(START, 2), (Position(CREATED_MS, 9, 9), 11)])
    def test_a_missing_frame_is_refused(self, position: Position, n: int) -> None:
        """A frame number that does not follow says that rows would be missing for ever."""
        batcher = Batcher("MARKET", 0, position, LIMITS)
        with pytest.raises(PositionError, match="MARKET partition 0"):
            batcher.add(position.seq + 5, frame(n), 10, 0.0)

    def test_an_accepted_hole_is_not_refused(self) -> None:
        """With a position but no number, the next frame is taken as it comes."""
        batcher = Batcher("MARKET", 0, Position(CREATED_MS, 9, 0), LIMITS)
        batcher.add(10, frame(77), 10, 0.0)
        assert batcher.take().after == Position(CREATED_MS, 10, 77)

    def test_tells_the_newest_broker_time_and_each_arrival(self) -> None:
        """Freshness and latency are measured from what frames carry."""
        batcher = Batcher("MARKET", 0, START, LIMITS)
        for n, (sent_ms, received_ms) in enumerate([(5, 50), (9, 51), (7, 52)], 1):
            batcher.add(n, frame(n, sent_ms=sent_ms, received_ms=received_ms), 10, 0.0)
        batch = batcher.take()
        assert (batch.sent_ms, batch.received_ms) == (9, [50, 51, 52])

    @given(
        frames=st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=30),
        cuts=st.sets(st.integers(0, 30)),
    )
    def test_any_split_into_batches_has_the_same_lines(
        self, frames: list[list[int]], cuts: set[int]
    ) -> None:
        """Where batches are cut changes neither the lines nor the last position."""

        def events(n: int, kinds: list[int]) -> list[Event]:
            ts_ms = TS_MS + n * 700
            return [
                tick(ts_ms + at, ticker=f"T{kind}") if kind % 2 else tick_indicator(ts_ms + at)
                for at, kind in enumerate(kinds)
            ]

        def lines(cut_after: set[int]) -> tuple[bytes, bytes, Position]:
            batcher = Batcher("MARKET", 0, START, LIMITS)
            ticks = indicators = b""
            for n, kinds in enumerate(frames, 1):
                batcher.add(n, frame(n, *events(n, kinds)), 10, 0.0)
                if n in cut_after or n == len(frames):
                    batch = batcher.take()
                    ticks += batch.ticks.data
                    indicators += batch.indicators.data
            return ticks, indicators, batcher.take().after

        assert lines(cuts) == lines(set())


class TestJudgement:
    """Which positions fit their stream."""

    def test_without_a_position_from_the_beginning(self) -> None:
        """A store that holds nothing begins at the first message."""
        assert judge_position(None, CREATED_MS, 1, 10, "lane", sole=True) == START

    @pytest.mark.parametrize("seq", [4, 5, 10])
    def test_within_the_stream(self, seq: int) -> None:
        """Anything from just before the first message to the last one fits."""
        position = Position(CREATED_MS, seq, seq)
        assert judge_position(position, CREATED_MS, 5, 10, "lane", sole=True) is position

    def test_all_messages_gone_and_all_written(self) -> None:
        """An empty stream whose every message was written is no reason to refuse."""
        position = Position(CREATED_MS, 10, 10)
        assert judge_position(position, CREATED_MS, 11, 10, "lane", sole=True) is position

    @pytest.mark.parametrize(
        ("position", "match"),
        [
            (Position(CREATED_MS, 11, 11), "lane: .* ends at 10"),
            (Position(CREATED_MS, 3, 3), "after 3 and before 5 .* seq = 4 and frame_n = 0"),
            (Position(CREATED_MS - 1, 7, 7), "made anew"),
            (None, "after 0 and before 5"),
        ],
    )
    def test_refused(self, position: Position | None, match: str) -> None:
        """Ahead, behind, of another incarnation: each with what happened and how to mend it."""
        with pytest.raises(PositionError, match=match):
            judge_position(position, CREATED_MS, 5, 10, "lane", sole=True)

    def test_behind_may_be_other_partitions_messages(self) -> None:
        """With several partitions only the frame numbers can tell."""
        position = Position(CREATED_MS, 3, 3)
        assert judge_position(position, CREATED_MS, 5, 10, "lane", sole=False) is position


def test_batches_are_values() -> None:
    """A batch that was handed over does not change any more."""
    batcher = Batcher("INDICATORS", 0, START, LIMITS)
    batcher.add(1, frame(1, tick_indicator(), candle(), gap()), 10, 0.0)
    batch = batcher.take()
    copy = dataclasses.replace(batch)
    batcher.add(
        2, frame(2, tick_indicator(TS_MS + 1), candle(close=1.0), gap(state="filled")), 10, 0.0
    )
    batcher.take()
    assert batch == copy
    assert batch.gaps[0].state == "open"
