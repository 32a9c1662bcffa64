"""The writer's settings: defaults, bounds, and an address that is never shown."""

from __future__ import annotations

import pytest

from libs.common.errors import SettingsError
from libs.common.settings import load
from services.writer.settings import Settings

GOOD = {
    "KITE_NATS_URL": "nats://writer:x@127.0.0.1:4222",
    "KITE_PG_DSN": "postgresql://kite_owner:hidden@127.0.0.1:5432/kite",
}


def test_defaults() -> None:
    """Two addresses are enough."""
    settings = load(Settings, GOOD)
    assert (settings.writer_flush_ms, settings.partitions) == (200, 1)


def test_all_problems_at_once() -> None:
    """Everything that is missing or out of bounds is named together."""
    with pytest.raises(SettingsError) as caught:
        load(Settings, {"KITE_WRITER_FLUSH_MS": "0", "KITE_WRITER_CONNECTIONS_MAX": "many"})
    named = " ".join(caught.value.problems)
    for name in ("KITE_NATS_URL", "KITE_PG_DSN", "KITE_WRITER_FLUSH_MS", "CONNECTIONS_MAX"):
        assert name in named


@pytest.mark.parametrize(
    "dsn", ["hidden", "mysql://u:hidden@h/d", "postgresql://u:hidden@h:port/d"]
)
def test_an_address_that_is_none(dsn: str) -> None:
    """A wrong address is refused in words that do not show it."""
    with pytest.raises(SettingsError, match="KITE_PG_DSN") as caught:
        load(Settings, GOOD | {"KITE_PG_DSN": dsn})
    assert "hidden" not in str(caught.value)
