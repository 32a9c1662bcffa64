"""What a process tells about itself: JSON logs, metrics, and whether it lives and is ready.

`/healthz` says that the event loop turned within the last seconds and touches no dependency, so a
database that is away restarts nobody. `/readyz` says whether the service can do its job now, and
lists why not. `/metrics` is Prometheus text. The three are served by a thread of their own, so a
busy loop cannot delay them.

Names of metrics are listed in docs/metrics.md; a test holds the two against each other.
"""

from __future__ import annotations

import asyncio
import logging
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from structlog.typing import Processor

__all__ = [
    "Health",
    "Metrics",
    "TelemetryServer",
    "configure_logging",
    "get_logger",
    "log_lines_counter",
]

LOOP_STALL_S_MAX = 5.0
_BEAT_S = 0.5
# How often the server looks whether it shall end; each stop of a process waits for it.
_CLOSED_POLL_S = 0.05
# A client that says nothing for so long is let go, or each would keep a thread for ever.
_CLIENT_SILENT_S_MAX = 10.0
# Close together where the targets lie (25 and 400 ms): a quantile is guessed between two of them.
_LATENCY_BUCKETS_S = (
    0.001, 0.002, 0.003, 0.005, 0.007, 0.010, 0.015, 0.020, 0.025, 0.035, 0.050, 0.075, 0.100,
    0.150, 0.200, 0.250, 0.300, 0.350, 0.400, 0.600, 1.0, 2.0, 5.0, 30.0,
)  # fmt: skip


_LEVELS_COUNTED = ("info", "warning", "error")
# What every line has, where one looks for it.
_FIRST = ("timestamp", "level", "event", "service")

LogCounter = Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]


def configure_logging(service: str, level: str = "info", counter: LogCounter | None = None) -> None:
    """Send structured JSON lines to standard error, one object a line, with UTC timestamps.

    `timestamp`, `level` and `event` come first. What libraries have to say from warnings on goes
    the same way, with the name of their `logger`. `counter`, made by `log_lines_counter`, counts
    all of them on the way.
    """
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        *([] if counter is None else [counter]),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render = structlog.processors.JSONRenderer(serializer=_to_json)
    structlog.configure(
        processors=[*processors, render],
        wrapper_class=structlog.make_filtering_bound_logger(level.upper()),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    foreign = logging.StreamHandler(sys.stderr)
    foreign.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *processors],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[foreign], level=logging.WARNING, force=True)


def get_logger() -> Any:
    """Return a logger: `log.info("bus.connected", partition=0)`; event names are dotted facts."""
    return structlog.get_logger()


def _to_json(event: dict[str, Any], **_: Any) -> str:
    first = {key: event[key] for key in _FIRST if key in event}
    return msgspec.json.encode({**first, **event}, enc_hook=str).decode()


class Metrics:
    """Makes this service's metrics in one registry; every name begins with `kite_`."""

    def __init__(self) -> None:
        # A second series for each counter, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library gives it no types
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        """Make a counter; its sample is called `kite_<name>_total`."""
        return Counter(f"kite_{name}", text, tuple(labels), registry=self.registry)

    def gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        """Make a gauge called `kite_<name>`."""
        return Gauge(f"kite_{name}", text, tuple(labels), registry=self.registry)

    def latency(self, name: str, text: str, labels: Iterable[str] = ()) -> Histogram:
        """Make a histogram of seconds called `kite_<name>`; end the name in `_seconds`."""
        return Histogram(
            f"kite_{name}", text, tuple(labels), registry=self.registry, buckets=_LATENCY_BUCKETS_S
        )


def log_lines_counter(metrics: Metrics) -> LogCounter:
    """Make `kite_log_lines`, and what counts into it.

    No error disappears, each ends in a line at least; so the lines count them all, also those of
    parts that nobody thought of measuring. Levels start at 0, or a first error would not show as a
    growth.
    """
    lines = metrics.counter("log_lines", "Lines logged", ["level"])
    for level in _LEVELS_COUNTED:
        lines.labels(level)

    def count(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        lines.labels(event["level"]).inc()
        return event

    return count


# What is not met while a service has not said yet what it needs: its first moment.
_STARTING: Final = {"start": "starting"}


class Health:
    """Liveness of the loop, and named conditions that readiness depends on.

    Conditions start as not met; `ready` is true when all of them are, and not before the first one
    is named. A note is what people should know all the same.
    """

    def __init__(self) -> None:
        self._beat_s = time.monotonic()
        self._unmet = dict(_STARTING)
        self._notes: dict[str, str] = {}

    def require(self, condition: str, reason: str = "not yet") -> None:
        """Name a condition of readiness, or say why it is not met at the moment."""
        self._unmet[condition] = reason
        self._begin()

    def met(self, condition: str) -> None:
        """Say that a condition holds."""
        self._unmet.pop(condition, None)
        self._begin()

    def note(self, topic: str, text: str) -> None:
        """Say something beside readiness, without being less ready for it."""
        self._notes[topic] = text

    def unnote(self, topic: str) -> None:
        """Take a note back, if there is one."""
        self._notes.pop(topic, None)

    @property
    def notes(self) -> dict[str, str]:
        """What is noted, by topic."""
        return dict(self._notes)

    @property
    def alive(self) -> bool:
        """Whether the event loop turned lately."""
        return time.monotonic() - self._beat_s < LOOP_STALL_S_MAX

    @property
    def ready(self) -> bool:
        """Whether every condition holds and the loop turns."""
        return self.alive and not self._unmet

    @property
    def reasons(self) -> dict[str, str]:
        """The conditions that do not hold, each with its reason."""
        return dict(self._unmet)

    def _begin(self) -> None:
        for condition in _STARTING:
            self._unmet.pop(condition, None)

    async def beat(self) -> None:
        """Turn with the event loop until cancelled, so that a stall shows."""
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(_BEAT_S)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what went wrong in one line; a client that left or fell silent is no error."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            get_logger().error("telemetry.request_failed", exc_info=error)


class _Quiet(WSGIRequestHandler):
    timeout = _CLIENT_SILENT_S_MAX

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Requests are not logged: a scrape every few seconds is no news."""


class TelemetryServer:
    """Serves `/metrics`, `/healthz` and `/readyz` on a thread until closed."""

    def __init__(self, metrics: Metrics, health: Health, host: str, port: int) -> None:
        """Bind at once, so a taken port is known before any work starts (raises OSError)."""
        self._health = health
        self._metrics_app = make_wsgi_app(metrics.registry)
        self._server = make_server(host, port, self._app, _Server, _Quiet)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_CLOSED_POLL_S,), daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()

    def _app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            metrics: Iterable[bytes] = self._metrics_app(environ, start_response)
            return metrics
        if path == "/healthz":
            return _answer(start_response, self._health.alive, {"alive": self._health.alive})
        if path == "/readyz":
            body = {"ready": self._health.ready, "reasons": self._health.reasons}
            if self._health.notes:
                body["notes"] = self._health.notes
            return _answer(start_response, self._health.ready, body)
        start_response("404 Not Found", [("Content-Type", "application/json")])
        return [b'{"error":"try /metrics, /healthz or /readyz"}\n']


def _answer(start_response: Callable[..., Any], good: bool, body: object) -> list[bytes]:
    status = "200 OK" if good else "503 Service Unavailable"
    start_response(status, [("Content-Type", "application/json")])
    return [msgspec.json.encode(body) + b"\n"]
