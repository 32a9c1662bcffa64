"""The connection to a real server: refused, frozen, broken, and what is told of it."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import structlog

from cli.servers.nats import NatsServer
from libs.common.bus import nats, topology
from libs.common.bus.hooks import BusHooks, PublishOutcome
from libs.common.bus.nats import NatsBus
from libs.common.errors import BusUnavailable, Doubt, Fenced
from libs.common.runner import Runtime, connect_bus, run
from libs.common.settings import ServiceSettings
from tests.proxy import Proxy
from tests.waiting import eventually_async

DEADLINE_S = 20.0


class Recorder:
    """Hooks that remember what they were told."""

    def __init__(self) -> None:
        self.connections: list[bool] = []
        self.outcomes: list[PublishOutcome] = []
        self.leases: list[tuple[str, bool]] = []
        self.dropped = 0
        self.errors: list[str] = []

    def connection(self, up: bool) -> None:
        self.connections.append(up)

    def published(self, outcome: PublishOutcome, seconds: float) -> None:
        assert 0 <= seconds < DEADLINE_S
        self.outcomes.append(outcome)

    def lease(self, consumer: str, held: bool) -> None:
        self.leases.append((consumer, held))

    def live_dropped(self) -> None:
        self.dropped += 1

    def error(self, kind: str) -> None:
        self.errors.append(kind)


@pytest.fixture
def _own_handlers_and_logs() -> Iterator[None]:
    """Give signals and logs back as they were before a service ran in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def make_streams(server: NatsServer) -> None:
    """Make streams and consumers for one partition."""
    admin = await nats.connect(server.url("admin"), name="init")
    await topology.apply(admin, topology.plan(1, "demo"))
    await admin.close()


@asynccontextmanager
async def through_proxy(
    server: NatsServer, user: str, hooks: BusHooks | None = None
) -> AsyncIterator[tuple[NatsBus, Proxy]]:
    """Connect as `user` over a proxy that can be frozen and cut."""
    url = urlsplit(server.url(user))
    proxy = Proxy(url.port or 0)
    address = f"nats://{url.username}:{url.password}@127.0.0.1:{await proxy.start()}"
    bus = await nats.connect(address, name=user, hooks=hooks)
    try:
        yield bus, proxy
    finally:
        await bus.close()
        await proxy.close()


def test_a_wrong_password_is_refused_without_showing_it(nats_server: NatsServer) -> None:
    """The reason is the server's, the credentials stay out of it."""
    url = re.sub(r":[^:@]+@", ":hunter2@", nats_server.url("writer"))

    async def refused_for_the_password() -> bool:
        with pytest.raises(BusUnavailable) as refusal:
            await nats.connect(url, name="test")
        assert "hunter2" not in str(refusal.value)
        # The server closes at once, which may be faster than its reason.
        return "authorization" in str(refusal.value).lower()

    asyncio.run(eventually_async(refused_for_the_password, DEADLINE_S, "the server's reason"))


def test_a_frozen_server_is_noticed(fresh_nats: NatsServer) -> None:
    """It accepts and says nothing: owner and publisher learn of it, and go on when it thaws."""

    async def main() -> None:
        await make_streams(fresh_nats)
        async with through_proxy(fresh_nats, "indicators") as (bus, proxy):
            feeder = await nats.connect(fresh_nats.url("ingest"), name="ingest")
            await feeder.publish("market.0", b"a", expected_last_seq=0)
            async with bus.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                assert len(await lease.receive(frames_max=1, wait_s=DEADLINE_S)) == 1
                proxy.freeze()
                publishing = asyncio.create_task(
                    bus.publish("indicators.0", b"b", expected_last_seq=0)
                )
                async with asyncio.timeout(DEADLINE_S):
                    with pytest.raises(BusUnavailable):
                        await lease.receive(frames_max=1, wait_s=DEADLINE_S)
                    with pytest.raises(Doubt):
                        await publishing
            await eventually_async(lambda: not bus.connected, DEADLINE_S, "noticed")
            proxy.cut(refuse=False)
            proxy.thaw()
            await eventually_async(lambda: bus.connected, DEADLINE_S, "connected again")
            async with asyncio.timeout(DEADLINE_S), bus.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                assert len(await lease.receive(frames_max=1, wait_s=DEADLINE_S)) == 1
            await feeder.close()

    asyncio.run(main())


def test_a_publish_under_way_ends_when_the_connection_breaks(fresh_nats: NatsServer) -> None:
    """It is in doubt at once instead of after its time-out, and not sent again later."""

    async def main() -> None:
        await make_streams(fresh_nats)
        async with through_proxy(fresh_nats, "ingest") as (bus, proxy):
            proxy.freeze()
            publishing = [
                asyncio.create_task(bus.publish("market.0", b"%d" % n, expected_last_seq=0))
                for n in range(5)
            ]
            await asyncio.sleep(0)
            begin_s = asyncio.get_running_loop().time()
            proxy.cut(refuse=False)
            results = await asyncio.gather(*publishing, return_exceptions=True)
            assert all(isinstance(result, (Doubt, BusUnavailable)) for result in results)
            assert asyncio.get_running_loop().time() - begin_s < nats.PUBLISH_TIMEOUT_S
            proxy.thaw()
            await eventually_async(lambda: bus.connected, DEADLINE_S, "connected again")
            assert (await bus.stream("MARKET")).last_seq == 0

    asyncio.run(main())


def test_live_messages_do_not_pile_up(fresh_nats: NatsServer) -> None:
    """Towards a frozen server they are dropped beyond a bound, and no call waits."""

    async def main() -> None:
        recorder = Recorder()
        async with through_proxy(fresh_nats, "indicators", recorder) as (bus, proxy):
            proxy.freeze()
            async with asyncio.timeout(DEADLINE_S):
                while not recorder.dropped:
                    await bus.publish_live("live.tick.QQQ", bytes(100_000))

    asyncio.run(main())


def test_hooks_are_told(fresh_nats: NatsServer) -> None:
    """Connections, outcomes of publishes, leases: each fact once, in order."""

    async def main() -> None:
        await make_streams(fresh_nats)
        recorder = Recorder()
        async with through_proxy(fresh_nats, "indicators", recorder) as (bus, proxy):
            feeder = await nats.connect(fresh_nats.url("ingest"), name="ingest")
            await feeder.publish("market.0", b"a", expected_last_seq=0)
            async with bus.lease("MARKET", "indicators-0"):
                await bus.publish("indicators.0", b"b", expected_last_seq=0)
                with pytest.raises(Fenced):
                    await bus.publish("indicators.0", b"b", expected_last_seq=0)
            proxy.cut(refuse=False)
            await eventually_async(
                lambda: recorder.connections == [True, False, True], DEADLINE_S, "back again"
            )
            await feeder.close()
        assert recorder.outcomes == ["stored", "fenced"]
        assert recorder.leases == [("indicators-0", True), ("indicators-0", False)]
        assert recorder.errors == []

    asyncio.run(main())


def test_a_forbidden_subject_is_counted_and_harms_nothing(fresh_nats: NatsServer) -> None:
    """The server's refusal comes on the side; what is allowed goes on."""

    async def main() -> None:
        await make_streams(fresh_nats)
        recorder = Recorder()
        async with through_proxy(fresh_nats, "ingest", recorder) as (bus, _):
            await bus.publish_live("live.tick.QQQ", b"not for ingest to say")
            await eventually_async(lambda: recorder.errors, DEADLINE_S, "the refusal")
            assert await bus.publish("market.0", b"a", expected_last_seq=0) == 1
            assert bus.connected

    asyncio.run(main())


@pytest.mark.usefixtures("_own_handlers_and_logs")
def test_a_service_refuses_a_store_of_other_settings(
    fresh_nats: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with the code that says so before it does anything."""

    async def serve(runtime: Runtime[ServiceSettings]) -> None:
        async with connect_bus(runtime):
            pytest.fail("served")

    asyncio.run(make_streams(fresh_nats))
    environ = {"KITE_NATS_URL": fresh_nats.url("writer"), "KITE_PARTITIONS": "2"}
    assert run("writer", ServiceSettings, serve, environ) == 2
    assert "KITE_PARTITIONS is '2', the store has '1'" in capsys.readouterr().err


@pytest.mark.usefixtures("_own_handlers_and_logs")
def test_a_service_waits_for_its_streams_and_counts(fresh_nats: NatsServer) -> None:
    """Not ready before the init job was there, then ready, with the bus in its metrics."""
    reasons: list[str] = []

    async def serve(runtime: Runtime[ServiceSettings]) -> None:
        async def initialise() -> None:
            await eventually_async(
                lambda: "not found" in runtime.health.reasons.get("bus", ""), DEADLINE_S, "waiting"
            )
            reasons.append(runtime.health.reasons["bus"])
            await make_streams(fresh_nats)

        making = asyncio.create_task(initialise())
        async with connect_bus(runtime) as bus:
            await making
            await eventually_async(lambda: runtime.health.ready, DEADLINE_S, "ready")
            await bus.publish("indicators.0", b"x", expected_last_seq=0)
            sample = runtime.metrics.registry.get_sample_value
            assert sample("kite_bus_connected") == 1
            assert sample("kite_bus_publishes_total", {"outcome": "stored"}) == 1
            assert sample("kite_bus_publish_seconds_count") == 1

    environ = {"KITE_NATS_URL": fresh_nats.url("indicators")}
    assert run("indicators", ServiceSettings, serve, environ) == 0
    assert reasons
