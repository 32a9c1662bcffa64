"""Settings of the signals service."""

from __future__ import annotations

import pytest

from libs.common.errors import SettingsError
from libs.common.settings import load
from services.signals.settings import SignalsSettings

URL = {"KITE_NATS_URL": "nats://127.0.0.1:4222"}


def test_minutes_and_crosses_are_the_default() -> None:
    """Nothing set: the 1m timeframe, the cross rule."""
    settings = load(SignalsSettings, URL)
    assert (settings.signal_timeframes, settings.signal_rules) == (("1m",), ("cross",))


def test_timeframes_can_be_chosen() -> None:
    """Any of the five, in a comma list."""
    settings = load(SignalsSettings, URL | {"KITE_SIGNAL_TIMEFRAMES": "tick, 5m,1h"})
    assert settings.signal_timeframes == ("tick", "5m", "1h")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KITE_SIGNAL_TIMEFRAMES", "2m", r"KITE_SIGNAL_TIMEFRAMES: '2m' is not valid"),
        ("KITE_SIGNAL_TIMEFRAMES", "1m,1m", r"KITE_SIGNAL_TIMEFRAMES: '1m,1m' names one twice"),
        ("KITE_SIGNAL_TIMEFRAMES", ",", r"KITE_SIGNAL_TIMEFRAMES: ',' is not valid"),
        ("KITE_SIGNAL_RULES", "golden", r"KITE_SIGNAL_RULES: 'golden' is not a rule; known are c"),
    ],
)
def test_wrong_choices_are_refused_in_words(variable: str, value: str, message: str) -> None:
    """What is unknown, empty or doubled is said in one line."""
    with pytest.raises(SettingsError, match=message):
        load(SignalsSettings, URL | {variable: value})
