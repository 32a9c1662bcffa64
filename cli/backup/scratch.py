"""A nats-server and a Postgres for a while: to restore into, and to try whether that works.

They are the servers that `./kite up` runs, in a directory given, on free ports of this machine.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from cli.servers.server import LocalServer
from libs.common.errors import ServerError

__all__ = ["servers", "stop_leftovers"]

_STOP_WAIT_S = 60.0
_LOG_TAIL_BYTES = 4000


@asynccontextmanager
async def servers(
    root: Path, runtime: Path, partitions: int, logs: Path
) -> AsyncIterator[tuple[NatsServer, PostgresServer]]:
    """Run both below `root`, and stop them in good order; raises ServerError."""
    nats = NatsServer(root, partitions=partitions, runtime=runtime)
    postgres = PostgresServer(root, runtime=runtime)
    running: list[tuple[LocalServer, subprocess.Popen[bytes]]] = []
    try:
        wanted: tuple[LocalServer, ...] = (nats, postgres)
        for server in wanted:
            await asyncio.to_thread(server.prepare)
            running.append((server, _spawn(server, logs / f"{server.name}.log")))
        for server, process in running:
            await _wait(server, process, logs / f"{server.name}.log")
        yield nats, postgres
    finally:
        await asyncio.to_thread(_stop, running)


def stop_leftovers(root: Path, runtime: Path) -> None:
    """Stop servers below `root` that an earlier run was killed over."""
    NatsServer(root, runtime=runtime).stop_leftover()
    PostgresServer(root, runtime=runtime).stop_leftover()


def _spawn(server: LocalServer, log_file: Path) -> subprocess.Popen[bytes]:
    command = server.command()
    with log_file.open("ab") as log:
        return subprocess.Popen(
            # Ctrl-C is for us, who then stop them in good order.
            command.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, **command.spawn_options(),
        )  # fmt: skip


async def _wait(server: LocalServer, process: subprocess.Popen[bytes], log_file: Path) -> None:
    try:
        await server.wait_ready(alive=lambda: process.poll() is None)
    except ServerError as error:
        tail = await asyncio.to_thread(_tail, log_file)
        raise ServerError(f"{error}: {server.explain(tail) or tail.strip()[-200:]}") from error


def _tail(log_file: Path) -> str:
    return log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")


def _stop(running: Sequence[tuple[LocalServer, subprocess.Popen[bytes]]]) -> None:
    for server, process in running:
        with suppress(ProcessLookupError):
            process.send_signal(server.command().stop_signal)
    for _, process in running:
        try:
            process.wait(_STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
