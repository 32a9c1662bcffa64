"""What units run: a local server, a service of ours, or a job, each as a `processes.Program`.

A service is ready when its `/readyz` says so. After that it is asked once a second: what it answers
is shown by `./kite status`, and only a process that gives no answer at all for a minute is taken
for hung. A dependency that is away makes services unready, and restarts nobody.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from cli.home import CHECKOUT
from cli.ports import Ports
from cli.servers.host import LOOPBACK
from cli.servers.server import Command, LocalServer, ServerFrozen
from cli.units import Event, Hung, Ready, RestartAsked, Unready
from libs.common.errors import ServerError

__all__ = ["JobProgram", "ServerProgram", "ServiceProgram", "ask"]

SILENCE_S_MAX = 60.0
_POLL_STARTING_S = 0.05
_POLL_RUNNING_S = 1.0
_ANSWER_WAIT_S = 2.0
_SERVER_START_S = 60.0
_SERVER_SICK_S = 30.0
_ANSWER_BYTES_MAX = 8 << 20

Report = Callable[[Event], None]


async def ask(port: int, path: str) -> tuple[int, bytes]:
    """GET a loopback port's `path`; return status and body. Raises OSError, also at a time-out."""
    try:
        async with asyncio.timeout(_ANSWER_WAIT_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n".encode())
                answer = bytearray()
                while len(answer) < _ANSWER_BYTES_MAX and (part := await reader.read(64 << 10)):
                    answer += part
            finally:
                writer.close()
    except TimeoutError as error:
        raise OSError("no answer in time") from error
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[1].isdigit():
        raise OSError("not an HTTP answer")
    return int(words[1]), body


@dataclass
class ServerProgram:
    """A local server; it is ready once it answers as itself.

    With `recheck_s` it is asked again that often, and restarted when it gave no good answer for
    half a minute, or at once when it says that nothing else helps: a nats-server that met a full
    disk stays frozen when there is room again. While there is none, it is left as it is; what it
    holds can be read, and it would not start again.
    """

    server: LocalServer
    recheck_s: float | None = None

    @property
    def name(self) -> str:
        """The server's name."""
        return self.server.name

    def prepare(self) -> None:
        """Make data and configuration."""
        self.server.prepare()

    def command(self) -> Command:
        """Return what to spawn."""
        return self.server.command()

    async def watch(self, report: Report) -> None:
        """Report readiness; a server that never gets ready, or is sick for long, is restarted."""
        loop = asyncio.get_running_loop()
        well_s, deadline_s = loop.time(), _SERVER_START_S
        while True:
            try:
                await self.server.wait_ready(deadline_s=deadline_s)
            except ServerError as error:
                report(Unready(self.name, str(error)))
                frozen = isinstance(error, ServerFrozen)
                sick = frozen or loop.time() - well_s >= _SERVER_SICK_S
                if sick and self._has_room():
                    report(RestartAsked(self.name, str(error)))
                    return
            else:
                report(Ready(self.name))
                well_s = loop.time()
            if self.recheck_s is None:
                return
            await asyncio.sleep(self.recheck_s)
            deadline_s = 0.0  # a single question: a server that is sick logs every one of them

    def _has_room(self) -> bool:
        try:
            self.server.require_room()
        except ServerError:
            return False
        return True

    def explain(self, log_tail: str) -> str | None:
        """Name the cause of an end."""
        return self.server.explain(log_tail)


@dataclass
class _PythonProgram:
    """A module of this checkout, run by this interpreter, which ends on SIGTERM."""

    name: str
    module: str
    environment: Callable[[], Mapping[str, str]]
    arguments: tuple[str, ...] = field(default=(), kw_only=True)

    def command(self) -> Command:
        """Return what to spawn."""
        return Command(
            argv=(sys.executable, "-m", self.module, *self.arguments),
            env=self.environment(),
            cwd=CHECKOUT,
            account=None,
            stop_signal=signal.SIGTERM,
        )

    def explain(self, log_tail: str) -> str | None:
        """Leave it to the process's own last error."""
        return None


@dataclass
class ServiceProgram(_PythonProgram):
    """One of our services. It keeps its metrics port over restarts, unless that was taken."""

    ports: Ports
    metrics_port: int = field(default=0, init=False)

    @property
    def metrics_url(self) -> str | None:
        """Where its metrics are, once it was started."""
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics" if self.metrics_port else None

    def prepare(self) -> None:
        """Choose the metrics port."""
        self.metrics_port = self.ports.keep(self.metrics_port)

    def command(self) -> Command:
        """Return what to spawn."""
        command = super().command()
        environment = {**command.env, "KITE_METRICS_PORT": str(self.metrics_port)}
        return Command(command.argv, environment, command.cwd, None, command.stop_signal)

    async def watch(self, report: Report) -> None:
        """Report what `/readyz` says, and a silence that is too long."""
        loop = asyncio.get_running_loop()
        heard_s, ready = loop.time(), False
        while True:
            try:
                status, body = await ask(self.metrics_port, "/readyz")
            except OSError:
                if loop.time() - heard_s > SILENCE_S_MAX:
                    report(Hung(self.name))
                    return
            else:
                heard_s, ready = loop.time(), status == 200
                report(Ready(self.name) if ready else Unready(self.name, _reasons(body)))
            await asyncio.sleep(_POLL_RUNNING_S if ready else _POLL_STARTING_S)


@dataclass
class JobProgram(_PythonProgram):
    """Something that runs once, and reports milestones through its log."""

    def prepare(self) -> None:
        """Nothing to make ready."""

    async def watch(self, report: Report) -> None:
        """Nothing to watch: its end says how it went."""


def _reasons(body: bytes) -> str:
    try:
        answer = msgspec.json.decode(body)
        return "; ".join(f"{name}: {reason}" for name, reason in answer["reasons"].items())
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        return "not ready"
