"""The bus's permissions as a list: nobody gets more than their place in the flow."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.nats.config import ServerOptions, server_config
from deploy.nats.policy import (
    BACKUP,
    GATEWAY,
    NOTIFIER,
    OPERATOR,
    PUBLIC,
    USERS,
    inbox_prefix,
    permissions,
)
from libs.common.bus import topology

# Those through which the data flows; the others have tests of their own below.
SERVICES = ["ingest", "indicators", "signals", "writer"]
OWN_STREAM = {"ingest": "market", "indicators": "indicators", "signals": "signals"}
# The only questions to JetStream that services have; none of them makes or deletes anything.
HARMLESS = (
    "$JS.API.STREAM.INFO.",
    "$JS.API.DIRECT.GET.",
    "$JS.API.CONSUMER.MSG.NEXT.",
    "$JS.API.CONSUMER.RESET.",
    "$JS.API.CONSUMER.INFO.",
    "$JS.API.CONSUMER.UNPIN.",
)


@given(st.integers(min_value=1, max_value=64))
def test_a_service_publishes_its_own_subjects_only(partitions: int) -> None:
    """Frames of its stream, its state, its live subjects, its dead letters; never another's."""
    granted = permissions(partitions)
    for service in SERVICES:
        own = OWN_STREAM.get(service)
        expected = {f"deadletter.{service}", f"live.status.{service}"}
        if own is not None:
            expected |= {f"{own}.{p}" for p in range(partitions)}
            expected |= {f"state.{service}.{p}" for p in range(partitions)}
        if service == "ingest":
            expected.add("state.ingest.desk")
        plain = {s for s in granted[service].publish if not s.startswith(("$", "live."))}
        status = {s for s in granted[service].publish if s.startswith("live.status.")}
        assert plain | status == expected


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_asks_jetstream_nothing_that_changes_streams(service: str) -> None:
    """Its requests are harmless, and its acknowledgements and consumers bear its name."""
    for subject in permissions(3)[service].publish:
        if subject.startswith("$JS.ACK."):
            consumer = subject.split(".")[3]
        elif subject.startswith("$JS.API."):
            assert subject.startswith(HARMLESS)
            assert "*" not in subject
            if ".CONSUMER." not in subject:
                continue
            consumer = subject.rsplit(".", maxsplit=1)[1]
        else:
            continue
        assert consumer.partition("-")[0] == service


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_hears_nothing_but_its_answers_and_its_like(service: str) -> None:
    """Everything it reads comes through consumers, into an inbox that is its own."""
    assert permissions(3)[service].subscribe == (
        f"{inbox_prefix(service)}.>",
        f"live.status.{service}",
    )


def test_the_gateway_reads_and_commands() -> None:
    """It faces browsers: it reads without a consumer three streams and the answers to commands."""
    granted = permissions(3)[GATEWAY]
    asked = [subject for subject in granted.publish if subject.startswith("$")]
    assert set(granted.publish) - set(asked) == {f"commands.{service}" for service in SERVICES}
    assert all(s.startswith(("$JS.API.STREAM.INFO.", "$JS.API.DIRECT.GET.")) for s in asked)
    streams = {subject.split(".")[4] for subject in asked}
    assert streams == {"MARKET", "INDICATORS", "SIGNALS", "COMMANDS", "STATE"}
    assert "$JS.API.DIRECT.GET.COMMANDS" not in asked
    of_state = [subject for subject in asked if subject.split(".")[4] == "STATE"]
    assert of_state == ["$JS.API.DIRECT.GET.STATE.state.ingest.desk"]
    assert granted.subscribe == (
        f"{inbox_prefix(GATEWAY)}.>",
        "live.tick.>",
        "live.candle.>",
        "live.signal.>",
        "live.status.*",
    )


def test_an_operator_commands_and_reads_what_was_answered() -> None:
    """A person at the command line gets no market data by it, and changes nothing else."""
    granted = permissions(3)[OPERATOR]
    assert set(granted.publish) == {
        "commands.ingest",
        "$JS.API.DIRECT.GET.STATE.state.ingest.desk",
        "$JS.API.STREAM.INFO.COMMANDS",
    }
    assert granted.subscribe == (f"{inbox_prefix(OPERATOR)}.>",)


def test_the_notifier_reads_signals_and_says_nothing() -> None:
    """It pulls from consumers of its own; every one of its requests is harmless."""
    granted = permissions(3)[NOTIFIER]
    acknowledged = {s for s in granted.publish if s.startswith("$JS.ACK.")}
    assert acknowledged == {f"$JS.ACK.SIGNALS.notifier-{partition}.>" for partition in range(3)}
    assert all(s.startswith(HARMLESS) for s in set(granted.publish) - acknowledged)
    assert granted.subscribe == (f"{inbox_prefix(NOTIFIER)}.>",)


def test_a_backup_copies_streams_and_changes_none() -> None:
    """Snapshots, their pace, and single messages to compare; what restores is the admin."""
    granted = permissions(3)[BACKUP]
    allowed = (*HARMLESS, "$JS.API.STREAM.NAMES", "$JS.API.STREAM.SNAPSHOT.", "$JS.SNAPSHOT.ACK.")
    assert all(s.startswith(allowed) for s in granted.publish)
    assert granted.subscribe == (f"{inbox_prefix(BACKUP)}.>",)


def test_only_ingest_and_indicators_and_signals_speak_on_public_subjects() -> None:
    """Each public live subject has exactly one service that publishes it."""
    granted = permissions(1)
    for subject in granted[PUBLIC].subscribe:
        speakers = [
            s for s in (*SERVICES, GATEWAY, NOTIFIER, BACKUP) if subject in granted[s].publish
        ]
        assert len(speakers) <= 1
    assert granted[PUBLIC].publish == ()


def test_every_consumer_of_the_plan_may_be_used_by_its_service() -> None:
    """What the init job makes and what the permissions name are the same consumers."""
    granted = permissions(3)
    planned = {
        (
            consumer.name.partition("-")[0],
            f"$JS.ACK.{consumer.stream}.{consumer.name}.>",
        )
        for consumer in topology.plan(3, "demo").consumers
    }
    allowed = {
        (service, subject)
        for service in (*SERVICES, NOTIFIER)
        for subject in granted[service].publish
        if subject.startswith("$JS.ACK.")
    }
    assert planned == allowed


def test_the_configuration_denies_what_is_not_listed() -> None:
    """A user without any right to publish gets a denial; an empty list would allow everything."""
    options = ServerOptions("n", "127.0.0.1:1", "127.0.0.1:2", "store", 1 << 20)
    passwords = {user: f"secret of {user}" for user in USERS}
    config = json.loads(server_config(options, permissions(2), passwords))
    users = {user["user"]: user for user in config["accounts"]["KITE"]["users"]}
    assert set(users) == set(USERS)
    assert users[PUBLIC]["permissions"]["publish"] == {"deny": [">"]}
    for user in users.values():
        for rule in user["permissions"].values():
            assert rule, f"{user['user']} has a rule that allows everything"
    assert config["jetstream"]["sync_interval"] == "always"
    assert config["listen"] == "127.0.0.1:1"
