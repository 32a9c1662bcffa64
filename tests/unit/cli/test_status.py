"""What `./kite status` says of the tickers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli import desk, status
from cli.home import Home
from cli.state import ProcessState, StackState
from libs.common.errors import BusUnavailable

NOW = tuple(f"T{number}" for number in range(14))
AT_START = ("QQQ", "SPY")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home on which a stack runs that was started with two tickers."""
    running = StackState(
        nats="nats://observer@127.0.0.1:1", postgres=None, gateway=None, schwab=None,
        services={"ingest": ProcessState(None, "starting", 0, None)}, servers={}, running=True,
        ready=True, home=str(tmp_path), tickers=AT_START, source="demo",
        store=str(tmp_path / "demo"),
    )  # fmt: skip
    for module in (status, desk):
        monkeypatch.setattr(module, "current_state", lambda _: running)
    return Home(tmp_path)


def test_the_tickers_are_those_of_now(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole for programs, the first for people."""
    monkeypatch.setattr(status, "tickers_of", lambda *_: NOW)
    assert status.show(home, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["tickers"] == list(NOW)
    status.show(home, as_json=False)
    assert "T0 T1 T2 T3 T4 T5 T6 T7 and 6 more · up" in capsys.readouterr().out


def test_while_nobody_can_tell_those_of_the_start_are_shown(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bus that is away is no reason to say nothing of the rest."""

    async def away(*_: object, **__: object) -> None:
        raise BusUnavailable("no connection")

    monkeypatch.setattr("cli.desk.nats.connect", away)
    monkeypatch.delenv("KITE_NATS_URL", raising=False)
    assert status.show(home, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["tickers"] == list(AT_START)
