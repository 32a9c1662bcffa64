"""What was told and what is still to be: one SQLite file, durable before anybody acts on it.

Promises:

- Every change is one transaction, on the disk when the call returns (WAL, `synchronous=FULL`).
- A signal's messages and the position in the stream behind it are one transaction: a frame read
  again makes no second message. An alarm is known by its fingerprint, its start and its state.
- A message is `sending` before a try begins and something else once its outcome is known. So what
  is `sending` when the journal is opened may or may not have been sent: nobody can know, and
  `recover` does with it what its channel says.

All methods block; `do` runs one on the journal's own thread. One process at a time has the file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, ParamSpec, TypeVar

import msgspec
from msgspec import Struct

from libs.common.directory_lock import locked
from libs.common.errors import EXIT_REFUSED, KiteError, SettingsError
from libs.common.events import Signal
from services.notifier.core import (
    FINAL,
    Alert,
    AlertNews,
    Channel,
    Content,
    Fate,
    Heard,
    Item,
    SignalNews,
    Summary,
    Verdict,
    alert_key,
    happened_ms,
    judge,
    wants_alert,
)

__all__ = [
    "FILE_NAME",
    "Journal",
    "JournalAway",
    "JournalDamaged",
    "News",
    "Standing",
    "open_at",
    "standings",
]

P = ParamSpec("P")
T = TypeVar("T")

Recovery = Literal["repeated", "perhaps", "removed"]

FILE_NAME: Final = "journal.sqlite3"
_BUSY_MS: Final = 5_000
# How many waiting messages are looked at at once; the oldest are sent or summed up first.
_WAITING_MAX: Final = 2_000
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE positions (
    partition INTEGER PRIMARY KEY, created_ms INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, key TEXT NOT NULL,
    content BLOB NOT NULL, fate TEXT NOT NULL, happened_ms INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, taken_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, doubt INTEGER NOT NULL DEFAULT 0,
    settled_ms INTEGER, UNIQUE (channel, key));
CREATE INDEX messages_waiting ON messages (channel, id) WHERE fate IN ('pending', 'sending');
CREATE INDEX messages_settled ON messages (channel, settled_ms) WHERE settled_ms IS NOT NULL;
CREATE TABLE alerts (
    channel TEXT NOT NULL, key TEXT NOT NULL, taken_ms INTEGER NOT NULL,
    PRIMARY KEY (channel, key)) WITHOUT ROWID;
"""
_WAITING: Final = (
    "SELECT id, key, content, happened_ms, sent_ms, received_ms, taken_ms, tries, doubt "
    # Said twice, so that the index of those that wait is found.
    "FROM messages WHERE channel = ? AND fate IN ('pending', 'sending') AND fate = 'pending' "
    "ORDER BY id LIMIT ?"
)

_content = msgspec.json.Decoder(Content)


class JournalDamaged(KiteError):
    """The file is no journal, or its disk has broken it."""

    exit_code = EXIT_REFUSED


class JournalAway(KiteError):
    """The disk did not take a change: it is full, or failing; trying again may work."""


class News(Struct, frozen=True):
    """A signal as it came: with the broker's time and ours."""

    signal: Signal
    sent_ms: int
    received_ms: int


class Standing(Struct, frozen=True):
    """How a channel stands."""

    channel: str
    fates: dict[str, int]
    last_sent_ms: int | None


@contextmanager
def open_at(directory: Path) -> Iterator[Journal]:
    """Open or make the journal in `directory` and keep everybody else out.

    Raises AlreadyRunning, JournalDamaged, or SettingsError when the directory cannot be used.
    """
    with locked(directory, service="notifier", harm="two would tell everything twice"):
        journal = Journal(directory / FILE_NAME)
        try:
            yield journal
        finally:
            journal.close()


class Journal:
    """The open file."""

    def __init__(self, path: Path) -> None:
        """Open or make it; raises JournalDamaged or SettingsError."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            raise SettingsError([f"KITE_NOTIFIER_DATA_DIR: {path}: {error}"]) from None
        except sqlite3.DatabaseError as error:
            raise JournalDamaged(
                f"{path}: {error}; move it away, and the notifier begins anew with what comes then"
            ) from None

    def close(self) -> None:
        """End what is under way and close."""
        self._thread.shutdown(wait=True)
        self._connection.close()

    async def do(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one of the methods below on the journal's thread; raises JournalAway.

        It is carried out even if the caller is cancelled meanwhile.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, lambda: method(*args, **kwargs))
        except sqlite3.Error as error:
            raise JournalAway(f"the journal did not take it: {error}") from error

    # -- positions --------------------------------------------------------------------------------

    def position(self, partition: int) -> tuple[int, int] | None:
        """Return the incarnation of the stream and the sequence up to which it is taken in."""
        query = "SELECT created_ms, seq FROM positions WHERE partition = ?"
        row: tuple[int, int] | None = self._connection.execute(query, (partition,)).fetchone()
        return row

    # -- taking in --------------------------------------------------------------------------------

    def take(
        self, channels: Mapping[str, Channel], partition: int, created_ms: int, seq: int,
        news: Sequence[News], *, broker_ms: int | None, now_ms: int,
    ) -> list[tuple[str, Verdict]]:  # fmt: skip
        """Take in the signals up to `seq`; return what each channel made of each of them."""
        made: list[tuple[str, Verdict]] = []
        with self._transaction():
            begun_ms = self._begun_ms(broker_ms)
            for each in news:
                for name, channel in channels.items():
                    heard = self._heard(name, each.signal.id)
                    verdict = judge(channel, each.signal, heard, begun_ms)
                    self._obey(verdict, name, each, now_ms)
                    made.append((name, verdict))
            self._connection.execute(
                "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT (partition) "
                "DO UPDATE SET created_ms = excluded.created_ms, seq = excluded.seq",
                (partition, created_ms, seq),
            )
        return made

    def take_alerts(
        self, channels: Mapping[str, Channel], alerts: Sequence[Alert], now_ms: int
    ) -> tuple[set[str], int]:
        """Take in alarms; return who has news of them, and how many were known to all."""
        told: set[str] = set()
        fresh: set[str] = set()
        with self._transaction():
            for name, channel in channels.items():
                new = tuple(
                    alert
                    for alert in alerts
                    if wants_alert(channel, alert) and self._is_new(name, alert_key(alert), now_ms)
                )
                if new:
                    keys = [alert_key(alert) for alert in new]
                    fresh.update(keys)
                    told.add(name)
                    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
                    self._add(name, f"alerts:{digest}", AlertNews(new), (now_ms,) * 3, now_ms)
        return told, len({alert_key(alert) for alert in alerts} - fresh)

    def _obey(self, verdict: Verdict, name: str, news: News, now_ms: int) -> None:
        signal = news.signal
        key = f"signal:{signal.id}"
        times = (happened_ms(signal), news.sent_ms, news.received_ms or now_ms)
        if verdict == "ignore":
            return
        if verdict == "tell":
            self._add(name, key, SignalNews(signal), times, now_ms)
            return
        self._connection.execute(
            "UPDATE messages SET content = ? WHERE channel = ? AND key = ?",
            (msgspec.json.encode(SignalNews(signal)), name, key),
        )
        if verdict in ("withdraw", "correct"):
            change = SignalNews(signal, "withdrawn" if verdict == "withdraw" else "corrected")
            # Its age is that of the correction.
            times = (news.sent_ms, news.sent_ms, times[2])
            self._add(name, f"{key}@{signal.revision}", change, times, now_ms)

    def _heard(self, channel: str, signal_id: str) -> Heard | None:
        row = self._connection.execute(
            "SELECT content, fate FROM messages WHERE channel = ? AND key = ?",
            (channel, f"signal:{signal_id}"),
        ).fetchone()
        if row is None:
            return None
        content = _content.decode(row[0])
        assert isinstance(content, SignalNews)
        return Heard(content.signal, row[1])

    def _begun_ms(self, broker_ms: int | None) -> int:
        """Return the broker's time when this journal was begun, noting it the first time."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'begun_ms'").fetchone()
        if row is not None:
            return int(row[0])
        if broker_ms is None:
            return 0
        self._connection.execute("INSERT INTO meta VALUES ('begun_ms', ?)", (broker_ms,))
        return broker_ms

    def _is_new(self, channel: str, key: str, now_ms: int) -> bool:
        """Note an alarm; one that is repeated stays known for as long as it is."""
        known = self._connection.execute(
            "UPDATE alerts SET taken_ms = ? WHERE channel = ? AND key = ?", (now_ms, channel, key)
        )
        if known.rowcount:
            return False
        self._connection.execute("INSERT INTO alerts VALUES (?, ?, ?)", (channel, key, now_ms))
        return True

    def _add(
        self, channel: str, key: str, content: Content, times: tuple[int, int, int], now_ms: int
    ) -> None:
        """Add a message with its times: happened, known to the broker, known to us."""
        self._connection.execute(
            "INSERT OR IGNORE INTO messages (channel, key, content, fate, happened_ms, sent_ms, "
            "received_ms, taken_ms) VALUES (?, ?, ?, 'pending', ?, ?, ?, ?)",
            (channel, key, msgspec.json.encode(content), *times, now_ms),
        )

    # -- sending ----------------------------------------------------------------------------------

    def waiting(self, channel: str) -> list[Item]:
        """Return the oldest messages that are to be sent, in the order they came."""
        rows = self._connection.execute(_WAITING, (channel, _WAITING_MAX))
        return [_item(row) for row in rows]

    def told_ms(self, channel: str, since_ms: int) -> list[int]:
        """Return when the channel was sent something, from `since_ms` on."""
        rows = self._connection.execute(
            "SELECT settled_ms FROM messages WHERE channel = ? AND fate IN ('sent', 'perhaps') "
            "AND settled_ms >= ?",
            (channel, since_ms),
        )
        return [row[0] for row in rows]

    def intend(self, message_id: int) -> None:
        """Note that a try begins."""
        with self._transaction():
            self._connection.execute(
                "UPDATE messages SET fate = 'sending', tries = tries + 1 WHERE id = ?",
                (message_id,),
            )

    def settle(self, message_id: int, fate: Fate, now_ms: int, *, doubt: bool = False) -> None:
        """Note how a try ended; `doubt` stays with a message that is sent again."""
        with self._transaction():
            self._settle(message_id, fate, now_ms, doubt=doubt)

    def fold(self, channel: str, items: Collection[Item], summary: Summary, now_ms: int) -> None:
        """Put one summary in the place of several messages."""
        ids = sorted(item.id for item in items)
        with self._transaction():
            for message_id in ids:
                self._settle(message_id, "summarised", now_ms)
            times = (summary.last_ms, now_ms, now_ms)
            self._add(channel, f"summary:{ids[0]}-{ids[-1]}", summary, times, now_ms)

    def recover(
        self, channels: Mapping[str, Channel], now_ms: int
    ) -> Counter[tuple[str, Recovery]]:
        """Decide about what a crash left in the middle, and about channels that are gone.

        Returns how many messages of each channel are repeated, left as perhaps sent, or removed.
        """
        done: Counter[tuple[str, Recovery]] = Counter()
        rows = self._connection.execute(
            "SELECT id, channel, fate FROM messages WHERE fate IN ('pending', 'sending')"
        ).fetchall()
        with self._transaction():
            for message_id, name, fate in rows:
                channel = channels.get(name)
                if channel is None:
                    self._settle(message_id, "removed", now_ms)
                    done[name, "removed"] += 1
                elif fate == "sending" and channel.in_doubt == "repeat":
                    self._settle(message_id, "pending", now_ms, doubt=True)
                    done[name, "repeated"] += 1
                elif fate == "sending":
                    self._settle(message_id, "perhaps", now_ms)
                    done[name, "perhaps"] += 1
        return done

    def prune(self, before_ms: int) -> None:
        """Forget what was settled, and alarms last heard of, before then."""
        with self._transaction():
            self._connection.execute("DELETE FROM messages WHERE settled_ms < ?", (before_ms,))
            self._connection.execute("DELETE FROM alerts WHERE taken_ms < ?", (before_ms,))

    def pending(self) -> int:
        """Return how many messages of all channels are to be sent."""
        query = "SELECT count(*) FROM messages WHERE fate IN ('pending', 'sending')"
        return int(self._connection.execute(query).fetchone()[0])

    def _settle(self, message_id: int, fate: Fate, now_ms: int, *, doubt: bool = False) -> None:
        self._connection.execute(
            "UPDATE messages SET fate = ?, doubt = doubt OR ?, settled_ms = ? WHERE id = ?",
            (fate, doubt, now_ms if fate in FINAL else None, message_id),
        )

    # -- plumbing ---------------------------------------------------------------------------------

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;"
            )
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it was written by another version ({version})")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # it is over already when the disk was full
                self._connection.execute("ROLLBACK")
            raise


def standings(path: Path) -> list[Standing]:
    """Read how every channel stands, beside the notifier that writes; raises JournalAway."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            rows = connection.execute(
                "SELECT channel, fate, count(*), max(settled_ms) FROM messages GROUP BY 1, 2"
            ).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise JournalAway(f"{path} cannot be read: {error}") from None
    found: dict[str, Standing] = {}
    for channel, fate, count, settled_ms in rows:
        standing = found.get(channel, Standing(channel, {}, None))
        last_ms = settled_ms if fate == "sent" else standing.last_sent_ms
        found[channel] = Standing(channel, {**standing.fates, fate: count}, last_ms)
    return [found[name] for name in sorted(found)]


def _item(row: tuple[int, str, bytes, int, int, int, int, int, int]) -> Item:
    number, key, content, happened, sent_ms, received_ms, taken_ms, tries, doubt = row
    return Item(
        id=number, key=key, content=_content.decode(content), happened_ms=happened,
        sent_ms=sent_ms, received_ms=received_ms, taken_ms=taken_ms, tries=tries,
        doubt=bool(doubt),
    )  # fmt: skip
