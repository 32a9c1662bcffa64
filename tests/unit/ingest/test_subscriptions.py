"""Commands name as many tickers as the broker takes, the first of the list, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.subscriptions import (
    REQUEST_KEY_BYTES_MAX,
    REQUEST_KEYS_MAX,
    Caps,
    SubscriptionCut,
    chunks,
    subscribe_within,
)


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


class Broker:
    """A service that takes so many symbols and keeps the last ones, which it does not say."""

    def __init__(self, cap: int, text: str) -> None:
        self.cap = cap
        self.text = text
        self.held: list[str] = []
        self.commands = 0

    async def ask(self, tickers: Sequence[str], *, first: bool) -> None:
        """One command."""
        self.commands += 1
        wanted = [*([] if first else self.held), *tickers]
        self.held = wanted[-self.cap :] if self.cap else []
        discarded = len(wanted) - self.cap
        if discarded > 0:
            raise SubscriptionCut(self.text.format(cap=self.cap, discarded=discarded))


NAMED = "code 19: You've reached the maximum.  (LEVELONE_EQUITIES={cap}, DISCARDED={discarded})"
TEXTS = [
    NAMED,
    "code 19: too many  (SOMETHING_ELSE={cap}, DISCARDED={discarded})",
    "code 19: You've reached the maximum number of symbols allowed.",
    "code 19: (LEVELONE_EQUITIES=0, DISCARDED=99999999)",
    "code 19: (LEVELONE_EQUITIES=100000, DISCARDED=0)",
    "code 19: ",
]


@given(
    st.integers(0, 1_200), st.integers(0, 1_300), st.sampled_from(TEXTS)
)  # fmt: skip
def test_the_first_of_the_list_are_kept_whatever_the_refusal_says(
    number: int, cap: int, text: str
) -> None:
    """What the service holds in the end is the beginning of the list; it ends soon."""
    tickers = [f"A{index}" for index in range(number)]
    broker, caps = Broker(cap, text), Caps()
    kept = asyncio.run(subscribe_within("LEVELONE_EQUITIES", tickers, caps, broker.ask))
    assert list(kept) == tickers[: len(kept)]
    assert broker.held == list(kept) or not kept
    assert len(kept) <= cap
    assert broker.commands <= 3 * 13
    if text == NAMED:
        assert len(kept) == min(number, cap) or cap == 0


def test_a_cap_that_was_learned_is_kept_to_and_can_be_forgotten() -> None:
    """The next connection asks for as many at once; the next day for all again."""
    tickers = [f"A{index}" for index in range(10)]
    broker, caps = Broker(7, NAMED), Caps()
    heard: list[tuple[int, str]] = []

    def subscribe() -> Sequence[str]:
        return asyncio.run(
            subscribe_within(
                "LEVELONE_EQUITIES", tickers, caps, broker.ask,
                lambda cap, text: heard.append((cap, text)),
            )
        )  # fmt: skip

    assert len(subscribe()) == 7
    assert broker.commands == 2
    assert [cap for cap, _ in heard] == [7]
    assert len(subscribe()) == 7
    assert broker.commands == 3
    caps.forget()
    broker.cap = 10
    assert len(subscribe()) == 10


@pytest.mark.parametrize(
    ("text", "took", "cap"),
    [
        ("maximum number of symbols allowed.  (CHART_EQUITY=300, DISCARDED=12)", 0, 300),
        ("code 19: … (CHART_EQUITY=2,DISCARDED=1)", 0, 2),
        ("(LEVELONE_OPTIONS=3000, DISCARDED=2)", 0, 398),
        ("(CHART_EQUITY=0, DISCARDED=400)", 0, 200),
        ("too many", 0, 200),
        ("too many", 390, 390),
        ("", 400, 200),
    ],
)
def test_the_cap_is_read_from_the_brokers_words(text: str, took: int, cap: int) -> None:
    """Of the right service, else by what it discarded, else by what it took before."""
    assert Caps().learn("CHART_EQUITY", 400, text, took=took) == cap
