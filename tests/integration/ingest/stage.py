"""A stage for ingest: simulator, real nats-server, ingest in this process or as one of its own.

What ingest must have made of the wire is worked out from two things that it has no part in: the
simulator's ledger of every frame that it sent, and its price history.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from cli.servers.nats import NatsServer
from libs.common import calendar, codec
from libs.common.bus import Bus, nats, topology
from libs.common.clock import SystemClock
from libs.common.events import (
    SESSION_CHECK,
    Bar,
    Clock,
    Event,
    Frame,
    Gap,
    History,
    HistoryBar,
    Tick,
)
from libs.common.runner import Runtime
from libs.common.settings import load
from libs.common.telemetry import Health, Metrics, get_logger
from libs.common.token_file import TokenFile
from services.ingest.service import serve
from services.ingest.settings import Settings
from services.simulator import simulation
from services.simulator.ledger import Ledger
from services.simulator.service import make_app, serving
from services.simulator.settings import Settings as SimulatorSettings
from services.simulator.wire import HUB, Hub
from tests.schwab_client import CONTROL, KEY, SECRET, Broker, broker_at
from tests.waiting import eventually_async

__all__ = ["TICKERS", "Process", "Running", "Stage", "stage"]

TICKERS = ("IWM", "QQQ", "SPY")
PARTITIONS = 2
DEADLINE_S = 60.0
ROOT = Path(__file__).parents[3]

E = TypeVar("E", Tick, Bar, Gap, Clock, History)


def say(ended: asyncio.Task[None]) -> None:
    """Write down what ended an ingest; pytest shows it with the test that failed of it."""
    if not ended.cancelled() and ended.exception() is not None:
        get_logger().error("ingest.ended", exc_info=ended.exception())


class Running:
    """An ingest in this process."""

    def __init__(self, runtime: Runtime[Settings], task: asyncio.Task[None]) -> None:
        self.runtime = runtime
        self.task = task
        task.add_done_callback(say)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one of its metrics; 0 when it was never touched."""
        return self.runtime.metrics.registry.get_sample_value(name, labels) or 0.0

    async def stop(self) -> None:
        """Stop it in good order; raises what ended it."""
        self.runtime.stop.set()
        await asyncio.wait({self.task}, timeout=DEADLINE_S)
        self.task.result()


class Process:
    """An ingest as a process of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "services.ingest"],
                cwd=ROOT, env=os.environ | environment, stderr=file,
            )  # fmt: skip

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.popen.kill()
        self.popen.wait(DEADLINE_S)

    def terminate(self) -> int:
        """Stop it in good order and return its exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(DEADLINE_S)

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of an event."""
        whole = self._log.read_text().rpartition("\n")[0]  # the last line may be on its way
        lines = (json.loads(line) for line in whole.splitlines() if line[:1] == "{")
        return [line for line in lines if line["event"] == event]


class Stage:
    """Everything around ingest."""

    def __init__(self, hub: Hub, broker: Broker, server: NatsServer, bus: Bus, home: Path) -> None:
        self._hub = hub
        self.simulation = hub.simulation
        self.broker = broker
        self.server = server
        self.bus = bus
        self.home = home
        self._held: dict[int, list[Frame]] = {partition: [] for partition in range(PARTITIONS)}
        self._read_seq = dict.fromkeys(range(PARTITIONS), 0)

    @property
    def token_file(self) -> TokenFile:
        """Where the login is kept."""
        return TokenFile(self.home / "token.json")

    # -- ingest --

    def environment(self, **changes: str) -> dict[str, str]:
        """Its settings, quick to reconnect."""
        return {
            "KITE_NATS_URL": self.server.url("ingest"),
            "KITE_PARTITIONS": str(PARTITIONS),
            "KITE_TICKERS": ",".join(TICKERS),
            "KITE_SCHWAB_APP_KEY": KEY,
            "KITE_SCHWAB_APP_SECRET": SECRET,
            "KITE_SCHWAB_TOKEN_FILE": str(self.home / "token.json"),
            "KITE_SCHWAB_BASE_URL": self.broker.url,
            "KITE_INGEST_DATA_DIR": str(self.home / "ingest"),
            "KITE_INGEST_RECONNECT_FIRST_MS": "50",
            "KITE_INGEST_HISTORY_RETRY_FIRST_MS": "50",
            "KITE_INGEST_REQUESTS_PER_MINUTE_MAX": "10000",  # hours pass in seconds
            **changes,
        }

    @asynccontextmanager
    async def ingest(self, **changes: str) -> AsyncIterator[Running]:
        """Run it in this process until the context ends, then stop it in good order."""
        runtime = Runtime(
            "ingest", load(Settings, self.environment(**changes)), Metrics(), Health(),
            SystemClock(), get_logger(), asyncio.Event(),
        )  # fmt: skip
        beat = asyncio.create_task(runtime.health.beat())
        running = Running(runtime, asyncio.create_task(serve(runtime)))
        try:
            yield running
            await running.stop()
        finally:
            beat.cancel()
            running.task.cancel()
            await asyncio.wait({running.task, beat})

    def process(self, **changes: str) -> Process:
        """Start it as a process of its own."""
        return Process(self.environment(**changes), self.home / "ingest.log")

    async def log_in(self) -> None:
        """Leave a token as a login does, without going through one."""
        token = await self.broker.login()
        now_s = SystemClock().now_ms() // 1000
        token["expires_at"] = now_s + token["expires_in"]
        wrapped = {"creation_timestamp": now_s, "token": token}
        self.token_file.write(wrapped)

    def secrets(self) -> list[str]:
        """What must appear in no log."""
        token = self.token_file.read()["token"]
        key = self.token_file.key_file.read_text().strip()
        return [SECRET, key, token["access_token"], token["refresh_token"]]

    async def wait_for_broker_ms(self, at_ms: int) -> None:
        """Wait until the simulator's clock has reached an instant."""
        await eventually_async(
            lambda: self.simulation.now_ms() >= at_ms, DEADLINE_S, "the simulator's time"
        )

    def logins(self) -> int:
        """How often the streamer was logged in to."""
        return self._hub.login_count

    def connections(self) -> int:
        """How many streamer connections there are."""
        return len(self._hub.connections)

    # -- what came out --

    async def frames(self) -> list[tuple[int, Frame]]:
        """All frames of MARKET, each with its partition; checks that their numbers have no hole."""
        await eventually_async(lambda: self.bus.connected, DEADLINE_S, "the bus is there")
        for partition, held in self._held.items():
            subject, seq = f"market.{partition}", self._read_seq[partition]
            while (stored := await self.bus.read("MARKET", subject, start_seq=seq + 1)) is not None:
                frame = codec.decode_frame(stored.data)
                assert frame.n == len(held) + 1, f"{subject} goes from {len(held)} to {frame.n}"
                held.append(frame)
                self._read_seq[partition] = seq = stored.seq
        return [(partition, frame) for partition, held in self._held.items() for frame in held]

    async def events(self, kind: type[E]) -> list[E]:
        """All events of a kind, partition by partition in order; a checked session is no gap."""
        return [
            event
            for _, frame in await self.frames()
            for event in frame.events
            if isinstance(event, kind) and getattr(event, "cause", "") != SESSION_CHECK
        ]

    async def until(self, kind: type[E], count: int = 1, what: str = "") -> list[E]:
        """Wait until at least so many events of a kind are stored, and return them."""

        async def enough() -> list[E]:
            found = await self.events(kind)
            return found if len(found) >= count else []

        return await eventually_async(enough, DEADLINE_S, what or f"{count} {kind.__name__}")

    async def until_settled(self) -> None:
        """Wait until no gap is open any more."""

        async def settled() -> bool:
            states = {gap.id: gap.state for gap in await self.events(Gap)}
            return bool(states) and "open" not in states.values()

        await eventually_async(settled, DEADLINE_S, "every gap is filled or unfillable")

    async def dead_letters(self) -> list[dict[str, Any]]:
        """Everything that was put aside."""
        found, seq, subject = [], 0, "deadletter.ingest"
        while (stored := await self.bus.read("DEADLETTER", subject, start_seq=seq + 1)) is not None:
            seq = stored.seq
            found.append(json.loads(stored.data))
        return found

    # -- what should have come out --

    async def check_bars(self, tickers: Iterable[str] = TICKERS) -> None:
        """Bars and histories together are the day that price history tells, up to the last one."""
        days = _days(event for _, frame in await self.frames() for event in frame.events)
        client = await self.broker.client()
        assert {ticker for ticker, _ in days} == set(tickers)
        for (ticker, day_ms), bars in days.items():
            start = _datetime(day_ms)
            end = _datetime(calendar.day_bounds_ms(calendar.day_of(day_ms))[1])
            reply = await client.get_price_history_every_minute(
                ticker, start_datetime=start, end_datetime=end, need_extended_hours_data=True
            )
            last_ms = max(bars)
            truth = {
                c["datetime"]: (c["open"], c["high"], c["low"], c["close"], c["volume"])
                for c in reply.json()["candles"]
                if day_ms <= c["datetime"] <= last_ms
            }
            assert bars == truth, f"{ticker}: {bars.items() ^ truth.items()}"

    async def check_ticks(self, under_way_max: int = 5) -> None:
        """Every change that was sent after an image is one tick, but for what was under way."""
        expected = await asyncio.to_thread(_changes, self.home / "ledger")
        found: dict[str, list[tuple[float, int]]] = {ticker: [] for ticker in TICKERS}
        for tick in await self.events(Tick):
            found[tick.ticker].append((tick.price, tick.total_volume))
        for ticker in TICKERS:
            count = len(found[ticker])
            assert found[ticker] == expected[ticker][:count], ticker
            assert count >= len(expected[ticker]) - under_way_max, ticker


@asynccontextmanager
async def stage(
    server: NatsServer, home: Path, *, source: str = "demo", **settings: Any
) -> AsyncIterator[Stage]:
    """Set everything up around ingest: streams, simulator, token; settings are the simulator's."""
    bus = await nats.connect(server.url("admin"), name="stage")
    try:
        await topology.apply(bus, topology.plan(PARTITIONS, source))
        async with _simulator(home / "ledger", settings) as (hub, broker):
            found = Stage(hub, broker, server, bus, home)
            await found.log_in()
            yield found
    finally:
        await bus.close()


@asynccontextmanager
async def _simulator(ledger: Path, settings: dict[str, Any]) -> AsyncIterator[tuple[Hub, Broker]]:
    named: dict[str, Any] = {
        "control_token": CONTROL,
        "start": "2026-11-20T10:30",
        "requests_per_minute": 0,
        "speed": 20,
    }
    named |= settings
    made = SimulatorSettings(**{f"sim_{name}": value for name, value in named.items()})
    log = get_logger()
    built = simulation.build(made, SystemClock(), log)
    app = make_app(built, Metrics(), log, Ledger(ledger))
    async with serving(app, 0) as url, broker_at(url) as broker:
        yield app[HUB], broker


def keys(events: Iterable[Tick | Bar]) -> list[tuple[str, str, int]]:
    """What must be unique."""
    return [(type(event).__name__, event.ticker, event.ts_ms) for event in events]


def _days(events: Iterable[Event]) -> dict[tuple[str, int], dict[int, tuple[float, ...]]]:
    """Put bars and histories together as a reader does: a history is its day, a bar adds to it."""
    days: dict[tuple[str, int], dict[int, tuple[float, ...]]] = {}
    for event in events:
        if isinstance(event, Bar):
            day = days.setdefault((event.ticker, calendar.day_start_ms(event.ts_ms)), {})
            assert event.ts_ms not in day, "a bar that was known already"
            day[event.ts_ms] = _values(event)
        elif isinstance(event, History):
            known = days.get((event.ticker, event.day_ms), {})
            assert not known or event.bars[-1].ts_ms >= max(known), "a history that ends too early"
            days[event.ticker, event.day_ms] = {bar.ts_ms: _values(bar) for bar in event.bars}
    return days


def _values(bar: Bar | HistoryBar) -> tuple[float, ...]:
    return (bar.open, bar.high, bar.low, bar.close, bar.volume)


def _changes(ledger: Path) -> dict[str, list[tuple[float, int]]]:
    """From the frames that were sent: last price and total volume after each change."""
    state: dict[str, dict[str, Any]] = {}
    changes: dict[str, list[tuple[float, int]]] = {ticker: [] for ticker in TICKERS}
    for line in ledger.read_bytes().splitlines():
        frame = json.loads(line.split(b" ", 1)[1])
        for part in frame["data"]:
            if part["service"] != "LEVELONE_EQUITIES":
                continue
            for item in part["content"]:
                key = item["key"]
                if "assetMainType" in item:
                    state[key] = {}
                before = {name: state[key].get(name) for name in ("3", "8", "35")}
                state[key].update(item)
                after = {name: state[key].get(name) for name in ("3", "8", "35")}
                if before != after and "assetMainType" not in item:
                    changes[key].append((round(state[key]["3"], 4), state[key]["8"]))
    return changes


def _datetime(ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
