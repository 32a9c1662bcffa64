"""Events are cut into frames by partition, by kind and by size, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.codec import FRAME_BYTES_MAX, decode_frame
from libs.common.events import Bar, Clock, Event, Gap, History, HistoryBar, Tick
from libs.common.subjects import partition_of
from services.ingest.frames import Router, encoded

EVENTS = st.lists(
    st.one_of(
        st.builds(
            Tick,
            st.sampled_from(["QQQ", "SPY", "IWM", "BRK.B"]),
            st.integers(0, 99),
            st.just(1.0), st.just(1), st.just(1), st.none(), st.none(),
        ),
        st.builds(Clock, st.integers(0, 99)),
        st.builds(History, st.sampled_from(["QQQ", "SPY"]), st.integers(0, 99), st.just(())),
    ),
    max_size=20,
)  # fmt: skip


@given(EVENTS, st.integers(1, 4))
def test_every_partition_gets_its_events_in_order(events: list[Event], partitions: int) -> None:
    """Nothing is lost, a Clock goes everywhere, a History stands alone."""
    groups = Router(partitions).split(events)
    for partition in range(partitions):
        mine = [
            event
            for event in events
            if isinstance(event, Clock)
            or (isinstance(event, Tick | Bar | Gap | History)
                and partition_of(event.ticker, partitions) == partition)
        ]  # fmt: skip
        held = groups.get(partition, [])
        assert [event for group in held for event in group] == mine
        for group in held:
            assert group
            assert len(group) == 1 or not any(isinstance(event, History) for event in group)


@given(st.integers(1, 20_000))
def test_large_steps_are_several_frames_numbered_on(count: int) -> None:
    """No frame is larger than the bus takes, none is empty, and their order is kept."""
    events = tuple(Tick("QQQ", n, 1.5, 1, n, 1.0, 2.0) for n in range(count))
    frames = encoded(events, epoch=3, n=8, sent_ms=1, received_ms=2)
    assert all(len(frame) <= FRAME_BYTES_MAX for frame in frames)
    decoded = [decode_frame(frame) for frame in frames]
    assert [frame.n for frame in decoded] == list(range(8, 8 + len(frames)))
    assert [event for frame in decoded for event in frame.events] == list(events)
    assert all(frame.events and frame.epoch == 3 for frame in decoded)


def test_an_event_that_fits_no_frame_is_an_error() -> None:
    """It cannot be made from the wire, so it is our own mistake."""
    bars = tuple(HistoryBar(n, 1.0, 1.0, 1.0, 1.0, 1) for n in range(20_000))
    with pytest.raises(ValueError, match="does not fit"):
        encoded((History("QQQ", 0, bars),), epoch=1, n=1, sent_ms=0, received_ms=0)
