"""What live clients cost the gateway, and how late ticks reach them.

The real process, on a real nats-server and without a database, serves `CLIENTS` WebSocket clients
that all watch one ticker, to which 50 ticks a second come, each in a frame of its own and announced
live, as indicators does it. Figures for 20 messages a second to each client, as in a replay, have
targets; those for 10, as in a live market, stand beside them.

- `gateway_cpu`: processor time of the gateway, as a share of one core;
- `gateway_latency_p99`: from publishing a frame until a client has read the tick, which includes
  the time that it waits for its batch: up to 50 or 100 ms.

Run it as `python -m benchmarks.bench_gateway [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec
import psutil
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from benchmarks.report import report
from benchmarks.stage import make_streams, pause, service
from cli.servers.host import claim_port
from cli.servers.nats import NatsServer
from libs.common import codec
from libs.common.bus import nats
from libs.common.bus.nats import NatsBus
from libs.common.clock import SystemClock
from libs.common.events import SCHEMA_VERSION, Frame, TickIndicator
from tests.servers import Running, temporary_home

CLIENTS = 100
TICKS_PER_S = 50
RUN_S, RUN_SHORT_S = 30.0, 3.0
WARM_UP_S = 1.0
DEADLINE_S = 30.0
CPU_TARGET_PERCENT = 15.0
P99_TARGET_MS = 80.0
# Messages a second to each client, and the names of what is measured with them.
FIGURES = (
    (20, "gateway_cpu", "gateway_latency_p99"),
    (10, "gateway_cpu_at_10hz", "gateway_latency_p99_at_10hz"),
)
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"


class _Ticks(msgspec.Struct):
    op: str
    ts_ms: list[int] = []


_decoder = msgspec.json.Decoder(_Ticks)


@dataclass
class Audience:
    """The clients, and how late each tick reached each of them."""

    latencies_ms: list[int] = field(default_factory=list)
    connections: list[ClientConnection] = field(default_factory=list)

    async def listen(self, connection: ClientConnection) -> None:
        """Note how late ticks are until the connection ends; a tick's time is when it left."""
        try:
            async for text in connection:
                ticks = _decoder.decode(text)
                if ticks.op == "ticks":
                    now_ms = SystemClock().now_ms()
                    self.latencies_ms += [now_ms - ts_ms for ts_ms in ticks.ts_ms]
        except ConnectionClosed:
            return

    async def say(self, **request: object) -> None:
        """Let every client say the same."""
        for connection in self.connections:
            await connection.send(json.dumps(request))


class Market:
    """Publishes ticks of one ticker at a steady pace."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self._last_seq = 0
        self._n = 0

    async def run(self, seconds: float) -> None:
        """Publish for so long."""
        begin_s = time.perf_counter()
        for number in range(round(seconds * TICKS_PER_S)):
            due_s = begin_s + number / TICKS_PER_S
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            await self._publish()

    async def _publish(self) -> None:
        now_ms = SystemClock().now_ms()
        self._n += 1
        tick = TickIndicator("QQQ", now_ms, 600.0 + self._n % 97, 601.25, 600.5)
        frame = Frame(SCHEMA_VERSION, 1, self._n, self._n, self._n, now_ms, now_ms, (tick,))
        self._last_seq = await self._bus.publish(
            "indicators.0", codec.encode_frame(frame), expected_last_seq=self._last_seq
        )
        said = {"ticker": "QQQ", "ts_ms": now_ms, "price": tick.price, "bid": 600.0, "ask": 600.1}
        await self._bus.publish_live("live.tick.QQQ", codec.encode_json(said))


async def measure(
    gateway: psutil.Process, audience: Audience, market: Market, hz: float, seconds: float
) -> tuple[float, float]:
    """Return the share of a core in percent, and the 99th percentile of the latency in ms."""
    await audience.say(op="rate", hz=hz)
    await market.run(WARM_UP_S)
    audience.latencies_ms.clear()
    cpu_s, wall_s = sum(gateway.cpu_times()[:2]), time.perf_counter()
    await market.run(seconds)
    cpu_s, wall_s = sum(gateway.cpu_times()[:2]) - cpu_s, time.perf_counter() - wall_s
    ordered = sorted(audience.latencies_ms)
    return 100 * cpu_s / wall_s, float(ordered[int(len(ordered) * 0.99)])


async def listening_on(port: int) -> None:
    """Wait until the gateway listens."""
    deadline_s = time.perf_counter() + DEADLINE_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await pause(deadline_s)
        else:
            writer.close()
            return


async def bench(url: str, pid: int, port: int, seconds: float) -> None:
    """Bring the clients in, measure, and report."""
    bus = await nats.connect(url, name="bench")
    live = f"ws://127.0.0.1:{port}/api/v1/live"
    audience = Audience()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bus.close)
        await listening_on(port)
        for _ in range(CLIENTS):
            connection = await stack.enter_async_context(connect(live, compression=None))
            audience.connections.append(connection)
        listening = [asyncio.create_task(audience.listen(each)) for each in audience.connections]
        epoch_ms = (await bus.stream("INDICATORS")).created_ms
        await audience.say(op="sub", id=1, channel="ticks", ticker="QQQ", epoch_ms=epoch_ms)
        gateway, market = psutil.Process(pid), Market(bus)
        for hz, cpu, latency in FIGURES:
            cpu_percent, p99_ms = await measure(gateway, audience, market, hz, seconds)
            report(cpu, "% of a core", cpu_percent, CPU_TARGET_PERCENT)
            report(latency, "ms", p99_ms, P99_TARGET_MS)
        for task in listening:
            task.cancel()


def main() -> None:
    """Start a bus and the gateway, and measure."""
    parser = argparse.ArgumentParser(description="Measure the gateway's live part.")
    parser.add_argument("--short", action="store_true", help="for seconds only")
    seconds = RUN_SHORT_S if parser.parse_args().short else RUN_S
    with temporary_home() as home:
        server, port = NatsServer(home, partitions=1), claim_port(0, "the gateway")
        with Running(server, home / "nats.log"):
            asyncio.run(make_streams(server.url("admin")))
            os.environ["KITE_GATEWAY_PORT"] = str(port)
            os.environ["KITE_GATEWAY_CONNECTIONS_PER_ADDRESS_MAX"] = str(CLIENTS)
            os.environ["KITE_GATEWAY_REQUESTS_PER_MINUTE_MAX"] = str(100 * CLIENTS)
            with service("gateway", server.url("gateway"), NO_DATABASE) as pid:
                uvloop.run(bench(server.url("admin"), pid, port, seconds))


if __name__ == "__main__":
    main()
