"""The one-time work of a start, as a job of its own: streams, schema, login, and the first tick.

The four go on side by side, each as soon as its server answers, and each is a milestone that the
supervisor hears of through the log. All can be repeated: a job that was killed is run again. It is
a process of its own so that the supervisor stays small and never holds the administrator's rights.
"""

from __future__ import annotations

import asyncio
import sys
from os import environ
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from cli.milestones import BOOTSTRAP, LOGIN, SCHEMA, STREAMS, TICK
from deploy.bootstrap import log_in_to_simulator, make_schema, make_streams, patiently
from deploy.nats.policy import ADMIN, inbox_prefix
from libs.common.bus import topology
from libs.common.bus.link import bare_client
from libs.common.errors import BusUnavailable, KiteError
from libs.common.settings import Positive, ServiceSettings, load
from libs.common.telemetry import configure_logging, get_logger
from libs.common.token_file import TokenFile

__all__ = ["Settings", "bootstrap"]

TICK_WAIT_S = 12.0
TICK_WAIT_SCHWAB_S = 3.0  # a closed market has none, and that is no fault
_ALL_TICKS = "live.tick.>"


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """What the job is told; `schwab_base_url` is the simulator's, absent for the real account."""

    pg_dsn: str
    schwab_app_key: str
    schwab_app_secret: str
    schwab_token_file: str
    schwab_token_key: str = ""
    schwab_base_url: str | None = None
    stream_bytes_max: Positive = topology.STREAM_BYTES_MAX


async def bootstrap(settings: Settings, results: topology.ResultSettings) -> None:
    """Do all of it; raises the first KiteError that waiting does not mend."""
    login_done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_await_tick(settings, login_done))
        tasks.create_task(_make_streams(settings, results))
        tasks.create_task(_make_schema(settings))
        tasks.create_task(_log_in(settings, login_done))
    _reached(BOOTSTRAP)  # nobody needs to wait for the interpreter to clear up


def _reached(milestone: str, **facts: Any) -> None:
    get_logger().info("milestone.reached", milestone=milestone, **facts)


async def _make_streams(settings: Settings, results: topology.ResultSettings) -> None:
    plan = topology.plan(
        settings.partitions,
        settings.source,
        results,
        stream_bytes_max=settings.stream_bytes_max,
    )
    await make_streams(settings.nats_url, plan)
    _reached(STREAMS)


async def _make_schema(settings: Settings) -> None:
    applied = await make_schema(settings.pg_dsn)
    _reached(SCHEMA, applied=[step.label for step in applied])


async def _log_in(settings: Settings, done: asyncio.Event) -> None:
    if settings.schwab_base_url is not None:
        await log_in_to_simulator(
            settings.schwab_base_url,
            settings.schwab_app_key,
            settings.schwab_app_secret,
            TokenFile(Path(settings.schwab_token_file), settings.schwab_token_key),
        )
    done.set()
    _reached(LOGIN)


async def _await_tick(settings: Settings, login_done: asyncio.Event) -> None:
    """Return when the first live tick has flown, or when it is clear that none does."""
    seen = asyncio.Event()

    async def on_tick(_: object) -> None:
        seen.set()

    async def listen() -> Client:
        try:
            prefix = inbox_prefix(ADMIN)
            return await bare_client(settings.nats_url, inbox_prefix=prefix, allow_reconnect=False)
        except (OSError, nats.errors.Error) as error:
            raise BusUnavailable(str(error)) from error

    client = await patiently(listen)
    await client.subscribe(_ALL_TICKS, cb=on_tick)
    await login_done.wait()
    wait_s = TICK_WAIT_SCHWAB_S if settings.source == "schwab" else TICK_WAIT_S
    try:
        async with asyncio.timeout(wait_s):
            await seen.wait()
    except TimeoutError:
        get_logger().warning("bootstrap.no_tick", waited_s=wait_s)
    else:
        _reached(TICK)
    await client.close()


def main() -> int:
    """Run the job with the environment's settings; returns its exit code."""
    configure_logging("bootstrap")
    code = 0
    try:
        settings = load(Settings, environ)
        asyncio.run(bootstrap(settings, load(topology.ResultSettings, environ)))
    except* KiteError as group:
        error = _leaf(group)
        get_logger().error("bootstrap.refused", error=str(error))
        code = error.exit_code
    return code


def _leaf(group: ExceptionGroup[KiteError]) -> KiteError:
    inner = group.exceptions[0]
    return _leaf(inner) if isinstance(inner, ExceptionGroup) else inner


if __name__ == "__main__":
    sys.exit(main())
