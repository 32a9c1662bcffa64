"""What subscribers see: ticks, closed candles, and the candle that is being made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from libs.common.events import SCHEMA_VERSION, Bar, Clock, Event, Frame, Tick
from libs.common.owner import Answer
from services.indicators.core import Operator
from services.indicators.live import LiveFeed
from services.indicators.provisional import provisional_candles
from services.indicators.settings import Definition
from tests.markets import FULL_DAY, MINUTE_MS, bar, clock_at, frame, gap, run, tick

OPEN_MS = clock_at(FULL_DAY, 9, 30)


def minutes(first: int, last: int) -> list[Bar]:
    """Return bars at these minutes after the open; the close tells which minute it was."""
    return [bar(OPEN_MS + n * MINUTE_MS, 100 + n, 10) for n in range(first, last + 1)]


def shown(
    feed: LiveFeed, operator: Operator, events: Iterable[Event], seq: int = 7
) -> list[tuple[str, dict[str, Any]]]:
    """Return subject and object of every message that follows from one frame."""
    market = frame(events)
    out = Frame(SCHEMA_VERSION, 0, 1, 1, 1, 0, 0, operator.step(market))
    messages = feed(operator, market, Answer(out, seq, 1234))
    return [(subject, json.loads(payload)) for subject, payload in messages]


def test_a_tick_is_one_flat_object() -> None:
    """Fields of the tick, its indicators, and the place of the durable event."""
    moment = Tick("BRK.B", OPEN_MS, 350.25, 5, 900, 350.2, None)
    messages = shown(LiveFeed(), Operator(), [moment])
    assert messages[0] == (
        "live.tick.BRK%2EB",
        {
            "ticker": "BRK.B", "ts_ms": OPEN_MS, "price": 350.25, "volume": 5,
            "total_volume": 900, "bid": 350.2, "ask": None, "sma9": None, "vwap": 350.25,
            "epoch": 1234, "seq": 7, "index": 0,
        },
    )  # fmt: skip


def test_a_closed_candle_is_one_flat_object_with_its_extras() -> None:
    """Extras stand beside the other fields; `index` is the event's place in its frame."""
    operator = Operator(Definition(extras=("ema2",)))
    run(operator, minutes(0, 0))
    subject, message = shown(LiveFeed(), operator, minutes(1, 1))[0]
    assert subject == "live.candle.1m.QQQ"
    assert message == {
        "ticker": "QQQ", "timeframe": "1m", "ts_ms": OPEN_MS + MINUTE_MS, "open": 101,
        "high": 101.01, "low": 100.98, "close": 101, "volume": 10, "sma9": None, "vwap": 100.5,
        "ema2": 100.5, "final": True, "source": "stream", "revision": 0, "epoch": 1234, "seq": 7,
        "index": 0,
    }  # fmt: skip


def test_no_two_messages_of_a_frame_share_an_index() -> None:
    """Provisional candles take the indexes behind those of the durable events."""
    trades = [tick(OPEN_MS), tick(OPEN_MS + 1, ticker="SPY")]
    events: list[Event] = [*trades, *minutes(-1, -1), Clock(OPEN_MS)]
    messages = [message for _, message in shown(LiveFeed(), Operator(), events)]
    assert [m["index"] for m in messages] == list(range(len(messages)))
    assert [m.get("final") for m in messages].count(False) == 8


# -- the open candle ------------------------------------------------------------------------------


def opened(operator: Operator, ticker: str = "QQQ") -> dict[str, Any]:
    """Return the open candles by timeframe."""
    state = operator.ticker(ticker)
    assert state is not None
    return {candle.timeframe: candle for candle in provisional_candles(state)}


def test_the_last_price_is_the_ninth_close() -> None:
    """sma9 moves with the open minute, vwap stays that of the last closed candle."""
    operator = Operator()
    run(operator, [*minutes(0, 8), tick(OPEN_MS + 9 * MINUTE_MS, 118, 3)])
    state = operator.ticker("QQQ")
    assert state is not None
    last_vwap = state.book.series[0].vwap.value
    one = opened(operator)["1m"]
    assert (one.ts_ms, one.close, one.volume) == (OPEN_MS + 9 * MINUTE_MS, 118, 3)
    assert one.sma9 == (sum(range(101, 109)) + 118) / 9
    assert one.vwap == last_vwap


def test_the_open_candle_of_five_minutes_holds_the_minutes_before() -> None:
    """Closed minutes of the bucket and the ticks of the open one make one candle."""
    operator = Operator()
    run(operator, [*minutes(5, 6), tick(OPEN_MS + 7 * MINUTE_MS, 90, 3)])
    five = opened(operator)["5m"]
    assert (five.ts_ms, five.open, five.close) == (OPEN_MS + 5 * MINUTE_MS, 105, 90)
    assert (five.high, five.low, five.volume) == (106.01, 90, 23)


def test_ticks_stand_in_for_a_bar_that_is_on_its_way() -> None:
    """Just after the minute its bar is missing: its ticks count until it comes."""
    operator = Operator()
    nine = [tick(OPEN_MS + 8 * MINUTE_MS + 59_000, 108), tick(OPEN_MS + 9 * MINUTE_MS, 109)]
    run(operator, [*minutes(0, 7), *nine])
    before = opened(operator)["1m"]
    run(operator, minutes(8, 8))
    after = opened(operator)["1m"]
    assert before.sma9 == after.sma9 == sum(range(101, 110)) / 9


def test_a_minute_whose_bar_is_there_is_not_open_any_more() -> None:
    """Ticks of a minute that has closed show nothing."""
    operator = Operator()
    run(operator, [tick(OPEN_MS, 100), *minutes(0, 0)])
    assert opened(operator) == {}


def test_looking_changes_nothing() -> None:
    """Making provisional candles leaves the state as it was."""
    operator = Operator(Definition(extras=("ema2",)))
    run(operator, [*minutes(0, 12), tick(OPEN_MS + 13 * MINUTE_MS, 118)])
    before = operator.snapshot()
    assert opened(operator)["1m"].extras["ema2"] is not None
    assert operator.snapshot() == before


def test_a_new_session_has_no_vwap_yet() -> None:
    """Ticks of 09:30 do not show the pre-market's vwap; sma9 goes on."""
    operator = Operator()
    run(operator, [*minutes(-9, -1), tick(OPEN_MS, 200)])
    one = opened(operator)["1m"]
    assert one.vwap is None
    assert one.sma9 == round((sum(range(92, 100)) + 200) / 9, 6)


def test_behind_a_gap_there_are_prices_but_no_averages() -> None:
    """While closes are missing their mean is not known."""
    operator = Operator(Definition(extras=("ema2",)))
    lost = gap(OPEN_MS + 9 * MINUTE_MS, OPEN_MS + 12 * MINUTE_MS)
    run(operator, [*minutes(0, 8), lost, tick(OPEN_MS + 12 * MINUTE_MS, 118)])
    one = opened(operator)["1m"]
    assert (one.close, one.sma9, one.extras) == (118, None, {"ema2": None})


def test_open_candles_are_shown_once_a_second() -> None:
    """Of ten ticks in a second the first one shows them, and then the first of the next."""
    feed, operator = LiveFeed(), Operator()
    counts = []
    for tenth in range(20):
        messages = shown(feed, operator, [tick(OPEN_MS + tenth * 100, 100 + tenth)])
        counts.append(sum(subject.startswith("live.candle") for subject, _ in messages))
    assert counts == [4, *[0] * 9, 4, *[0] * 9]


def test_open_candles_never_reach_the_durable_frame() -> None:
    """The answer to ticks holds indicators of ticks and nothing else."""
    answers = Operator().step(frame([tick(OPEN_MS), tick(OPEN_MS + 1)]))
    assert {type(event).__name__ for event in answers} == {"TickIndicator"}
