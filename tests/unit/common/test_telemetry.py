"""What a process tells about itself: over HTTP, in logs, and in metrics."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import re
import socket
import sys
from collections.abc import Iterator

import pytest
import structlog

from libs.common import telemetry
from libs.common.telemetry import (
    Health,
    Metrics,
    TelemetryServer,
    configure_logging,
    get_logger,
    log_lines_counter,
)
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
        status, body = get(server, "/readyz")
        assert (status, json.loads(body)["reasons"]) == (503, {"start": "starting"})
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

    def test_a_note_is_told_beside_readiness(self, server: TelemetryServer, health: Health) -> None:
        """Nobody is less ready for it, and it can be taken back."""
        health.met("bus")
        health.note("symbols", "two are left out")
        status, body = get(server, "/readyz")
        assert status == 200
        assert json.loads(body) == {
            "ready": True,
            "reasons": {},
            "notes": {"symbols": "two are left out"},
        }
        health.unnote("symbols")
        health.unnote("symbols")
        assert "notes" not in json.loads(get(server, "/readyz")[1])

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

    def test_a_client_that_says_nothing_is_let_go(
        self,
        server: TelemetryServer,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Its connection is closed after a while, and nobody is told: it is no error of ours."""
        monkeypatch.setattr(telemetry._Quiet, "timeout", 0.05)
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as silent:
            assert silent.recv(1) == b""
        assert get(server, "/healthz")[0] == 200
        assert capsys.readouterr().err == ""


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

    def test_the_shape_is_that_of_the_specification(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One object a line: time, level and event first, then the facts under their names."""
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging("writer")
        get_logger().info("data_uploaded", ticker="QQQ", equity_rows=1)
        (line,) = stream.getvalue().splitlines()
        facts = json.loads(line)
        assert list(facts) == ["timestamp", "level", "event", "service", "ticker", "equity_rows"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z", facts["timestamp"])
        assert (facts["ticker"], facts["equity_rows"]) == ("QQQ", 1)

    def test_libraries_speak_the_same_language(
        self, monkeypatch: pytest.MonkeyPatch, metrics: Metrics
    ) -> None:
        """What comes by way of `logging` is JSON too, and an error of theirs is counted."""
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging("writer", counter=log_lines_counter(metrics))
        logging.getLogger("asyncio").info("not said")
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("asyncio").exception("task of %s failed", "somebody")
        (line,) = stream.getvalue().splitlines()
        facts = json.loads(line)
        assert list(facts)[:4] == ["timestamp", "level", "event", "service"]
        assert (facts["level"], facts["event"]) == ("error", "task of somebody failed")
        assert (facts["logger"], facts["service"]) == ("asyncio", "writer")
        assert "ValueError: broken" in facts["exception"]
        errors = metrics.registry.get_sample_value("kite_log_lines_total", {"level": "error"})
        assert errors == 1

    def test_the_level_decides_what_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lower levels are left out."""
        assert len(self.logged(monkeypatch, "debug")) == 3
        assert [line["event"] for line in self.logged(monkeypatch, "error")] == ["failed"]

    def test_lines_are_counted_by_level(self, metrics: Metrics) -> None:
        """From 0 on, and only those that are written."""

        def errors() -> float | None:
            return metrics.registry.get_sample_value("kite_log_lines_total", {"level": "error"})

        configure_logging("writer", "warning", log_lines_counter(metrics))
        log = get_logger()
        assert errors() == 0
        log.error("broken")
        try:
            raise ValueError("too")
        except ValueError:
            log.exception("broken")
        log.info("fine")
        assert errors() == 2
        assert metrics.registry.get_sample_value("kite_log_lines_total", {"level": "info"}) == 0
