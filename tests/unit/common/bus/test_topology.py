"""The plan of streams and consumers: pure, and in step with those who rely on it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from deploy.nats.policy import permissions
from libs.common import subjects
from libs.common.bus import topology
from libs.common.bus.topology import ResultSettings
from libs.common.settings import ServiceSettings
from services.indicators.settings import IndicatorsSettings
from services.signals.settings import SignalsSettings

PLAN = topology.plan(3, "demo")


def defaults_of(settings: type[ServiceSettings]) -> dict[str, Any]:
    """Return the defaults of a service's settings."""
    return {
        field.name: field.default
        for field in msgspec.structs.fields(settings)
        if field.default is not msgspec.NODEFAULT
    }


class TestPlan:
    """What there is, for so many partitions."""

    def test_every_stream_has_its_own_subjects(self) -> None:
        """A message belongs to one stream."""
        patterns = [pattern for stream in PLAN.streams for pattern in stream.subjects]
        assert len(patterns) == len(set(patterns)) == len(PLAN.streams)
        assert {stream.name for stream in PLAN.streams} >= set(subjects.DURABLE_STREAMS)

    def test_every_reader_has_a_consumer_for_each_partition(self) -> None:
        """Named by service and number, of exactly that partition's subject."""
        consumers = {(each.stream, each.name): each.subject for each in PLAN.consumers}
        for partition in range(3):
            assert consumers["MARKET", f"indicators-{partition}"] == f"market.{partition}"
            assert consumers["INDICATORS", f"signals-{partition}"] == f"indicators.{partition}"
            for stream in subjects.DURABLE_STREAMS:
                subject = subjects.frame_subject(stream, partition)
                assert consumers[stream, f"writer-{partition}"] == subject
            assert consumers["SIGNALS", f"notifier-{partition}"] == f"signals.{partition}"
        assert len(consumers) == len(PLAN.consumers) == 3 * 6 + len(topology.COMMANDED)

    def test_only_checkpoints_and_dead_letters_are_dropped_when_full(self) -> None:
        """All others refuse, so that nothing is lost before it is read."""
        dropping = {stream.name for stream in PLAN.streams if stream.discard == "old"}
        assert dropping == {"STATE", "DEADLETTER"}

    def test_positions_and_trades_never_age(self) -> None:
        """STATE and TRADES have no bound in age; the others have."""
        ageless = {stream.name for stream in PLAN.streams if stream.age_ms_max == 0}
        assert ageless == {"STATE", "TRADES"}

    @pytest.mark.parametrize("partitions", [1, 64, 1024])
    def test_state_has_room_for_every_partition(self, partitions: int) -> None:
        """However small the other streams are made, no checkpoint is pushed out."""
        plan = topology.plan(partitions, "demo", stream_bytes_max=1 << 20)
        (state,) = (stream for stream in plan.streams if stream.name == "STATE")
        assert state.bytes_max >= partitions * 3 * 2 * 256 * 1024

    def test_the_stream_that_tells_that_all_is_made_comes_last(self) -> None:
        """Who finds it finds everything."""
        assert PLAN.streams[-1].name == topology.CHECKED_STREAM

    def test_every_consumer_may_be_used_by_its_service(self) -> None:
        """The permissions grant what a lease asks for, consumer by consumer."""
        granted = permissions(3)
        for consumer in PLAN.consumers:
            user = consumer.name.rpartition("-")[0] or consumer.name
            place = f"{consumer.stream}.{consumer.name}"
            assert {
                f"$JS.API.DIRECT.GET.{consumer.stream}.{consumer.subject}",
                f"$JS.API.CONSUMER.MSG.NEXT.{place}",
                f"$JS.API.CONSUMER.RESET.{place}",
                f"$JS.API.CONSUMER.UNPIN.{place}",
                f"$JS.API.CONSUMER.INFO.{place}",
                f"$JS.ACK.{place}.>",
            } <= set(granted[user].publish)


class TestResultSettings:
    """The settings that change results, named in one place."""

    @pytest.mark.parametrize("settings", [IndicatorsSettings, SignalsSettings])
    def test_defaults_are_those_of_the_services(self, settings: type[ServiceSettings]) -> None:
        """What a service does when nothing is set is what the store is made for."""
        ours = {field.name: field.default for field in msgspec.structs.fields(ResultSettings)}
        theirs = defaults_of(settings)
        shared = ours.keys() & theirs.keys()
        assert shared
        assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}

    def test_none_is_missing(self) -> None:
        """A service's own settings change results; those that do not would be named here."""
        common = {field.name for field in msgspec.structs.fields(ServiceSettings)}
        own = (defaults_of(IndicatorsSettings) | defaults_of(SignalsSettings)).keys() - common
        assert own == set(ResultSettings.__struct_fields__)

    def test_the_hash_tells_them_apart(self) -> None:
        """Equal settings have one hash, each difference another."""
        hashes = {
            topology.settings_hash(settings)
            for settings in (
                ResultSettings(),
                ResultSettings(sma_continuous=True),
                ResultSettings(vwap_price="hlc3"),
                ResultSettings(extras=("ema9",)),
                ResultSettings(extras=("ema9", "rsi14")),
                ResultSettings(signal_timeframes=("1m", "5m")),
            )
        }
        assert len(hashes) == 6
        assert topology.settings_hash(ResultSettings()) in hashes

    def test_stands_in_the_metadata(self) -> None:
        """With partitions and source, as text."""
        metadata = PLAN.metadata
        assert (metadata["kite.partitions"], metadata["kite.source"]) == ("3", "demo")
        assert metadata["kite.settings_hash"] == topology.settings_hash(ResultSettings())
