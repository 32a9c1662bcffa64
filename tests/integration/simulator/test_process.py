"""The simulator as a process: how it starts, is refused, is killed and comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.schwab_client import broker_at
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"


class Process:
    """One simulator process; its log lines tell where it listens."""

    def __init__(self, log: Path, **settings: str) -> None:
        self._log = log
        environment = {f"KITE_SIM_{name.upper()}": value for name, value in settings.items()}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.simulator"],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "KITE_SIM_PORT": "0", **environment},
                stderr=file,
            )

    def event(self, name: str) -> dict[str, Any]:
        """Wait for a log line."""
        return eventually(lambda: self._find(name), 15, f"{name} in the log")

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.event("simulator.listening")["url"])

    def kill(self) -> None:
        """End it without a chance to do anything."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def _find(self, name: str) -> dict[str, Any]:
        for line in self._log.read_text().splitlines():
            if line.startswith("{") and json.loads(line).get("event") == name:
                found: dict[str, Any] = json.loads(line)
                return found
        return {}


@contextmanager
def running(tmp_path: Path, **settings: str) -> Iterator[Process]:
    """A simulator that is gone afterwards."""
    process = Process(tmp_path / "log", **settings)
    try:
        yield process
    finally:
        process.kill()


def failed(**environment: str) -> tuple[int, str]:
    """Run a simulator that must fail; return exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "services.simulator"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "KITE_SIM_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def test_it_tells_about_itself_and_stops_when_asked(tmp_path: Path) -> None:
    """Health, readiness and metrics like any service; exit code 0; little memory."""
    with running(tmp_path) as process:
        metrics_url = process.event("service.started")["metrics"]
        assert process.url
        assert httpx.get(f"{metrics_url}/healthz").status_code == 200
        eventually(lambda: httpx.get(f"{metrics_url}/readyz").status_code == 200, 5, "it is ready")
        assert "kite_sim_virtual_time_seconds" in httpx.get(f"{metrics_url}/metrics").text
        assert psutil.Process(process.process.pid).memory_info().rss < 60 << 20
        assert process.stop() == 0


def test_a_killed_simulator_comes_back_on_the_same_line_of_time(tmp_path: Path) -> None:
    """The stream goes on with the next numbers, the token is still good, nothing repeats."""
    settings = {
        "clock_file": str(tmp_path / "clock"), "speed": "240", "start": "2026-11-20T10:30",
    }  # fmt: skip

    async def bars(url: str, token: dict[str, Any] | None, count: int) -> tuple[Any, list[Any]]:
        async with broker_at(url) as broker:
            token = token or await broker.login()
            async with await broker.stream(token) as stream:
                await stream.raw.chart_equity_subs(["QQQ"])
                await stream.until(lambda: len(stream.bars) >= count)
                return token, stream.bars

    with running(tmp_path, **settings) as process:
        token, before = asyncio.run(bars(process.url, None, 3))
        process.kill()
    with running(tmp_path, **settings) as process:
        _, after = asyncio.run(bars(process.url, token, 2))
    assert after[0]["CHART_TIME_MILLIS"] > before[-1]["CHART_TIME_MILLIS"]
    minutes = (after[0]["CHART_TIME_MILLIS"] - before[0]["CHART_TIME_MILLIS"]) // 60_000
    assert after[0]["seq"] - before[0]["seq"] == minutes


def test_time_does_not_stop_while_it_is_down(tmp_path: Path) -> None:
    """What it says after the restart is what the wall clock makes of the line before."""
    path = tmp_path / "clock"
    with running(tmp_path, clock_file=str(path), speed="100") as process:
        first = process.event("simulator.listening")
        process.kill()
    stored = json.loads(path.read_text())
    with running(tmp_path, clock_file=str(path), speed="100") as process:
        second = process.event("simulator.listening")
    assert second["virtual_ms"] > first["virtual_ms"]
    again = json.loads(path.read_text())
    passed_ms = (again["wall_ms"] - stored["wall_ms"]) * 100
    assert abs(again["virtual_ms"] - stored["virtual_ms"] - passed_ms) <= 100


def test_a_recording_rests_while_it_is_stopped(tmp_path: Path) -> None:
    """Stopped in good order, it goes on from the virtual time of its last mark."""
    path = tmp_path / "clock"
    settings = {
        "clock_file": str(path), "speed": "600", "csv": f"FXY={DATA / 'FXY-1min-2023-11.csv'}",
    }  # fmt: skip
    with running(tmp_path, **settings) as process:
        first = process.event("simulator.listening")
        assert process.stop() == 0
    stored = json.loads(path.read_text())
    assert (stored["stopped"], stored["ended"]) == (True, False)
    rested_ms = stored["virtual_ms"] + (stored["alive_wall_ms"] - stored["wall_ms"]) * 600
    with running(tmp_path, **settings) as process:
        process.event("simulator.listening")
        again = json.loads(path.read_text())
        process.kill()
    assert again["virtual_ms"] == rested_ms >= first["virtual_ms"]
    assert again["wall_ms"] > stored["alive_wall_ms"]
    assert again["stopped"] is False


@pytest.mark.parametrize(
    ("environment", "complaints"),
    [
        (
            {"KITE_SIM_SPEED": "fast", "KITE_SIM_TICKS_PER_BAR": "99"},
            ["KITE_SIM_SPEED", "KITE_SIM_TICKS_PER_BAR"],
        ),
        ({"KITE_SIM_CSV": "/no/such/QQQ-1.csv"}, ["KITE_SIM_CSV: cannot read /no/such/QQQ-1.csv"]),
        (
            {"KITE_SIM_CSV": "TABLE=tests/data/README.md"},
            ["KITE_SIM_CSV: tests/data/README.md: column timestamp"],
        ),
        ({"KITE_SIM_LEDGER_FILE": "/no/such/file"}, ["KITE_SIM_LEDGER_FILE: cannot write"]),
        ({"KITE_SIM_CLOCK_FILE": "/no/such/file"}, ["KITE_SIM_CLOCK_FILE: cannot write"]),
    ],
)
def test_wrong_settings_end_it_with_code_2(
    environment: dict[str, str], complaints: list[str]
) -> None:
    """Each mistake is named, before anything starts."""
    code, said = failed(**environment)
    assert code == 2
    assert all(complaint in said for complaint in complaints)
    assert "Traceback" not in said


def test_a_taken_port_is_said_so() -> None:
    """With the setting to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = failed(KITE_SIM_PORT=str(port))
    assert code == 2
    assert f"KITE_SIM_PORT: cannot listen on 127.0.0.1:{port}" in said


def test_rows_outside_the_session_are_told_once(tmp_path: Path) -> None:
    """One line with their number."""
    with running(tmp_path, csv=str(DATA / "INDA-1min-2023-07.csv")) as process:
        assert process.event("csv.rows_left_out")["count"] == 28
