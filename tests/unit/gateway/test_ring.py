"""The ring: what it holds is complete, in order, and bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.events import Event
from services.gateway.ring import Ring, topics_of
from tests.live_frames import candle, correction, frame, signal, tick

TICKERS = ("QQQ", "SPY", "IWM")
TOPICS = [
    *(("ticks", ticker) for ticker in TICKERS),
    *(("candles", ticker, "1m") for ticker in TICKERS),
    *(("candles", ticker, "1h") for ticker in TICKERS),
    *(("signals", ticker) for ticker in (*TICKERS, "*")),
]
MAKERS = (tick, candle, lambda _, ticker: correction(ticker), signal)

events = st.builds(
    lambda maker, ticker, number: maker(number, ticker),
    st.sampled_from(MAKERS), st.sampled_from(TICKERS), st.integers(0, 50),
)  # fmt: skip
frames = st.lists(st.tuples(st.integers(1, 5), st.lists(events, max_size=6)), max_size=40)


@given(frames, st.integers(1, 30), st.integers(1, 400))
def test_what_the_ring_says_it_holds_it_holds(
    content: list[tuple[int, list[Event]]], events_max: int, bytes_max: int
) -> None:
    """From every place that it reaches, each topic's events come once and in order."""
    ring = Ring(events_max, bytes_max)
    ring.begin(7, 1)
    stored: list[tuple[int, Event]] = []
    seq, newest = 0, 0
    for step, group in content:
        seq += step  # other partitions have sequences in between
        ring.add(seq, frame(seq, group), 10 * len(group))
        stored += [(seq, event) for event in group]
        for place in range(seq + 2):
            if not ring.reaches(place):
                assert place < ring.oldest_seq - 1
                continue
            for topic in TOPICS:
                found = [(entry.seq, entry.event) for entry in ring.since(topic, place)]
                assert found == [
                    (at, event) for at, event in stored if at > place and topic in topics_of(event)
                ]
        assert ring.last_seq == seq
        newest = len(group) or newest
        assert len(ring) <= max(events_max, newest)
        assert ring.reaches(seq)


def test_the_newest_frame_stays_even_if_it_is_too_big() -> None:
    """Who is up to date gets it; the bound applies to the rest."""
    ring = Ring(3, 1000)
    ring.begin(7, 1)
    for seq in (1, 2):
        ring.add(seq, frame(seq, [tick(seq * 10 + item) for item in range(5)]), 100)
    assert len(ring) == 5
    assert ring.oldest_seq == 2
    assert len(ring.since(("ticks", "QQQ"), 1)) == 5


def test_another_incarnation_empties_it() -> None:
    """Nothing of the old one is left, and its end is where the new one begins."""
    ring = Ring()
    assert not ring.begun
    ring.begin(7, 1)
    ring.add(4, frame(1, [tick(1)]), 10)
    ring.begin(8, 3)
    assert ring.since(("ticks", "QQQ"), 0) == []
    assert (ring.epoch_ms, ring.oldest_seq, ring.last_seq, len(ring)) == (8, 3, 2, 0)


def test_candles_of_a_correction_are_left_out() -> None:
    """The correction stands for them in every timeframe; what went on after it stays."""
    ring = Ring()
    ring.begin(7, 1)
    again = [candle(minute, source="history", revision=1) for minute in range(3)]
    ring.add(1, frame(1, [correction(), *again, candle(3)]), 10)
    assert [e.event for e in ring.since(("candles", "QQQ", "1m"), 0)] == [correction(), candle(3)]
    assert [entry.event for entry in ring.since(("candles", "QQQ", "1h"), 0)] == [correction()]


def test_up_to_which_broker_time_a_frame_goes() -> None:
    """Of the newest frame at or before a place, also of frames without events; 0 if unknown."""
    ring = Ring()
    ring.begin(7, 5)
    assert ring.sent_ms(5) == 0
    for seq in (5, 7, 9):
        made = frame(seq, [tick(seq)] if seq == 7 else [])
        ring.add(seq, replace(made, sent_ms=1000 * seq), 10)
    assert [ring.sent_ms(seq) for seq in (4, 5, 6, 7, 8, 9, 100)] == [
        0, 5000, 5000, 7000, 7000, 9000, 9000,
    ]  # fmt: skip
    ring.begin(8, 10)
    assert ring.sent_ms(9) == 0
