"""Settings, the request limit and the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from libs.common.errors import SettingsError
from libs.common.settings import load
from services.simulator.ledger import Ledger
from services.simulator.limiter import RateLimiter
from services.simulator.settings import Settings
from services.simulator.streamer import Send, data_frame


def test_every_setting_has_a_default() -> None:
    """The simulator runs without any environment."""
    settings = load(Settings, {})
    assert settings.sim_speed == 1.0
    assert settings.start_ms() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KITE_SIM_START", "noon"),
        ("KITE_SIM_START", "1889-01-01"),
        ("KITE_SIM_SPEED", "0"),
        ("KITE_SIM_TICKS_PER_BAR", "61"),
        ("KITE_SIM_FAULTS", '{"no such": 1}'),
        ("KITE_SIM_FAULTS", "{"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    """The message begins with the variable."""
    with pytest.raises(SettingsError) as caught:
        load(Settings, {name: value})
    assert caught.value.problems[0].startswith(f"{name}:")


def test_a_start_without_a_zone_is_new_york_s() -> None:
    """Half past ten in New York, or whatever the text says."""
    for text in ("2026-11-20T10:30", "2026-11-20T15:30:00+00:00"):
        assert load(Settings, {"KITE_SIM_START": text}).start_ms() == 1_795_188_600_000


def test_the_limit_is_per_sliding_minute() -> None:
    """A refused request does not count; a place is free a minute after its request."""
    limiter = RateLimiter(2)
    times_ms = (0, 100, 200, 59_999, 60_000, 60_001, 60_100)
    assert [limiter.allow(at_ms) for at_ms in times_ms] == [
        True, True, False, False, True, False, True,
    ]  # fmt: skip
    unlimited = RateLimiter(0)
    assert all(unlimited.allow(0) for _ in range(1_000))


def test_the_ledger_counts_what_was_sent(tmp_path: Path) -> None:
    """Per service and symbol, images apart; the file holds the frames themselves."""
    ledger = Ledger(tmp_path / "sent")
    image = data_frame("CHART_EQUITY", [{"key": "QQQ", "2": 1.0}], 5, image=True)
    frame = data_frame("CHART_EQUITY", [{"key": "QQQ", "2": 2.0}, {"key": "SPY", "2": 3.0}], 6)
    ledger.sent(image, 5, 100)
    ledger.sent(frame, 6, 101)
    ledger.sent(Send(b'{"data":', "garbage"), 7, 102)
    answer = {"service": "ADMIN", "command": "LOGIN", "content": {"code": 0}}
    ledger.sent(Send(json.dumps({"response": [answer]}).encode(), "reply"), 8, 103)
    report = ledger.report()
    qqq = report["sent"]["CHART_EQUITY"]["QQQ"]
    assert (qqq["items"], qqq["images"], qqq["first_ms"], qqq["last_ms"]) == (1, 1, 5, 6)
    assert report["sent"]["CHART_EQUITY"]["SPY"]["items"] == 1
    assert report["acknowledged"] == {"ADMIN LOGIN 0": 1}
    ledger.close()
    lines = (tmp_path / "sent").read_bytes().splitlines()
    assert lines == [b"100 " + image.text, b"101 " + frame.text]
