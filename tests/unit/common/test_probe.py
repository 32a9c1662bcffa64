"""The question that a container's health check asks: yes, no with reasons, or nobody there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from libs.common import probe
from libs.common.telemetry import Health, Metrics, TelemetryServer


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch) -> Iterator[Health]:
    """The health of a server that the probe will ask."""
    found = Health()
    server = TelemetryServer(Metrics(), found, "127.0.0.1", 0)
    monkeypatch.setenv("KITE_METRICS_PORT", server.url.rpartition(":")[2])
    server.start()
    yield found
    server.close()


def test_a_ready_service_is_healthy(health: Health) -> None:
    """Every condition holds."""
    health.met("bus")
    assert probe.main([]) == 0
    assert probe.main(["ready"]) == 0


def test_a_service_that_is_not_ready_says_why_and_lives(
    health: Health, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reasons reach whoever asks; nobody takes the service for dead."""
    health.require("bus", "connecting")
    assert probe.main(["ready"]) == 1
    assert "connecting" in capsys.readouterr().err
    assert probe.main([]) == 0


def test_another_question_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt word is no yes."""
    assert probe.main(["redy"]) == 2
    assert "alive, ready" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["", "none", "1"])
def test_nobody_there_is_not_healthy(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No port, no number, no listener: no crash either."""
    monkeypatch.setenv("KITE_METRICS_PORT", port)
    assert probe.main([]) == 1
