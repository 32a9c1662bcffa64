"""The notifier as a process: every signal once, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import secrets
import signal as signals
import sys
import threading
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from cli.servers.nats import NatsServer
from tests.integration.notifier.stage import (
    DEADLINE_S,
    Notifier,
    Sink,
    delete_streams,
    feed,
    wait_told,
)
from tests.servers import Running, temporary_home
from tests.waiting import eventually_async

# Rates of tests are not those of people.
PLAIN = "per_minute_max = 600\n"


def test_every_signal_reaches_the_webhook_once(fresh_nats: NatsServer, tmp_path: Path) -> None:
    """From now on, not from the stream's beginning; and it ends in order."""

    async def scenario(sink: Sink) -> None:
        text = f'[channels.hook]\nurl = "{sink.url("s3cret-path")}"\n{PLAIN}'
        async with feed(fresh_nats) as source:
            await source.send_signals(3)
            history = {each.id for each in source.sent}
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                source.sent.clear()
                await source.send_signals(20)
                await wait_told(sink, "s3cret-path", source.sent)
                await notifier.stop()
        counts = sink.counts("s3cret-path")
        assert set(counts.values()) == {1}
        assert not history & set(counts)
        assert len(counts) == 20
        assert "s3cret" not in notifier.log

    with Sink() as sink:
        asyncio.run(scenario(sink))


def test_killed_again_and_again(fresh_nats: NatsServer, tmp_path: Path) -> None:
    """kill -9 at random moments: each signal comes, and what comes twice says so by its key.

    A webhook that heeds the key has each signal once. One that does not, and a channel that cannot,
    gets a second one only with `(repeated?)` in front.
    """
    seed = int(os.environ.get("KITE_TEST_SEED") or secrets.randbits(32))
    sys.stdout.write(f"KITE_TEST_SEED={seed}\n")  # shown when the test fails
    chance = random.Random(seed)

    async def scenario(sink: Sink) -> None:
        text = f'[channels.hook]\nurl = "{sink.url("hook")}"\n{PLAIN}'
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                for _ in range(8):
                    await source.send_signals(chance.randrange(1, 12))
                    # At most as many as are still to come.
                    left = len(source.sent) - len(sink.counts("hook"))
                    await sink.wait_received(len(sink.received) + min(left, chance.randrange(5)))
                    notifier.kill()
                    notifier.start()
                await wait_told(sink, "hook", source.sent)
                await told_of(notifier, sink)
        _once_or_marked(sink)
        assert set(sink.counts("hook")) == {each.id for each in source.sent}

    with Sink() as sink:
        asyncio.run(scenario(sink))


@pytest.mark.parametrize("seed", range(3))
def test_killed_where_nobody_may_repeat(fresh_nats: NatsServer, tmp_path: Path, seed: int) -> None:
    """With `in_doubt = "leave"` nothing ever comes twice, and what did not come is counted."""
    chance = random.Random(seed)

    async def scenario(sink: Sink) -> None:
        text = f'[channels.hook]\nurl = "{sink.url("hook")}"\nin_doubt = "leave"\n{PLAIN}'
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                for _ in range(4):
                    await source.send_signals(chance.randrange(1, 12))
                    await sink.wait_received(len(sink.received) + 1)
                    notifier.kill()
                    notifier.start()
                last = source.next_signal()
                await source.send(last)
                await wait_told(sink, "hook", [last])
        assert set(sink.counts("hook").values()) == {1}
        missing = {each.id for each in source.sent} - set(sink.counts("hook"))
        left = sum(
            int(line["messages"])
            for line in map(json.loads, notifier.whole_log.splitlines())
            if line["event"] == "notifier.recovered" and line["outcome"] == "perhaps"
        )
        assert len(missing) <= left

    with Sink() as sink:
        asyncio.run(scenario(sink))


# What a death at each point leaves: whether the webhook may hear of the signal a second time.
DEATHS = {
    "notifier.intake.before": False,
    "notifier.intake.stored": False,
    "notifier.send.before": False,
    "notifier.send.intended": True,
    "notifier.send.sent": True,
    "notifier.send.stored": False,
}


@pytest.mark.parametrize("policy", ["repeat", "leave"])
@pytest.mark.parametrize(("point", "open_question"), DEATHS.items())
def test_dies_at_every_moment_that_matters(
    fresh_nats: NatsServer, tmp_path: Path, point: str, open_question: bool, policy: str
) -> None:
    """Between the note of a try and that of its outcome nobody can know; else it is once, plainly.

    In doubt, the default repeats it with a mark, and `leave` does not.
    """

    async def scenario(sink: Sink) -> None:
        text = f'[channels.hook]\nurl = "{sink.url("hook")}"\nin_doubt = "{policy}"\n{PLAIN}'
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                notifier.arm(point)
                struck = source.next_signal()
                await source.send(struck)
                assert await asyncio.to_thread(notifier.exit_code) == -signals.SIGKILL
                assert not notifier.failpoint.exists()
                notifier.start()
                after = source.next_signal()
                await source.send(after)
                await wait_told(sink, "hook", [after])
        told = [each for each in sink.at("hook") if each.signal_id == struck.id]
        marked = [each for each in told if each.title.startswith("(repeated?) ")]
        sent_before = point == "notifier.send.sent"
        assert len(told) - len(marked) == (sent_before or not open_question)
        assert len(marked) == (open_question and policy == "repeat")
        assert len({each.key for each in told}) <= 1
        assert sink.counts("hook")[after.id] == 1

    with Sink() as sink:
        asyncio.run(scenario(sink))


def test_a_dead_channel_beside_a_live_one(fresh_nats: NatsServer, tmp_path: Path) -> None:
    """The live one is told at once; the dead one gets all of it when it is back, each once."""

    async def scenario(sink: Sink) -> None:
        sink.answers["dead"] = 503
        sink.gates["stuck"] = threading.Event()
        text = "".join(
            f'[channels.{name}]\nurl = "{sink.url(name)}"\n{PLAIN}timeout_s = 5\n'
            for name in ("dead", "live", "stuck")
        )
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                await source.send_signals(10)
                await wait_told(sink, "live", source.sent)
                await eventually_async(
                    lambda: gauge(notifier, "kite_notifier_channel_failing", "dead") == 1,
                    DEADLINE_S, "it is seen to fail",
                )  # fmt: skip
                assert gauge(notifier, "kite_notifier_channel_failing", "live") == 0
                sink.answers["dead"] = 200
                tries = len(sink.at("dead"))
                await eventually_async(
                    lambda: len(sink.at("dead")) >= tries + 10, DEADLINE_S, "it gets them all"
                )
                assert gauge(notifier, "kite_notifier_channel_failing", "dead") == 0
        delivered = sink.at("dead")[tries:]
        assert [each.signal_id for each in delivered] == [each.id for each in source.sent]
        assert not [each for each in delivered if "repeated" in each.title]
        assert set(sink.counts("live").values()) == {1}
        assert len(sink.at("stuck")) == 1

    with Sink() as sink:
        asyncio.run(scenario(sink))


def test_a_channel_that_takes_and_does_not_answer(fresh_nats: NatsServer, tmp_path: Path) -> None:
    """Whether it has the message nobody knows: the repetition says so and has the same key."""

    async def scenario(sink: Sink) -> None:
        gate = sink.gates["slow"] = threading.Event()
        text = f'[channels.slow]\nurl = "{sink.url("slow")}"\ntimeout_s = 5\n{PLAIN}'
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                await source.send_signals(1)
                await eventually_async(
                    lambda: '"outcome":"doubt"' in notifier.log, DEADLINE_S, "it gives up waiting"
                )
                gate.set()
                await sink.wait_received(2)
        first, second = sink.at("slow")
        assert (first.key, f"(repeated?) {first.title}") == (second.key, second.title)

    with Sink() as sink:
        asyncio.run(scenario(sink))


def test_late_old_and_withdrawn_signals_say_so(fresh_nats: NatsServer, tmp_path: Path) -> None:
    """What came late is marked, what is too old is summed up, what was taken back is told once."""

    async def scenario(sink: Sink) -> None:
        text = f'[channels.hook]\nurl = "{sink.url("hook")}"\n{PLAIN}'
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                fresh = source.next_signal()
                slow = source.next_signal(ago_ms=300_000)
                await source.send(fresh, slow)
                await wait_told(sink, "hook", [fresh, slow])
                found = source.next_signal(late=True)
                await source.send(found)
                await wait_told(sink, "hook", [found])
                back = structs.replace(fresh, revision=3, state="superseded", late=True)
                same = structs.replace(slow, revision=3, price=390.0, late=True)
                history = [source.next_signal(ago_ms=86_400_000 + n, late=True) for n in range(5)]
                old = [source.next_signal(ago_ms=3_600_000 + n) for n in range(12)]
                await source.send(back, same, *history, *old)
                await sink.wait_received(5)
                await source.send(back, same)
                last = source.next_signal()
                await source.send(last)
                await wait_told(sink, "hook", [last])
        titles = {each.key.partition(":")[2]: each.title for each in sink.received}
        assert len(titles) == len(sink.received) == 6
        assert titles[f"signal:{fresh.id}"] == "QQQ 1m ▲ up at 389.75"
        assert titles[f"signal:{slow.id}"] == "LATE QQQ 1m ▲ up at 389.75"
        assert titles[f"signal:{found.id}"] == "LATE QQQ 1m ▲ up at 389.75"
        assert titles[f"signal:{fresh.id}@3"] == "WITHDRAWN QQQ 1m ▲ up at 389.75"
        (summary,) = [each for each in sink.received if ":summary:" in each.key]
        assert summary.title == "12 messages were not sent one by one"
        assert "12 too old" in summary.message
        assert "QQQ up ×12" in summary.message

    with Sink() as sink:
        asyncio.run(scenario(sink))


def test_what_happened_while_it_was_down_is_told(fresh_nats: NatsServer, tmp_path: Path) -> None:
    """Down is not asleep: the position is where it was, and nothing comes twice."""

    async def scenario(sink: Sink) -> None:
        text = f'[channels.hook]\nurl = "{sink.url("hook")}"\n{PLAIN}'
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                await source.send_signals(2)
                await wait_told(sink, "hook", source.sent)
                await notifier.stop()
            await source.send_signals(5)
            with notifier:
                await wait_told(sink, "hook", source.sent)
        assert set(sink.counts("hook").values()) == {1}

    with Sink() as sink:
        asyncio.run(scenario(sink))


def test_a_stream_made_anew_is_read_from_its_beginning(
    fresh_nats: NatsServer, tmp_path: Path
) -> None:
    """What it holds is new; a signal that it holds again is not told again."""

    async def scenario(sink: Sink) -> None:
        text = f'[channels.hook]\nurl = "{sink.url("hook")}"\n{PLAIN}'
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, text) as notifier:
                await notifier.begun()
                await source.send_signals(5)
                await wait_told(sink, "hook", source.sent)
                await notifier.stop()
        await delete_streams(fresh_nats)
        async with feed(fresh_nats) as again:
            known = source.sent[-1]
            await again.send(known)
            await again.send_signals(2)
            with notifier:
                await wait_told(sink, "hook", again.sent)
                assert notifier.said("notifier.stream_anew")
        assert set(sink.counts("hook").values()) == {1}

    with Sink() as sink:
        asyncio.run(scenario(sink))


def test_nats_may_go_and_come_back(tmp_path: Path) -> None:
    """The notifier stays, says that it is not ready, and goes on where it was."""

    async def scenario(sink: Sink, running: Running, server: NatsServer) -> None:
        text = f'[channels.hook]\nurl = "{sink.url("hook")}"\n{PLAIN}'
        with Notifier(server, tmp_path, text) as notifier:
            async with feed(server) as source:
                await notifier.begun()
                await source.send_signals(3)
                await wait_told(sink, "hook", source.sent)
            await asyncio.to_thread(running.kill)
            await eventually_async(lambda: not ready(notifier), DEADLINE_S, "it is not ready")
            await asyncio.to_thread(running.start)
            async with feed(server) as after:
                after.goes_on_behind(source)
                await after.send_signals(3)
                await wait_told(sink, "hook", after.sent)
                await eventually_async(lambda: ready(notifier), DEADLINE_S, "it is ready")
            assert notifier.process.poll() is None
        assert set(sink.counts("hook").values()) == {1}

    with temporary_home() as home, Sink() as sink:
        server = NatsServer(home, partitions=1)
        with Running(server, home / "nats.log") as running:
            asyncio.run(scenario(sink, running, server))


def test_it_stops_in_order_without_a_bus(tmp_path: Path) -> None:
    """While it still waits for the first connection."""
    with Notifier(None, tmp_path, "") as notifier:
        notifier.wait_said("bus.unavailable")
        notifier.process.send_signal(signals.SIGTERM)
        assert notifier.exit_code() == 0


def test_nobody_is_told_and_that_is_said_once(fresh_nats: NatsServer, tmp_path: Path) -> None:
    """Without a channel it runs and is ready."""

    async def scenario() -> None:
        async with feed(fresh_nats) as source:
            with Notifier(fresh_nats, tmp_path, "") as notifier:
                await notifier.begun()
                await source.send_signals(2)
                await eventually_async(lambda: ready(notifier), DEADLINE_S, "it is ready")
                assert notifier.log.count("notifier.nobody_is_told") == 1

    asyncio.run(scenario())


def test_two_do_not_share_a_directory(tmp_path: Path) -> None:
    """The second one says who is in its way."""
    first, second = (Notifier(None, tmp_path, "") for _ in range(2))
    with first:
        first.wait_said("notifier.listening")
        with second:
            assert second.exit_code() == 3
        assert "another notifier holds" in second.whole_log


def test_every_mistake_in_the_file_is_a_line(tmp_path: Path) -> None:
    """Exit code 2, the channel and the field named, no address repeated."""
    text = """
        zone = "Mars/Olympus"
        [channels.phone]
        url = "nonsense://s3cret"
        [channels.desk]
        url = "json://user:s3cret@localhost/"
        tickers = "QQQ"
        quiet = ["22-7"]
        colour = "red"
    """
    with Notifier(None, tmp_path, text) as notifier:
        assert notifier.exit_code() == 2
    lines = [line for line in notifier.log.splitlines() if "service.refused" in line]
    wanted = ("zone:", "desk.tickers:", "desk.quiet:", "desk.colour:")
    assert len(lines) == len(wanted)
    assert all(any(word in line for line in lines) for word in wanted)
    assert "s3cret" not in notifier.log


def ready(notifier: Notifier) -> bool:
    """Whether it says that it is ready."""
    return httpx.get(f"{notifier.metrics_url}/readyz").status_code == 200


def gauge(notifier: Notifier, name: str, channel: str) -> float:
    """Return a sample of the notifier's metrics that has one label."""
    text = httpx.get(f"{notifier.metrics_url}/metrics").text
    (value,) = re.findall(rf'^{name}\{{channel="{channel}"\}} (\S+)$', text, re.MULTILINE)
    return float(value)


async def told_of(notifier: Notifier, sink: Sink) -> None:
    """Wait until nothing is to be sent any more."""
    empty = "\nkite_notifier_pending 0.0\n"
    await eventually_async(
        lambda: empty in httpx.get(f"{notifier.metrics_url}/metrics").text,
        DEADLINE_S, f"nothing waits; {len(sink.received)} came",
    )  # fmt: skip


def _once_or_marked(sink: Sink) -> None:
    """Of each signal one message is plain at most, and every other one is marked."""
    for identity in sink.counts("hook"):
        told = [each for each in sink.at("hook") if each.signal_id == identity]
        plain = [each for each in told if not each.title.startswith("(repeated?) ")]
        assert len(plain) <= 1, told
        assert len({each.key for each in told}) == 1, told
