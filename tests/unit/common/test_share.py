"""Who lets a partition go: never to nobody, never past the middle, one at a time."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from libs.common import share as sharing
from libs.common.bus.memory import MemoryServer
from libs.common.bus.topology import plan
from libs.common.clock import SystemClock
from libs.common.runner import Runtime
from libs.common.settings import ServiceSettings
from libs.common.share import Share, Status, announced
from libs.common.telemetry import Health, Metrics, get_logger
from tests.waiting import eventually_async


def holder(stack: ExitStack, held: int) -> Share:
    """An instance that holds so many."""
    share = Share()
    for _ in range(held):
        stack.enter_context(share.holding())
    return share


def status(held: int, instance: str = "other") -> Status:
    """What another instance says."""
    return Status("indicators", instance, held)


class TestLettingGo:
    def test_whoever_is_alone_keeps_all(self) -> None:
        """Hearing nobody means that nobody could take it."""
        with ExitStack() as stack:
            assert not holder(stack, 8).lets_go(0.0)

    def test_one_at_a_time_until_the_middle(self) -> None:
        """A difference of one is as even as it gets."""
        share, changes = Share(), []
        with ExitStack() as stack:
            held = [stack.enter_context(ExitStack()) for _ in range(5)]
            for each in held:
                each.enter_context(share.holding())
            share.heard(status(0), 10.0)
            assert share.lets_go(10.0)
            assert not share.lets_go(10.0 + sharing.LET_GO_EVERY_S / 2), "one a second"
            held[0].close()
            share.heard(status(1), 11.5)
            assert share.lets_go(11.5)
            held[1].close()
            share.heard(status(2), 13.0)
            changes.append(share.lets_go(13.0))
        assert changes == [False], "three and two"

    def test_who_fell_silent_does_not_count(self) -> None:
        """A dead or frozen instance would leave the partition without an owner."""
        with ExitStack() as stack:
            share = holder(stack, 4)
            share.heard(status(0), 0.0)
            assert not share.lets_go(sharing.PEER_GONE_S)

    def test_our_own_voice_does_not_count(self) -> None:
        """Everybody hears everybody on that subject."""
        with ExitStack() as stack:
            share = holder(stack, 4)
            share.heard(status(0, share.instance), 0.0)
            assert not share.lets_go(0.0)

    @given(st.lists(st.integers(0, 64), min_size=1, max_size=200))
    def test_memory_is_bounded(self, helds: list[int]) -> None:
        """Whoever invents instances fills no memory."""
        share = Share()
        for number, held in enumerate(helds):
            share.heard(status(held, str(number)), float(number))
        assert len(share._peers) <= sharing.PEERS_MAX

    @given(st.integers(1, 16), st.integers(2, 5))
    def test_every_start_ends_in_even_shares(self, partitions: int, instances: int) -> None:
        """Whoever takes what is let go, no two differ by more than one in the end."""
        shares = [Share() for _ in range(instances)]
        shares[0].held = partitions
        now_s = 0.0
        for _ in range(partitions * instances):
            now_s += sharing.LET_GO_EVERY_S
            for share in shares:
                for other in shares:
                    share.heard(status(other.held, other.instance), now_s)
            for share in shares:
                if share.lets_go(now_s):
                    share.held -= 1
                    min(shares, key=lambda each: each.held).held += 1
                    break
        held = [share.held for share in shares]
        assert sum(held) == partitions
        assert max(held) - min(held) <= 1


def test_instances_hear_each_other_while_they_are_ready() -> None:
    """An instance that cannot work says nothing, so nobody lets anything go for it."""

    def runtime() -> Runtime[ServiceSettings]:
        return Runtime(
            "signals", ServiceSettings(nats_url=""), Metrics(), Health(), SystemClock(),
            get_logger(), asyncio.Event(),
        )  # fmt: skip

    async def scenario() -> None:
        server = MemoryServer(plan(2, "demo"))
        ready, unready = runtime(), runtime()
        ready.health.met("database")
        unready.health.require("database", "away")
        one, other = Share(), Share()
        with one.holding(), one.holding(), other.holding():
            async with (
                announced(ready, server.connect(), one),
                announced(unready, server.connect(), other),
            ):
                await eventually_async(lambda: other._peers, 10, "the one that is ready")
                assert {held for held, _ in other._peers.values()} == {2}
                assert not one._peers
                unready.health.met("database")
                await eventually_async(lambda: one._peers, 10, "the other one, ready now")

    asyncio.run(scenario())
