"""FastStream's way through the bus: a pull subscriber whose answers go to a publisher.

    python -m benchmarks.rivals.messages URL SUBJECT ANSWERS COUNT BATCH

Each message of SUBJECT in MARKET is answered with its own bytes on ANSWERS in INDICATORS, and
acknowledged by the framework once the answer is stored. With a BATCH of 1, its default, messages
are handled one after another; with more, the framework handles all of a batch at the same time,
in no order. Prints the version, the processor time of this process and the time that passed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version

import uvloop
from faststream.nats import JStream, NatsBroker, PullSub

WAIT_S = 600


async def answer_all(url: str, subject: str, answers: str, count: int, batch: int) -> None:
    """Answer `count` messages and print what it took."""
    broker = NatsBroker(url, logger=None)
    done = asyncio.Event()
    left = count

    async def handle(body: bytes) -> bytes:
        nonlocal left
        left -= 1
        if not left:
            done.set()
        return body

    subscriber = broker.subscriber(
        subject,
        stream=JStream("MARKET", declare=False),
        durable=f"faststream-{batch}-{answers.rpartition('.')[2]}",
        pull_sub=PullSub(batch_size=batch),
    )
    publisher = broker.publisher(answers, stream=JStream("INDICATORS", declare=False))
    publisher(subscriber(handle))
    await broker.connect()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    await broker.start()
    async with asyncio.timeout(WAIT_S):
        await done.wait()
    await broker.stop()  # waits for the last answer
    spent = {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s}
    print(json.dumps({"version": version("faststream"), **spent}))


def main(arguments: Sequence[str]) -> None:
    """Run with the arguments described above."""
    url, subject, answers, count, batch = arguments
    uvloop.run(answer_all(url, subject, answers, int(count), int(batch)))


if __name__ == "__main__":
    main(sys.argv[1:])
