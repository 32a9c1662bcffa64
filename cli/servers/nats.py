"""A local nats-server: loopback only, JetStream with every acknowledged message on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from cli.servers import host
from cli.servers.binaries import nats_program
from cli.servers.server import (
    CLEAN_ENVIRONMENT,
    Command,
    ServerFrozen,
    explain_log,
    stop_process,
    wait_for,
)
from deploy.credentials import Credentials, load_credentials
from deploy.nats.config import (
    MAX_FILE_STORE_BYTES,
    ServerOptions,
    server_config,
    stream_files_directory,
)
from deploy.nats.policy import USERS, permissions
from deploy.private_files import write_private
from libs.common.errors import ServerError

__all__ = ["NatsServer", "streams_directory"]

_FREE_SPACE_NEEDED_BYTES = 64 << 20
# The server counts its own heap only; with this the Go runtime collects before it grows further.
_GO_HEAP_SOFT_LIMIT = "128MiB"
_ANSWER_WAIT_S = 2.0
# What the server's health says of a stream that it could not write, whatever happens to the disk.
_WRITE_ERROR = "write error"

_CAUSES = (
    (r"address already in use", "its port was taken by another program: stop that, or try again"),
    (r"no space left on device", "the disk is full: free some space"),
    (r"permission denied", "it may not write its directory: check who owns the data home"),
)


def streams_directory(home: Path) -> Path:
    """Return where the server below a data home keeps the files of each stream."""
    return stream_files_directory(home.absolute() / "nats")


class NatsServer:
    """One nats-server below a data home.

    Port 0 takes a free one, which the object then keeps over restarts of the server.
    """

    name = "nats"

    def __init__(
        self,
        home: Path,
        *,
        partitions: int = 1,
        port: int = 0,
        monitor_port: int = 0,
        max_file_store_bytes: int = MAX_FILE_STORE_BYTES,
        runtime: Path | None = None,
    ) -> None:
        """Describe the server; `runtime` is where programs are copied to when that is needed."""
        self._home = home.absolute()
        self._directory = self._home / "nats"
        self._runtime = runtime or self._home / "runtime"
        self._partitions = partitions
        self._port = port
        self._monitor_port = monitor_port
        self._max_file_store_bytes = max_file_store_bytes
        self._account = host.server_account()
        self._credentials: Credentials | None = None
        self._program: Path | None = None

    @property
    def _config_file(self) -> Path:
        return self._directory / "nats-server.json"

    @property
    def server_name(self) -> str:
        """The name by which the server answers; no other server has it."""
        return f"kite-{self._known_credentials.server_id}"

    @property
    def _known_credentials(self) -> Credentials:
        if self._credentials is None:
            raise ServerError("the nats-server is not prepared yet")
        return self._credentials

    def url(self, user: str) -> str:
        """Return the address to connect to as `user`, password included."""
        return f"nats://{user}:{self._known_credentials.nats[user]}@{host.LOOPBACK}:{self._port}"

    @property
    def address(self) -> str:
        """The address without credentials."""
        return f"nats://{host.LOOPBACK}:{self._port}"

    def prepare(self) -> None:
        """Make directories, passwords and configuration; see the package's docstring."""
        host.make_home(self._home, self._account)
        self.require_room()
        self._program = nats_program(self._runtime, copy=self._account is not None)
        self._credentials = load_credentials(self._home, nats_users=USERS)
        for process in self._leftovers():
            raise ServerError(f"nats-server still runs from an earlier start, as pid {process.pid}")
        self._port = host.claim_port(self._port, "nats-server")
        self._monitor_port = host.claim_port(self._monitor_port, "nats-server's monitoring")
        host.make_directory(self._directory, self._account)
        options = ServerOptions(
            name=self.server_name,
            listen=f"{host.LOOPBACK}:{self._port}",
            monitor=f"{host.LOOPBACK}:{self._monitor_port}",
            store_dir=str(self._directory),
            max_file_store_bytes=self._max_file_store_bytes,
        )
        text = server_config(options, permissions(self._partitions), self._credentials.nats)
        write_private(self._config_file, text, self._account)

    def require_room(self) -> None:
        """Raise ServerError when the disk has too little room for the server to start."""
        host.require_free_space(self._home, _FREE_SPACE_NEEDED_BYTES)

    def command(self) -> Command:
        """Return what to spawn."""
        if self._program is None:
            raise ServerError("the nats-server is not prepared yet")
        return Command(
            argv=(str(self._program), "-c", str(self._config_file)),
            env={**CLEAN_ENVIRONMENT, "GOMEMLIMIT": _GO_HEAP_SOFT_LIMIT},
            cwd=self._directory,
            account=self._account,
            stop_signal=signal.SIGTERM,
        )

    async def wait_ready(
        self, *, deadline_s: float = 30.0, alive: Callable[[], bool] = lambda: True
    ) -> None:
        """Return when streams are recovered and it is this server that answers.

        Raises ServerFrozen when a stream met a write error, after which it takes no more messages.
        """
        await wait_for("nats-server", self._answers, deadline_s=deadline_s, alive=alive)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_WAIT_S):
                healthy = await self._monitor("/healthz")
                variables = await self._monitor("/varz")
        except (OSError, TimeoutError, ValueError):
            return False
        if variables.get("server_name") != self.server_name:
            return False
        said = str(healthy.get("error", ""))
        if _WRITE_ERROR in said:
            raise ServerFrozen(self.explain(said) or said)
        return healthy.get("status") == "ok"

    async def _monitor(self, path: str) -> dict[str, object]:
        """Ask the monitoring port one question; raises OSError or ValueError."""
        reader, writer = await asyncio.open_connection(host.LOOPBACK, self._monitor_port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host.LOOPBACK}\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        return body if isinstance(body, dict) else {}

    def _leftovers(self) -> Iterator[psutil.Process]:
        """Yield live servers with our configuration file: two on one store would destroy it."""
        for process in host.processes_named("nats-server"):
            try:
                arguments = process.cmdline()
            except psutil.Error:
                continue
            if str(self._config_file) in arguments:
                yield process

    def stop_leftover(self, *, deadline_s: float = 10.0) -> bool:
        """Stop this server if an earlier supervisor left it running; tell whether it was."""
        leftovers = list(self._leftovers())
        for process in leftovers:
            stop_process(process, signal.SIGTERM, deadline_s=deadline_s)
        return bool(leftovers)

    def explain(self, log_tail: str) -> str | None:
        """Name the cause of a failed start in one line, from the end of the server's log."""
        return explain_log(log_tail, _CAUSES)
