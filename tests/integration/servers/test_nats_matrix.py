"""Every user of the bus on every subject, published and subscribed, tried on the real server.

What is expected is written here by hand, as patterns of whole subjects, and not made of the policy
that is tried.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from itertools import product

import pytest

from cli.servers.nats import NatsServer
from deploy.nats.policy import USERS
from libs.common.bus import nkey
from libs.common.bus.link import Address
from tests.conftest import NATS_PARTITIONS

STREAMS = ("MARKET", "INDICATORS", "SIGNALS", "TRADES", "STATE", "DEADLETTER", "COMMANDS")
SERVICES = ("ingest", "indicators", "signals", "writer", "notifier", "gateway", "backup")
INSIDE = ("0", str(NATS_PARTITIONS - 1))
OUTSIDE = str(NATS_PARTITIONS)
PLACES = (*INSIDE, OUTSIDE)
CONSUMERS = [
    *(f"{who}-{p}" for who in ("indicators", "signals", "writer", "notifier") for p in PLACES),
    "ingest", "indicators", "signals", "writer", "notifier", "gateway", "mine",
]  # fmt: skip
_REFUSED = re.compile(r"""-ERR 'Permissions Violation for (?:Publish|Subscription) to "(.*)"'""")

# -- what there is to try --------------------------------------------------------------------------


def frames() -> Iterator[str]:
    """Yield every durable subject, also of partitions that there are not."""
    for stream, partition in product(("market", "indicators", "signals"), PLACES):
        yield f"{stream}.{partition}"
    for service, partition in product((*SERVICES, "stranger"), PLACES):
        yield f"state.{service}.{partition}"
    for service in (*SERVICES, "stranger"):
        yield f"deadletter.{service}"
        yield f"commands.{service}"
        yield f"state.{service}.desk"
    yield from ("trades.paper", "market", "market.0.0", "anything")


def live() -> Iterator[str]:
    """Yield live subjects and everybody's inbox."""
    yield from ("live.tick.QQQ", "live.candle.1m.QQQ", "live.signal.QQQ", "live.option.QQQ")
    yield from ("live.trade.paper", "live.other")
    for service in (*SERVICES, "stranger"):
        yield f"live.status.{service}"
    for user in USERS:
        yield f"_INBOX_{user}.abc.1"
    yield "_INBOX.abc.1"


def stream_requests() -> Iterator[str]:
    """Yield what JetStream can be asked about streams."""
    verbs = (
        "CREATE", "UPDATE", "DELETE", "PURGE", "INFO", "SNAPSHOT", "RESTORE", "MSG.GET",
        "MSG.DELETE", "LEADER.STEPDOWN", "PEER.REMOVE",
    )  # fmt: skip
    yield from ("$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES")
    for verb, stream in product(verbs, (*STREAMS, "MINE")):
        yield f"$JS.API.STREAM.{verb}.{stream}"
    for stream in STREAMS:
        yield f"$JS.API.DIRECT.GET.{stream}"
        yield f"$JS.SNAPSHOT.ACK.{stream}.abc"
        yield f"$JS.SNAPSHOT.RESTORE.{stream}.abc"
        for partition in PLACES:
            yield f"$JS.API.DIRECT.GET.{stream}.{stream.lower()}.{partition}"
    for service, partition in product(SERVICES, PLACES):
        yield f"$JS.API.DIRECT.GET.STATE.state.{service}.{partition}"
    for service in SERVICES:
        yield f"$JS.API.DIRECT.GET.COMMANDS.commands.{service}"
        yield f"$JS.API.DIRECT.GET.STATE.state.{service}.desk"
    yield from ("$JS.API.META.LEADER.STEPDOWN", "$JS.API.ACCOUNT.PURGE.KITE", "$JS.FC.abc")
    yield from ("$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.KITE.CONNZ", "$SRV.PING")


def consumer_requests() -> Iterator[str]:
    """Yield what JetStream can be asked about consumers."""
    verbs = (
        "CREATE", "DURABLE.CREATE", "DELETE", "INFO", "PAUSE", "RESET", "UNPIN", "MSG.NEXT",
        "LEADER.STEPDOWN",
    )  # fmt: skip
    for stream in STREAMS:
        yield f"$JS.API.CONSUMER.CREATE.{stream}"
        yield f"$JS.API.CONSUMER.LIST.{stream}"
        yield f"$JS.API.CONSUMER.NAMES.{stream}"
        for consumer in CONSUMERS:
            yield from (f"$JS.API.CONSUMER.{verb}.{stream}.{consumer}" for verb in verbs)
            yield f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{stream.lower()}.0"
            yield f"$JS.ACK.{stream}.{consumer}.1.2.3.4.5"


WILDCARDS = (
    ">", "*", "live.>", "live.*.>", "live.tick.>", "live.candle.>", "live.candle.1m.*",
    "live.signal.>", "live.signal.*", "live.option.>", "live.trade.>", "live.status.>",
    "live.status.*", "market.>", "market.*", "indicators.*", "signals.*", "state.>", "trades.>",
    "commands.>", "deadletter.>", "_INBOX.>", "$JS.>", "$JS.API.>", "$JS.ACK.>", "$SYS.>",
    *(f"_INBOX_{user}.>" for user in USERS),
)  # fmt: skip

EVERYTHING = [*frames(), *live(), *stream_requests(), *consumer_requests()]

# -- who may what ----------------------------------------------------------------------------------

P = "[0-7]"
ANY = ".*"
OWN_STORE = [r"\$JS\.API\.STREAM\.INFO\.COMMANDS"]


def stored(stream: str) -> list[str]:
    """Any stored message of a stream, and how it stands."""
    return [rf"\$JS\.API\.STREAM\.INFO\.{stream}", rf"\$JS\.API\.DIRECT\.GET\.{stream}(\..*)?"]


def pulls(stream: str, consumer: str, subject: str) -> list[str]:
    """All that a consumer's owner does, and the newest message of its subject."""
    return [
        rf"\$JS\.API\.CONSUMER\.(MSG\.NEXT|RESET|UNPIN|INFO)\.{stream}\.{consumer}",
        rf"\$JS\.ACK\.{stream}\.{consumer}\..*",
        rf"\$JS\.API\.DIRECT\.GET\.{stream}\.{subject}",
    ]


def flow(service: str) -> list[str]:
    """What the four services have in common."""
    return [
        rf"deadletter\.{service}",
        rf"live\.status\.{service}",
        *pulls("COMMANDS", service, rf"commands\.{service}"),
        *OWN_STORE,
    ]


PUBLISH = {
    "admin": [ANY],
    "ingest": [
        rf"(market|state\.ingest)\.{P}", r"state\.ingest\.desk",
        *stored("MARKET"), *stored("STATE"), *flow("ingest"),
    ],
    "indicators": [
        rf"(indicators|state\.indicators)\.{P}", r"live\.(tick|candle)\..*",
        r"\$JS\.API\.STREAM\.INFO\.MARKET", *pulls("MARKET", f"indicators-{P}", rf"market\.{P}"),
        *stored("INDICATORS"), *stored("STATE"), *flow("indicators"),
    ],
    "signals": [
        rf"(signals|state\.signals)\.{P}", r"live\.signal\..*",
        r"\$JS\.API\.STREAM\.INFO\.INDICATORS",
        *pulls("INDICATORS", f"signals-{P}", rf"indicators\.{P}"),
        *stored("SIGNALS"), *stored("STATE"), *flow("signals"),
    ],
    "writer": [
        *pulls("(MARKET|INDICATORS|SIGNALS)", f"writer-{P}", "nothing"),
        *stored("(MARKET|INDICATORS|SIGNALS)"), *flow("writer"),
    ],
    "notifier": [
        r"\$JS\.API\.STREAM\.INFO\.SIGNALS", *pulls("SIGNALS", f"notifier-{P}", rf"signals\.{P}"),
        *OWN_STORE,
    ],
    "gateway": [
        r"commands\.(ingest|indicators|signals|writer)", *stored("(MARKET|INDICATORS|SIGNALS)"),
        r"\$JS\.API\.DIRECT\.GET\.STATE\.state\.ingest\.desk", *OWN_STORE,
    ],
    "operator": [
        r"commands\.ingest", r"\$JS\.API\.DIRECT\.GET\.STATE\.state\.ingest\.desk", *OWN_STORE,
    ],
    "backup": [
        r"\$JS\.API\.STREAM\.(NAMES|(INFO|SNAPSHOT)\.[A-Z]+)", r"\$JS\.API\.DIRECT\.GET\.[A-Z]+",
        r"\$JS\.SNAPSHOT\.ACK\..*",
    ],
    "observer": [
        r"\$JS\.API\.INFO", r"\$JS\.API\.STREAM\.(LIST|NAMES|(INFO|MSG\.GET)\.[A-Z]+)",
        r"\$JS\.API\.DIRECT\.GET\..*", r"\$JS\.API\.CONSUMER\.(LIST|NAMES)\.[A-Z]+",
        r"\$JS\.API\.CONSUMER\.INFO\.[A-Z]+\.[^.]+",
    ],
    "public": [],
}  # fmt: skip

PRICES = r"live\.(tick|candle|signal)\..*"
SUBSCRIBE = {
    "admin": [ANY],
    **{
        service: [rf"_INBOX_{service}\..*", rf"live\.status\.{service}"]
        for service in ("ingest", "indicators", "signals", "writer")
    },
    "notifier": [r"_INBOX_notifier\..*"],
    # Where `*` is allowed, the server takes a `>` that somebody subscribes to for one more token.
    "gateway": [r"_INBOX_gateway\..*", PRICES, r"live\.status\.(\*|>|[a-z]+)"],
    "operator": [r"_INBOX_operator\..*"],
    "backup": [r"_INBOX_backup\..*"],
    "observer": [ANY],
    "public": [PRICES, r"live\.option\..*"],
}


def matching(patterns: Iterable[str], subjects: Iterable[str]) -> set[str]:
    """Return the subjects that one of the patterns describes whole."""
    known = [re.compile(pattern) for pattern in patterns]
    return {each for each in subjects if any(pattern.fullmatch(each) for pattern in known)}


# -- trying ----------------------------------------------------------------------------------------


def credentials(address: Address, nonce: str) -> dict[str, str | None]:
    """Return how to log in: by a key, or by a password where the policy says so."""
    if not address.has_key:
        return {"user": address.user, "pass": address.password}
    seed = address.password or ""
    return {"nkey": nkey.public_key(seed), "sig": nkey.sign(seed, nonce).decode()}


async def try_out(server: NatsServer, user: str, subjects: list[str], verb: str) -> set[str]:
    """Publish or subscribe to all of them as `user`; return those that were not refused.

    By the bare protocol: it is the server that is tried, and all it says must be heard.
    """
    address = Address.parse(server.url(user))
    host, _, port = address.server.removeprefix("nats://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        login = {"verbose": False, **credentials(address, info["nonce"])}
        writer.write(f"CONNECT {json.dumps(login)}\r\n".encode())
        for number, subject in enumerate(subjects):
            writer.write(
                f"PUB {subject} 0\r\n\r\n".encode()
                if verb == "publish"
                else f"SUB {subject} {number}\r\n".encode()
            )
        writer.write(b"PING\r\n")  # whose answer comes after all refusals
        refused: set[str] = set()
        async with asyncio.timeout(30):
            while (line := await reader.readline()) != b"PONG\r\n":
                found = _REFUSED.match(line.decode())
                # What the observer hears meanwhile is no answer to it.
                assert found or user in ("admin", "observer"), line
                refused |= {found.group(1)} if found else set()
    finally:
        writer.close()
        await writer.wait_closed()
    return set(subjects) - refused


def test_the_table_is_about_every_user() -> None:
    """A new user has to be written down here."""
    assert set(PUBLISH) == set(SUBSCRIBE) == set(USERS)
    assert len(EVERYTHING) == len(set(EVERYTHING)) > 1000


@pytest.mark.parametrize("user", USERS)
def test_every_user_publishes_its_own_and_nothing_else(fresh_nats: NatsServer, user: str) -> None:
    """Frames, live values, requests to JetStream, acknowledgements: over a thousand subjects."""
    allowed = asyncio.run(try_out(fresh_nats, user, EVERYTHING, "publish"))
    assert allowed == matching(PUBLISH[user], EVERYTHING)


@pytest.mark.parametrize("user", USERS)
def test_every_user_hears_its_own_and_nothing_else(fresh_nats: NatsServer, user: str) -> None:
    """The same subjects, and the wildcards that somebody curious would try."""
    subjects = [*frames(), *live(), *stream_requests(), *WILDCARDS]
    allowed = asyncio.run(try_out(fresh_nats, user, subjects, "subscribe"))
    assert allowed == matching(SUBSCRIBE[user], subjects)
