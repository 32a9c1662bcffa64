"""What a process tells about itself: over HTTP, in logs, and in metrics."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from libs.common import telemetry
from libs.common.telemetry import Health, Metrics, TelemetryServer, configure_logging, get_logger
from tests.waiting import eventually_async


@pytest.fixture
def health() -> Health:
    """A service's health, fresh."""
    return Health()


@pytest.fixture
def metrics() -> Metrics:
    """A service's metrics, fresh."""
    return Metrics()


@pytest.fixture
def server(metrics: Metrics, health: Health) -> Iterator[TelemetryServer]:
    """A server for them on a free port."""
    serving = TelemetryServer(metrics, health, "127.0.0.1", 0)
    serving.start()
    yield serving
    serving.close()


def get(server: TelemetryServer, path: str) -> tuple[int, str]:
    """Return status and body of a request."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class TestHealth:
    """Alive means that the loop turns, ready that every condition holds."""

    def test_alive_from_the_start(self, server: TelemetryServer) -> None:
        """A process that has just begun is alive."""
        assert get(server, "/healthz") == (200, '{"alive":true}\n')

    def test_a_stalled_loop_is_not_alive_and_not_ready(
        self, server: TelemetryServer, health: Health, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the loop has not turned for longer than allowed, both say so."""
        monkeypatch.setattr(telemetry, "LOOP_STALL_S_MAX", -1.0)
        assert get(server, "/healthz")[0] == 503
        assert get(server, "/readyz")[0] == 503
        assert not health.ready

    def test_a_beat_keeps_it_alive(self, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
        """The beat turns with the loop."""
        monkeypatch.setattr(telemetry, "_BEAT_S", 0.001)

        async def main() -> None:
            before = health._beat_s
            beat = asyncio.create_task(health.beat())
            await eventually_async(lambda: health._beat_s > before, 5, "another beat")
            beat.cancel()

        asyncio.run(main())
        assert health.alive

    def test_ready_when_every_condition_holds(
        self, server: TelemetryServer, health: Health
    ) -> None:
        """Unmet conditions are listed with their reasons until the last one is met."""
        assert get(server, "/readyz")[0] == 200
        health.require("bus", "connecting")
        health.require("database")
        status, body = get(server, "/readyz")
        assert status == 503
        assert json.loads(body) == {
            "ready": False,
            "reasons": {"bus": "connecting", "database": "not yet"},
        }
        health.met("bus")
        health.met("bus")
        assert json.loads(get(server, "/readyz")[1])["reasons"] == {"database": "not yet"}
        health.met("database")
        assert get(server, "/readyz")[0] == 200

    def test_what_is_away_restarts_nobody(self, server: TelemetryServer, health: Health) -> None:
        """An unmet condition does not make a process dead."""
        health.require("database", "away")
        assert get(server, "/healthz")[0] == 200


class TestMetrics:
    """Prometheus text, every name of ours with its prefix."""

    def test_counters_gauges_and_latencies(self, server: TelemetryServer, metrics: Metrics) -> None:
        """Each kind under its usual name, with labels."""
        metrics.counter("frames", "Frames", ["partition"]).labels("0").inc(3)
        metrics.gauge("position", "Position").set(17)
        metrics.latency("flush_seconds", "Flush").observe(0.03)
        status, body = get(server, "/metrics")
        assert status == 200
        assert 'kite_frames_total{partition="0"} 3.0' in body
        assert "kite_position 17.0" in body
        assert 'kite_flush_seconds_bucket{le="0.025"} 0.0' in body
        assert 'kite_flush_seconds_bucket{le="0.05"} 1.0' in body

    def test_the_process_itself(self, server: TelemetryServer) -> None:
        """Memory and collector are reported too."""
        body = get(server, "/metrics")[1]
        assert "process_resident_memory_bytes" in body
        assert "python_gc_collections_total" in body

    def test_two_services_in_one_process_do_not_mix(self) -> None:
        """Each has a registry of its own."""
        one, other = Metrics(), Metrics()
        one.counter("frames", "Frames").inc()
        other.counter("frames", "Frames")
        assert other.registry.get_sample_value("kite_frames_total") == 0


class TestServer:
    """Answers on its own thread, and nothing but what it knows."""

    def test_other_paths_are_not_there(self, server: TelemetryServer) -> None:
        """The answer says which ones are."""
        status, body = get(server, "/")
        assert status == 404
        assert "/metrics" in json.loads(body)["error"]

    def test_answers_while_the_loop_is_busy(self, server: TelemetryServer) -> None:
        """A scrape does not need the event loop."""

        async def main() -> tuple[int, str]:
            return get(server, "/metrics")  # blocks the loop, and is answered all the same

        assert asyncio.run(main())[0] == 200

    def test_a_taken_port_is_known_before_work_begins(
        self, server: TelemetryServer, metrics: Metrics, health: Health
    ) -> None:
        """Binding happens when it is made."""
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            TelemetryServer(metrics, health, "127.0.0.1", port)


class TestLogs:
    """One JSON object a line, on standard error."""

    @pytest.fixture(autouse=True)
    def _fresh_configuration(self) -> Iterator[None]:
        yield
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()

    def logged(self, monkeypatch: pytest.MonkeyPatch, level: str) -> list[dict[str, object]]:
        """Log at every level and return what came out."""
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging("writer", level)
        log = get_logger()
        log.debug("low")
        log.info("row.written", rows=3, at=b"bytes")
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("failed")
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    def test_facts_with_service_and_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Event, level, service and a UTC timestamp stand in every line."""
        info, failed = self.logged(monkeypatch, "info")
        assert (info["event"], info["level"], info["service"]) == ("row.written", "info", "writer")
        assert info["rows"] == 3
        assert str(info["timestamp"]).endswith("Z")
        assert "ValueError: broken" in str(failed["exception"])

    def test_the_level_decides_what_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lower levels are left out."""
        assert len(self.logged(monkeypatch, "debug")) == 3
        assert [line["event"] for line in self.logged(monkeypatch, "error")] == ["failed"]
