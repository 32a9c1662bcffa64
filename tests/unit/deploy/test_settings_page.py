"""The page of settings says in words what a field takes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest

from deploy import settings_page
from libs.common.settings import ServiceSettings


class Sample(ServiceSettings, frozen=True, kw_only=True):
    """A service that does not exist."""

    sample_name: str
    sample_url: str | None = None
    sample_flush_ms: Annotated[int, msgspec.Meta(ge=1, le=60)] = 25
    sample_share: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    sample_mode: Literal["slow", "fast"] = "fast"
    sample_tickers: tuple[str, ...] = ("QQQ", "SPY")
    sample_dry: bool = False


@pytest.mark.parametrize(
    "row",
    [
        "| `KITE_SAMPLE_NAME` | required | text |",
        "| `KITE_SAMPLE_URL` | none | text |",
        "| `KITE_SAMPLE_FLUSH_MS` | `25` | whole number from 1 to 60 |",
        "| `KITE_SAMPLE_SHARE` | `0.5` | number above 0 |",
        "| `KITE_SAMPLE_MODE` | `fast` | `fast`, `slow` |",
        "| `KITE_SAMPLE_TICKERS` | `QQQ,SPY` | comma list of text |",
        "| `KITE_SAMPLE_DRY` | `false` | `1` or `0` |",
    ],
)
def test_a_field_becomes_a_row(row: str) -> None:
    """Name, default and bounds come from the code."""
    assert row in settings_page.section("sample", Sample, frozenset())


def test_settings_of_every_service_are_not_repeated() -> None:
    """What all services share stands on the page once."""
    lines = list(settings_page.section("sample", Sample, frozenset({"nats_url"})))
    assert not [line for line in lines if "KITE_NATS_URL" in line]
    assert "A service that does not exist.\n" in lines
