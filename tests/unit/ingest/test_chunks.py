"""Commands name as many tickers as the broker takes at once, and no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.subscriber import REQUEST_KEY_BYTES_MAX, REQUEST_KEYS_MAX, chunks


@given(st.lists(st.text("ABC$.", min_size=1, max_size=400), max_size=1_200))
def test_every_ticker_is_named_once_within_the_limits(tickers: list[str]) -> None:
    """The parts put together are the list; each is small enough for one request frame."""
    parts = chunks(tickers)
    assert [ticker for part in parts for ticker in part] == tickers
    for part in parts:
        assert 0 < len(part) <= REQUEST_KEYS_MAX
        assert len(",".join(part)) <= REQUEST_KEY_BYTES_MAX


def test_the_usual_list_is_one_command() -> None:
    """The cap on bars is below the cap of a command."""
    tickers = [f"A{number}" for number in range(300)]
    assert chunks(tickers) == [tickers]
