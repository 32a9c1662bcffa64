"""The real client against the simulator: login, REST, and the stream with each of its answers."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from services.simulator.csv_bars import load
from services.simulator.market import session_of
from services.simulator.synthetic import SyntheticMarket
from tests.schwab_client import (
    KEY,
    SECRET,
    AuthlibBaseError,
    Broker,
    Stream,
    UnexpectedResponse,
    UnexpectedResponseCode,
    on_simulator,
)
from tests.waiting import eventually_async

DATA = Path(__file__).resolve().parents[2] / "data"
MARKET = SyntheticMarket("1")
FRIDAY = session_of(dt.date(2026, 11, 20))
START_MS = FRIDAY.open_ms + 3_600_000


async def refused(stream: Stream, service: str, command: str = "SUBS") -> int:
    """Send a command that must fail; return the code."""
    with pytest.raises(UnexpectedResponseCode) as caught:
        await stream.raw._service_op(["QQQ"], service, command, stream.raw.LevelOneEquityFields)
    code: int = caught.value.response["response"][0]["content"]["code"]
    return code


# -- login and REST -------------------------------------------------------------------------------


@on_simulator()
async def test_an_old_token_is_refreshed_by_the_first_request(broker: Broker) -> None:
    """The client takes the new one, writes it through, and it works."""
    client = await broker.client(expires_in=10)
    before = client.token_metadata.token["access_token"]
    reply = await client.get_user_preferences()
    assert reply.status_code == 200
    assert [token["token"]["access_token"] for token in broker.tokens] != [before]
    assert len(broker.tokens) == 1


@on_simulator(access_token_s=1, requests_per_minute=0)
async def test_a_dead_token_is_not_authorized(broker: Broker) -> None:
    """401 with the broker's body, as soon as its virtual life is over."""
    client = await broker.client()

    async def refusal() -> Any:
        reply = await client.get_user_preferences()
        return reply if reply.status_code != 200 else None

    reply = await eventually_async(refusal, 10, "the token dies")
    assert reply.status_code == 401
    assert reply.json()["errors"][0]["detail"] == "Client not authorized"


@on_simulator(refresh_token_s=1, speed=1000)
async def test_a_dead_refresh_token_needs_a_new_login(broker: Broker) -> None:
    """The client raises the broker's error."""
    token = await broker.login()
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}

    async def dead() -> bool:
        reply = await broker.http.post("/v1/oauth/token", data=form, auth=(KEY, SECRET))
        return reply.status_code == 400

    await eventually_async(dead, 10, "the refresh token dies")
    client = await broker.client(token, expires_in=10)
    with pytest.raises(AuthlibBaseError, match="refresh_token_authentication_error"):
        await client.get_user_preferences()


@on_simulator()
async def test_price_history_is_the_market(broker: Broker) -> None:
    """Every minute of today up to now, as the real client asks for it."""
    client = await broker.client()
    reply = await client.get_price_history_every_minute(
        "QQQ", start_datetime=dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    )
    today = [c for c in reply.json()["candles"] if c["datetime"] >= FRIDAY.pre_open_ms]
    bars = [bar for bar in MARKET.bars("QQQ", FRIDAY.day) if bar.ts_ms < START_MS]
    assert [(c["datetime"], c["open"], c["high"], c["low"], c["close"], c["volume"])
            for c in today] == bars  # fmt: skip


@on_simulator(unknown_symbol="404")
async def test_an_unknown_symbol_can_be_an_error(broker: Broker) -> None:
    """Empty by default, 404 where the switch says so."""
    client = await broker.client()
    assert (await client.get_price_history_every_minute("not one")).status_code == 404


@on_simulator()
async def test_all_frequencies_are_served(broker: Broker) -> None:
    """Every helper of the real client gets candles."""
    client = await broker.client()
    start = dt.datetime(2026, 11, 2, tzinfo=dt.UTC)
    for ask in (
        client.get_price_history_every_five_minutes,
        client.get_price_history_every_ten_minutes,
        client.get_price_history_every_fifteen_minutes,
        client.get_price_history_every_thirty_minutes,
        client.get_price_history_every_day,
        client.get_price_history_every_week,
    ):
        reply = await ask("SPY", start_datetime=start, need_previous_close=True)
        body = reply.json()
        assert reply.status_code == 200, body
        assert len(body["candles"]) >= 3
        assert body["previousClose"] > 0


@on_simulator()
async def test_a_bad_request_is_explained(broker: Broker) -> None:
    """400 with the parameter to blame; a date out of range in the broker's words."""
    client = await broker.client()
    history = client.PriceHistory
    reply = await client.get_price_history(
        "QQQ",
        period_type=history.PeriodType.DAY,
        frequency_type=history.FrequencyType.DAILY,
    )
    assert reply.status_code == 400
    assert reply.json()["errors"][0]["source"] == {"parameter": "frequencyType"}
    reply = await client.get_market_hours(
        [client.MarketHours.Market.EQUITY], date=dt.date(2020, 1, 1)
    )
    assert reply.status_code == 400
    assert "7 days in the past" in reply.json()["errors"][0]["detail"]


@on_simulator()
async def test_quotes_come_with_the_bad_symbols_beside(broker: Broker) -> None:
    """Status 200, unknown ones listed."""
    client = await broker.client()
    body = (await client.get_quotes(["QQQ", "SPY", "no-such"])).json()
    assert body["QQQ"]["quote"]["lastPrice"] > 0
    assert body["errors"] == {"invalidSymbols": ["NO-SUCH"]}
    assert (await client.get_quote("SPY")).json()["SPY"]["symbol"] == "SPY"


@on_simulator()
async def test_market_hours_are_those_of_virtual_time(broker: Broker) -> None:
    """Today is the simulator's today."""
    client = await broker.client()
    market = client.MarketHours.Market
    body = (await client.get_market_hours([market.EQUITY, market.OPTION])).json()
    assert body["equity"]["EQ"]["date"] == "2026-11-20"
    assert body["option"]["EQO"]["isOpen"]


@on_simulator(requests_per_minute=5)
async def test_too_many_requests_are_refused(broker: Broker) -> None:
    """The sixth request of a minute gets 429."""
    client = await broker.client()
    codes = [(await client.get_user_preferences()).status_code for _ in range(6)]
    assert codes == [200] * 5 + [429]


@on_simulator()
async def test_strangers_get_nothing(broker: Broker) -> None:
    """No token, no data; no such page, 404; a login with a wrong callback ends on a page."""
    assert (await broker.http.get("/marketdata/v1/quotes?symbols=QQQ")).status_code == 401
    token = await broker.login()
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    assert (await broker.http.get("/marketdata/v1/no", headers=headers)).status_code == 404
    page = await broker.http.get(
        "/v1/oauth/authorize?response_type=code&client_id=x&redirect_uri=https://x"
    )
    assert page.status_code == 401
    assert "Access Denied" in page.text


# -- stream ---------------------------------------------------------------------------------------


@on_simulator()
async def test_an_image_comes_first_and_deltas_follow(broker: Broker) -> None:
    """With the client's names; a delta holds less than the image."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs(["QQQ", "SPY"])
        await stream.until(lambda: len(stream.quotes) >= 6)
        image, delta = stream.quotes[0], stream.quotes[-1]
        assert image["LAST_PRICE"] > 0
        assert image["DESCRIPTION"] == "Invesco QQQ Trust"
        assert len(delta) < len(image)
        assert stream.state("QQQ")["TRADE_TIME_MILLIS"] >= START_MS - 60_000


@on_simulator(speed=600)
async def test_symbols_come_and_go(broker: Broker) -> None:
    """ADD brings an image, UNSUBS silence."""
    async with await broker.stream() as stream:
        fields = [stream.raw.LevelOneEquityFields.LAST_PRICE]
        await stream.raw.level_one_equity_subs(["QQQ"], fields=fields)
        await stream.raw.level_one_equity_add(["SPY"], fields=fields)
        await stream.until(lambda: {item["key"] for item in stream.quotes} == {"QQQ", "SPY"})
        await stream.raw.level_one_equity_unsubs(["QQQ"])
        await stream.until(lambda: not stream.raw._overflow_items)
        stream.quotes.clear()
        await stream.until(lambda: len(stream.quotes) >= 20)
        assert {item["key"] for item in stream.quotes} == {"SPY"}


@on_simulator(speed=1200)
async def test_streamed_bars_are_those_of_history(broker: Broker) -> None:
    """Minute by minute, without a hole in their numbers."""
    async with await broker.stream() as stream:
        await stream.raw.chart_equity_subs(["QQQ"])
        await stream.until(lambda: len(stream.bars) >= 20)
        client = await broker.client()
        candles = {
            c["datetime"]: c
            for c in (await client.get_price_history_every_minute("QQQ")).json()["candles"]
        }
        for bar in stream.bars:
            candle = candles[bar["CHART_TIME_MILLIS"]]
            assert [bar[f"{name}_PRICE"] for name in ("OPEN", "HIGH", "LOW", "CLOSE")] == [
                candle[name] for name in ("open", "high", "low", "close")
            ]
            assert bar["VOLUME"] == candle["volume"]
        numbers = [bar["seq"] for bar in stream.bars]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


FXY = DATA / "FXY-1min-2023-11.csv"


# Three virtual weeks are over in seconds, so the login happens before time begins.
@on_simulator(csv=(str(FXY),), start="", speed=100_000, wait_for_subscription=True)
async def test_a_recorded_month_is_played_to_its_end(broker: Broker) -> None:
    """All bars of all days, in order and once, nights skipped."""
    market, _ = load({"FXY": FXY}, "1", 12)
    rows = [bar for day in sorted(market._bars["FXY"]) for bar in market.bars("FXY", day)]
    names = ("CHART_TIME_MILLIS", "OPEN_PRICE", "HIGH_PRICE", "LOW_PRICE", "CLOSE_PRICE", "VOLUME")
    async with await broker.stream() as stream:
        await stream.raw.chart_equity_subs(["FXY"])
        await stream.until(lambda: len(stream.bars) >= len(rows))
        assert [tuple(bar[name] for name in names) for bar in stream.bars] == rows
        assert stream.stamps == sorted(stream.stamps)


@on_simulator(load_frames_per_s=250, load_items=80)
async def test_a_slow_reader_gets_old_frames_but_all_of_them(broker: Broker) -> None:
    """While nobody reads, the simulator waits; then every frame comes, in order, with its stamp."""
    async with await broker.stream(max_queue=1) as stream:
        await stream.raw.level_one_equity_subs([f"L{number}" for number in range(80)])
        await eventually_async(lambda: broker.lag_ms() > 1_000, 30, "the socket is full")
        stamps: list[int] = []
        while not stamps or stamps[-1] - stamps[0] < 1_200:
            # Parsing what is queued up would take most of the test's time.
            head = (await stream.text())[:100]
            stamps += [int(found) for found in re.findall(r'"timestamp":(\d+),"command"', head)]
        first, *rest = stamps[1:]  # the image came between two frames
        assert rest == list(range(first + 4, first + 4 + 4 * len(rest), 4))


@on_simulator(speed=20)
async def test_heartbeats_tell_virtual_time(broker: Broker) -> None:
    """Every ten virtual seconds; the client swallows them, so the socket is read past it."""
    async with await broker.stream() as stream:
        beats = [json.loads(await stream.text()) for _ in range(3)]
        times = [int(beat["notify"][0]["heartbeat"]) for beat in beats]
        assert [times[1] - times[0], times[2] - times[1]] == [10_000, 10_000]


@on_simulator()
async def test_pings_are_answered(broker: Broker) -> None:
    """The client's keepalive depends on it."""
    async with await broker.stream() as stream:
        pong = await stream.raw._socket.ping()
        await stream.raw.level_one_equity_subs(["QQQ"])
        async with asyncio.timeout(5):
            await pong


@on_simulator()
async def test_a_bad_token_is_denied(broker: Broker) -> None:
    """The client sees code 3, and the socket is closed."""
    client = await broker.client()
    stream = Stream(client)
    prefs = (await client.get_user_preferences()).json()
    client.token_metadata.token = {**client.token_metadata.token, "access_token": "I0.no@"}
    await stream.raw._init_from_preferences(prefs, {})
    login, _ = stream.raw._make_request(
        service="ADMIN", command="LOGIN", parameters={"Authorization": "I0.no@"}
    )
    await stream.raw._send({"requests": [login]})
    assert json.loads(await stream.text())["response"][0]["content"]["code"] == 3
    with pytest.raises(ConnectionClosed):
        await stream.text()


@on_simulator()
async def test_services_that_do_not_exist_are_refused(broker: Broker) -> None:
    """Code 11 for what the broker does not have."""
    async with await broker.stream() as stream:
        assert await refused(stream, "TIMESALE_EQUITY") == 11


@on_simulator()
async def test_a_malformed_command_is_refused(broker: Broker) -> None:
    """Code 21, then the connection goes on."""
    async with await broker.stream() as stream:
        assert await refused(stream, "LEVELONE_EQUITIES", "DANCE") == 21
        await stream.raw.level_one_equity_subs(["QQQ"])


@on_simulator(equities_max=2, charts_max=1)
async def test_the_symbol_limit_is_told_and_then_fails_once_more(broker: Broker) -> None:
    """The client sees 19 on the command; the failure after it breaks the next read."""
    async with await broker.stream() as stream:
        with pytest.raises(UnexpectedResponseCode) as caught:
            await stream.raw.level_one_equity_add(["QQQ", "SPY", "IWM"])
        content = caught.value.response["response"][0]["content"]
        assert content["code"] == 19
        assert "(LEVELONE_EQUITIES=2, DISCARDED=1)" in content["msg"]
        with pytest.raises(UnexpectedResponse):
            await stream.until(lambda: False)
        await stream.until(lambda: len(stream.quotes) >= 2)
        assert {item["key"] for item in stream.quotes} == {"QQQ", "SPY"}


@on_simulator(success_codes=True)
async def test_documented_success_codes_upset_the_real_client(broker: Broker) -> None:
    """26 is success in the guide and an error in the library: the reason for the switch."""
    async with await broker.stream() as stream:
        assert await refused(stream, "LEVELONE_EQUITIES") == 26


@on_simulator()
async def test_the_newer_connection_wins(broker: Broker) -> None:
    """The older one is told 12 and closed; the newer one works."""
    token = await broker.login()
    async with await broker.stream(token) as older, await broker.stream(token) as newer:
        notice = json.loads(await older.text())["notify"][0]
        assert notice["content"]["code"] == 12
        with pytest.raises(ConnectionClosed):
            await older.next()
        await newer.raw.level_one_equity_subs(["QQQ"])
        await newer.until(lambda: newer.quotes)


@on_simulator(connections_max=2)
async def test_two_connections_can_be_allowed(broker: Broker) -> None:
    """Where the switch says so, the third evicts the first."""
    token = await broker.login()
    first, second = await broker.stream(token), await broker.stream(token)
    third = await broker.stream(token)
    assert json.loads(await first.text())["notify"][0]["content"]["code"] == 12
    for stream in (second, third):
        await stream.raw.level_one_equity_subs(["QQQ"])
        await stream.close()


@on_simulator(empty_stop_s=1)
async def test_an_empty_connection_is_stopped(broker: Broker) -> None:
    """Code 30 and the end."""
    async with await broker.stream() as stream:
        notice = json.loads(await stream.text())["notify"][0]
        assert notice["content"]["code"] == 30
        with pytest.raises(ConnectionClosed):
            await stream.next()


@on_simulator()
async def test_a_request_that_is_too_long_ends_the_connection(broker: Broker) -> None:
    """More than 65,535 bytes close the socket; 500 symbols are fine."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs([f"A{number}" for number in range(500)][:20])
        with pytest.raises(ConnectionClosed) as caught:
            await stream.raw.level_one_equity_subs([f"ABCDE{number}" for number in range(9_000)])
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


@on_simulator()
async def test_logout_ends_the_connection(broker: Broker) -> None:
    """The answer comes, then the end."""
    async with await broker.stream() as stream:
        await stream.raw.logout()
        with pytest.raises(ConnectionClosed):
            await stream.next()


@on_simulator(load_frames_per_s=50, load_items=20)
async def test_load_mode_fills_the_wire(broker: Broker) -> None:
    """Every frame holds its items, every item is a trade."""
    async with await broker.stream() as stream:
        await stream.raw.level_one_equity_subs([f"L{number}" for number in range(20)])
        await stream.until(lambda: len(stream.quotes) >= 20 * 26)
        deltas = stream.quotes[20:]
        assert all(
            {"LAST_PRICE", "TOTAL_VOLUME", "TRADE_TIME_MILLIS"} <= set(item) for item in deltas
        )


@on_simulator(csv=(str(FXY),), start="2023-11-24T16:59", speed=3_600, wait_for_subscription=True)
async def test_after_the_last_recorded_day_heartbeats_go_on(broker: Broker) -> None:
    """At the pace of the wall clock, so a reader never takes the end for a broken line."""
    async with await broker.stream() as stream:
        await stream.raw.chart_equity_subs(["FXY"])
        end_ms = session_of(dt.date(2023, 11, 24)).post_close_ms + 20_000
        texts = [await stream.text()]
        while f'"heartbeat":"{end_ms}"' not in texts[-1]:
            texts.append(await stream.text())
    assert not any('"data"' in text for text in texts[-2:])
