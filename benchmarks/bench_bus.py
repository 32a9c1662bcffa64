"""What our raw pull and fenced publish cost, against the client library's own ways.

Both sides work on the same streams of the same nats-server in one run, one after the other in this
process. A figure of `cpu` is the processor time that this process spent per message, without the
server; `rate` is messages per second of wall time. The baseline reads with `fetch(500)` and
acknowledges each message, as its documentation shows, and publishes with an awaited `js.publish`
that carries the same fence.

Run it as `python -m benchmarks.bench_bus [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvloop
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from benchmarks.report import report
from cli.servers.nats import NatsServer
from libs.common.bus import nats, topology
from libs.common.bus.link import bare_client
from libs.common.bus.nats import NatsBus
from tests.servers import Running, temporary_home

SIZES_BYTES = (120, 5_000)
READ_MESSAGES, READ_MESSAGES_SHORT = 20_000, 4_000
PUBLISHED_MESSAGES, PUBLISHED_MESSAGES_SHORT = 1_000, 200  # in each round
ROUNDS = 5
FETCH_BATCH = 500
IN_FLIGHT = 500
WAIT_S = 30.0


@dataclass
class Cost:
    """What some messages took."""

    cpu_us: float
    rate: float


async def measure(count: int, work: Callable[[], Awaitable[None]]) -> Cost:
    """Return the cost per message of work that handles `count` messages."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    await work()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    return Cost(cpu_s / count * 1e6, count / wall_s)


@asynccontextmanager
async def both(url: str) -> AsyncIterator[tuple[NatsBus, JetStreamContext]]:
    """Connect with our bus and with the library alone."""
    bus = await nats.connect(url, name="bench")
    client = await bare_client(url)
    try:
        yield bus, client.jetstream()
    finally:
        await client.close()
        await bus.close()


async def fill(bus: NatsBus, subject: str, count: int, size_bytes: int) -> None:
    """Store `count` messages."""
    data = bytes(size_bytes)
    for begin in range(0, count, IN_FLIGHT):
        window = range(begin, min(begin + IN_FLIGHT, count))
        await asyncio.gather(*(bus.append(subject, data) for _ in window))


async def read_raw(bus: NatsBus, consumer: str, count: int) -> Cost:
    """Read everything through a lease."""
    async with bus.lease("MARKET", consumer) as lease:

        async def work() -> None:
            await lease.reset(1)
            taken = 0
            while taken < count:
                messages = await lease.receive(frames_max=64, wait_s=WAIT_S)
                taken += len(messages)
                await lease.ack(messages[-1])

        return await measure(count, work)


async def read_fetch(js: JetStreamContext, subject: str, count: int) -> Cost:
    """Read everything with the library's `fetch`."""
    name = f"plain-{subject.rpartition('.')[2]}"
    await js.add_consumer("MARKET", ConsumerConfig(durable_name=name, filter_subject=subject))
    subscription = await js.pull_subscribe_bind(name, "MARKET")

    async def work() -> None:
        taken = 0
        while taken < count:
            for message in await subscription.fetch(FETCH_BATCH, timeout=WAIT_S):
                await message.ack()
                taken += 1

    return await measure(count, work)


async def publish_fenced(bus: NatsBus, count: int, size_bytes: int) -> Cost:
    """Publish one message behind the other."""
    last = await bus.last("INDICATORS", "indicators.0")
    seq, data = (last.seq if last else 0), bytes(size_bytes)

    async def work() -> None:
        nonlocal seq
        for _ in range(count):
            seq = await bus.publish("indicators.0", data, expected_last_seq=seq)

    return await measure(count, work)


async def publish_library(js: JetStreamContext, seq: int, count: int, size_bytes: int) -> Cost:
    """Do the same with the library's `publish`."""
    data = bytes(size_bytes)

    async def work() -> None:
        nonlocal seq
        for _ in range(count):
            headers = {"Nats-Expected-Last-Subject-Sequence": str(seq)}
            seq = (await js.publish("indicators.0", data, headers=headers)).seq

    return await measure(count, work)


async def publish_in_turn(
    bus: NatsBus, js: JetStreamContext, count: int, size_bytes: int
) -> tuple[Cost, Cost]:
    """Return the best of some rounds of either; they alternate, because the disk has moods."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(await publish_fenced(bus, count, size_bytes))
        last = await bus.last("INDICATORS", "indicators.0")
        theirs.append(await publish_library(js, last.seq if last else 0, count, size_bytes))
    return best(ours), best(theirs)


def best(costs: list[Cost]) -> Cost:
    """Return the least time of each kind."""
    return Cost(min(cost.cpu_us for cost in costs), max(cost.rate for cost in costs))


async def bench(url: str, short: bool) -> None:
    """Measure each size and report."""
    read_count = READ_MESSAGES_SHORT if short else READ_MESSAGES
    publish_count = PUBLISHED_MESSAGES_SHORT if short else PUBLISHED_MESSAGES
    async with both(url) as (bus, js):
        await topology.apply(bus, topology.plan(len(SIZES_BYTES), "demo"))
        for partition, size_bytes in enumerate(SIZES_BYTES):
            subject = f"market.{partition}"
            await fill(bus, subject, read_count, size_bytes)
            ours = await read_raw(bus, f"indicators-{partition}", read_count)
            theirs = await read_fetch(js, subject, read_count)
            report(f"bus_read_cpu_{size_bytes}b", "us/message", ours.cpu_us, theirs.cpu_us)
            report(f"bus_read_rate_{size_bytes}b", "messages/s", ours.rate, theirs.rate)
            ours, theirs = await publish_in_turn(bus, js, publish_count, size_bytes)
            report(f"bus_publish_cpu_{size_bytes}b", "us/message", ours.cpu_us, theirs.cpu_us)
            report(f"bus_publish_rate_{size_bytes}b", "messages/s", ours.rate, theirs.rate)


def main() -> None:
    """Start a server and measure."""
    parser = argparse.ArgumentParser(description="Raw pull and fenced publish against nats-py.")
    parser.add_argument("--short", action="store_true", help="fewer messages")
    short = parser.parse_args().short
    with temporary_home() as home:
        server = NatsServer(home, partitions=len(SIZES_BYTES))
        with Running(server, home / "nats.log"):
            uvloop.run(bench(server.url("admin"), short))


if __name__ == "__main__":
    main()
