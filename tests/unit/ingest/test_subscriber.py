"""The live socket brought to what is wanted, against a broker that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libs.common.telemetry import Health, Metrics, get_logger
from services.ingest.inbox import Inbox
from services.ingest.metrics import IngestMetrics
from services.ingest.subscriber import BarsFlow, BarsWanted, Subscriber, Watched
from services.ingest.subscriptions import SubscriptionCut
from services.ingest.wire import CHART, LEVEL_ONE

NAMES = st.lists(st.sampled_from("ABCDEFGHIJ"), unique=True, min_size=1, max_size=10)
DAY_MS = 1_790_000_000_000


class Broker:
    """Keeps sets of symbols as Schwab does: SUBS replaces, ADD appends, too many are cut."""

    def __init__(self, quotes_max: int = 3_000, charts_max: int = 300) -> None:
        self.sets: dict[str, list[str]] = {LEVEL_ONE: [], CHART: []}
        self.maxima = {LEVEL_ONE: quotes_max, CHART: charts_max}
        self.begun: set[str] = set()

    async def subscribe_level_one(self, tickers: Sequence[str], *, first: bool) -> None:
        """Take quotes."""
        self._take(LEVEL_ONE, tickers, first)

    async def subscribe_bars(self, tickers: Sequence[str], *, first: bool) -> None:
        """Take bars."""
        self._take(CHART, tickers, first)

    async def unsubscribe(self, service: str, tickers: Sequence[str]) -> None:
        """Let go of some, which must be there, and never of the last."""
        assert set(tickers) <= set(self.sets[service])
        self.sets[service] = [t for t in self.sets[service] if t not in tickers]
        assert self.sets[service], "the broker would hang up"

    def _take(self, service: str, tickers: Sequence[str], first: bool) -> None:
        assert tickers
        assert not set(tickers) & set(() if first else self.sets[service])
        wanted = [*(() if first else self.sets[service]), *tickers]
        most = self.maxima[service]
        # Which ones it keeps it does not say; here it is the worst, the last of the list.
        self.sets[service] = wanted[-most:]
        if len(wanted) > most:
            text = f"(LEVELONE_OPTIONS=1, DISCARDED=2) ({service}={most}, DISCARDED=1)"
            raise SubscriptionCut(f"code 19: maximum number of symbols allowed.  {text}")


def make(wanted: Sequence[str]) -> tuple[Subscriber, Inbox[Any]]:
    """A subscriber, and what the core hears of it."""
    inbox: Inbox[Any] = Inbox()
    metrics = IngestMetrics(Metrics())
    return Subscriber(wanted, inbox, metrics, Health(), get_logger()), inbox


@given(st.lists(NAMES, min_size=1, max_size=6), st.integers(1, 10), st.integers(1, 10))
def test_any_change_ends_with_the_first_of_the_list(
    lists: list[list[str]], quotes_max: int, charts_max: int
) -> None:
    """Of each service as many as the broker takes, in the order of the list, and never none."""

    async def main() -> None:
        broker: Any = Broker(quotes_max, charts_max)
        subscriber, inbox = make(lists[0])
        await subscriber.begin(broker, "restart", DAY_MS)
        for wanted in lists:
            subscriber.wanted = tuple(wanted)
            if subscriber.outdated:
                await subscriber.adjust(broker)
            for service, most in broker.maxima.items():
                assert sorted(broker.sets[service]) == sorted(wanted[:most])
            assert subscriber.bars == set(broker.sets[CHART])
            assert subscriber.level_one == set(broker.sets[LEVEL_ONE])
            assert set(subscriber.caps.values()) <= {quotes_max, charts_max}
        heard = inbox.take_all()
        assert heard[-1] == Watched(tuple(lists[-1]), heard[-1].bars)
        assert set(heard[-1].bars) == subscriber.bars

    asyncio.run(main())


def test_the_core_hears_of_a_ticker_before_its_data_can_come() -> None:
    """And of the end of one only when nothing of it can come any more."""

    async def main() -> None:
        broker: Any = Broker()
        subscriber, inbox = make(["A", "B"])
        await subscriber.begin(broker, "restart", DAY_MS)
        inbox.take_all()
        subscriber.wanted = ("B", "C")
        await subscriber.adjust(broker)
        heard = inbox.take_all()
        assert [type(each) for each in heard] == [Watched, BarsWanted, BarsFlow, Watched]
        assert heard[0].tickers == ("B", "C", "A")
        assert heard[1] == BarsWanted(("C",), "added")
        assert heard[2] == BarsFlow(("C",), "added")
        assert heard[3] == Watched(("B", "C"), ("B", "C"))

    asyncio.run(main())


def test_a_new_connection_keeps_within_what_was_learned() -> None:
    """Nobody is refused a second time."""

    async def main() -> None:
        subscriber, _ = make(["A", "B", "C"])
        first: Any = Broker(charts_max=2)
        await subscriber.begin(first, "restart", DAY_MS)
        assert subscriber.caps == {CHART: 2}
        subscriber.lost()
        assert not subscriber.connected
        assert not subscriber.bars
        second: Any = Broker(charts_max=2)
        await subscriber.begin(second, "reconnect", DAY_MS)
        assert second.sets[CHART] == ["A", "B"]
        assert subscriber.level_one == {"A", "B", "C"}

    asyncio.run(main())


def test_a_refusal_without_a_number_keeps_who_was_there() -> None:
    """Whoever came last has to go; of a list that was never taken the first half is tried."""

    class Mute(Broker):
        def _take(self, service: str, tickers: Sequence[str], first: bool) -> None:
            try:
                super()._take(service, tickers, first)
            except SubscriptionCut:
                raise SubscriptionCut("code 19: too many") from None

    async def main() -> None:
        subscriber, _ = make(["A", "B"])
        broker: Any = Mute(charts_max=2)
        await subscriber.begin(broker, "restart", DAY_MS)
        subscriber.wanted = ("A", "B", "C")
        await subscriber.adjust(broker)
        assert broker.sets[CHART] == ["A", "B"]
        assert subscriber.left_out == ("C",)
        anew, _ = make("ABCDEFGH")
        await anew.begin(broker, "restart", DAY_MS)
        assert broker.sets[CHART] == ["A", "B"]
        assert anew.left_out == tuple("CDEFGH")

    asyncio.run(main())


def test_another_day_asks_for_everybody_again() -> None:
    """The broker may take more by then; on the same day it is believed."""

    async def main() -> None:
        subscriber, _ = make("ABC")
        broker: Any = Broker(charts_max=2)
        left_out = []
        for begin_ms in (DAY_MS, DAY_MS, DAY_MS + 86_400_000):
            await subscriber.begin(broker, "reconnect", begin_ms)
            left_out.append(subscriber.left_out)
            broker.maxima[CHART] = 3
        assert left_out == [("C",), ("C",), ()]
        assert broker.sets[CHART] == ["A", "B", "C"]

    asyncio.run(main())


def test_whoever_is_left_out_is_named_beside_readiness() -> None:
    """And not any more once there is room for all."""

    async def main() -> None:
        health = Health()
        subscriber = Subscriber("ABC", Inbox(), IngestMetrics(Metrics()), health, get_logger())
        broker: Any = Broker(charts_max=2)
        await subscriber.begin(broker, "restart", DAY_MS)
        assert health.notes[CHART].endswith("2 symbols; without, from the end of the list: C")
        subscriber.wanted = ("C", "A")
        await subscriber.adjust(broker)
        assert CHART not in health.notes
        assert subscriber.left_out == ()

    asyncio.run(main())
