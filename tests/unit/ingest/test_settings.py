"""Ingest's settings: every mistake is named before anything starts."""

from __future__ import annotations

import pytest

from libs.common.errors import SettingsError
from libs.common.settings import load
from services.ingest.settings import TICKERS_MAX, Settings

GOOD = {
    "KITE_NATS_URL": "nats://ingest:secret@127.0.0.1:4222",
    "KITE_TICKERS": "QQQ,SPY,BRK.B",
    "KITE_SCHWAB_APP_KEY": "key",
    "KITE_SCHWAB_APP_SECRET": "hidden",
    "KITE_SCHWAB_TOKEN_FILE": "token.json",
    "KITE_INGEST_DATA_DIR": "data",
}


def test_good_settings_load() -> None:
    """The defaults are enough besides the account, the tickers and the directory."""
    settings = load(Settings, GOOD)
    assert settings.tickers == ("QQQ", "SPY", "BRK.B")
    assert settings.schwab_base_url is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KITE_TICKERS", ",", "name at least one"),
        ("KITE_TICKERS", "qqq", "KITE_TICKERS"),
        ("KITE_TICKERS", "QQQ,SPY,QQQ", "named twice: QQQ"),
        ("KITE_TICKERS", ",".join(f"A{n}" for n in range(TICKERS_MAX + 1)), "at most 300"),
        ("KITE_SCHWAB_BASE_URL", "127.0.0.1:80", "must begin with http"),
        ("KITE_INGEST_SPOOL_BYTES_MAX", "10", "KITE_INGEST_SPOOL_BYTES_MAX"),
        ("KITE_INGEST_SILENCE_MS", "soon", "KITE_INGEST_SILENCE_MS"),
    ],
)
def test_each_mistake_is_named(name: str, value: str, said: str) -> None:
    """The error tells the variable and what is wrong with it."""
    with pytest.raises(SettingsError, match=said):
        load(Settings, {**GOOD, name: value})


def test_what_is_missing_is_all_named_at_once() -> None:
    """One start is enough to learn everything that is missing."""
    with pytest.raises(SettingsError) as caught:
        load(Settings, {})
    said = str(caught.value)
    assert all(name in said for name in GOOD)


def test_secrets_are_never_shown() -> None:
    """Neither key nor secret appear in an error."""
    with pytest.raises(SettingsError) as caught:
        load(Settings, {**GOOD, "KITE_TICKERS": ",", "KITE_PARTITIONS": "0"})
    assert "hidden" not in str(caught.value)
