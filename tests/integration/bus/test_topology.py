"""The job that makes streams and consumers, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from cli.servers.nats import NatsServer
from libs.common import subjects
from libs.common.bus import nats, topology
from libs.common.bus.nats import NatsBus
from libs.common.errors import BusUnavailable, SettingsError, StoreMismatch
from libs.common.settings import ServiceSettings

PARTITIONS = 2
MEBIBYTE = 1 << 20


def administer(server: NatsServer, work: Callable[[NatsBus], Awaitable[None]]) -> None:
    """Run `work` with the administrator's connection."""

    async def main() -> None:
        bus = await nats.connect(server.url("admin"), name="test")
        try:
            await work(bus)
        finally:
            await bus.close()

    asyncio.run(main())


async def ask(bus: NatsBus, subject: str, request: object = None) -> dict[str, Any]:
    """Ask the server's JSON API."""
    data = b"" if request is None else msgspec.json.encode(request)
    return msgspec.json.decode(await bus.ask(f"$JS.API.{subject}", data), type=dict[str, Any])


async def everything(bus: NatsBus) -> dict[str, Any]:
    """Return the configuration of all streams and consumers."""
    found: dict[str, Any] = {}
    for stream in (await ask(bus, "STREAM.LIST"))["streams"]:
        name = stream["config"]["name"]
        found[name] = stream["config"]
        for consumer in (await ask(bus, f"CONSUMER.LIST.{name}"))["consumers"]:
            found[f"{name}/{consumer['name']}"] = consumer["config"]
    return found


def test_makes_every_stream_and_consumer(fresh_nats: NatsServer) -> None:
    """All of the plan is there afterwards: durable, bounded, direct, pinned, nothing else."""
    plan = topology.plan(PARTITIONS, "demo")

    async def work(bus: NatsBus) -> None:
        await topology.apply(bus, plan)
        found = await everything(bus)
        assert found.keys() == {stream.name for stream in plan.streams} | {
            f"{consumer.stream}/{consumer.name}" for consumer in plan.consumers
        }
        market, consumer = found["MARKET"], found["MARKET/indicators-1"]
        assert (market["storage"], market["discard"], market["num_replicas"]) == ("file", "new", 1)
        assert market["allow_direct"] is True
        assert market["max_age"] == 7 * 86_400 * 10**9
        assert found["STATE"]["max_msgs_per_subject"] == 2
        assert found["TRADES"]["max_age"] == found["STATE"]["max_age"] == 0
        assert consumer["ack_policy"] == "all"
        assert consumer["priority_policy"] == "pinned_client"
        assert consumer["filter_subject"] == "market.1"

    administer(fresh_nats, work)


def test_a_second_time_changes_nothing(fresh_nats: NatsServer) -> None:
    """Whatever was stored and acknowledged stays as it was."""
    plan = topology.plan(PARTITIONS, "demo")

    async def work(bus: NatsBus) -> None:
        await topology.apply(bus, plan)
        seq = await bus.publish("market.0", b"kept", expected_last_seq=0)
        before, state = await everything(bus), await bus.stream("MARKET")
        await topology.apply(bus, plan)
        assert await everything(bus) == before
        assert await bus.stream("MARKET") == state
        assert state.last_seq == seq

    administer(fresh_nats, work)


def test_limits_can_be_changed_later(fresh_nats: NatsServer) -> None:
    """A larger bound in bytes is set on the streams that are there, and keeps their messages."""

    async def work(bus: NatsBus) -> None:
        await topology.apply(bus, topology.plan(PARTITIONS, "demo", stream_bytes_max=64 * MEBIBYTE))
        await bus.publish("market.0", b"kept", expected_last_seq=0)
        created_ms = (await bus.stream("MARKET")).created_ms
        await topology.apply(bus, topology.plan(PARTITIONS, "demo", stream_bytes_max=96 * MEBIBYTE))
        assert (await everything(bus))["MARKET"]["max_bytes"] == 96 * MEBIBYTE
        state = await bus.stream("MARKET")
        assert (state.created_ms, state.last_seq) == (created_ms, 1)

    administer(fresh_nats, work)


def test_a_job_that_was_killed_half_way_is_finished_by_the_next(fresh_nats: NatsServer) -> None:
    """Streams and consumers that are missing are added to those that are there."""
    plan = topology.plan(PARTITIONS, "demo")

    async def work(bus: NatsBus) -> None:
        await topology.apply(bus, plan)
        await ask(bus, "CONSUMER.DELETE.MARKET.indicators-1")
        await ask(bus, "STREAM.DELETE.COMMANDS")
        with pytest.raises(BusUnavailable):
            await topology.check(bus, ServiceSettings(nats_url="", partitions=PARTITIONS))
        await topology.apply(bus, plan)
        assert {"MARKET/indicators-1", "COMMANDS"} <= (await everything(bus)).keys()
        await topology.check(bus, ServiceSettings(nats_url="", partitions=PARTITIONS))

    administer(fresh_nats, work)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (topology.plan(3, "demo"), "KITE_PARTITIONS is '3', the store has '2'"),
        (topology.plan(2, "csv"), "KITE_SOURCE is 'csv', the store has 'demo'"),
        (
            topology.plan(2, "demo", topology.ResultSettings(extras=("ema9", "rsi14"))),
            "KITE_EXTRAS is 'ema9,rsi14', the store has ''",
        ),
        (
            topology.plan(2, "demo", topology.ResultSettings(sma_continuous=True)),
            "KITE_SMA_CONTINUOUS is '1', the store has '0'",
        ),
    ],
    ids=["partitions", "source", "extras", "sma"],
)
def test_refuses_the_store_of_other_settings(
    fresh_nats: NatsServer, other: topology.Topology, named: str
) -> None:
    """One line names what differs and how to mend it, and nothing is changed."""

    async def work(bus: NatsBus) -> None:
        await topology.apply(bus, topology.plan(PARTITIONS, "demo"))
        before = await everything(bus)
        with pytest.raises(StoreMismatch) as refusal:
            await topology.apply(bus, other)
        assert named in str(refusal.value)
        assert "KITE_HOME" in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert await everything(bus) == before

    administer(fresh_nats, work)


def test_refuses_streams_of_somebody_else(fresh_nats: NatsServer) -> None:
    """A stream of that name without our metadata is not ours to change."""

    async def work(bus: NatsBus) -> None:
        await ask(bus, "STREAM.CREATE.MARKET", {"name": "MARKET", "subjects": ["prices.*"]})
        with pytest.raises(StoreMismatch, match="not made by this program"):
            await topology.apply(bus, topology.plan(PARTITIONS, "demo"))

    administer(fresh_nats, work)


def test_a_server_without_room_is_the_operators_to_mend(fresh_nats: NatsServer) -> None:
    """Bounds beyond the server's storage name the setting that is too large."""

    async def work(bus: NatsBus) -> None:
        with pytest.raises(SettingsError, match="KITE_STREAM_BYTES_MAX"):
            await topology.apply(bus, topology.plan(PARTITIONS, "demo", stream_bytes_max=1 << 45))

    administer(fresh_nats, work)


class _Settings(ServiceSettings, frozen=True, kw_only=True):
    sma_continuous: bool = False
    extras: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (_Settings(nats_url="", partitions=4), ["KITE_PARTITIONS"]),
        (_Settings(nats_url="", partitions=2, source="schwab"), ["KITE_SOURCE"]),
        (
            _Settings(nats_url="", partitions=1, sma_continuous=True, extras=("ema9",)),
            ["KITE_PARTITIONS", "KITE_SMA_CONTINUOUS", "KITE_EXTRAS"],
        ),
        (_Settings(nats_url="", partitions=2), []),
    ],
)
def test_a_service_compares_the_settings_it_has(
    fresh_nats: NatsServer, settings: _Settings, named: list[str]
) -> None:
    """Every difference is named at once; equal settings pass, with the service's own rights."""

    async def work(bus: NatsBus) -> None:
        await topology.apply(bus, topology.plan(PARTITIONS, "demo"))
        for user in ("ingest", "indicators", "signals", "writer"):
            service = await nats.connect(fresh_nats.url(user), name=user)
            try:
                if not named:
                    await topology.check(service, settings)
                    continue
                with pytest.raises(StoreMismatch) as refusal:
                    await topology.check(service, settings)
                assert all(name in str(refusal.value) for name in named)
            finally:
                await service.close()

    administer(fresh_nats, work)


def test_partitions_equal_those_of_the_server(fresh_nats: NatsServer) -> None:
    """`partition_of` gives the numbers of the server's own partition() transform."""
    tickers = ["QQQ", "SPY", "A", "BRK%2EB", "$SPX", "INDA", "FXY", "É", "AAPL240119C00150000"]
    transform = {"src": "in.*", "dest": "out.{{partition(7,1)}}.{{wildcard(1)}}"}

    async def work(bus: NatsBus) -> None:
        config = {"name": "PARTED", "subjects": ["in.*"], "subject_transform": transform}
        assert "error" not in await ask(bus, "STREAM.CREATE.PARTED", config)
        for ticker in tickers:
            await bus.append(f"in.{ticker}", b"")
        info = await ask(bus, "STREAM.INFO.PARTED", {"subjects_filter": ">"})
        assert set(info["state"]["subjects"]) == {
            f"out.{subjects.partition_of(ticker, 7)}.{ticker}" for ticker in tickers
        }

    administer(fresh_nats, work)
