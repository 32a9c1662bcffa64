"""What people read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.core import Channel, Now, SignalNews
from services.notifier.texts import Text, render
from tests.unit.notifier.messages import (
    MINUTE_MS,
    NOON_MS,
    alert,
    alerts,
    item,
    news,
    signal,
    summary,
)


def text(content: object, old_ms: int = 0, *, doubt: bool = False) -> Text:
    """Return a message's words when its cause is so old."""
    message = item(1, content, doubt=doubt)  # type: ignore[arg-type]  # of any kind
    return render(message, Channel(), Now(NOON_MS + old_ms, NOON_MS + old_ms))


def test_a_signal() -> None:
    """What, where, at what price and when; in New York's time."""
    said = text(news())
    assert said.title == "QQQ 1m ▲ up at 389.75"
    assert said.body == "SMA9 crossed VWAP, 11:59 New York. SMA9 389.5, VWAP 389.4."
    assert said.level == "info"


@pytest.mark.parametrize(
    ("content", "old_ms", "mark", "because"),
    [
        (news(), 2 * MINUTE_MS, "", ""),
        (news(), 2 * MINUTE_MS + 1, "LATE ", "This was 2 min old when it was sent."),
        (news(late=True), 0, "LATE ", "not to be traded"),
        (news(state="superseded"), 0, "WITHDRAWN ", "took this signal back"),
        (SignalNews(signal(state="superseded"), "withdrawn"), 0, "WITHDRAWN ", "took this"),
        (SignalNews(signal(direction="down"), "corrected"), 0, "CORRECTED ", "not to be traded"),
    ],
)
def test_what_is_not_fresh_says_so_first(
    content: SignalNews, old_ms: int, mark: str, because: str
) -> None:
    """In the title's first word, and why in the text."""
    said = text(content, old_ms)
    assert said.title.startswith(f"{mark}QQQ 1m")
    assert because in said.body
    assert said.level == ("warning" if mark else "info")


def test_what_may_have_been_sent_before_says_so() -> None:
    """In front of everything else."""
    assert text(news(), doubt=True).title == "(repeated?) QQQ 1m ▲ up at 389.75"
    assert text(alerts(), doubt=True).title == "(repeated?) CRITICAL: DataStale"


def test_alarms() -> None:
    """What fires and what is over, how bad, and where to read on."""
    over = alert("FeedLate", severity="warning", status="resolved")
    said = text(alerts(over, alert()))
    assert said.title == "CRITICAL: DataStale; Resolved: FeedLate"
    assert said.body.splitlines() == [
        "DataStale happens. (docs/runbooks/DataStale.md)",
        "resolved: FeedLate happens.",
    ]
    assert said.level == "failure"
    assert text(alerts(alert(severity="warning"))).level == "warning"
    assert text(alerts(over)).level == "success"


def test_many_alarms_are_not_a_long_text() -> None:
    """Ten lines, and how many more there are."""
    said = text(alerts(*(alert(f"A{n}", summary="x" * 1000) for n in range(40))))
    assert said.title == "CRITICAL: A0, A1, A2 and 37 more"
    assert said.body.endswith("and 30 more")
    assert len(said.body) < 4000


def test_a_summary() -> None:
    """How many, why, of when, and about what, the most frequent first."""
    facts = {"SPY down": 1, "QQQ up": 10}
    said = text(summary(too_old=11, too_many=1, facts=facts, last_ms=NOON_MS + MINUTE_MS))
    assert said.title == "12 messages were not sent one by one"
    assert said.body.splitlines() == [
        "11 too old, 1 too many at once; 2026-01-05 12:00 to 2026-01-05 12:01 New York.",
        "QQQ up ×10, SPY down ×1",
    ]
    assert text(summary(too_old=1)).title == "1 message was not sent one by one"


@given(st.dictionaries(st.text(max_size=20), st.integers(1, 99), max_size=100), st.integers(0))
def test_a_summary_of_anything_is_short(facts: dict[str, int], count: int) -> None:
    """However much it is about."""
    assert len(text(summary(facts=facts, too_old=count % 10**6)).body) < 600
