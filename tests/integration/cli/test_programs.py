"""How readiness is found out: from a service's probe, from a server's answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cli import programs
from cli.ports import Ports
from cli.programs import ServerProgram, ServiceProgram, ask
from cli.servers.server import Command, ServerFrozen
from cli.units import Event, Hung, Ready, RestartAsked, Unready
from libs.common.errors import ServerError
from libs.common.telemetry import Health, Metrics, TelemetryServer
from tests.waiting import eventually_async

DEADLINE_S = 20


@dataclass
class FakeServer:
    """A server that is well or not."""

    well: bool = True
    frozen: bool = False
    room: bool = True
    asked: int = 0
    name: str = "fake"

    def prepare(self) -> None:
        """Nothing to make."""

    def command(self) -> Command:
        raise AssertionError("never spawned")

    def require_room(self) -> None:
        if not self.room:
            raise ServerError("the disk is full")

    async def wait_ready(
        self, *, deadline_s: float = 30.0, alive: Callable[[], bool] = lambda: True
    ) -> None:
        self.asked += 1
        if self.frozen:
            raise ServerFrozen("a stream met a write error")
        if not self.well:
            raise ServerError("streams are frozen")

    def stop_leftover(self, *, deadline_s: float = 10.0) -> bool:
        return False

    def explain(self, log_tail: str) -> str | None:
        return None


@dataclass
class Watched:
    """A program that is watched, and what it reports."""

    events: list[Event] = field(default_factory=list)

    @asynccontextmanager
    async def watching(self, program: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(program.watch(self.events.append))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def reported(self, kind: type[Event]) -> Any:
        def found() -> Event | None:
            return next((event for event in reversed(self.events) if isinstance(event, kind)), None)

        return await eventually_async(found, DEADLINE_S, f"{kind.__name__} was reported")


@pytest.fixture
def telemetry() -> Any:
    """A service's real telemetry, on any port."""
    health = Health()
    server = TelemetryServer(Metrics(), health, "127.0.0.1", 0)
    server.start()
    yield server, health
    server.close()


def service(port: int, ports: Ports | None = None) -> ServiceProgram:
    """Return a service that listens on `port` already."""
    program = ServiceProgram("fake", "services.fake", dict, ports=ports or Ports())
    program.metrics_port = port
    return program


def test_a_service_is_ready_when_its_probe_says_so(telemetry: Any) -> None:
    """Its own reasons are passed on until then, and whenever it is not."""
    server, health = telemetry
    port = int(server.url.rpartition(":")[2])

    async def scenario() -> None:
        watched = Watched()
        health.require("bus", "connecting")
        async with watched.watching(service(port)):
            assert await watched.reported(Unready) == Unready("fake", "bus: connecting")
            health.met("bus")
            assert await watched.reported(Ready) == Ready("fake")

    asyncio.run(scenario())


def test_a_service_that_never_answers_is_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that a slow start may take, not at once."""
    monkeypatch.setattr(programs, "SILENCE_S_MAX", 0.2)

    async def scenario() -> None:
        watched = Watched()
        with Ports() as ports:
            async with watched.watching(service(ports.free())):
                assert await watched.reported(Hung) == Hung("fake")

    asyncio.run(scenario())


def test_what_is_no_http_is_an_os_error() -> None:
    """Whoever listens there is not one of ours."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 hello\r\n")
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        async with server:
            with pytest.raises(OSError, match="not an HTTP answer"):
                await ask(server.sockets[0].getsockname()[1], "/readyz")

    asyncio.run(scenario())


def test_a_server_that_stays_sick_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen nats-server does not thaw; what it said is the reason."""
    monkeypatch.setattr(programs, "_SERVER_SICK_S", 0.2)
    server = FakeServer()

    async def scenario() -> list[Event]:
        watched = Watched()
        async with watched.watching(ServerProgram(server, recheck_s=0.02)):
            await watched.reported(Ready)
            server.well = False
            asked = await watched.reported(RestartAsked)
            assert asked == RestartAsked("fake", "streams are frozen")
        return watched.events

    assert Unready("fake", "streams are frozen") in asyncio.run(scenario())


def test_a_frozen_server_is_restarted_as_soon_as_there_is_room() -> None:
    """Nothing else helps it; on a full disk it would not come back, so it may keep what it has."""
    server = FakeServer()

    async def scenario() -> list[Event]:
        watched = Watched()
        async with watched.watching(ServerProgram(server, recheck_s=0.01)):
            await watched.reported(Ready)
            server.frozen, server.room = True, False
            asked = server.asked
            await eventually_async(lambda: server.asked > asked + 3, DEADLINE_S, "it is asked on")
            before = list(watched.events)
            server.room = True
            assert await watched.reported(RestartAsked)
        return before

    assert not any(isinstance(event, RestartAsked) for event in asyncio.run(scenario()))


def test_a_server_that_recovers_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short weakness is shown, nothing more."""
    monkeypatch.setattr(programs, "_SERVER_SICK_S", 1000)
    server = FakeServer()

    async def scenario() -> list[Event]:
        watched = Watched()
        async with watched.watching(ServerProgram(server, recheck_s=0.01)):
            await watched.reported(Ready)
            server.well = False
            await watched.reported(Unready)
            server.well = True
            await eventually_async(
                lambda: watched.events[-1] == Ready("fake"), DEADLINE_S, "well again"
            )
        return watched.events

    assert not any(isinstance(event, RestartAsked) for event in asyncio.run(scenario()))


def test_a_service_keeps_its_port_until_somebody_takes_it() -> None:
    """Whoever scrapes metrics finds them at the same place after a restart."""
    with Ports() as ports:
        program = service(0, ports)
        program.prepare()
        first = program.metrics_port
    program.prepare()
    assert program.metrics_port == first
    assert program.command().env["KITE_METRICS_PORT"] == str(first)
    assert Path(program.command().argv[0]).name.startswith("python")
    assert os.environ.get("KITE_METRICS_PORT") is None
