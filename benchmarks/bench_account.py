"""Ingest and the account: how soon a dead feed is noticed and mended, and what a busy one costs.

- `silence_noticed`: from when the broker falls silent, its socket still open, until ingest has
  given the connection up; the baseline is the setting (KITE_INGEST_SILENCE_MS).
- `drop_recovered`: from a reset of the socket until a tick of a new one is durable; the baseline is
  the target for the way back after a death.
- `gap_filled`: from a start after an absence of 30 minutes until all that 300 tickers miss has come
  from price history, within the default budget of requests; the baseline is what the budget alone
  allows. `--short` does it for fewer tickers and minutes.
- `ingest_cpu`, `ingest_memory`: 10 wire frames a second with 250 trades each, made durable; the
  baseline is schwab-py alone, reading the same load into a handler that does nothing.

Run it as `python -m benchmarks.bench_account [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.report import report
from cli.servers.nats import NatsServer
from libs.common import codec, subjects
from libs.common.events import Tick
from services.ingest.settings import Settings
from tests.integration.ingest.stage import PARTITIONS, Stage, stage
from tests.servers import Running, temporary_home

SILENCE_S = next(
    field.default / 1000
    for field in msgspec.structs.fields(Settings)
    if field.name == "ingest_silence_ms"
)
RECOVERY_TARGET_S = 5.0
PER_MINUTE = 110
WINDOW_S = 60
FILL_SPEED = 20.0
LOAD_TICKERS = 250
LOAD = {"load_frames_per_s": 10, "load_items": LOAD_TICKERS, "speed": 1}
_MB = 1_000_000
_PATIENCE_S = 900.0
_POLL_S = 0.05


async def until(what: str, done: Callable[[], Awaitable[bool]]) -> float:
    """Wait for something; return how long it took."""
    began_s = time.monotonic()
    while not await done():
        if time.monotonic() - began_s > _PATIENCE_S:
            raise TimeoutError(what)
        await asyncio.sleep(_POLL_S)
    return time.monotonic() - began_s


async def tick_after(on: Stage, seqs: dict[int, int]) -> bool:
    """Whether a tick is stored behind these sequences."""
    for partition, seq in seqs.items():
        subject = subjects.frame_subject(subjects.MARKET, partition)
        while (
            stored := await on.bus.read(subjects.MARKET, subject, start_seq=seq + 1)
        ) is not None:
            seqs[partition] = seq = stored.seq
            if any(isinstance(event, Tick) for event in codec.decode_frame(stored.data).events):
                return True
    return False


async def ends(on: Stage) -> dict[int, int]:
    """Return the last sequence of each partition."""
    found = {}
    for partition in range(PARTITIONS):
        subject = subjects.frame_subject(subjects.MARKET, partition)
        last = await on.bus.last(subjects.MARKET, subject)
        found[partition] = 0 if last is None else last.seq
    return found


# -- a feed that dies --


async def measure_silence(on: Stage) -> None:
    """Let the broker stop talking without closing anything."""
    async with on.ingest() as running:
        await on.until(Tick, 20)

        async def given_up() -> bool:
            return running.metric("kite_ingest_reconnects_total", cause="silence") > 0

        await on.broker.faults(next={"stall": 1}, stall_s=600)
        report("silence_noticed", "s", await until("silence", given_up), SILENCE_S)


async def measure_drop(on: Stage, times: int) -> None:
    """Reset the socket several times; the slowest way back counts."""
    took_s = []
    async with on.ingest(KITE_INGEST_RECONNECT_FIRST_MS="1000") as running:
        await on.until(Tick, 20)
        for drop in range(1, times + 1):

            async def dropped(drop: int = drop) -> bool:
                return running.metric("kite_ingest_reconnects_total", cause="reconnect") >= drop

            await on.broker.faults(next={"drop": 1})
            await until("a drop", dropped)
            seqs = await ends(on)

            async def back(seqs: dict[int, int] = seqs) -> bool:
                return await tick_after(on, seqs)

            took_s.append(await until("ticks again", back))
    report("drop_recovered", "s", max(took_s), RECOVERY_TARGET_S)


# -- minutes that are missing --


async def measure_fill(on: Stage, tickers: int, absent_min: int) -> None:
    """Be away for so many minutes of trading, then fill them within the budget."""
    names = ",".join(f"T{number:03}" for number in range(tickers))
    async with on.ingest(KITE_TICKERS=names) as running:
        await until("a first start", lambda: filled(running))
    await until("the absence", reached(on, on.simulation.now_ms() + absent_min * 60_000))
    budget = {"KITE_INGEST_REQUESTS_PER_MINUTE_MAX": str(PER_MINUTE)}
    async with on.ingest(KITE_TICKERS=names, **budget) as running:
        took_s = await until("the gaps", lambda: filled(running, tickers))
    allowed_s = max(1.0, (tickers - 1) // PER_MINUTE * WINDOW_S)
    report("gap_filled", "s", took_s, allowed_s)


def reached(on: Stage, at_ms: int) -> Callable[[], Awaitable[bool]]:
    """Whether the broker's clock has got there."""

    async def there() -> bool:
        return on.simulation.now_ms() >= at_ms

    return there


async def filled(running: Any, least: int = 1) -> bool:
    """Whether at least so many gaps were told and none of them is open any more."""
    ends = (("filled", ""), ("unfillable", "no_trade"))
    told: float = sum(
        running.metric("kite_ingest_gaps_total", series="bars", state=state, reason=reason)
        for state, reason in ends
    )
    return told >= least and running.metric("kite_ingest_gaps_open") == 0


# -- a busy feed --


async def measure_load(on: Stage, seconds: float) -> None:
    """Let schwab-py alone and then ingest take the same load, each as a process of its own."""
    tickers = ",".join(f"T{number:03}" for number in range(LOAD_TICKERS))
    alone = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.rivals.schwab_alone", on.broker.url, str(seconds),
        tickers, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await alone.communicate()
    rival = json.loads(output)
    await on.log_in()
    process = on.process(KITE_TICKERS=tickers)
    try:
        watched = psutil.Process(process.popen.pid)
        seqs = await ends(on)
        await until("ticks", lambda: tick_after(on, seqs))
        await asyncio.sleep(seconds)  # the history of so many tickers comes behind
        before = sum(watched.cpu_times()[:2])
        began_s = time.monotonic()
        await asyncio.sleep(seconds)
        share = (sum(watched.cpu_times()[:2]) - before) / (time.monotonic() - began_s)
        report("ingest_cpu", "% of a core", 100 * share, 100 * rival["cpu"])
        pss = watched.memory_full_info().pss
        report("ingest_memory", "MB", pss / _MB, rival["pss_bytes"] / _MB)
    finally:
        process.kill()


def on_a_stage(measure: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
    """Measure on streams, a simulator and a server of its own."""

    async def scenario(server: NatsServer, home: Path) -> None:
        async with stage(server, home, **settings) as found:
            await measure(found)

    with temporary_home() as home:
        server = NatsServer(home, partitions=PARTITIONS)
        private = home / "private"  # a token's folder is nobody else's; the server's home is
        private.mkdir(mode=0o700)
        with Running(server, home / "nats.log"):
            asyncio.run(scenario(server, private))


def main() -> None:
    """Measure one after the other."""
    parser = argparse.ArgumentParser(description="Ingest and the account.")
    parser.add_argument("--short", action="store_true", help="fewer tickers, less time")
    short = parser.parse_args().short
    on_a_stage(measure_silence, speed=1)
    on_a_stage(lambda on: measure_drop(on, 3 if short else 20), speed=1)
    filling = (20, 3) if short else (300, 30)
    on_a_stage(lambda on: measure_fill(on, *filling), speed=FILL_SPEED)
    on_a_stage(lambda on: measure_load(on, 8 if short else 60), **LOAD)


if __name__ == "__main__":
    main()
