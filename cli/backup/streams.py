"""Streams as a whole: out of a nats-server, into one, and what they hold.

Theory of operation. A stream's positions are sequences, and rows, checkpoints and consumers refer
to them together with the time at which the stream was made. So a copy must keep all of that, which
publishing the messages anew could not. The server's own snapshot does, but for the time, which goes
into the stream's metadata (`libs/common/bus/nats.py` looks there). nats-py does not speak that
protocol, so it is spoken here (nats-server 2.10 and later):

- `$JS.API.STREAM.SNAPSHOT.<S>` with `{"deliver_subject", "jsck"}` is answered by configuration and
  state. Then chunks arrive at `deliver_subject`, each with a reply subject
  `$JS.SNAPSHOT.ACK.<S>.<id>.<bytes>.<n>`, n counted from 1; an empty message to it lets the server
  send more. It waits for these at most two seconds, so a chunk is acknowledged before anything else
  is done with it. An empty message ends it; a status other than 204 in its headers says that it
  broke off. The chunks are a tar archive, compressed by the server, consumers included.
- `$JS.API.STREAM.RESTORE.<S>` with `{"config", "state"}` is answered by a `deliver_subject`. Chunks
  go there one by one as requests, each of which is answered; an empty one ends it, and its answer
  says what the stream is now. After five seconds without a chunk the server gives up.

`jsck` lets the server check every message against its checksum first. Beyond that the messages are
read through the server's direct get, before and after, and their digests compared.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import nats.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from cli.backup.errors import BackupDamaged, BackupFailed
from cli.backup.manifest import Run
from libs.common import subjects
from libs.common.bus.link import bare_client
from libs.common.bus.nats import CREATED_META, created_ms
from libs.common.errors import BusUnavailable

__all__ = [
    "StreamState",
    "connected",
    "delete",
    "digest_runs",
    "find_streams",
    "keeps_everything",
    "restore",
    "server_version",
    "snapshot",
    "stream_state",
]

RUN_MESSAGES: Final = 4096
_CHUNK_BYTES = 128 * 1024
_BATCH_MESSAGES = 512
_BATCH_BYTES = 4 << 20
_ANSWER_WAIT_S = 10.0
# Every message of the stream is checked before the first answer comes.
_CHECK_WAIT_S = 600.0
_FINISH_WAIT_S = 600.0
_LOST_POLL_S = 0.2
_NOT_FOUND = 10059
_END, _NOTHING = "204", "404"
# What the server adds to the headers of a message that it gives out.
_ADDED = frozenset(
    {"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending",
     "Nats-Last-Sequence", "Nats-UpTo-Sequence"}
)  # fmt: skip

# Derived before what it is derived from, so that no position is ahead of its stream.
_ORDER = (
    subjects.STATE,
    subjects.COMMANDS,
    subjects.TRADES,
    subjects.SIGNALS,
    subjects.INDICATORS,
    subjects.MARKET,
    subjects.DEADLETTER,
)


class StreamState(Struct, frozen=True):
    """A stream: when it was first made, its configuration, what it holds."""

    created_ms: int
    config: dict[str, Any]
    first_seq: int
    last_seq: int
    messages: int
    consumers: int


@asynccontextmanager
async def connected(url: str, inbox: str) -> AsyncIterator[Client]:
    """Connect as one who is told at once when the server goes away; raises BusUnavailable."""
    failures: list[str] = []

    async def on_error(error: Exception) -> None:
        failures.append(str(error))

    try:
        client = await bare_client(
            url,
            name="kite backup",
            inbox_prefix=inbox.encode(),
            allow_reconnect=False,
            error_cb=on_error,
            connect_timeout=5,
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise BusUnavailable(f"NATS does not answer: {_said(error)}") from error
    try:
        yield client
    except (OSError, nats.errors.Error) as error:
        said = failures[-1] if failures else _said(error)
        raise BusUnavailable(f"NATS went away, or refuses: {said}") from error
    finally:
        if not client.is_closed:
            await client.close()


def server_version(client: Client) -> str:
    """Return the version of the server that answers."""
    return str(client.connected_server_version)


async def find_streams(client: Client) -> list[str]:
    """Return the names of all streams in the order in which they are to be copied."""
    names: list[str] = []
    while True:
        answer = await _ask(client, "STREAM.NAMES", {"offset": len(names)})
        names += answer.get("streams") or []
        if len(names) >= answer["total"] or not answer.get("streams"):
            break
    ranks = {name: rank for rank, name in enumerate(_ORDER)}
    return sorted(names, key=lambda name: (ranks.get(name, -1), name))


async def stream_state(client: Client, name: str) -> StreamState | None:
    """Return how a stream stands, None if there is none."""
    answer = await _call(client, f"STREAM.INFO.{name}", None, _ANSWER_WAIT_S)
    if (error := answer.get("error")) is not None:
        if error.get("err_code") == _NOT_FOUND:
            return None
        raise BackupFailed(f"stream {name}: {error['description']}")
    return _info(answer)


async def delete(client: Client, name: str) -> None:
    """Delete a stream with all that is in it."""
    await _ask(client, f"STREAM.DELETE.{name}", None)


def keeps_everything(config: Mapping[str, Any]) -> bool:
    """Tell whether a stream loses messages by age alone: what it held can be asked later."""
    bounded = config.get("max_msgs_per_subject", -1) > 0 or config.get("max_msgs", -1) > 0
    return config.get("discard") == "new" and not bounded


async def snapshot(client: Client, name: str, write: Callable[[bytes], object]) -> StreamState:
    """Hand the server's archive of a stream to `write`, chunk by chunk.

    Returns the stream as it was when that began. Raises BackupFailed when the server breaks off.
    """
    info = await stream_state(client, name)
    if info is None:
        raise BackupFailed(f"stream {name} is gone")
    inbox = client.new_inbox()
    chunks = await client.subscribe(inbox)
    try:
        request = {"deliver_subject": inbox, "chunk_size": _CHUNK_BYTES, "jsck": True}
        answer = await _ask(client, f"STREAM.SNAPSHOT.{name}", request, wait_s=_CHECK_WAIT_S)
        await _receive(client, name, chunks, write)
    finally:
        await chunks.unsubscribe()
    return _state(info.created_ms, answer["config"], answer["state"])


async def _receive(
    client: Client, name: str, chunks: Subscription, write: Callable[[bytes], object]
) -> None:
    expected = 1
    while True:
        try:
            message = await chunks.next_msg(_ANSWER_WAIT_S)
        except TimeoutError as error:
            raise BackupFailed(f"stream {name}: the server stopped sending its copy") from error
        status = (message.headers or {}).get("Status", _END)
        if status != _END:
            reason = (message.headers or {}).get("Description", "")
            raise BackupFailed(f"stream {name}: the server broke off: {status} {reason}".rstrip())
        if not message.data:
            return
        if message.reply:
            await client.publish(message.reply)
            size, number = message.reply.split(".")[-2:]
            if int(number) != expected or int(size) != len(message.data):
                raise BackupFailed(f"stream {name}: chunk {expected} of its copy was lost")
            expected += 1
        write(message.data)


async def restore(
    client: Client,
    name: str,
    state: StreamState,
    archive: Iterator[bytes],
    advance: Callable[[int], None] = lambda _: None,
) -> StreamState:
    """Make a stream of an archive; raises BackupDamaged when the server does not take it."""
    metadata = {**(state.config.get("metadata") or {}), CREATED_META: str(state.created_ms)}
    request = {
        "config": {**state.config, "metadata": metadata},
        "state": {
            "messages": state.messages,
            "bytes": 0,
            "first_seq": state.first_seq,
            "first_ts": "0001-01-01T00:00:00Z",
            "last_seq": state.last_seq,
            "last_ts": "0001-01-01T00:00:00Z",
            "consumer_count": state.consumers,
        },
    }
    answer = await _ask(client, f"STREAM.RESTORE.{name}", request)
    subject = answer["deliver_subject"]
    for chunk in archive:
        said = (await _request(client, subject, chunk, _ANSWER_WAIT_S)).data
        if said:
            raise BackupFailed(f"stream {name}: {_reason(said)}")
        advance(len(chunk))
    done = msgspec.json.decode((await _request(client, subject, b"", _FINISH_WAIT_S)).data)
    if (error := done.get("error")) is not None:
        raise BackupDamaged(f"stream {name} cannot be restored: {error['description']}")
    return _info(done)


async def digest_runs(client: Client, name: str, first_seq: int, last_seq: int) -> list[Run]:
    """Read the messages from `first_seq` to `last_seq` and digest them, `RUN_MESSAGES` at a time.

    Every message counts with sequence, time, subject, headers and payload. A run begins with the
    first message that is there, so that messages which aged out meanwhile are in none.
    """
    runs: list[Run] = []
    run = _Digest()
    seq = max(first_seq, 1)
    while seq <= last_seq:
        messages = await _read(client, name, seq)
        for message in messages:
            headers = message.headers or {}
            seq = int(headers["Nats-Sequence"])
            if seq > last_seq:
                break
            run.add(seq, message)
            if run.messages == RUN_MESSAGES:
                runs.append(run.close())
                run = _Digest()
        if not messages:
            break
        seq += 1
    return [*runs, run.close()] if run.messages else runs


class _Digest:
    """The digest of a run of messages."""

    def __init__(self) -> None:
        self.messages = 0
        self._first_seq = self._last_seq = self._oldest_ms = 0
        self._sha256 = hashlib.sha256()

    def add(self, seq: int, message: Msg) -> None:
        headers = dict(message.headers or {})
        own = {name: value for name, value in headers.items() if name not in _ADDED}
        head = [seq, headers["Nats-Time-Stamp"], headers["Nats-Subject"], own, len(message.data)]
        self._sha256.update(msgspec.json.encode(head, order="sorted"))
        self._sha256.update(message.data)
        if not self.messages:
            self._first_seq, self._oldest_ms = seq, _ms(headers["Nats-Time-Stamp"])
        self._last_seq = seq
        self.messages += 1

    def close(self) -> Run:
        return Run(
            self._first_seq, self._last_seq, self.messages, self._oldest_ms,
            self._sha256.hexdigest(),
        )  # fmt: skip


def _ms(stamp: str) -> int:
    """Return the epoch milliseconds of a time as the server writes it, nanoseconds and all."""
    return round(dt.datetime.fromisoformat(stamp).timestamp() * 1000)


async def _read(client: Client, name: str, seq: int) -> list[Msg]:
    """Return the next messages from `seq` on, as many as fit one batch; none at the end."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    wanted = {"seq": seq, "batch": _BATCH_MESSAGES, "max_bytes": _BATCH_BYTES}
    found: list[Msg] = []
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{name}", msgspec.json.encode(wanted), reply=inbox)
        while True:
            message = await answers.next_msg(_ANSWER_WAIT_S)
            headers = message.headers or {}
            status = headers.get("Status")
            if status in (_END, _NOTHING):
                return found
            if status or "Nats-Sequence" not in headers:
                reason = headers.get("Description", "no sequence")
                raise BackupFailed(f"stream {name} cannot be read: {status or ''} {reason}")
            found.append(message)
    except TimeoutError as error:
        raise BackupFailed(f"stream {name} cannot be read: no answer from {seq} on") from error
    finally:
        await answers.unsubscribe()


def _info(answer: Mapping[str, Any]) -> StreamState:
    config = answer["config"]
    # Decoded as the bus does it: a millisecond more or less would be another stream.
    created = msgspec.convert(answer["created"], dt.datetime)
    made_ms = created_ms(created, config.get("metadata") or {})
    return _state(made_ms, config, answer["state"])


def _state(made_ms: int, config: dict[str, Any], state: Mapping[str, Any]) -> StreamState:
    return StreamState(
        made_ms, config, state["first_seq"], state["last_seq"], state["messages"],
        state["consumer_count"],
    )  # fmt: skip


async def _ask(
    client: Client, subject: str, request: object, *, wait_s: float = _ANSWER_WAIT_S
) -> dict[str, Any]:
    """Ask the server's JSON API; raises BackupFailed with the words of its refusal."""
    answer = await _call(client, subject, request, wait_s)
    if (error := answer.get("error")) is not None:
        raise BackupFailed(f"NATS refuses {subject}: {error['description']}")
    return answer


async def _call(client: Client, subject: str, request: object, wait_s: float) -> dict[str, Any]:
    data = b"" if request is None else msgspec.json.encode(request)
    answer = await _request(client, f"$JS.API.{subject}", data, wait_s)
    return msgspec.json.decode(answer.data, type=dict[str, Any])


async def _request(client: Client, subject: str, data: bytes, wait_s: float) -> Msg:
    """Send one request and wait; a connection that is lost meanwhile ends the wait."""
    lost = asyncio.create_task(_lost(client))
    asked = asyncio.create_task(client.request(subject, data, timeout=wait_s))
    try:
        await asyncio.wait({lost, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise BusUnavailable("NATS went away")
        return asked.result()
    except nats.errors.NoRespondersError as error:
        raise BackupFailed(f"{subject}: nobody answers; does JetStream run?") from error
    except TimeoutError as error:
        raise BackupFailed(f"{subject}: no answer within {wait_s:g} s") from error
    finally:
        lost.cancel()
        asked.cancel()


async def _lost(client: Client) -> None:
    """Return when the connection is gone."""
    while not client.is_closed:  # noqa: ASYNC110  # there is no event of it to wait for
        await asyncio.sleep(_LOST_POLL_S)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _reason(said: bytes) -> str:
    try:
        decoded = msgspec.json.decode(said)
        return str(decoded["error"]["description"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return said.decode(errors="replace")
