"""The REST interface on real servers: what is in the rows and the feed comes out, exactly."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cli.servers.nats import NatsServer
from libs.common.events import Clock, TickIndicator
from services.gateway import queries
from services.gateway.settings import Settings
from services.gateway.store import Store
from tests.databases import Database, connected
from tests.integration.gateway.running import (
    CREATED_MS,
    DAY,
    SESSION,
    Gateway,
    add_ticks,
    fill,
    gateway,
    moment,
)
from tests.integration.writer.stage import Feed, feed
from tests.waiting import eventually_async
from tests.writer_frames import TS_MS

Scene = Callable[[Gateway], Awaitable[None]]


def play(server: NatsServer, database: Database, scene: Scene, **settings: Any) -> None:
    """Run a scene against a gateway on filled tables and empty streams."""

    async def run() -> None:
        await fill(database.owner)
        async with (
            feed(server),
            gateway(server.url("gateway"), database.gateway, **settings) as found,
        ):
            await scene(found)

    asyncio.run(run())


def play_with_feed(
    server: NatsServer,
    database: Database,
    scene: Callable[[Gateway, Feed], Awaitable[None]],
) -> None:
    """Run a scene against a gateway on empty tables, with streams that the scene fills."""

    async def run() -> None:
        async with (
            feed(server) as source,
            gateway(server.url("gateway"), database.gateway) as found,
        ):
            await scene(found, source)

    asyncio.run(run())


def test_a_day_of_candles_in_columns(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """Columns are equally long and equal to the rows; position and session come along."""

    async def scene(found: Gateway) -> None:
        series = await found.get("series", ticker="QQQ", date=str(DAY), timeframe="1m")
        assert series["ts_ms"] == [SESSION.open_ms + 60_000 * n for n in range(30)]
        assert series["close"] == [401.0 + n for n in range(30)]
        assert series["high"][0] == 402.0
        assert series["sma9"] == [None] * 30
        assert series["vwap"][0] == 401.25
        assert series["extras"] == {"ema9": [1.5] * 30}
        assert series["revision"] == [0] * 30
        assert "price" not in series
        assert (series["epoch_ms"], series["last_seq"]) == (CREATED_MS, 70)
        assert series["session"]["open_ms"] == SESSION.open_ms
        assert series["session"]["kind"] == "full"
        assert not series["complete"]

    play(fresh_nats, migrated_database, scene)


def test_a_day_of_ticks_in_columns(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """Ticks have price and volume, to the millisecond."""

    async def scene(found: Gateway) -> None:
        series = await found.get("series", ticker="QQQ", date=str(DAY), timeframe="tick")
        assert series["ts_ms"][:2] == [SESSION.open_ms + 123, SESSION.open_ms + 1123]
        assert series["price"] == [400 + n / 4 for n in range(100)]
        assert series["volume"] == [100] * 100
        assert "close" not in series
        empty = await found.get("series", ticker="NONE", date=str(DAY), timeframe="tick")
        assert empty["ts_ms"] == empty["price"] == []

    play(fresh_nats, migrated_database, scene)


def test_a_holiday_has_no_session(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """A day without trading is an empty series without bounds, and has a name in the calendar."""

    async def scene(found: Gateway) -> None:
        series = await found.get("series", ticker="QQQ", date="2026-01-01", timeframe="1m")
        assert series["session"] is None
        assert series["ts_ms"] == []
        days = (await found.get("sessions", **{"from": "2025-12-24", "to": "2026-01-08"}))["days"]
        kinds = {day["date"]: (day["kind"], day["name"], day["has_data"]) for day in days}
        assert kinds["2025-12-24"] == ("half", None, False)
        assert kinds["2025-12-25"] == ("holiday", "Christmas Day", False)
        assert kinds["2026-01-01"] == ("holiday", "New Year's Day", False)
        assert kinds[str(DAY)] == ("full", None, True)
        assert "2026-01-03" not in kinds

    play(fresh_nats, migrated_database, scene)


def test_today_is_the_broker_s(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """Without a frame, today is when the writer last noted the broker's time."""

    async def scene(found: Gateway) -> None:
        sessions = await found.get("sessions")
        assert sessions["today"] == str(DAY)
        assert sessions["days"][-1]["date"] == "2026-02-06"
        assert sessions["days"][0]["date"] == str(DAY - dt.timedelta(days=400))

    play(fresh_nats, migrated_database, scene)


def test_the_watchlist_has_changes_and_sparklines(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Change is against the last regular minute of the session before; unknown is null."""

    async def scene(found: Gateway) -> None:
        qqq, spy = (await found.get("tickers"))["tickers"]
        assert (qqq["ticker"], spy["ticker"]) == ("QQQ", "SPY")
        # The last minute of the rows is newer than the last tick.
        assert qqq["last"] == 430.0
        assert qqq["ts_ms"] == SESSION.open_ms + 60_000 * 30 - 1
        assert (qqq["previous_close"], qqq["change"], qqq["change_percent"]) == (400.0, 30.0, 7.5)
        assert qqq["sparkline"] == [401.0, 402.0, 430.0]
        assert qqq["date"] == str(DAY)
        assert (spy["last"], spy["previous_close"], spy["change"]) == (600.0, None, None)

    play(fresh_nats, migrated_database, scene)


def test_signals_of_a_day(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """All, of one ticker, of one timeframe; with the positions of the partitions."""

    async def scene(found: Gateway) -> None:
        signals = await found.get("signals", date=str(DAY))
        assert signals["last_seq"] == {"0": 7}
        assert signals["epoch_ms"] == CREATED_MS
        assert [signal["id"] for signal in signals["signals"]] == [
            "QQQ:1m:1", "QQQ:1m:2", "QQQ:5m:3",
        ]  # fmt: skip
        assert signals["signals"][1] == {
            "id": "QQQ:1m:2", "revision": 1, "state": "superseded", "late": True, "ticker": "QQQ",
            "timeframe": "1m", "ts_ms": SESSION.open_ms + 120_000, "kind": "sma9_vwap",
            "direction": "down", "price": 402.0, "sma9": 401.5, "vwap": 401.0,
        }  # fmt: skip
        of_5m = await found.get("signals", date=str(DAY), ticker="QQQ", timeframe="5m")
        assert [signal["id"] for signal in of_5m["signals"]] == ["QQQ:5m:3"]
        assert (await found.get("signals", date=str(DAY), ticker="SPY"))["signals"] == []

    play(fresh_nats, migrated_database, scene)


def test_gaps_of_a_day(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """A gap belongs to every day that it touches, and ends before its end."""

    async def scene(found: Gateway) -> None:
        gaps = (await found.get("gaps", date=str(DAY)))["gaps"]
        assert [gap["id"] for gap in gaps] == ["QQQ:bars:2", "QQQ:bars:1"]
        assert gaps[1]["from_ms"] == SESSION.open_ms
        assert gaps[1]["state"] == "filled"
        tomorrow = str(DAY + dt.timedelta(days=1))
        (spy,) = (await found.get("gaps", date=tomorrow, ticker="SPY"))["gaps"]
        assert (spy["state"], spy["reason"], gaps[1]["reason"]) == ("unfillable", "no_trade", "")
        assert (await found.get("gaps", date=tomorrow, ticker="QQQ"))["gaps"] == []

    play(fresh_nats, migrated_database, scene)


def test_csv_has_both_times(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """Each table comes as a file with a telling name, the times in UTC and in New York."""

    async def scene(found: Gateway) -> None:
        query = f"date={DAY}&ticker=QQQ"
        answer = await found.client.get(f"/api/v1/series.csv?{query}&timeframe=1m")
        assert answer.headers["content-type"].startswith("text/csv")
        assert f'filename="QQQ-{DAY}-1m.csv"' in answer.headers["content-disposition"]
        rows = list(csv.DictReader(answer.text.splitlines()))
        assert len(rows) == 30
        assert rows[0]["utc"] == "2026-01-07T14:30:00.000Z"
        assert rows[0]["new_york"] == "2026-01-07T09:30:00.000-05:00"
        assert (rows[0]["close"], rows[0]["sma9"], rows[0]["ema9"]) == ("401.0", "", "1.5")
        ticks = (await found.client.get(f"/api/v1/series.csv?{query}&timeframe=tick")).text
        assert len(ticks.splitlines()) == 101
        signals = (await found.client.get(f"/api/v1/signals.csv?{query}")).text
        assert len(signals.splitlines()) == 4
        gaps = (await found.client.get(f"/api/v1/gaps.csv?{query}")).text
        assert len(gaps.splitlines()) == 3

    play(fresh_nats, migrated_database, scene)


def test_an_etag_saves_the_body(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """The same tag again is a 304 without a body; a change of the rows is a new tag."""

    async def scene(found: Gateway) -> None:
        path = f"/api/v1/series?ticker=QQQ&date={DAY}&timeframe=tick"
        first = await found.client.get(path)
        assert first.headers["cache-control"] == "no-cache"
        assert first.headers["content-encoding"] == "gzip"
        tag = first.headers["etag"]
        assert tag.startswith('"')
        again = await found.client.get(path, headers={"If-None-Match": f'"x", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        plain = await found.client.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.json() == first.json()
        async with connected(migrated_database.owner) as connection:
            await add_ticks(connection, "QQQ", [(SESSION.open_ms + 999_000, 450.0)])
        changed = await found.client.get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag

    play(fresh_nats, migrated_database, scene)


BAD = [
    ("series", {}, "ticker"),
    ("series", {"ticker": "QQQ"}, "date"),
    ("series", {"ticker": "qqq", "date": str(DAY)}, "ticker"),
    ("series", {"ticker": "Q" * 21, "date": str(DAY)}, "ticker"),
    ("series", {"ticker": "Q\0", "date": str(DAY)}, "ticker"),
    ("series", {"ticker": "QQQ", "date": "2026-02-30"}, "date"),
    ("series", {"ticker": "QQQ", "date": "1767744000"}, "date"),
    ("series", {"ticker": "QQQ", "date": "1989-12-31"}, "date"),
    ("series", {"ticker": "QQQ", "date": "9999-12-31"}, "date"),
    ("series", {"ticker": "QQQ", "date": str(DAY), "timeframe": "2m"}, "timeframe"),
    ("series", {"ticker": "QQQ", "date": str(DAY), "tf": "1m"}, "tf"),
    ("series.csv", {"ticker": "QQQ", "date": "0001-01-01"}, "date"),
    ("signals", {}, "date"),
    ("signals", {"date": str(DAY), "timeframe": "2m"}, "timeframe"),
    ("signals.csv", {"date": "x"}, "date"),
    ("gaps", {"date": str(DAY), "ticker": "a'b"}, "ticker"),
    ("sessions", {"from": "yesterday"}, "from"),
    ("sessions", {"to": "2050-01-01"}, "to"),
    ("sessions", {"from": "9999-12-31"}, "from"),
    ("series", {"ticker": "QQQ", "date": str(DAY), "version": "<new>"}, "version"),
    ("sessions", {"from": "2026-01-02", "to": "2026-01-01"}, "from"),
    ("sessions", {"from": "1990-01-01", "to": "2035-01-01"}, "from"),
    ("tickers", {"page": "1"}, "page"),
]


def test_every_bad_parameter_is_named(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """What is wrong gets 400, the name of the parameter, and a line on what would be right."""

    async def scene(found: Gateway) -> None:
        for path, parameters, name in BAD:
            refusal = await found.refusal(path, **parameters)
            assert refusal == (400, "bad_parameter", name), (path, parameters)
        answer = await found.client.get(f"/api/v1/gaps?date={DAY}&date={DAY}")
        assert answer.json()["error"]["parameter"] == "date"
        assert await found.refusal("nothing") == (404, "not_found", None)
        wrong = await found.client.post("/api/v1/tickers")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "bad_method")

    play(fresh_nats, migrated_database, scene)


def test_what_needs_the_database_says_503_while_it_is_away(fresh_nats: NatsServer) -> None:
    """Rows get a 503 with Retry-After; what needs none is served, and nobody is restarted."""

    async def scene() -> None:
        async with feed(fresh_nats):
            nobody = "postgresql://kite_reader:secret-word@127.0.0.1:1/kite"
            async with Gateway(gateway_settings(fresh_nats.url("observer"), nobody)) as found:
                await eventually_async(
                    lambda: set(found.runtime.health.reasons) == {"database"}, 20, "the bus is up"
                )
                answer = await found.client.get(f"/api/v1/gaps?date={DAY}")
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "2"
                assert answer.json()["error"]["code"] == "unavailable"
                assert (await found.get("clock"))["source"] == "demo"
                health = await found.client.get("/api/v1/health")
                assert (health.status_code, health.json()["status"]) == (503, "down")
                assert "secret-word" not in health.text + answer.text

    asyncio.run(scene())


def gateway_settings(nats_url: str, dsn: str, **settings: Any) -> Settings:
    """Return settings on any free port."""
    return Settings(nats_url=nats_url, pg_dsn=dsn, gateway_port=0, **settings)


def test_it_answers_before_the_bus_is_there(migrated_database: Database) -> None:
    """Rows are served while no bus ever came; health says what is missing."""

    async def scene() -> None:
        await fill(migrated_database.owner)
        settings = gateway_settings("nats://observer:x@127.0.0.1:1", migrated_database.reader)
        async with Gateway(settings) as found:
            await eventually_async(
                lambda: set(found.runtime.health.reasons) == {"bus"}, 20, "the database is up"
            )
            series = await found.get("series", ticker="QQQ", date=str(DAY), timeframe="1h")
            assert series["close"] == [430.0]
            health = (await found.client.get("/api/v1/health")).json()
            assert {check["name"]: check["ok"] for check in health["checks"]} == {
                "database": True, "bus": False, "writer": True,
            }  # fmt: skip

    asyncio.run(scene())


def test_health_counts_how_far_the_rows_are(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Each lane shows its position and its end; the writer's report is there."""

    async def scene(found: Gateway) -> None:
        health = await found.get("health")
        lanes = {lane["stream"]: lane for lane in health["lanes"]}
        assert lanes["INDICATORS"]["seq"] == 70
        assert lanes["MARKET"]["seq"] is None
        (writer,) = health["services"]
        assert (writer["service"], writer["batches"], writer["records"]) == ("writer", 3, 300)
        assert health["status"] == "ok"

    play(fresh_nats, migrated_database, scene)


def test_a_tick_s_price_comes_from_the_feed_until_it_is_in_the_rows(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Averages that are stored before their prices get these from the stream."""

    async def scene(found: Gateway, source: Feed) -> None:
        ts_ms = SESSION.open_ms
        await source.send("INDICATORS", 0, [TickIndicator("QQQ", ts_ms, 401.25, None, 401.0)])
        async with connected(migrated_database.owner) as connection:
            await add_ticks(connection, "QQQ", [(ts_ms, 401.25), (ts_ms + 1000, 9.0)], priced=False)

        async def known() -> bool:
            found_series = await found.get("series", ticker="QQQ", date=str(DAY), timeframe="tick")
            # The second one is in no stream: after five reads it stays unknown.
            return bool(found_series["price"] == [401.25, None])

        await eventually_async(known, 10, "the price is known from the feed")

    play_with_feed(fresh_nats, migrated_database, scene)


def test_a_finished_day_is_kept_by_browsers(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Once the broker is at a later day and all is in the rows, a day never changes any more."""

    async def scene(found: Gateway, source: Feed) -> None:
        created_ms = (await source.bus.stream("INDICATORS")).created_ms
        ts_ms = SESSION.open_ms
        tomorrow_ms = ts_ms + 86_400_000
        await source.send("INDICATORS", 0, [TickIndicator("QQQ", ts_ms, 401.25, None, 401.0)])
        async with connected(migrated_database.owner) as connection:
            await add_ticks(connection, "QQQ", [(ts_ms, 401.25)])
            position = "INSERT INTO stream_positions VALUES ('INDICATORS', 0, 0, 0, $1)"
            await connection.execute(position, created_ms)
            source.advance(tomorrow_ms - TS_MS)
            await source.send("INDICATORS", 0, [Clock(tomorrow_ms)])
            await eventually_async(
                lambda: _broker_day(found), 10, "the broker's clock is at the next day"
            )
            version = (await found.get("sessions"))["version"]
            plain = f"/api/v1/series?ticker=QQQ&date={DAY}&timeframe=tick"
            path = f"{plain}&version={version}"
            # The rows are as of before the tick, or go up to it and not to the end of its day.
            for seq in (0, 1):
                await connection.execute("UPDATE stream_positions SET seq = $1", seq)
                behind = await found.client.get(path)
                assert behind.json()["complete"] is False
                assert behind.headers["cache-control"] == "no-cache"
            await connection.execute("UPDATE stream_positions SET seq = 2")
            done = await found.client.get(path)
            assert done.json()["complete"] is True
            assert done.headers["cache-control"] == "private, max-age=31536000, immutable"
            for other in (plain, f"{plain}&version=0.0.0"):
                assert (await found.client.get(other)).headers["cache-control"] == "no-cache"
            await connection.execute(
                "INSERT INTO gaps VALUES ('QQQ:bars:9', 'QQQ', 'bars', $1, $2, 'wire', 'open')",
                moment(ts_ms), moment(ts_ms + 60_000),
            )  # fmt: skip
            assert (await found.client.get(path)).json()["complete"] is False

    play_with_feed(fresh_nats, migrated_database, scene)


async def _broker_day(found: Gateway) -> bool:
    return bool((await found.get("clock"))["date"] == str(DAY + dt.timedelta(days=1)))


def test_a_day_is_read_by_the_keys_of_its_own_partitions(migrated_database: Database) -> None:
    """The plans of a day's series name one partition of each table, and scan none of them whole."""

    async def scene() -> None:
        await fill(migrated_database.owner)
        day = [moment(SESSION.open_ms), moment(SESSION.close_ms)]
        async with Store(migrated_database.gateway) as store, store._connection() as connection:
            await connection.execute("SET enable_seqscan = off")  # these tables are tiny
            for query, arguments in (
                (queries.TICKS, ["QQQ", *day, 1000]),
                (queries.CANDLES, ["QQQ", "1m", *day, 1000]),
            ):
                rows = await connection.fetch(f"EXPLAIN {query}", *arguments)
                plan = "\n".join(row[0] for row in rows)
                assert "Seq Scan" not in plan
                assert "Append" not in plan
                assert "_pkey" in plan

    asyncio.run(scene())


def test_the_page_is_served_with_the_right_caching(
    fresh_nats: NatsServer, migrated_database: Database, tmp_path: Path
) -> None:
    """Assets are kept, the page is asked for again; nothing outside its directory is seen."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>Kite</title>")
    (tmp_path / "assets" / "app-1.js").write_text("1;" * 2000)
    (tmp_path / ".hidden").write_text("no")

    async def scene(found: Gateway) -> None:
        home = await found.client.get("/?t=QQQ")
        assert "<title>Kite" in home.text
        assert home.headers["cache-control"] == "no-cache"
        asset = await found.client.get("/assets/app-1.js")
        assert asset.headers["content-type"].startswith("text/javascript")
        assert "immutable" in asset.headers["cache-control"]
        assert asset.headers["content-encoding"] == "gzip"
        for path in ("/.hidden", "/assets/none.js", "/..%2f..%2fetc/passwd", "/%00", "/assets"):
            assert (await found.client.get(path)).status_code == 404, path
        config = (await found.client.get("/config.json")).json()
        assert config == {"gateway": "", "supabase_url": "", "supabase_anon_key": ""}
        docs = (await found.client.get("/api/docs")).text
        assert "/api/v1/series" in docs
        assert "<code>last_seq</code>" in docs
        assert "<code>password</code>" in docs
        assert "?." not in docs
        assert "<script" not in docs

    play(fresh_nats, migrated_database, scene, gateway_dashboard_dir=str(tmp_path))


def test_without_a_built_page_it_says_how_to_build_it(
    fresh_nats: NatsServer, migrated_database: Database, tmp_path: Path
) -> None:
    """Who opens the address of an unbuilt checkout learns what to do."""

    async def scene(found: Gateway) -> None:
        answer = await found.client.get("/")
        assert answer.status_code == 503
        assert "npm" in answer.text

    play(fresh_nats, migrated_database, scene, gateway_dashboard_dir=str(tmp_path / "none"))


@pytest.mark.parametrize("path", ["/", "/api/v1/me", "/api/v1/nothing", "/api/docs"])
def test_every_answer_tells_browsers_to_be_strict(
    fresh_nats: NatsServer, migrated_database: Database, path: str
) -> None:
    """The policy forbids scripts of others and frames, whatever the answer is."""

    async def scene(found: Gateway) -> None:
        headers = (await found.client.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; connect-src 'self' ws://127.0.0.1:")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers

    play(fresh_nats, migrated_database, scene)
