"""A service's life: settings, logs, telemetry, signals, exit code.

`main` is all that a service's `__main__` calls. It hands `serve` a `Runtime` and promises:

- wrong settings: one line each on standard error, exit code 2, nothing started;
- SIGTERM or SIGINT sets `runtime.stop`; `serve` then stops its input, drains and returns within
  `stop_deadline_s`, else it is cancelled; a second signal ends the process at once;
- a `KiteError` that leaves `serve` is one log line and its own exit code, anything else a traceback
  in the log and exit code 1. Nothing is retried here: who can heal a failure handles it nearer to
  it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import uvloop

from libs.common.bus import Bus
from libs.common.bus_metrics import BusMetrics
from libs.common.clock import Clock, SystemClock
from libs.common.errors import BusError, KiteError, SettingsError
from libs.common.settings import ServiceSettings, load
from libs.common.telemetry import (
    Health,
    Metrics,
    TelemetryServer,
    configure_logging,
    get_logger,
    log_lines_counter,
)

__all__ = ["Backoff", "Runtime", "connect_bus", "main", "run", "run_standing_by"]

S = TypeVar("S", bound=ServiceSettings)

EXIT_FORCED = 130
_WATCH_S = 0.5


@dataclass(frozen=True, slots=True)
class Runtime(Generic[S]):
    """What a running service is given; `stop` is set when it shall end."""

    name: str
    settings: S
    metrics: Metrics
    health: Health
    clock: Clock
    log: Any
    stop: asyncio.Event


class Backoff:
    """Waiting times that double from `first_s` to `max_s`, each shortened by up to half."""

    def __init__(self, first_s: float = 0.1, max_s: float = 5.0) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return how long to wait now, and make the next wait longer."""
        wait_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, self._max_s)
        return wait_s

    def reset(self) -> None:
        """Begin anew after a success."""
        self._next_s = self._first_s

    async def pause(self, stop: asyncio.Event) -> None:
        """Wait for the next time, or until `stop` is set."""
        try:
            async with asyncio.timeout(self.next_s()):
                await stop.wait()
        except TimeoutError:
            return


def main(
    name: str, settings_type: type[S], serve: Callable[[Runtime[S]], Awaitable[None]]
) -> NoReturn:
    """Run a service until it is told to stop, then exit with the code described above."""
    sys.exit(run(name, settings_type, serve, os.environ))


def run(
    name: str,
    settings_type: type[S],
    serve: Callable[[Runtime[S]], Awaitable[None]],
    environ: Mapping[str, str],
) -> int:
    """Do what `main` does and return the exit code."""
    try:
        settings = load(settings_type, environ)
    except SettingsError as error:
        for problem in error.problems:
            print(f"{name}: {problem}", file=sys.stderr)
        return error.exit_code
    metrics = Metrics()
    configure_logging(name, settings.log_level, log_lines_counter(metrics))
    return uvloop.run(_live(name, settings, metrics, serve))


async def _live(
    name: str,
    settings: S,
    metrics: Metrics,
    serve: Callable[[Runtime[S]], Awaitable[None]],
) -> int:
    runtime = Runtime(
        name, settings, metrics, Health(), SystemClock(), get_logger(), asyncio.Event()
    )
    _export_standing(runtime)
    try:
        telemetry = TelemetryServer(
            runtime.metrics, runtime.health, settings.metrics_host, settings.metrics_port
        )
    except OSError as error:
        address = f"{settings.metrics_host}:{settings.metrics_port}"
        print(
            f"{name}: KITE_METRICS_PORT: cannot listen on {address}: {error.strerror}; "
            "choose another port, or 0 for any free one",
            file=sys.stderr,
        )
        return SettingsError.exit_code
    telemetry.start()
    runtime.log.info("service.started", metrics=telemetry.url, pid=os.getpid())
    try:
        return await _until_stopped(runtime, serve)
    finally:
        telemetry.close()


def _export_standing(runtime: Runtime[S]) -> None:
    """Export what `/readyz` says, and whose data this is: alarms about a real account need it."""
    ready = runtime.metrics.gauge("ready", "1 while /readyz answers 200")
    ready.set_function(lambda: float(runtime.health.ready))
    info = runtime.metrics.gauge("info", "Always 1; whose data this is", ["source"])
    info.labels(runtime.settings.source).set(1)


async def _until_stopped(
    runtime: Runtime[S], serve: Callable[[Runtime[S]], Awaitable[None]]
) -> int:
    _listen_for_signals(runtime)
    beat = asyncio.create_task(runtime.health.beat())
    work = asyncio.ensure_future(serve(runtime))
    stopped = asyncio.create_task(runtime.stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({work}, timeout=runtime.settings.stop_deadline_s)
        if not work.done():
            runtime.log.error("service.stop_deadline_passed", s=runtime.settings.stop_deadline_s)
            work.cancel()
            await asyncio.wait({work})
            return 1
        return _exit_code(runtime, work)
    finally:
        beat.cancel()
        stopped.cancel()


def _listen_for_signals(runtime: Runtime[S]) -> None:
    def on_signal(number: int) -> None:
        if runtime.stop.is_set():
            os._exit(EXIT_FORCED)
        runtime.log.info("service.stopping", signal=signal.Signals(number).name)
        runtime.stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


def _exit_code(runtime: Runtime[S], work: asyncio.Future[None]) -> int:
    # Cancelled is what ends a wait for a server that never came, once the stop was asked for.
    waited = work.cancelled() and runtime.stop.is_set()
    error = None if waited else work.exception()
    if error is None:
        runtime.log.info("service.stopped")
        return 0
    known = _first_kite_error(error)
    if known is not None:
        problems = known.problems if isinstance(known, SettingsError) else (str(known),)
        for problem in problems:
            runtime.log.error("service.refused", error=problem, kind=type(known).__name__)
        return known.exit_code
    runtime.log.error("service.crashed", exc_info=error)
    return 1


def _first_kite_error(error: BaseException) -> KiteError | None:
    """Find the stack's own error, also inside the group that a task group raises."""
    if isinstance(error, KiteError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = (_first_kite_error(inner) for inner in error.exceptions)
        return next((inner for inner in found if inner is not None), None)
    return None


@asynccontextmanager
async def connect_bus(runtime: Runtime[S]) -> AsyncIterator[Bus]:
    """Connect, wait with back-off while the server is away, and close at the end.

    Raises StoreMismatch when the streams were made for other settings than this service's.
    """
    hooks = BusMetrics(runtime.metrics)
    runtime.health.require("bus", "connecting")
    backoff = Backoff()
    bus: Bus | None = None
    try:
        while bus is None and not runtime.stop.is_set():
            try:
                bus = await _connect_once(runtime, hooks)
            except BusError as error:
                runtime.health.require("bus", str(error))
                runtime.log.warning("bus.unavailable", error=str(error))
                await backoff.pause(runtime.stop)
        if bus is None:
            raise asyncio.CancelledError
        watch = asyncio.create_task(_watch_connection(runtime, bus))
        try:
            yield bus
        finally:
            watch.cancel()
    finally:
        if bus is not None:
            await bus.close()


async def run_standing_by(
    work: Coroutine[Any, Any, None], stop: asyncio.Event, standing_by: Callable[[], bool]
) -> None:
    """Await work that sees `stop` by itself, unless it stands by then: that is waiting for others.

    Raises what the work raises.
    """
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if standing_by():
            task.cancel()
        await asyncio.wait({task})
    finally:
        stopped.cancel()
        task.cancel()
    if not task.cancelled():
        task.result()


async def _connect_once(runtime: Runtime[S], hooks: BusMetrics) -> Bus:
    from libs.common.bus import nats, topology

    bus = await nats.connect(runtime.settings.nats_url, name=runtime.name, hooks=hooks)
    try:
        await topology.check(bus, runtime.settings)
    except BaseException:
        await bus.close()
        raise
    return bus


async def _watch_connection(runtime: Runtime[S], bus: Bus) -> None:
    """Keep readiness true to the connection until cancelled."""
    while True:
        if bus.connected:
            runtime.health.met("bus")
        else:
            runtime.health.require("bus", "disconnected")
        await asyncio.sleep(_WATCH_S)
