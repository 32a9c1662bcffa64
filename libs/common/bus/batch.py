"""Many stored messages by one request: the server's batched direct get.

The answers come to an inbox of their own, one message each, and end with a status. The server
gives what it can: a message whose bytes no longer fit their checksum is passed over without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
from nats.aio.msg import Msg

from libs.common.bus import Stored
from libs.common.bus.link import Link, status_of
from libs.common.errors import BusUnavailable

__all__ = ["read_batch"]

_END, _NOTHING = "204", "404"
_SEQUENCE_HEADER = "Nats-Sequence"
_DESCRIPTION_HEADER = "Description"


async def read_batch(
    link: Link, stream: str, wanted: Mapping[str, object], *, timeout_s: float
) -> Sequence[Stored]:
    """Return what the server sends for `wanted`; raises BusUnavailable when it breaks off."""
    batch = _Batch(f"$JS.API.DIRECT.GET.{stream}")
    inbox = link.new_inbox()
    subscription = await link.subscribe(inbox, batch.take)
    unwatch = link.watch(batch.fail)
    try:
        await link.send(batch.subject, msgspec.json.encode(wanted), reply=inbox)
        async with asyncio.timeout(timeout_s):
            await batch.ended.wait()
    except TimeoutError:
        batch.fail(f"no end within {timeout_s} s")
    finally:
        unwatch()
        await link.unsubscribe(subscription)
    if batch.failure:
        raise BusUnavailable(f"{batch.subject}: {batch.failure}")
    return batch.found


class _Batch:
    """The answers to one request, until their end."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.found: list[Stored] = []
        self.failure = ""
        self.ended = asyncio.Event()

    async def take(self, message: Msg) -> None:
        status = status_of(message)
        headers = message.headers or {}
        if status in (_END, _NOTHING):
            self.ended.set()
        elif status or _SEQUENCE_HEADER not in headers:
            self.fail(f"unclear answer {status} {headers.get(_DESCRIPTION_HEADER, '')}".strip())
        else:
            self.found.append(Stored(int(headers[_SEQUENCE_HEADER]), message.data))

    def fail(self, reason: str) -> None:
        self.failure = reason
        self.ended.set()
