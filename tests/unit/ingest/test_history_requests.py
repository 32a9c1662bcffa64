"""Price history: which day is asked for when, how often, and what its answers are worth."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.backfill import PAUSE_S_MAX, TRIES_MAX, Backfill
from services.ingest.candles import CANDLES_MAX, minutes_of
from services.ingest.core import DayWanted
from services.ingest.inbox import INBOX_ITEMS_MAX, Inbox
from tests.unit.ingest.builders import OPEN_MS

QQQ, SPY = DayWanted("QQQ", 0), DayWanted("SPY", 0)


class TestBackfill:
    def test_a_day_waits_once(self) -> None:
        """Ten late bars of a ticker are one request."""
        backfill = Backfill(1.0)
        for _ in range(10):
            backfill.want(QQQ)
        assert backfill.next(0.0, 0) is not None
        assert backfill.next(0.0, 0) is None

    def test_wanted_while_it_is_asked_means_once_more(self) -> None:
        """The answer under way may be too old for what came up meanwhile."""
        backfill = Backfill(1.0)
        backfill.want(QQQ)
        job = backfill.next(0.0, 0)
        assert job is not None
        backfill.want(QQQ)
        backfill.want(QQQ)
        assert backfill.next(0.0, 0) is None
        backfill.done(job)
        assert backfill.next(0.0, 0) is not None
        assert backfill.next(0.0, 0) is None

    def test_a_later_look_waits_for_broker_time(self) -> None:
        """It holds up nobody else."""
        backfill = Backfill(1.0)
        backfill.want(DayWanted("QQQ", 0, after_ms=500))
        backfill.want(SPY)
        first = backfill.next(0.0, 499)
        assert first is not None
        assert first.wanted == SPY
        assert backfill.next(0.0, 499) is None
        assert backfill.next(0.0, 500) is not None

    def test_failures_wait_longer_each_time(self) -> None:
        """From the first pause up to the longest."""
        backfill, now_s, pauses = Backfill(1.0), 0.0, []
        backfill.want(QQQ)
        for _ in range(10):
            job = backfill.next(now_s, 0)
            assert job is not None
            backfill.failed(job, now_s, 0.0)
            pauses.append(job.due_s - now_s)
            now_s = job.due_s
        assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
        assert pauses[-1] == PAUSE_S_MAX

    def test_a_pause_of_the_broker_holds_for_all(self) -> None:
        """Too many requests: nobody asks for a while."""
        backfill = Backfill(1.0)
        backfill.want(QQQ)
        backfill.want(SPY)
        job = backfill.next(0.0, 0)
        assert job is not None
        backfill.failed(job, 0.0, 10.0)
        assert backfill.next(9.9, 0) is None
        assert backfill.next(10.0, 0) is not None

    def test_incomplete_answers_come_to_an_end(self) -> None:
        """After so many tries an answer has to do."""
        backfill, now_s = Backfill(1.0), 0.0
        backfill.want(QQQ)
        for _ in range(TRIES_MAX):
            job = backfill.next(now_s, 0)
            assert job is not None
            assert not job.last_try
            backfill.incomplete(job, now_s)
            now_s = job.due_s
        job = backfill.next(now_s, 0)
        assert job is not None
        assert job.last_try


def candle(minute: int, **changes: object) -> dict[str, object]:
    """A good candle, unless changed."""
    good = {"open": 10, "high": 11.0, "low": 9.5, "close": 10.25, "volume": 7}
    return {**good, "datetime": OPEN_MS + minute * 60_000, **changes}


def answer(*candles: object) -> bytes:
    """Price history's reply."""
    return json.dumps({"symbol": "QQQ", "empty": False, "candles": candles}).encode()


class TestCandles:
    def test_keeps_the_range_in_order(self) -> None:
        """The broker may send whole days in any order; of equal minutes the last one counts."""
        content = answer(candle(2), candle(0), candle(1), candle(0, close=11), candle(3))
        bars, bad = minutes_of(content, OPEN_MS, OPEN_MS + 3 * 60_000)
        assert [bar.ts_ms for bar in bars] == [OPEN_MS + n * 60_000 for n in range(3)]
        assert (bars[0].close, bad) == (11.0, 0)

    @pytest.mark.parametrize(
        "changes",
        [
            {"open": "ten"},
            {"high": 1},
            {"volume": -1},
            {"volume": 1.5},
            {"datetime": OPEN_MS + 1},
            {"datetime": None},
            {"close": 1e308},
        ],
    )
    def test_a_bad_candle_costs_itself(self, changes: dict[str, object]) -> None:
        """The others stay."""
        bars, bad = minutes_of(answer(candle(0, **changes), candle(1)), 0, 1 << 50)
        assert (len(bars), bad) == (1, 1)

    @pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"candles":3}', b"\xff"])
    def test_what_does_not_decode_is_an_error(self, content: bytes) -> None:
        """An edge page instead of JSON is tried again later."""
        with pytest.raises(ValueError, match="does not decode"):
            minutes_of(content, 0, 1 << 50)

    def test_a_flood_is_bounded(self) -> None:
        """More candles than two weeks of minutes are not looked at."""
        content = answer(*[{}] * (CANDLES_MAX + 5))
        assert minutes_of(content, 0, 1 << 50) == ([], CANDLES_MAX + 5)

    @given(st.binary(max_size=60))
    def test_nothing_else_is_raised(self, content: bytes) -> None:
        """Any bytes at all decode or are a ValueError."""
        with suppress(ValueError):
            minutes_of(content, 0, 1 << 50)


class TestInbox:
    def test_its_bound_stops_the_reader_only(self) -> None:
        """What was read is never lost; the next read waits for room."""

        async def scenario() -> None:
            inbox: Inbox[int] = Inbox()
            for number in range(INBOX_ITEMS_MAX + 5):
                inbox.put(number)
            waiting = asyncio.create_task(inbox.room())
            for number in range(6):
                await asyncio.sleep(0)
                assert waiting.done() is False
                assert await inbox.get() == number
            await waiting
            assert len(inbox) == INBOX_ITEMS_MAX - 1

        asyncio.run(scenario())

    def test_bytes_count_too(self) -> None:
        """Few large frames fill it as many small ones do."""

        async def scenario() -> None:
            inbox: Inbox[str] = Inbox()
            inbox.put("large", 64 << 20)
            waiting = asyncio.create_task(inbox.room())
            await asyncio.sleep(0)
            assert not waiting.done()
            assert inbox.take_all() == ["large"]
            await waiting

        asyncio.run(scenario())
