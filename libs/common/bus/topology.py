"""What exists on the bus: streams and consumers as pure data, and the job that makes them so.

`plan` describes everything for one store; `apply` brings a server to it and can be repeated. It
creates what is missing and adjusts limits. It never touches a store that was made for another
source, partition count or result settings: those stand in every stream's metadata, and a mismatch
is refused with `StoreMismatch`. Services call `check` for the same comparison.

Streams refuse when they are full instead of dropping what nobody has read yet (`discard: new`);
only checkpoints and dead letters make room by age.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import msgspec
from msgspec import Struct

from libs.common import failpoints, subjects
from libs.common.bus import Bus
from libs.common.bus.pull import OWNER_GROUP
from libs.common.codec import FRAME_BYTES_MAX
from libs.common.errors import BusUnavailable, SettingsError, StoreMismatch
from libs.common.settings import ServiceSettings, env_name

__all__ = [
    "STREAM_BYTES_MAX",
    "Api",
    "ConsumerPlan",
    "ResultSettings",
    "StreamPlan",
    "Topology",
    "apply",
    "check",
    "plan",
    "settings_hash",
]

STREAM_BYTES_MAX: Final = 2 << 30
PARTITIONS_META: Final = "kite.partitions"
SOURCE_META: Final = "kite.source"
RESULTS_META: Final = "kite.settings"
HASH_META: Final = "kite.settings_hash"

# Which durable consumers there are: service and the stream that it reads, one per partition.
READERS: Final = (
    ("indicators", subjects.MARKET),
    ("signals", subjects.INDICATORS),
    ("writer", subjects.MARKET),
    ("writer", subjects.INDICATORS),
    ("writer", subjects.SIGNALS),
    ("notifier", subjects.SIGNALS),
)
COMMANDED: Final = ("ingest", "indicators", "signals", "writer")
# Made last, so that whoever finds it finds the rest; every service may read it.
CHECKED_STREAM: Final = subjects.COMMANDS

ACK_WAIT_MS: Final = 3_000
PIN_TIMEOUT_MS: Final = 2_000
ACK_PENDING_MAX: Final = 10_000

_DAY_MS = 86_400_000
_NS_PER_MS = 1_000_000
_REPEATED_WITHIN_MS = 120_000  # how long a stream knows the ids of messages; see `Bus.append`
_MESSAGE_BYTES_MAX = FRAME_BYTES_MAX + 4096
_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_NO_STORAGE = frozenset({10023, 10047})
_SAME_STORE = "start with a new KITE_HOME, or set it back"

Discard = Literal["new", "old"]


class ResultSettings(Struct, frozen=True):
    """The settings that change results, with the defaults of the services that obey them.

    A store holds results of one set of them. A service that has a field of the same name is
    checked against what the store was made with.
    """

    sma_continuous: bool = False
    vwap_price: str = "close"
    extras: tuple[str, ...] = ()
    signal_timeframes: tuple[str, ...] = ("1m",)
    signal_rules: tuple[str, ...] = ("cross",)


class StreamPlan(Struct, frozen=True):
    """One stream: bounded in bytes, in age unless `age_ms_max` is 0, and maybe per subject."""

    name: str
    subjects: tuple[str, ...]
    bytes_max: int
    age_ms_max: int
    discard: Discard = "new"
    per_subject_max: int = -1


class ConsumerPlan(Struct, frozen=True):
    """One durable pinned consumer of one subject."""

    stream: str
    name: str
    subject: str


class Topology(Struct, frozen=True):
    """All streams and consumers, in the order in which they are made."""

    metadata: Mapping[str, str]
    streams: tuple[StreamPlan, ...]
    consumers: tuple[ConsumerPlan, ...]


class Api(Protocol):
    """A connection that may administer the server, such as `NatsBus` for the admin user."""

    async def ask(self, subject: str, data: bytes) -> bytes:
        """Ask the server's JSON API; raises BusUnavailable."""
        ...


# -- the plan -------------------------------------------------------------------------------------


def plan(
    partitions: int,
    source: str,
    results: ResultSettings | None = None,
    *,
    stream_bytes_max: int = STREAM_BYTES_MAX,
) -> Topology:
    """Describe a whole bus; `stream_bytes_max` bounds MARKET and INDICATORS, others get parts."""
    consumers = [
        ConsumerPlan(
            stream,
            subjects.consumer_name(service, partition),
            subjects.frame_subject(stream, partition),
        )
        for service, stream in READERS
        for partition in range(partitions)
    ]
    consumers += [
        ConsumerPlan(subjects.COMMANDS, service, subjects.command_subject(service))
        for service in COMMANDED
    ]
    return Topology(
        metadata=_metadata(partitions, source, results or ResultSettings()),
        streams=_streams(partitions, stream_bytes_max),
        consumers=tuple(consumers),
    )


def settings_hash(results: ResultSettings) -> str:
    """Return a short digest of the settings that change results."""
    return hashlib.sha256(msgspec.json.encode(_texts(results))).hexdigest()[:16]


def _streams(partitions: int, bytes_max: int) -> tuple[StreamPlan, ...]:
    week, month = 7 * _DAY_MS, 30 * _DAY_MS
    # Two checkpoints of each service and partition, and as much again while they are replaced.
    state_bytes = max(bytes_max // 16, 4 * len(COMMANDED) * partitions * _MESSAGE_BYTES_MAX)
    return (
        StreamPlan(subjects.MARKET, ("market.*",), bytes_max, week),
        StreamPlan(subjects.INDICATORS, ("indicators.*",), bytes_max, week),
        StreamPlan(subjects.SIGNALS, ("signals.*",), bytes_max // 8, week),
        StreamPlan(subjects.TRADES, ("trades.*",), bytes_max // 8, 0),
        StreamPlan(subjects.STATE, ("state.*.*",), state_bytes, 0, "old", 2),
        StreamPlan(subjects.DEADLETTER, ("deadletter.*",), bytes_max // 16, month, "old"),
        StreamPlan(subjects.COMMANDS, ("commands.*",), bytes_max // 64, week),
    )


def _metadata(partitions: int, source: str, results: ResultSettings) -> dict[str, str]:
    return {
        PARTITIONS_META: str(partitions),
        SOURCE_META: source,
        RESULTS_META: msgspec.json.encode(_texts(results)).decode(),
        HASH_META: settings_hash(results),
    }


def _texts(results: ResultSettings) -> dict[str, str]:
    """Write each setting as its environment variable would be written, in one fixed form."""
    return {
        field: _text(getattr(results, field)) for field in sorted(ResultSettings.__struct_fields__)
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (tuple, list)):
        return ",".join(str(item) for item in value)
    return str(value)


# -- comparing ------------------------------------------------------------------------------------


async def check(bus: Bus, settings: ServiceSettings) -> None:
    """Compare the store with a service's settings.

    Raises StoreMismatch naming every difference, BusUnavailable as long as the store is not made.
    """
    stored = (await bus.stream(CHECKED_STREAM)).metadata
    wanted = {PARTITIONS_META: str(settings.partitions), SOURCE_META: settings.source}
    differences = _differences(stored, wanted)
    results = _stored_results(stored)
    for field in ResultSettings.__struct_fields__:
        if hasattr(settings, field) and field in results:
            differences += _difference(
                env_name(field), results[field], _text(getattr(settings, field))
            )
    if differences:
        raise StoreMismatch(_refusal(differences))


def _differences(stored: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    names = {PARTITIONS_META: "KITE_PARTITIONS", SOURCE_META: "KITE_SOURCE"}
    found: list[str] = []
    for key, name in names.items():
        found += _difference(name, stored.get(key, "?"), wanted[key])
    return found


def _difference(name: str, stored: str, wanted: str) -> list[str]:
    return [] if stored == wanted else [f"{name} is {wanted!r}, the store has {stored!r}"]


def _stored_results(stored: Mapping[str, str]) -> dict[str, str]:
    try:
        return msgspec.json.decode(stored.get(RESULTS_META, "{}"), type=dict[str, str])
    except msgspec.MsgspecError:
        return {}


def _refusal(differences: list[str]) -> str:
    return f"the streams were made for other settings: {'; '.join(differences)}; {_SAME_STORE}"


# -- applying -------------------------------------------------------------------------------------


async def apply(api: Api, topology: Topology) -> None:
    """Bring a server to `topology`; can be repeated, and changes nothing the second time.

    Raises StoreMismatch when what is there belongs to another store, SettingsError when the
    server has not the room, BusUnavailable.
    """
    existing = {stream.name: await _stream_config(api, stream.name) for stream in topology.streams}
    for name, config in existing.items():
        if config is not None:
            _require_same_store(name, config, topology.metadata)
    for stream in topology.streams:
        if stream.name == CHECKED_STREAM:
            failpoints.reach("bootstrap.streams.middle")
            await _make_consumers(api, topology, except_on=CHECKED_STREAM)
        await _make_stream(api, stream, topology.metadata, existing[stream.name])
    await _make_consumers(api, topology, only_on=CHECKED_STREAM)


async def _make_stream(
    api: Api, stream: StreamPlan, metadata: Mapping[str, str], existing: dict[str, Any] | None
) -> None:
    wanted = _stream_json(stream, metadata)
    if existing is None:
        answer = await _call(api, f"STREAM.CREATE.{stream.name}", wanted)
    else:
        merged = {**existing, **wanted}
        merged["metadata"] = {**existing.get("metadata", {}), **metadata}
        if merged == existing:
            return
        answer = await _call(api, f"STREAM.UPDATE.{stream.name}", merged)
    error = answer.get("error")
    if error is None:
        return
    if error.get("err_code") in _NO_STORAGE:
        raise SettingsError(
            [
                f"KITE_STREAM_BYTES_MAX: the server has no room for stream {stream.name} of "
                f"{stream.bytes_max >> 20} MiB: set it lower, or give the server more storage"
            ]
        )
    raise StoreMismatch(f"stream {stream.name}: {error['description']}; {_SAME_STORE}")


async def _make_consumers(
    api: Api, topology: Topology, *, except_on: str = "", only_on: str = ""
) -> None:
    for consumer in topology.consumers:
        if consumer.stream == except_on or (only_on and consumer.stream != only_on):
            continue
        config = _consumer_json(consumer)
        if not await _consumer_differs(api, consumer, config):
            continue
        subject = f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}"
        answer = await _call(api, subject, {"stream_name": consumer.stream, "config": config})
        if "error" in answer:
            raise StoreMismatch(
                f"consumer {consumer.name} on {consumer.stream}: "
                f"{answer['error']['description']}; {_SAME_STORE}"
            )


async def _consumer_differs(api: Api, consumer: ConsumerPlan, wanted: dict[str, Any]) -> bool:
    answer = await _call(api, f"CONSUMER.INFO.{consumer.stream}.{consumer.name}", None)
    error = answer.get("error")
    if error is not None:
        if error.get("err_code") != _CONSUMER_NOT_FOUND:
            raise BusUnavailable(f"consumer {consumer.name}: {error['description']}")
        return True
    found: dict[str, Any] = answer["config"]
    return any(found.get(key) != value for key, value in wanted.items())


async def _stream_config(api: Api, name: str) -> dict[str, Any] | None:
    answer = await _call(api, f"STREAM.INFO.{name}", None)
    error = answer.get("error")
    if error is not None:
        if error.get("err_code") != _STREAM_NOT_FOUND:
            raise BusUnavailable(f"stream {name}: {error['description']}")
        return None
    config: dict[str, Any] = answer["config"]
    return config


def _require_same_store(name: str, config: dict[str, Any], wanted: Mapping[str, str]) -> None:
    stored: dict[str, str] = config.get("metadata") or {}
    if HASH_META not in stored:
        raise StoreMismatch(
            f"stream {name} was not made by this program; give KITE_NATS_URL a server of its own"
        )
    differences = _differences(stored, wanted)
    if stored[HASH_META] != wanted[HASH_META]:
        old, new = _stored_results(stored), _stored_results(wanted)
        for field in sorted(old.keys() | new.keys()):
            differences += _difference(env_name(field), old.get(field, ""), new.get(field, ""))
    if differences:
        raise StoreMismatch(_refusal(differences))


async def _call(api: Api, subject: str, request: object) -> dict[str, Any]:
    data = b"" if request is None else msgspec.json.encode(request)
    return msgspec.json.decode(await api.ask(f"$JS.API.{subject}", data), type=dict[str, Any])


def _stream_json(stream: StreamPlan, metadata: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": stream.name,
        "subjects": list(stream.subjects),
        "retention": "limits",
        "storage": "file",
        "num_replicas": 1,
        "max_age": stream.age_ms_max * _NS_PER_MS,
        "max_bytes": stream.bytes_max,
        "max_msg_size": _MESSAGE_BYTES_MAX,
        "max_msgs_per_subject": stream.per_subject_max,
        "discard": stream.discard,
        "allow_direct": True,
        "duplicate_window": _REPEATED_WITHIN_MS * _NS_PER_MS,
        "metadata": dict(metadata),
    }


def _consumer_json(consumer: ConsumerPlan) -> dict[str, Any]:
    return {
        "durable_name": consumer.name,
        "filter_subject": consumer.subject,
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_policy": "all",
        "ack_wait": ACK_WAIT_MS * _NS_PER_MS,
        "max_ack_pending": ACK_PENDING_MAX,
        "max_deliver": -1,
        "priority_groups": [OWNER_GROUP],
        "priority_policy": "pinned_client",
        "priority_timeout": PIN_TIMEOUT_MS * _NS_PER_MS,
    }
