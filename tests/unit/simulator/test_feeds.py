"""What a subscriber receives: images and deltas that add up, and bars that equal history."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.simulator import history
from services.simulator.chart_feed import ChartFeed, bar_sent_ms
from services.simulator.csv_bars import load
from services.simulator.level_one import FIELD_NAMES
from services.simulator.level_one_feed import LevelOneFeed, flush_after_ms
from services.simulator.market import MINUTE_MS, session_of
from services.simulator.synthetic import SyntheticMarket
from services.simulator.tape import Tape, next_reset_ms

DATA = Path(__file__).resolve().parents[2] / "data"
SYNTHETIC = SyntheticMarket("1")
CSV, _ = load({"FXY": DATA / "FXY-1min-2023-11.csv"}, "1", 60)
FRIDAY = session_of(dt.date(2026, 11, 20))
FIRST = session_of(dt.date(2023, 11, 1))
ALL = tuple(range(52))
CHART = tuple(range(9))


def drain(feed: LevelOneFeed | ChartFeed, from_ms: int, to_ms: int) -> list[tuple[int, Any]]:
    """Everything a feed says until an instant, with the instants."""
    position_ms, out = from_ms, []
    while (due_ms := feed.due_ms(position_ms)) <= to_ms:
        position_ms = max(position_ms, due_ms)
        out += [(position_ms, item) for item in feed.emit(position_ms)]
    return out


@settings(max_examples=25)
@given(
    start_s=st.integers(0, 46_000),
    length_s=st.integers(1, 600),
    wanted=st.lists(st.sampled_from(ALL[1:]), min_size=1, unique=True),
)
def test_image_and_deltas_merge_to_the_state(
    start_s: int, length_s: int, wanted: list[int]
) -> None:
    """Whoever applies all deltas to the image holds what a new image would say."""
    start_ms = FRIDAY.pre_open_ms + start_s * 1000
    end_ms = start_ms + length_s * 1000
    feed = LevelOneFeed(SYNTHETIC)
    states = {item["key"]: item for item in feed.subscribe(["QQQ", "FXY"], tuple(wanted), start_ms)}
    for at_ms, item in drain(feed, start_ms, end_ms):
        assert len(item) > 1
        assert all(states[item["key"]].get(name) != value for name, value in item.items()
                   if name != "key")  # fmt: skip
        assert item.get("35", 0) <= at_ms
        states[item["key"]] = {**states[item["key"]], **item}
        end_ms = max(end_ms, at_ms)
    last_ms = end_ms if length_s == 0 else max(start_ms, flush_before(end_ms))
    again = LevelOneFeed(SYNTHETIC)
    for image in again.subscribe(["QQQ", "FXY"], tuple(wanted), last_ms):
        assert states[image["key"]] == image


def flush_before(ts_ms: int) -> int:
    """The last end of a conflation cycle at or before an instant."""
    at_ms = ts_ms - 1_000
    while (following := flush_after_ms(at_ms + 1)) <= ts_ms:
        at_ms = following
    return at_ms


def test_deltas_carry_only_the_fields_that_were_asked_for() -> None:
    """Nothing else ever appears, also not in the image, but for what describes the symbol."""
    feed = LevelOneFeed(SYNTHETIC)
    (image,) = feed.subscribe(["QQQ"], (3, 8), FRIDAY.open_ms)
    assert set(image) == {"key", "3", "8", "delayed", "assetMainType", "assetSubType", "cusip"}
    for _, item in drain(feed, FRIDAY.open_ms, FRIDAY.open_ms + 120_000):
        assert set(item) <= {"key", "3", "8"}


@given(ts_ms=st.integers(FRIDAY.pre_open_ms, FRIDAY.post_close_ms))
def test_cycles_are_shorter_than_a_second(ts_ms: int) -> None:
    """Ends of cycles are 0.75 to 1.0 s apart, so updates a second apart never share one."""
    first = flush_after_ms(ts_ms)
    second = flush_after_ms(first + 1)
    assert first >= ts_ms
    resets = {next_reset_ms(ts_ms), next_reset_ms(ts_ms) - 1}
    assert 751 <= second - first <= 999 or {first, second} & resets


def test_no_trade_is_conflated_away() -> None:
    """Every trade of a recorded day is seen, with all of its volume."""
    feed = LevelOneFeed(CSV)
    (image,) = feed.subscribe(["FXY"], ALL, FIRST.pre_open_ms)
    trades, volume, last = 0, 0, image["8"]
    for _, item in drain(feed, FIRST.pre_open_ms, FIRST.post_close_ms):
        trades += "35" in item
        if "8" in item:
            volume += max(0, item["8"] - last)
            last = item["8"]
    tape, expected = Tape(CSV, "FXY", FIRST.pre_open_ms), 0
    while tape.next_ms <= FIRST.post_close_ms:
        before = tape.snapshot.trade_ms
        tape.advance(tape.next_ms)
        expected += tape.snapshot.trade_ms != before
    assert trades == expected
    assert volume == sum(CSV.bars("FXY", FIRST.day).volume)


def test_the_volume_reset_never_shares_a_delta_with_a_trade() -> None:
    """The growth before and after it stays countable."""
    reset_ms = next_reset_ms(FRIDAY.pre_open_ms)
    feed = LevelOneFeed(SYNTHETIC)
    feed.subscribe(["QQQ", "SPY", "NVDA", "AMZN", "TSLA"], ALL, reset_ms - 5_000)
    said = drain(feed, reset_ms - 5_000, reset_ms + 5_000)
    assert all(set(item) == {"key", "8"} for at_ms, item in said if at_ms == reset_ms)
    assert {reset_ms - 1, reset_ms} < {at_ms for at_ms, _ in said}


def test_images_come_unasked_while_the_market_is_closed() -> None:
    """About every 183 s, with yesterday's values, so nobody may trust arrival order."""
    feed = LevelOneFeed(SYNTHETIC)
    start_ms = FRIDAY.post_close_ms + 60_000
    (image,) = feed.subscribe(["QQQ"], ALL, start_ms)
    said = drain(feed, start_ms, start_ms + 900_000)
    assert len(said) in (4, 5)
    assert all(item == image for _, item in said)
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(said)]
    assert set(gaps) == {183_000}


def test_whole_numbers_are_sent_without_decimals() -> None:
    """769.0 is 769 on the wire."""
    feed = LevelOneFeed(SYNTHETIC)
    (image,) = feed.subscribe(["QQQ"], ALL, FRIDAY.open_ms)
    assert not any(type(value) is float and value.is_integer() for value in image.values())


def test_an_unknown_symbol_is_silent() -> None:
    """It counts as subscribed, and nothing ever comes."""
    feed = LevelOneFeed(CSV)
    assert feed.subscribe(["NOPE"], ALL, FIRST.open_ms) == []
    assert list(feed.keys) == ["NOPE"]
    assert drain(feed, FIRST.open_ms, FIRST.open_ms + 600_000) == []
    chart = ChartFeed(CSV)
    assert chart.subscribe(["NOPE"], CHART, FIRST.open_ms) == []
    assert drain(chart, FIRST.open_ms, FIRST.open_ms + 600_000) == []


def test_field_names_are_those_of_the_real_client() -> None:
    """Each number means what schwab-py takes it for."""
    streaming = pytest.importorskip("services.ingest.schwab")
    enum = streaming.StreamClient.LevelOneEquityFields
    assert {field.name: field.value for field in enum} == {
        name: number for number, name in enumerate(FIELD_NAMES)
    }


@pytest.mark.parametrize(("market", "ticker", "day"), [
    (SYNTHETIC, "QQQ", dt.date(2026, 11, 20)),
    (SYNTHETIC, "FXY", dt.date(2026, 11, 27)),
    (CSV, "FXY", dt.date(2023, 11, 24)),
])  # fmt: skip
def test_streamed_bars_equal_history(market: Any, ticker: str, day: dt.date) -> None:
    """Whoever listens all day holds what price history says afterwards."""
    session = session_of(day)
    feed = ChartFeed(market)
    feed.subscribe([ticker], CHART, session.pre_open_ms)
    end_ms = session.post_close_ms + 10_000
    streamed = [
        {
            "open": item["2"], "high": item["3"], "low": item["4"], "close": item["5"],
            "volume": item["6"], "datetime": item["7"],
        }
        for _, item in drain(feed, session.pre_open_ms, end_ms)
    ]  # fmt: skip
    query = history.parse(
        {"symbol": ticker, "endDate": str(end_ms), "startDate": str(session.pre_open_ms)},
        end_ms,
        minute_depth_days=48,
        whole_days=True,
    )
    assert streamed == list(history.candles_of(market, query, day, end_ms))
    assert len(streamed) == len(market.bars(ticker, day))


def test_bars_come_two_to_three_and_a_half_seconds_after_their_minute() -> None:
    """Mostly after about two and a half."""
    delays = sorted(
        bar_sent_ms(minute * MINUTE_MS) - (minute + 1) * MINUTE_MS
        for minute in range(29_000_000, 29_002_000)
    )
    assert delays[0] >= 2_000
    assert delays[-1] <= 3_400
    assert 2_100 <= delays[1_000] <= 2_700


def test_bars_are_numbered_without_a_hole() -> None:
    """`seq` grows by one from bar to bar, also over the night; SEQUENCE counts from 07:00."""
    feed = ChartFeed(CSV)
    feed.subscribe(["FXY"], CHART, FIRST.pre_open_ms)
    second = session_of(dt.date(2023, 11, 2))
    items = [item for _, item in drain(feed, FIRST.pre_open_ms, second.post_close_ms)]
    assert [item["seq"] for item in items] == list(range(len(items)))
    assert items[0]["1"] == 150
    assert items[0]["8"] == 19_662
