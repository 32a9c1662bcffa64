"""Wiring: one aiohttp server for OAuth, REST and streamer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from libs.common.addresses import url_here
from libs.common.errors import SettingsError
from libs.common.runner import Runtime
from libs.common.telemetry import Metrics
from services.simulator import control, rest, simulation, wire
from services.simulator.ledger import Ledger
from services.simulator.settings import Settings
from services.simulator.virtual_clock import mark_every_s

__all__ = ["make_app", "serve", "serving"]

_OBSERVE_S = 1.0


async def serve(runtime: Runtime[Settings]) -> None:
    """Run until told to stop. Raises SettingsError for unusable files or a taken port."""
    runtime.health.require("listening")
    broker = simulation.build(runtime.settings, runtime.clock, runtime.log)
    ledger = _ledger(runtime.settings.sim_ledger_file)
    app = make_app(broker, runtime.metrics, runtime.log, ledger)
    host, port = runtime.settings.sim_host, runtime.settings.sim_port
    async with serving(app, port, host=host) as url:
        runtime.log.info(
            "simulator.listening",
            url=url,
            market=broker.market.name,
            seed=runtime.settings.sim_seed,
            virtual_ms=broker.now_ms(),
            speed=broker.clock.speed,
        )
        runtime.health.met("listening")
        await _watch(app, runtime.stop)
    # Nothing is sent any more: from here a recording goes on the next time.
    broker.keep_clock(stopped=True)
    ledger.close()


def _ledger(path: str) -> Ledger:
    try:
        return Ledger(Path(path) if path else None)
    except OSError as error:
        raise SettingsError(
            [f"KITE_SIM_LEDGER_FILE: cannot write {path}: {error.strerror}"]
        ) from error


def make_app(
    broker: simulation.Simulation, metrics: Metrics, log: object, ledger: Ledger
) -> web.Application:
    """Return the application that answers for `broker`."""
    app = web.Application(middlewares=[rest.middleware])
    app[rest.SIMULATION] = broker
    hub = wire.Hub(broker, metrics, log, ledger)
    app[wire.HUB] = hub
    app.add_routes([*rest.routes(), web.get("/ws", wire.websocket)])
    app.add_routes(control.routes(broker.settings.sim_control_token))
    app.on_shutdown.append(lambda _: hub.close())
    return app


@asynccontextmanager
async def serving(
    app: web.Application, port: int, *, host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """Listen while the context lasts; yields the base address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(
                [
                    f"KITE_SIM_PORT: cannot listen on {host}:{port}: {error.strerror}; "
                    "choose another port, or 0 for any free one"
                ]
            ) from error
        yield url_here(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


async def _watch(app: web.Application, stop: asyncio.Event) -> None:
    """Keep gauges and clock file fresh until told to stop."""
    broker, hub = app[rest.SIMULATION], app[wire.HUB]
    for turn in itertools.count():
        hub.observe()
        if turn % mark_every_s(broker.clock.speed) == 0:
            broker.keep_clock()
        try:
            async with asyncio.timeout(_OBSERVE_S):
                await stop.wait()
                return
        except TimeoutError:
            continue
