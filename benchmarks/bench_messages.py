"""The whole way of a message, in, answered and acknowledged, beside nats-py and FastStream.

Everybody reads the same messages of MARKET, publishes each one's bytes as an answer to INDICATORS,
waits until the answer is stored, and acknowledges. The streams are files on one server that syncs
every write, as in production. Afterwards the answers are read back and compared.

- ours: raw pull, fenced publish one after another, as the services do;
- `..._nats_py`: `fetch(64)`, an awaited `publish` with the same fence, `ack` for each message;
- `..._faststream`: subscriber and publisher decorators as documented, pull with its default batch
  of one; no fence, since a decorated publisher does not learn the sequence of the answer;
- `..._faststream_64`: a batch of 64 handled at the same time, whose answers come out in any order.
  It could not carry this system; the row shows what giving up the order would buy.

`cpu` is the processor time of the client per message, `rate` messages per second of wall time.

Run it as `python -m benchmarks.bench_messages [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import time
from dataclasses import dataclass

import uvloop
from nats.js.api import ConsumerConfig

from benchmarks import rivals
from benchmarks.report import report
from cli.servers.nats import NatsServer
from libs.common.bus import nats, topology
from libs.common.bus.link import bare_client
from libs.common.bus.nats import NatsBus
from tests.servers import Running, temporary_home

SIZES_BYTES = (120, 5_000)
MESSAGES, MESSAGES_SHORT = 5_000, 600
BATCH = 64
IN_FLIGHT = 500
WAIT_S = 30.0
# The contenders of one size, each with a partition of INDICATORS for its answers.
OURS, NATS_PY, FASTSTREAM, FASTSTREAM_64 = range(4)
CONTENDERS = 4
RIVAL = "rival"
PASSWORD = secrets.token_urlsafe(16)


@dataclass(frozen=True)
class Cost:
    """What all messages took: processor time of the client, and time that passed."""

    cpu_s: float
    wall_s: float


class Watch:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def cost(self) -> Cost:
        """Return what was spent so far."""
        return Cost(time.process_time() - self._cpu_s, time.perf_counter() - self._wall_s)


class OpenServer(NatsServer):
    """A server with one user more, who may do everything and logs in by a password.

    The framework's way to log in knows no keys but those in files of a package of its own.
    """

    def prepare(self) -> None:
        """Add the user to the configuration."""
        super().prepare()
        config = json.loads(self._config_file.read_text(encoding="utf-8"))
        rules = {"publish": ">", "subscribe": ">"}
        for account in config["accounts"].values():
            account["users"].append({"user": RIVAL, "password": PASSWORD, "permissions": rules})
        self._config_file.write_text(json.dumps(config), encoding="utf-8")

    @property
    def open_url(self) -> str:
        """Return the address to connect to as that user."""
        return self.address.replace("//", f"//{RIVAL}:{PASSWORD}@")


async def fill(bus: NatsBus, partition: int, count: int, size_bytes: int) -> None:
    """Store `count` messages, no two alike."""
    for begin in range(0, count, IN_FLIGHT):
        window = range(begin, min(begin + IN_FLIGHT, count))
        await asyncio.gather(
            *(bus.append(f"market.{partition}", number.to_bytes(size_bytes)) for number in window)
        )


async def answer_ours(url: str, market: int, answers: int, count: int) -> Cost:
    """Answer as our services do."""
    bus = await nats.connect(url, name="bench")
    try:
        async with bus.lease("MARKET", f"indicators-{market}") as lease:
            watch = Watch()
            await lease.reset(1)
            seq = taken = 0
            while taken < count:
                for message in await lease.receive(frames_max=BATCH, wait_s=WAIT_S):
                    seq = await bus.publish(
                        f"indicators.{answers}", message.data, expected_last_seq=seq
                    )
                    await lease.ack(message)
                    taken += 1
            return watch.cost()
    finally:
        await bus.close()


async def answer_nats_py(url: str, market: int, answers: int, count: int) -> Cost:
    """Answer with the client library alone."""
    client = await bare_client(url)
    try:
        js = client.jetstream()
        config = ConsumerConfig(durable_name="plain", filter_subject=f"market.{market}")
        await js.add_consumer("MARKET", config)
        subscription = await js.pull_subscribe_bind("plain", "MARKET")
        watch = Watch()
        seq = taken = 0
        while taken < count:
            for message in await subscription.fetch(BATCH, timeout=WAIT_S):
                headers = {"Nats-Expected-Last-Subject-Sequence": str(seq)}
                stored = await js.publish(f"indicators.{answers}", message.data, headers=headers)
                seq = stored.seq
                await message.ack()
                taken += 1
        cost = watch.cost()
        await js.delete_consumer("MARKET", "plain")
        return cost
    finally:
        await client.close()


def answer_faststream(url: str, market: int, answers: int, count: int, batch: int) -> Cost:
    """Answer with FastStream, in a process of its own."""
    result = rivals.run(
        "messages", url, f"market.{market}", f"indicators.{answers}", str(count), str(batch)
    )
    return Cost(result["cpu_s"], result["wall_s"])


async def prepare(url: str, count: int) -> None:
    """Make the streams and fill MARKET, a partition for each size."""
    bus = await nats.connect(url, name="bench")
    try:
        await topology.apply(bus, topology.plan(CONTENDERS * len(SIZES_BYTES), "demo"))
        for partition, size_bytes in enumerate(SIZES_BYTES):
            await fill(bus, partition, count, size_bytes)
    finally:
        await bus.close()


async def stored(url: str, stream: str, consumer: str, count: int) -> list[bytes]:
    """Return the first `count` messages that a consumer delivers."""
    bus = await nats.connect(url, name="bench")
    try:
        async with bus.lease(stream, consumer) as lease:
            await lease.reset(1)
            found: list[bytes] = []
            while len(found) < count:
                messages = await lease.receive(frames_max=BATCH, wait_s=WAIT_S)
                found += [message.data for message in messages]
                await lease.ack(messages[-1])
            return found
    finally:
        await bus.close()


def require_answers(url: str, market: int, answers: int, count: int, *, ordered: bool) -> None:
    """Raise ValueError unless each message was answered once, in order if so wanted."""
    wanted = uvloop.run(stored(url, "MARKET", f"writer-{market}", count))
    found = uvloop.run(stored(url, "INDICATORS", f"signals-{answers}", count))
    if found != wanted if ordered else sorted(found) != sorted(wanted):
        raise ValueError(f"the answers on indicators.{answers} are not the messages")


def compare(server: OpenServer, market: int, size_bytes: int, count: int) -> None:
    """Let all contenders answer the messages of one size, and report."""
    url, open_url = server.url("admin"), server.open_url
    base = market * CONTENDERS
    ours = uvloop.run(answer_ours(url, market, base + OURS, count))
    costs = {
        "nats_py": uvloop.run(answer_nats_py(url, market, base + NATS_PY, count)),
        "faststream": answer_faststream(open_url, market, base + FASTSTREAM, count, 1),
        "faststream_64": answer_faststream(open_url, market, base + FASTSTREAM_64, count, BATCH),
    }
    for place in range(CONTENDERS):
        require_answers(url, market, base + place, count, ordered=place != FASTSTREAM_64)
    for name, theirs in costs.items():
        each_us = 1e6 / count
        report(
            f"messages_cpu_{name}_{size_bytes}b", "us/message",
            ours.cpu_s * each_us, theirs.cpu_s * each_us,
        )  # fmt: skip
        report(
            f"messages_rate_{name}_{size_bytes}b", "messages/s",
            count / ours.wall_s, count / theirs.wall_s,
        )  # fmt: skip


def main() -> None:
    """Start a server and measure."""
    parser = argparse.ArgumentParser(description="The way of a message beside nats-py, FastStream.")
    parser.add_argument("--short", action="store_true", help="fewer messages")
    count = MESSAGES_SHORT if parser.parse_args().short else MESSAGES
    with temporary_home() as home:
        server = OpenServer(home, partitions=CONTENDERS * len(SIZES_BYTES))
        with Running(server, home / "nats.log"):
            uvloop.run(prepare(server.url("admin"), count))
            for market, size_bytes in enumerate(SIZES_BYTES):
                compare(server, market, size_bytes, count)


if __name__ == "__main__":
    main()
