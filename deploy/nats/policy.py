"""Who may publish and subscribe to what on the bus: a pure function of the partition count.

Least privilege. A service publishes its own subjects only, reads through consumers that the init
job made for it, and gets its answers in an inbox of its own. The gateway, which faces browsers,
reads streams without a consumer and publishes commands only. Nobody but `admin` makes or deletes
streams and consumers. Consumers are listed one by one, because in a permission `*` stands for a
whole token and cannot say "those of this service".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from libs.common.subjects import (
    COMMANDS,
    INDICATORS,
    MARKET,
    SIGNALS,
    STATE,
    checkpoint_subject,
    consumer_name,
    dead_letter_subject,
    frame_subject,
    live_status,
)

__all__ = [
    "ADMIN",
    "GATEWAY",
    "OBSERVER",
    "PUBLIC",
    "USERS",
    "Permissions",
    "inbox_prefix",
    "permissions",
]

ADMIN: Final = "admin"
GATEWAY: Final = "gateway"
OBSERVER: Final = "observer"
PUBLIC: Final = "public"

_PUBLIC_SUBJECTS = ("live.tick.>", "live.candle.>", "live.signal.>", "live.option.>")

# What `observer` may ask JetStream: everything that only reads.
_OBSERVER_REQUESTS = (
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
    "$JS.API.DIRECT.GET.>",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.INFO.*.*",
)


@dataclass(frozen=True)
class Permissions:
    """The only subjects a user may publish and subscribe to; empty means none at all."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True)
class _Service:
    """A service's place in the flow: what it reads, writes and sends live."""

    reads: tuple[str, ...]
    writes: str | None
    live: tuple[str, ...]
    keeps_state: bool


_SERVICES: Mapping[str, _Service] = MappingProxyType(
    {
        "ingest": _Service((), MARKET, (), keeps_state=True),
        "indicators": _Service(
            (MARKET,), INDICATORS, ("live.tick.>", "live.candle.>"), keeps_state=True
        ),
        "signals": _Service((INDICATORS,), SIGNALS, ("live.signal.>",), keeps_state=True),
        "writer": _Service((MARKET, INDICATORS, SIGNALS), None, (), keeps_state=False),
    }
)

USERS: Final = (ADMIN, *_SERVICES, GATEWAY, OBSERVER, PUBLIC)


def inbox_prefix(user: str) -> str:
    """Return where a user receives its answers; nobody else may listen there."""
    return f"_INBOX_{user}"


def permissions(partitions: int) -> dict[str, Permissions]:
    """Return every user's permissions on a bus of `partitions` partitions."""
    granted = {name: _service(name, place, partitions) for name, place in _SERVICES.items()}
    granted[GATEWAY] = _gateway()
    granted[ADMIN] = Permissions(publish=(">",), subscribe=(">",))
    granted[OBSERVER] = Permissions(publish=_OBSERVER_REQUESTS, subscribe=(">",))
    granted[PUBLIC] = Permissions(publish=(), subscribe=_PUBLIC_SUBJECTS)
    return granted


def _service(name: str, place: _Service, partitions: int) -> Permissions:
    publish = [dead_letter_subject(name), live_status(name), *place.live]
    for stream in place.reads:
        publish += _read_stream(stream)
        for partition in range(partitions):
            publish += _use_consumer(stream, consumer_name(name, partition))
    if place.writes is not None:
        publish += _read_stream(place.writes)
        publish += [frame_subject(place.writes, partition) for partition in range(partitions)]
    if place.keeps_state:
        publish += _read_stream(STATE)
        publish += [checkpoint_subject(name, partition) for partition in range(partitions)]
    publish += _read_stream(COMMANDS)
    publish += _use_consumer(COMMANDS, name)
    # A service hears how its other instances stand, and nobody else.
    return Permissions(tuple(publish), (f"{inbox_prefix(name)}.>", live_status(name)))


def _gateway() -> Permissions:
    """Read what it shows, hear what is said live, and pass on commands that it let in."""
    publish = [f"$JS.API.STREAM.INFO.{COMMANDS}", "commands.*"]
    for stream in (MARKET, INDICATORS, SIGNALS):
        publish += _read_stream(stream)
    heard = ("live.tick.>", "live.candle.>", "live.signal.>", live_status("*"))
    return Permissions(tuple(publish), (f"{inbox_prefix(GATEWAY)}.>", *heard))


def _read_stream(stream: str) -> list[str]:
    """Ask for a stream's state and for stored messages, by sequence or by subject."""
    return [
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    ]


def _use_consumer(stream: str, consumer: str) -> list[str]:
    """Pull from, rewind, hand over, look at and acknowledge to one existing consumer."""
    return [
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"$JS.API.CONSUMER.RESET.{stream}.{consumer}",
        f"$JS.API.CONSUMER.UNPIN.{stream}.{consumer}",
        f"$JS.API.CONSUMER.INFO.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
    ]
