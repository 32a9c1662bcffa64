"""Asking instead of listening: what is due when, what of an answer is new, what becomes a frame."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.events import Bar, HistoryBar, Tick
from services.ingest.core import Core
from services.ingest.minutes import MINUTE_MS
from services.ingest.polling import AGAIN_MS, SETTLE_MS, Rounds, bars_frame, quotes_frame
from services.ingest.quotes import Quotes, quotes_of
from services.ingest.settings import Settings
from tests.unit.ingest.builders import OPEN_MS

SESSION = calendar.session_at(OPEN_MS)
assert SESSION is not None
DATE = "Fri, 20 Nov 2026 14:30:00 GMT"


def bar_at(minute: int, close: float = 10.0) -> HistoryBar:
    """The bar of a minute after the open."""
    return HistoryBar(
        OPEN_MS + minute * MINUTE_MS, 10.0, max(10.0, close), min(10.0, close), close, 5
    )


class TestRounds:
    def test_a_minute_is_due_once_it_has_settled(self) -> None:
        """The broker needs some seconds to write it down."""
        rounds = Rounds(OPEN_MS + 10_000)
        assert rounds.due(OPEN_MS + MINUTE_MS) is None
        assert rounds.due(OPEN_MS + MINUTE_MS + SETTLE_MS - 1) is None
        assert rounds.due(OPEN_MS + MINUTE_MS + SETTLE_MS) == OPEN_MS + MINUTE_MS
        rounds.done_ms = OPEN_MS + MINUTE_MS
        assert rounds.due(OPEN_MS + MINUTE_MS + 30_000) is None
        assert rounds.due(OPEN_MS + 4 * MINUTE_MS) == OPEN_MS + 3 * MINUTE_MS, "several at once"

    def test_nothing_is_due_while_nothing_trades(self) -> None:
        """The last minute of the evening is, the night and the weekend are not."""
        assert SESSION is not None
        rounds = Rounds(SESSION.post_close_ms - MINUTE_MS)
        assert rounds.due(SESSION.post_close_ms + SETTLE_MS) == SESSION.post_close_ms
        rounds.done_ms = SESSION.post_close_ms
        tomorrow = calendar.next_session(calendar.day_of(OPEN_MS))
        for at_ms in range(SESSION.post_close_ms + SETTLE_MS, tomorrow.pre_open_ms, 40 * MINUTE_MS):
            assert rounds.due(at_ms) is None
        assert rounds.due(tomorrow.pre_open_ms + MINUTE_MS + SETTLE_MS) is not None

    def test_a_round_looks_back_for_what_came_late(self) -> None:
        """But not before the connection, whose past is a gap, nor into yesterday."""
        rounds = Rounds(OPEN_MS)
        assert rounds.since_ms("QQQ", OPEN_MS + 9 * MINUTE_MS) == OPEN_MS
        rounds.news("QQQ", [bar_at(minute) for minute in range(9)])
        assert rounds.since_ms("QQQ", OPEN_MS + 10 * MINUTE_MS) == bar_at(8).ts_ms - AGAIN_MS
        assert rounds.since_ms("SPY", OPEN_MS + 10 * MINUTE_MS) == OPEN_MS
        monday = calendar.next_session(calendar.day_of(OPEN_MS))
        end_ms = monday.pre_open_ms + MINUTE_MS
        assert rounds.since_ms("SPY", end_ms) == calendar.day_start_ms(monday.pre_open_ms)

    def test_bars_are_news_once_and_again_when_they_change(self) -> None:
        """A change has to reach the core, which asks for the day's history then."""
        rounds = Rounds(OPEN_MS)
        first = [bar_at(0), bar_at(1)]
        assert rounds.news("QQQ", first) == first
        assert rounds.news("QQQ", first) == []
        assert rounds.news("SPY", first) == first
        assert rounds.news("QQQ", [bar_at(1, 11.0), bar_at(2)]) == [bar_at(1, 11.0), bar_at(2)]

    @given(st.lists(st.lists(st.integers(0, 40), unique=True).map(sorted), max_size=12))
    def test_every_bar_within_reach_is_told_exactly_once(self, answers: list[list[int]]) -> None:
        """Whatever a round brings late, early or again."""
        rounds, told = Rounds(OPEN_MS), []
        for answer in answers:
            since_ms = rounds.since_ms("QQQ", OPEN_MS + 41 * MINUTE_MS)
            bars = [bar_at(minute) for minute in answer if bar_at(minute).ts_ms >= since_ms]
            told += rounds.news("QQQ", bars)
        assert len({bar.ts_ms for bar in told}) == len(told)


class TestFrames:
    def test_quotes_become_ticks_and_bars_become_bars(self) -> None:
        """In the core they are what the streamer would have sent."""
        core = Core(["QQQ"])
        assert core.login(OPEN_MS)
        core.connected("restart")
        quote = {
            "bidPrice": 9.9, "askPrice": 10.1, "lastPrice": 10.0, "totalVolume": 1_000,
            "quoteTime": OPEN_MS, "tradeTime": OPEN_MS, "mark": 10.0,
        }  # fmt: skip
        core.step(quotes_frame({"QQQ": quote}, OPEN_MS + 1_000))
        later = quote | {"lastPrice": 10.2, "totalVolume": 1_040, "tradeTime": OPEN_MS + 4_000}
        tick = core.step(quotes_frame({"QQQ": later}, OPEN_MS + 5_000)).events[-1]
        assert isinstance(tick, Tick)
        assert (tick.price, tick.volume, tick.bid, tick.ts_ms) == (10.2, 40, 9.9, OPEN_MS + 4_000)
        step = core.step(bars_frame("QQQ", [bar_at(0), bar_at(1)], OPEN_MS + 125_000))
        assert [type(event) for event in step.events] == [Bar, Bar]
        assert step.rejects == []

    def test_quotes_that_did_not_change_make_no_tick(self) -> None:
        """Asked every few seconds, a quiet ticker says the same again and again."""
        core, quote = Core(["QQQ"]), {"lastPrice": 10.0, "totalVolume": 5, "tradeTime": OPEN_MS}
        assert core.login(OPEN_MS)
        core.connected("restart")
        steps = [core.step(quotes_frame({"QQQ": quote}, OPEN_MS + n)) for n in range(5)]
        assert [step.events for step in steps] == [[]] * 5

    def test_a_ticker_that_has_not_traded_yet_has_an_image_all_the_same(self) -> None:
        """Zeros mean that there is nothing; its first trade is a tick."""
        core, quote = Core(["QQQ"]), {"lastPrice": 0, "totalVolume": 0, "tradeTime": 0}
        assert core.login(OPEN_MS)
        core.connected("restart")
        assert core.step(quotes_frame({"QQQ": quote}, OPEN_MS)).rejects == []
        traded = {"lastPrice": 10.0, "totalVolume": 5, "tradeTime": OPEN_MS + 100}
        assert isinstance(core.step(quotes_frame({"QQQ": traded}, OPEN_MS + 200)).events[-1], Tick)


class TestQuotes:
    def test_the_answer_tells_quotes_time_and_what_is_unknown(self) -> None:
        """Sections other than the quote are left alone."""
        body = {
            "QQQ": {"quote": {"lastPrice": 1.0}, "reference": {"cusip": "1"}},
            "SPY": {"reference": {}},
            "errors": {"invalidSymbols": ["NOPE", 7]},
        }
        content = msgspec.json.encode(body)
        found = quotes_of(content, DATE)
        assert found == Quotes(
            {"QQQ": {"lastPrice": 1.0}}, OPEN_MS, len(content), frozenset({"NOPE"})
        )

    @pytest.mark.parametrize("date", [None, "", "yesterday", "20 Nov"])
    def test_an_answer_without_a_time_is_refused(self, date: str | None) -> None:
        """Nothing could be dated."""
        with pytest.raises(ValueError, match="without a time"):
            quotes_of(b"{}", date)

    @pytest.mark.parametrize("content", [b"", b"[]", b"<html>", b'{"a":'])
    def test_an_answer_that_is_no_map_is_refused(self, content: bytes) -> None:
        """A page under maintenance, for example."""
        with pytest.raises(ValueError, match="do not decode"):
            quotes_of(content, DATE)

    def test_parts_are_put_together(self) -> None:
        """The newer time counts."""
        both = Quotes({"A": {}}, 5, 1, frozenset("X")).with_more(Quotes({"B": {}}, 4, 2))
        assert both == Quotes({"A": {}, "B": {}}, 5, 3, frozenset("X"))


class TestSettings:
    @staticmethod
    def settings(**changes: Any) -> Settings:
        """Settings that poll."""
        return Settings(
            nats_url="nats://127.0.0.1:1", tickers=tuple(f"T{n}" for n in range(87)),
            schwab_app_key="k", schwab_app_secret="s", schwab_token_file="t",
            ingest_data_dir="d", **{"ingest_feed": "poll", **changes},
        )  # fmt: skip

    def test_as_many_tickers_as_the_budget_has_room_for(self) -> None:
        """99 requests of 110 a minute: 12 for quotes, 87 for bars."""
        assert self.settings().polled_max == 87
        with pytest.raises(ValueError, match="leave room for 56 tickers: name fewer"):
            self.settings(ingest_poll_quotes_ms=1_428)
        self.settings(ingest_feed="stream", ingest_poll_quotes_ms=1_000)
