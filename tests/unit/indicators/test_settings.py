"""Settings of the indicators service."""

from __future__ import annotations

import pytest

from libs.common.errors import SettingsError
from libs.common.settings import load
from services.indicators.settings import Definition, IndicatorsSettings

URL = {"KITE_NATS_URL": "nats://127.0.0.1:4222"}


def test_numbers_follow_the_plain_definition_by_default() -> None:
    """Nothing carried over, closes weighted, no extras."""
    assert load(IndicatorsSettings, URL).definition == Definition()


def test_every_choice_can_be_made_in_the_environment() -> None:
    """The three variables make the definition."""
    settings = load(
        IndicatorsSettings,
        URL
        | {
            "KITE_EXTRAS": "ema9, rsi14,atr14,bollinger20",
            "KITE_SMA_CONTINUOUS": "yes",
            "KITE_VWAP_PRICE": "hlc3",
        },
    )
    extras = ("ema9", "rsi14", "atr14", "bollinger20")
    assert settings.definition == Definition(True, "hlc3", extras)


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ("ema9,macd", r"KITE_EXTRAS: 'macd' is not an indicator; known are atr, bollinger, ema"),
        ("ema9999", r"KITE_EXTRAS: 'ema9999': a period of 9999 is not between 1 and 400"),
        ("ema9,ema9", r"KITE_EXTRAS: 'ema9,ema9' names an indicator twice"),
        (",".join(f"ema{n}" for n in range(10, 30)), r"KITE_EXTRAS: .* 130 fit: name fewer"),
    ],
)
def test_wrong_extras_are_refused_in_words(extras: str, message: str) -> None:
    """What is unknown, out of bounds, doubled or too much is said in one line."""
    with pytest.raises(SettingsError, match=message):
        load(IndicatorsSettings, URL | {"KITE_EXTRAS": extras})
