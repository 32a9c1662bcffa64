"""A stage for the notifier: people's channels, a stream of signals, and the process itself.

The channels are stand-ins for people alone: a webhook that counts what it is sent, and a mail
server. NATS is real, and so is the notifier, as a process.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from cli.servers.nats import NatsServer
from libs.common import codec
from libs.common.bus import Bus, nats, topology
from libs.common.bus.link import bare_client
from libs.common.clock import SystemClock
from libs.common.events import SCHEMA_VERSION, Event, Frame, Signal
from libs.common.subjects import SIGNALS, frame_subject
from tests.waiting import eventually, eventually_async

__all__ = [
    "DEADLINE_S",
    "ROOT",
    "Feed",
    "Notifier",
    "Received",
    "Sink",
    "delete_streams",
    "feed",
    "signal_at",
    "wait_told",
]

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Received:
    """One request that a webhook got."""

    path: str
    key: str
    title: str
    message: str
    kind: str

    @property
    def signal_id(self) -> str:
        """The signal that it is about; the key is `channel:signal:id`."""
        return self.key.partition(":signal:")[2]


@dataclass
class Sink:
    """A webhook on a free port; `answers` says what a path is answered, 200 unless it is named.

    `gates`: requests to these paths wait until the event is set, after they were counted.
    """

    answers: dict[str, int] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def __enter__(self) -> Sink:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sink.take(self)

            def do_GET(self) -> None:
                sink.take(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self.gates.values():
            gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def take(self, request: BaseHTTPRequestHandler) -> None:
        """Count a request and answer it."""
        body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
        path = request.path.partition("?")[0].strip("/")
        self.paths.append(path)
        if body:
            said = json.loads(body)
            key = request.headers["Idempotency-Key"]
            assert said["id"] == key
            self.received.append(Received(path, key, said["title"], said["message"], said["type"]))
        if path in self.gates:
            self.gates[path].wait(60)
        status = self.answers.get(path, 200)
        try:
            request.send_response(status)
            request.send_header("Content-Length", "0")
            request.end_headers()
        except OSError:  # whoever asked was killed meanwhile
            request.close_connection = True

    def url(self, path: str) -> str:
        """Return the address of a path, as Apprise writes it."""
        return f"json://127.0.0.1:{self.port}/{path}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def at(self, path: str) -> list[Received]:
        """Return what came to a path."""
        return [each for each in self.received if each.path == path]

    async def wait_received(self, count: int) -> None:
        """Wait until so many messages have come in all."""
        await eventually_async(
            lambda: len(self.received) >= count, DEADLINE_S, f"{count} messages came"
        )

    def counts(self, path: str) -> Counter[str]:
        """Return how often each signal came to a path."""
        return Counter(each.signal_id for each in self.at(path) if each.signal_id)


def signal_at(ts_ms: int, **fields: Any) -> Signal:
    """Return an upward cross of QQQ in the minute that begins at `ts_ms`."""
    values: dict[str, Any] = {
        "revision": 0, "state": "active", "late": False, "ticker": "QQQ", "timeframe": "1m",
        "kind": "cross", "direction": "up", "price": 389.75, "sma9": 389.5, "vwap": 389.4,
    } | fields  # fmt: skip
    identity = f"{values['ticker']}:{values['timeframe']}:{ts_ms}"
    return Signal(id=identity, ts_ms=ts_ms, **values)


class Feed:
    """Publishes frames of SIGNALS as the service would."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.sent: list[Signal] = []
        self._seq = 0
        self._n = 0
        self._used: set[int] = set()

    def goes_on_behind(self, other: Feed) -> None:
        """Go on where another feed of the same stream has ended."""
        self._seq, self._n, self._used = other._seq, other._n, other._used

    def now_ms(self) -> int:
        """Return the broker's time, which is ours."""
        return SystemClock().now_ms()

    def next_signal(self, *, ago_ms: int = 0, **fields: Any) -> Signal:
        """Make a signal of its own, whose candle closed `ago_ms` before now, or a little before."""
        ts_ms = self.now_ms() - 60_000 - ago_ms
        while ts_ms in self._used:
            ts_ms -= 1
        self._used.add(ts_ms)
        made = signal_at(ts_ms, **fields)
        self.sent.append(made)
        return made

    async def send(self, *events: Event) -> None:
        """Publish one frame."""
        self._n += 1
        now_ms = self.now_ms()
        frame = Frame(SCHEMA_VERSION, 1, self._n, self._n, self._n, now_ms, now_ms, events)
        self._seq = await self.bus.publish(
            frame_subject(SIGNALS, 0), codec.encode_frame(frame), expected_last_seq=self._seq
        )

    async def send_signals(self, count: int) -> None:
        """Publish a few signals, each in a frame of its own behind an empty one."""
        for _ in range(count):
            await self.send()
            await self.send(self.next_signal())


@asynccontextmanager
async def feed(server: NatsServer) -> AsyncIterator[Feed]:
    """Make all streams anew and yield who fills SIGNALS."""
    admin = await nats.connect(server.url("admin"), name="bootstrap")
    try:
        await topology.apply(admin, topology.plan(1, "demo"))
    finally:
        await admin.close()
    bus = await nats.connect(server.url("signals"), name="signals")
    try:
        yield Feed(bus)
    finally:
        await bus.close()


async def delete_streams(server: NatsServer) -> None:
    """Lose all streams, as a server with a new disk has."""
    client = await bare_client(server.url("admin"))
    jetstream = client.jetstream()
    for stream in await jetstream.streams_info():
        await jetstream.delete_stream(str(stream.config.name))
    await client.close()


class Notifier:
    """One notifier process, with its log; several may follow each other in one directory."""

    def __init__(self, server: NatsServer | None, place: Path, text: str, **environ: str) -> None:
        place.mkdir(exist_ok=True)
        self.file = place / "notify.toml"
        self.file.write_text(text)
        url = "nats://127.0.0.1:1" if server is None else server.url("notifier")
        self.failpoint = place / "failpoint"
        self._log = place / "notifier.log"
        self._environ = {
            "PATH": os.environ["PATH"], "KITE_NATS_URL": url,
            "KITE_NOTIFY_FILE": str(self.file), "KITE_NOTIFIER_DATA_DIR": str(place / "data"),
            "KITE_NOTIFIER_PORT": "0", "KITE_FAILPOINT_FILE": str(self.failpoint), **environ,
        }  # fmt: skip

    def start(self) -> None:
        """Spawn it; its log goes on behind that of the one before."""
        self._begins = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.notifier"],
                cwd=ROOT, env=self._environ, stderr=log,
            )  # fmt: skip

    def __enter__(self) -> Notifier:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill it with -9."""
        self.process.kill()
        self.process.wait(10)

    async def stop(self) -> None:
        """Stop it in order: what is being sent is noted before it ends."""
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.exit_code) == 0

    def arm(self, point: str) -> None:
        """Let it die at a point."""
        written = self.failpoint.with_suffix(".new")
        written.write_text(point)
        written.rename(self.failpoint)

    @property
    def log(self) -> str:
        """What this process has said so far."""
        return self._log.read_text(encoding="utf-8")[self._begins :]

    @property
    def whole_log(self) -> str:
        """What all processes in this directory have said."""
        return self._log.read_text(encoding="utf-8")

    def said(self, event: str) -> bool:
        """Whether this event is in the log."""
        return f'"event":"{event}"' in self.log

    def exit_code(self) -> int:
        """Wait until it ends."""
        return self.process.wait(DEADLINE_S)

    def wait_said(self, event: str) -> None:
        """Wait until this event is in the log."""
        eventually(lambda: self.said(event) or self.process.poll() is not None, DEADLINE_S, event)
        assert self.said(event), self.log

    async def begun(self) -> None:
        """Wait until it has its place in the stream."""
        await eventually_async(
            lambda: self.said("notifier.begins") or self.process.poll() is not None,
            DEADLINE_S, "it begins",
        )  # fmt: skip
        assert self.said("notifier.begins"), self.log

    @property
    def alerts_url(self) -> str:
        """Where Alertmanager would post."""
        self.wait_said("notifier.listening")
        return str(re.findall(r'"url":"(http://[^"]+/alerts)"', self.log)[0])

    @property
    def metrics_url(self) -> str:
        """Where its metrics are."""
        self.wait_said("service.started")
        return str(re.findall(r'"metrics":"(http://[^"]+)"', self.log)[0])


async def wait_told(sink: Sink, path: str, signals: Iterable[Signal]) -> None:
    """Wait until every one of these signals came to a path."""
    wanted = {signal.id for signal in signals}
    await eventually_async(
        lambda: wanted <= set(sink.counts(path)), DEADLINE_S, f"{len(wanted)} signals at {path}"
    )
