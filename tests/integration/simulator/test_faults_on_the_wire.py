"""Each fault as the real client meets it, set and ended while the simulator runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from tests.schwab_client import (
    AuthlibBaseError,
    Broker,
    UnexpectedResponse,
    UnparsableMessage,
    on_simulator,
)


@on_simulator(speed=20)
async def test_a_dropped_connection_ends_without_a_word(broker: Broker) -> None:
    """1006: no close frame was received."""
    async with await broker.stream() as stream:
        await broker.faults(next={"drop": 1})
        with pytest.raises(ConnectionClosedError) as caught:
            await stream.until(lambda: False)
        assert caught.value.rcvd is None
    async with await broker.stream() as again:
        await again.raw.level_one_equity_subs(["QQQ"])
        await again.until(lambda: again.quotes)


@on_simulator(speed=20)
async def test_a_closed_connection_ends_politely(broker: Broker) -> None:
    """With a close frame."""
    async with await broker.stream() as stream:
        await broker.faults(next={"close": 1})
        with pytest.raises(ConnectionClosedOK):
            await stream.until(lambda: False)


@on_simulator()
async def test_unanswered_pings_break_the_keepalive(broker: Broker) -> None:
    """The client gives up with 1011, as it does against a dead peer."""
    await broker.faults(no_pongs=True)
    async with await broker.stream(ping_interval=0.1, ping_timeout=0.2) as stream:
        with pytest.raises(ConnectionClosedError) as caught:
            await stream.until(lambda: False)
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1011


@on_simulator(speed=20)
async def test_heartbeats_stop_while_data_goes_on(broker: Broker) -> None:
    """Forty virtual seconds bring data and not one heartbeat."""
    await broker.faults(no_heartbeats=True)
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ"])
        frames = [json.loads(await stream.text()) for _ in range(30)]
        assert all("data" in frame for frame in frames)


@on_simulator(speed=20)
async def test_data_freezes_while_heartbeats_go_on(broker: Broker) -> None:
    """Only heartbeats, until the freeze is over; then data with nothing lost."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ"])
        await broker.faults(freeze_data=True)
        while "notify" not in json.loads(await stream.text()):
            pass
        frames = [json.loads(await stream.text()) for _ in range(3)]
        assert all("notify" in frame for frame in frames)
        await broker.faults("DELETE")
        while "data" not in json.loads(await stream.text()):
            pass


@on_simulator()
async def test_a_swallowed_answer_never_comes(broker: Broker) -> None:
    """The command was carried out all the same: its image arrives."""
    async with await broker.stream() as stream:
        await broker.faults(next={"swallow_ack": 1})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await stream.raw.level_one_equity_subs(["QQQ"])
        await stream.until(lambda: stream.quotes)


@on_simulator()
async def test_a_late_answer_upsets_the_next_read(broker: Broker) -> None:
    """The client gave up on the command, and meets its answer later."""
    async with await broker.stream() as stream:
        await broker.faults(next={"late_ack": 1}, late_ack_s=0.6)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await stream.raw.level_one_equity_subs(["QQQ"])
        with pytest.raises(UnexpectedResponse):
            await stream.until(lambda: False)


@on_simulator()
async def test_a_stray_answer_upsets_a_read(broker: Broker) -> None:
    """Nobody asked for it."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ"])
        await broker.faults(next={"stray_response": 1})
        with pytest.raises(UnexpectedResponse, match="unexpected response code during message"):
            await stream.until(lambda: False)


@on_simulator()
async def test_half_a_frame_cannot_be_parsed(broker: Broker) -> None:
    """The whole one follows."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ"])
        await broker.faults(next={"malformed": 1})
        with pytest.raises(UnparsableMessage):
            await stream.until(lambda: False)
        await stream.until(lambda: len(stream.quotes) >= 2)


@on_simulator()
async def test_a_frame_beyond_a_mebibyte_needs_a_client_without_a_limit(broker: Broker) -> None:
    """With the library's default the connection ends; without it the frame is read."""
    await broker.faults(next={"big_frame": 2})
    async with await broker.stream(max_size=1 << 20) as stream:
        await stream.raw.level_one_equity_subs(["QQQ"])
        with pytest.raises(ConnectionClosedError):
            await stream.until(lambda: False)
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ"])
        await stream.until(lambda: stream.quotes)
        assert len(stream.quotes[0]["padding"]) > 1 << 20


def _has_twins(numbers: list[int]) -> bool:
    return len(set(numbers)) < len(numbers)


def _is_unordered(numbers: list[int]) -> bool:
    return numbers != sorted(numbers)


def _has_a_hole(numbers: list[int]) -> bool:
    return len(set(numbers)) < max(numbers) - min(numbers) + 1


@pytest.mark.parametrize(
    ("kind", "shows"),
    [("duplicate_bar", _has_twins), ("late_bar", _is_unordered), ("missing_bar", _has_a_hole)],
)
def test_bars_come_twice_late_or_never(kind: str, shows: Callable[[list[int]], bool]) -> None:
    """Their numbers tell which; a fourth bar later all is well again."""

    @on_simulator(speed=600)
    async def scenario(broker: Broker) -> None:
        async with await broker.stream() as stream:
            await stream.raw.chart_equity_subs(["QQQ"])
            await stream.until(lambda: stream.bars)
            await broker.faults(next={kind: 1})
            await stream.until(lambda: shows([bar["seq"] for bar in stream.bars]))
            struck = len(stream.bars)
            await stream.until(lambda: len(stream.bars) >= struck + 3)
            numbers = [bar["seq"] for bar in stream.bars[-3:]]
            assert numbers == list(range(numbers[0], numbers[0] + 3))

    scenario()


@on_simulator(speed=10)
async def test_a_halted_symbol_says_so(broker: Broker) -> None:
    """Security status Halted, then Normal again."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ", "SPY"])
        await broker.faults(halted=["QQQ"])
        await stream.until(lambda: stream.state("QQQ").get("SECURITY_STATUS") == "Halted")
        await broker.faults("DELETE")
        await stream.until(lambda: stream.state("QQQ")["SECURITY_STATUS"] == "Normal")


@on_simulator(speed=10)
async def test_volume_starts_again(broker: Broker) -> None:
    """The day's total falls without a new day."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ"])
        await stream.until(lambda: stream.quotes)
        before = stream.state("QQQ")["TOTAL_VOLUME"]
        await broker.faults(next={"volume_reset": 1})
        await stream.until(lambda: stream.state("QQQ")["TOTAL_VOLUME"] < before)


@on_simulator()
async def test_a_stalled_stream_bursts_with_old_stamps(broker: Broker) -> None:
    """The gap shows in arrival times, not in stamps; nothing is lost."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["NVDA"])
        await stream.until(lambda: stream.quotes)
        loop = asyncio.get_running_loop()
        arrivals = [loop.time()]
        stamps: list[int] = []
        await broker.faults(next={"stall": 1}, stall_s=2.0)
        while len(stamps) < 5:
            frame = json.loads(await stream.text())
            if "data" in frame:
                arrivals.append(loop.time())
                stamps.append(frame["data"][0]["timestamp"])
        waits = [b - a for a, b in pairwise(arrivals)]
        assert max(waits) > 1.5
        assert min(waits) < 0.3
        assert min(b - a for a, b in pairwise(stamps)) > 700


@on_simulator(speed=10)
async def test_hostile_frames_are_delivered_as_they_are(broker: Broker) -> None:
    """Their whole catalogue over time; the simulator itself survives sending it."""
    await broker.faults(next={"hostile": 40})
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ"])
        while (await broker.faults("GET"))["struck"].get("hostile") != 40:
            await stream.text()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, AuthlibBaseError),
        (401, AuthlibBaseError),
        (403, httpx.HTTPStatusError),
        (429, AuthlibBaseError),
        (500, httpx.HTTPStatusError),
    ],
)
def test_a_failing_token_endpoint_raises_in_the_client(status: int, error: type[Exception]) -> None:
    """Each in the way that the library has for it; afterwards the old token still refreshes."""

    @on_simulator()
    async def scenario(broker: Broker) -> None:
        token = await broker.login()
        await broker.faults(token_status=status)
        with pytest.raises(error):
            await (await broker.client(token, expires_in=10)).get_user_preferences()
        await broker.faults("DELETE")
        reply = await (await broker.client(token, expires_in=10)).get_user_preferences()
        assert reply.status_code == 200

    scenario()


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502])
def test_a_failing_api_answers_with_its_status(status: int) -> None:
    """403 is the page of the network's edge, not JSON."""

    @on_simulator()
    async def scenario(broker: Broker) -> None:
        client = await broker.client()
        await broker.faults(rest_status=status)
        reply = await client.get_quotes(["QQQ"])
        assert reply.status_code == status
        assert reply.text.startswith("<" if status == 403 else "{")

    scenario()


@on_simulator()
async def test_faults_are_changed_replaced_and_ended(broker: Broker) -> None:
    """POST changes what it names, PUT replaces all, DELETE ends all."""
    await broker.faults(no_pongs=True)
    both = (await broker.faults(no_heartbeats=True))["faults"]
    assert both["no_pongs"]
    assert both["no_heartbeats"]
    one = (await broker.faults("PUT", freeze_data=True))["faults"]
    assert one["freeze_data"]
    assert not one["no_pongs"]
    assert not (await broker.faults("DELETE"))["faults"]["freeze_data"]


@on_simulator()
async def test_the_control_endpoints_are_closed_to_strangers(broker: Broker) -> None:
    """Without the token 401, with nonsense 400."""
    for path in ("/sim/faults", "/sim/ledger"):
        assert (await broker.http.get(path)).status_code == 401
    headers = {"Authorization": "Bearer open"}
    reply = await broker.http.post("/sim/faults", content=b"{", headers=headers)
    assert reply.status_code == 400
    reply = await broker.http.post("/sim/faults", json={"nope": 1}, headers=headers)
    assert reply.status_code == 400


@on_simulator(control_token="")
async def test_without_a_token_there_are_no_control_endpoints(broker: Broker) -> None:
    """The default."""
    assert (await broker.http.get("/sim/faults")).status_code == 404


@on_simulator(speed=600)
async def test_the_ledger_agrees_with_the_reader(broker: Broker) -> None:
    """What was received is what was noted, bar by bar."""
    async with await broker.stream() as stream:
        await stream.raw.chart_equity_subs(["QQQ"])
        await stream.until(lambda: len(stream.bars) >= 5)
        await stream.raw.chart_equity_unsubs(["QQQ"])
        while stream.raw._overflow_items:
            await stream.next()
        noted = await broker.ledger()
        assert noted["sent"]["CHART_EQUITY"]["QQQ"]["items"] == len(stream.bars)
        assert noted["acknowledged"]["CHART_EQUITY SUBS 0"] == 1
