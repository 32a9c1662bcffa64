"""The bus's permissions, made of `deploy.policy`: a pure function of the partition count.

Consumers are listed one by one, because in a permission `*` stands for a whole token and cannot say
"those of this service".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from deploy.policy import (
    ADMIN,
    BACKUP,
    BUS_USERS,
    GATEWAY,
    NOTIFIER,
    OBSERVER,
    OPERATOR,
    PUBLIC,
    BusUser,
)
from libs.common.subjects import (
    COMMANDS,
    STATE,
    checkpoint_subject,
    command_subject,
    consumer_name,
    dead_letter_subject,
    desk_subject,
    frame_subject,
    live_status,
)

__all__ = [
    "ADMIN",
    "BACKUP",
    "GATEWAY",
    "NOTIFIER",
    "OBSERVER",
    "OPERATOR",
    "PUBLIC",
    "USERS",
    "Permissions",
    "inbox_prefix",
    "permissions",
]

USERS: Final = tuple(BUS_USERS)

# What reads everything and changes nothing.
_OBSERVING = (
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
# Copies of streams, paced by who takes them, and their messages, to compare.
_COPYING = (
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.SNAPSHOT.*",
    "$JS.SNAPSHOT.ACK.>",
    "$JS.API.DIRECT.GET.*",
)


@dataclass(frozen=True)
class Permissions:
    """The only subjects a user may publish and subscribe to; empty means none at all."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(user: str) -> str:
    """Return where a user receives its answers; nobody else may listen there."""
    return f"_INBOX_{user}"


def permissions(partitions: int) -> dict[str, Permissions]:
    """Return every user's permissions on a bus of `partitions` partitions."""
    return {name: _permissions(name, user, partitions) for name, user in BUS_USERS.items()}


def _permissions(name: str, user: BusUser, partitions: int) -> Permissions:
    if user.administers:
        return Permissions((">",), (">",))
    if user.observes:
        return Permissions(_OBSERVING, (">",))
    publish = _publishes(name, user, partitions)
    subscribe = list(user.hears)
    if user.peers:
        publish.append(live_status(name))
        subscribe.append(live_status(name))
    if publish:  # who asks nothing needs no place for answers
        subscribe.insert(0, f"{inbox_prefix(name)}.>")
    return Permissions(tuple(dict.fromkeys(publish)), tuple(subscribe))


def _publishes(name: str, user: BusUser, partitions: int) -> list[str]:
    """Return what a user publishes: its own subjects, and requests to JetStream."""
    if user.copies_streams:
        return list(_COPYING)
    publish = [*user.says, *_answers(name, user, partitions)]
    for stream in user.consumes:
        publish.append(_look_at(stream))
        for partition in range(partitions):
            consumer = consumer_name(name, partition)
            publish += _use_consumer(stream, consumer, frame_subject(stream, partition))
    for stream in user.asks:
        publish += _read_stream(stream)
    if user.takes_commands:
        publish += _use_consumer(COMMANDS, name, command_subject(name))
    publish += [command_subject(service) for service in user.commands]
    publish += [
        f"$JS.API.DIRECT.GET.{STATE}.{desk_subject(service)}" for service in user.reads_desks
    ]
    # Who works with the store asks whose it is; see `topology.check`.
    return [*publish, _look_at(COMMANDS)] if publish else []


def _answers(name: str, user: BusUser, partitions: int) -> list[str]:
    """Return where a user's durable messages go, and how it reads the last of them again."""
    publish = []
    if user.writes is not None:
        publish += _read_stream(user.writes)
        publish += [frame_subject(user.writes, partition) for partition in range(partitions)]
    if user.keeps_state:
        publish += _read_stream(STATE)
        publish += [checkpoint_subject(name, partition) for partition in range(partitions)]
    if user.keeps_desk:
        publish.append(desk_subject(name))
    if user.dead_letters:
        publish.append(dead_letter_subject(name))
    return publish


def _look_at(stream: str) -> str:
    """Ask for a stream's configuration and state."""
    return f"$JS.API.STREAM.INFO.{stream}"


def _read_stream(stream: str) -> list[str]:
    """Ask for a stream's state and for stored messages, by sequence or by subject."""
    return [
        _look_at(stream),
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    ]


def _use_consumer(stream: str, consumer: str, subject: str) -> list[str]:
    """Pull from, rewind, hand over, look at and acknowledge to one existing consumer.

    Who stands by also asks for the newest message, to wake a consumer that has no owner.
    """
    return [
        f"$JS.API.DIRECT.GET.{stream}.{subject}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"$JS.API.CONSUMER.RESET.{stream}.{consumer}",
        f"$JS.API.CONSUMER.UNPIN.{stream}.{consumer}",
        f"$JS.API.CONSUMER.INFO.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
    ]
