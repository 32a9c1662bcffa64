"""The journal: transactions, what a crash leaves, and who may open it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from libs.common.directory_lock import AlreadyRunning
from libs.common.errors import SettingsError
from services.notifier.core import Channel, Now, fold
from services.notifier.journal import (
    FILE_NAME,
    Journal,
    JournalAway,
    JournalDamaged,
    News,
    open_at,
    standings,
)
from tests.unit.notifier.messages import MINUTE_MS, NOON_MS, alert, signal

ALL = Channel(alerts=True)
CHANNELS = {"a": ALL, "b": structs.replace(ALL, tickers=("SPY",), severity="critical")}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    with open_at(tmp_path) as made:
        yield made


def take(journal: Journal, *them: News, seq: int = 1) -> list[tuple[str, str]]:
    """Take in signals."""
    return [
        (name, verdict)
        for name, verdict in journal.take(
            CHANNELS, 0, 7, seq, them, broker_ms=NOON_MS, now_ms=NOON_MS
        )
    ]


def told(ticker: str = "QQQ", **fields: Any) -> News:
    """Return a signal as it came."""
    return News(signal(ticker=ticker, **fields), NOON_MS, NOON_MS)


def test_signals_and_position_are_one(journal: Journal) -> None:
    """And a signal that comes again makes no second message."""
    assert journal.position(0) is None
    both = [told(), told("SPY")]
    assert take(journal, *both) == [("a", "tell"), ("b", "ignore"), ("a", "tell"), ("b", "tell")]
    assert journal.position(0) == (7, 1)
    assert take(journal, *both, seq=2) == [(name, "ignore") for name in "abab"]
    assert [len(journal.waiting(name)) for name in "ab"] == [2, 1]
    assert journal.position(0) == (7, 2)


def test_a_change_that_fails_leaves_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a message nor a position, and the next one goes through."""

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_obey", fail)
        with pytest.raises(JournalAway, match="disk full"):
            asyncio.run(journal.do(take, journal, told()))
    assert (journal.position(0), journal.waiting("a")) == (None, [])
    assert take(journal, told())[0] == ("a", "tell")


def test_a_withdrawal_before_it_was_sent_is_one_message(journal: Journal) -> None:
    """The message that waits is changed; after it was sent there is a second one."""
    take(journal, told())
    take(journal, told(revision=1, price=1.0))
    (waiting,) = journal.waiting("a")
    assert waiting.content.signal.price == 1.0  # type: ignore[union-attr]  # it is a signal
    journal.intend(waiting.id)
    journal.settle(waiting.id, "sent", NOON_MS)
    assert take(journal, told(revision=2, state="superseded"))[0] == ("a", "withdraw")
    assert take(journal, told(revision=2, state="superseded"))[0] == ("a", "ignore")
    (waiting,) = journal.waiting("a")
    assert waiting.key == f"signal:{signal().id}@2"


def test_an_alarm_is_told_once_for_each_state(journal: Journal) -> None:
    """To each channel that wants it; a repetition is known for as long as it is repeated."""
    first = [alert(), alert("FeedLate", severity="warning")]
    assert journal.take_alerts(CHANNELS, first, NOON_MS) == ({"a", "b"}, 0)
    assert journal.take_alerts(CHANNELS, first, NOON_MS + 1) == (set(), 2)
    journal.prune(NOON_MS + 1)
    assert journal.take_alerts(CHANNELS, first, NOON_MS + 2) == (set(), 2)
    over = alert(status="resolved")
    assert journal.take_alerts(CHANNELS, [over, *first], NOON_MS + 3) == ({"a", "b"}, 2)
    assert [len(journal.waiting(name)) for name in "ab"] == [2, 2]


@pytest.mark.parametrize(
    ("in_doubt", "done", "waits"),
    [
        ("repeat", {("a", "repeated"): 1, ("b", "removed"): 1}, [(1, True)]),
        ("leave", {("a", "perhaps"): 1, ("b", "removed"): 1}, []),
    ],
)
def test_what_a_crash_leaves(
    tmp_path: Path, in_doubt: str, done: dict[tuple[str, str], int], waits: list[tuple[int, bool]]
) -> None:
    """What was being sent is repeated with a mark or left; a channel that is gone is forgotten."""
    with open_at(tmp_path) as journal:
        take(journal, told("SPY"))
        journal.intend(journal.waiting("a")[0].id)
    with open_at(tmp_path) as journal:
        channels = {"a": structs.replace(ALL, in_doubt=in_doubt)}
        assert journal.recover(channels, NOON_MS) == done
        assert [(each.tries, each.doubt) for each in journal.waiting("a")] == waits
        assert journal.waiting("b") == []
        assert not journal.recover(channels, NOON_MS)


def test_a_summary_takes_the_place_of_many(journal: Journal) -> None:
    """They are over, it waits."""
    take(journal, *(told(ts_ms=NOON_MS - n * MINUTE_MS) for n in range(1, 5)))
    items = journal.waiting("a")
    journal.fold("a", items, fold(items, ALL, Now(NOON_MS, NOON_MS)), NOON_MS)
    (waiting,) = journal.waiting("a")
    assert waiting.key == f"summary:{items[0].id}-{items[-1].id}"
    assert journal.pending() == 1


def test_what_was_sent_counts_for_the_rate_and_is_forgotten_later(journal: Journal) -> None:
    """After a restart, too, because it is read from here."""
    take(journal, told())
    (waiting,) = journal.waiting("a")
    journal.intend(waiting.id)
    journal.settle(waiting.id, "sent", NOON_MS)
    assert journal.told_ms("a", NOON_MS) == [NOON_MS]
    assert journal.told_ms("a", NOON_MS + 1) == journal.told_ms("b", 0) == []
    journal.prune(NOON_MS)
    assert journal.told_ms("a", 0) == [NOON_MS]
    journal.prune(NOON_MS + 1)
    assert journal.told_ms("a", 0) == []


def test_standings_are_read_beside_it(journal: Journal, tmp_path: Path) -> None:
    """Without disturbing who writes."""
    take(journal, told("SPY"))
    journal.settle(journal.waiting("b")[0].id, "sent", NOON_MS)
    found = {each.channel: each for each in standings(tmp_path / FILE_NAME)}
    assert (found["a"].fates, found["a"].last_sent_ms) == ({"pending": 1}, None)
    assert (found["b"].fates, found["b"].last_sent_ms) == ({"sent": 1}, NOON_MS)
    with pytest.raises(JournalAway, match="cannot be read"):
        standings(tmp_path / "nowhere.sqlite3")


def test_who_may_open_it(journal: Journal, tmp_path: Path) -> None:
    """One at a time; the owner of the files alone."""
    with pytest.raises(AlreadyRunning), open_at(tmp_path):
        pass
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0
    with pytest.raises(SettingsError, match="not writable"), open_at(Path("/proc/nowhere")):
        pass


@pytest.mark.parametrize(
    "data", [b"no journal at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes) -> None:
    """In words that say what to do, and nothing is overwritten."""
    (tmp_path / FILE_NAME).write_bytes(data)
    with pytest.raises(JournalDamaged, match="move it away"), open_at(tmp_path):
        pass
    assert (tmp_path / FILE_NAME).read_bytes() == data


def test_the_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    """Rather than misread."""
    with open_at(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalDamaged, match="another version"), open_at(tmp_path):
        pass
