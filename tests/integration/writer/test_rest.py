"""The REST sink alone: what it says when something is wrong, and what its key cannot do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cli.servers.host import choose_port
from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import MIGRATIONS, migrate
from libs.common.errors import (
    KiteError,
    RowsRefused,
    SettingsError,
    StoreMismatch,
    StoreUnavailable,
)
from services.writer.core import Position
from services.writer.rest import RestStore
from services.writer.rest_api import MIGRATION, RestApi
from tests.api_keys import PUBLISHABLE_KEY, SECRET_KEY, anon_key
from tests.databases import Database, connected
from tests.postgrest import postgrest, service_key
from tests.supabase import authenticator
from tests.writer_frames import CREATED_MS, batch_of, tick

META = {"source": "demo", "partitions": "1"}


@pytest.fixture
def project(postgres: PostgresServer, migrated_database: Database) -> Iterator[str]:
    """The address of a project with the schema."""
    with postgrest(authenticator(postgres, migrated_database.name)) as url:
        yield url


def store(url: str, key: str = "") -> RestStore:
    """Return a store with a service key, unless another is given."""
    return RestStore(url, key or service_key(), connections_max=2, statement_timeout_s=10)


async def claimed(url: str, key: str = "") -> None:
    """Do what a writer does first."""
    async with store(url, key) as opened:
        await opened.claim(META)


@asynccontextmanager
async def stranger(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Yield the address of a web server that is no project."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class TestAtTheStart:
    """What will never work is said in one line that tells how to mend it."""

    def test_the_newer_kind_of_key_works(self, project: str) -> None:
        """An opaque secret key is as good as a JWT of the service role."""
        asyncio.run(claimed(project, SECRET_KEY))

    @pytest.mark.parametrize(
        "key",
        [
            anon_key("service_role", secret=b"of another project"),
            service_key(exp=1_000_000_000),
            anon_key(),
            anon_key("authenticated"),
            PUBLISHABLE_KEY,
            "sb_secret_of-another-project",
        ],
        ids=["another-project", "expired", "anon", "authenticated", "publishable", "opaque"],
    )
    def test_a_key_that_may_not(self, project: str, key: str) -> None:
        """A key that the project refuses, or that may not write, ends it; the key is not shown."""
        with pytest.raises(SettingsError, match="KITE_SUPABASE_SERVICE_KEY") as caught:
            asyncio.run(claimed(project, key))
        text = str(caught.value)
        assert "service_role key, in the project's settings" in text
        assert key not in text
        assert "\n" not in text

    def test_a_schema_without_the_functions(
        self, postgres: PostgresServer, empty_database: Database, tmp_path: Path
    ) -> None:
        """It names the migration that lacks."""
        for path in MIGRATIONS.glob("*.sql"):
            if path.stem != MIGRATION:
                (tmp_path / path.name).write_text(path.read_text())
        asyncio.run(migrate(empty_database.owner, directory=tmp_path))
        with (
            postgrest(authenticator(postgres, empty_database.name)) as url,
            pytest.raises(StoreMismatch, match=f"db migrate.*{MIGRATION}"),
        ):
            asyncio.run(claimed(url))

    @pytest.mark.parametrize(
        ("status", "kind", "body"),
        [
            (200, "text/html", "<h1>Welcome</h1>"),
            (404, "text/html", "<h1>Nothing here</h1>"),
            (404, "application/json", '{"message": "no Route matched with those values"}'),
            (302, "text/html", ""),
            (405, "text/plain", "no"),
        ],
    )
    def test_an_address_of_somebody_else(self, status: int, kind: str, body: str) -> None:
        """Another web server is told from a project, also when it likes everything."""

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, content_type=kind, text=body)

        async def scenario() -> None:
            async with stranger(answer) as url:
                await claimed(url)

        with pytest.raises(SettingsError, match=r"KITE_SUPABASE_URL.*not as a Supabase project"):
            asyncio.run(scenario())

    def test_nobody_there(self) -> None:
        """An address where nobody answers may be the network's fault: that is waited for."""
        url = f"http://127.0.0.1:{choose_port()}"
        with pytest.raises(StoreUnavailable, match=f"{url} does not answer: ConnectError"):
            asyncio.run(claimed(url))

    @pytest.mark.parametrize(
        ("status", "said"), [(540, "is paused: wake it"), (503, "HTTP 503"), (429, "HTTP 429")]
    )
    def test_what_may_pass_is_waited_for(self, status: int, said: str) -> None:
        """A paused project, an overloaded one and one that limits come back."""

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, content_type="text/html", text="<p>later</p>")

        async def scenario() -> None:
            async with stranger(answer) as url:
                await claimed(url)

        with pytest.raises(StoreUnavailable, match=said):
            asyncio.run(scenario())


class TestWhileItRuns:
    """What has worked once is waited for, whatever it answers now."""

    @pytest.mark.parametrize(
        ("status", "kind", "body"),
        [
            (401, "application/json", '{"message": "Invalid API key"}'),
            (404, "application/json", '{"code": "PGRST202", "message": "no such function"}'),
            (404, "text/html", "<h1>Nothing here</h1>"),
            (200, "text/html", "<h1>Welcome to our network</h1>"),
            (200, "application/json", '"Welcome"'),
            (200, "application/json", '{"seq": 7}'),
            (200, "application/json", ""),
            (204, "application/json", ""),
            (500, "application/json", '{"code": ['),
        ],
    )
    def test_any_other_answer_is_doubt(self, status: int, kind: str, body: str) -> None:
        """No answer but the right one counts as a commit, and none ends the writer."""

        async def answer(request: web.Request) -> web.Response:
            if request.path.endswith("/kite_claim"):
                return web.json_response(META)
            if request.path.endswith("/kite_ensure_partition"):
                return web.json_response(True)
            return web.Response(status=status, content_type=kind, text=body)

        async def scenario() -> None:
            async with stranger(answer) as url, store(url) as opened:
                await opened.claim(META)
                with pytest.raises(StoreUnavailable):
                    await opened.commit(batch_of([tick()]))

        asyncio.run(scenario())

    def test_asks_nobody_twice(self, project: str) -> None:
        """While commits are answered, a ping is no request."""

        async def scenario() -> None:
            async with store(project) as opened:
                await opened.claim(META)
                await opened.ping()
            # Closed, it could not ask; the last answer is a moment old.
            await opened.ping()

        asyncio.run(scenario())


class TestWhatARequestMayHold:
    """The function refuses what no writer of ours sends."""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"before_seq": 5, "seq": 5}, "moves forward"),
            ({"before_seq": -1}, "moves forward"),
            ({"seq": None}, "moves forward"),
            ({"gaps": {"id": ["x" * (17 << 20)]}}, "at most 16777216"),
            ({"indicators": {"ticker": ["QQQ"], "sma9": ["many"]}}, "many"),
            ({"signals": {"id": ["a", "a"]}}, "null value"),
            ({"candles": {"ticker": ["QQQ"]}}, "json_array_elements"),
            ({"partition": -1}, "partition_check"),
        ],
    )
    def test_is_bounded_and_sound(
        self, project: str, migrated_database: Database, change: dict[str, Any], said: str
    ) -> None:
        """Refused for good, and nothing of it is stored."""
        sound = {
            "stream": "MARKET", "partition": 0, "stream_created_ms": 1, "before_seq": 0, "seq": 1,
            "frame_n": 1,
        }  # fmt: skip

        async def scenario() -> None:
            async with RestApi(
                project, service_key(), connections_max=1, statement_timeout_s=10
            ) as api:
                with pytest.raises(RowsRefused, match=said):
                    await api.call("kite_commit", sound | change, dict[str, int])
            async with connected(migrated_database.superuser) as connection:
                assert await connection.fetch("TABLE stream_positions") == []

        asyncio.run(scenario())

    def test_the_largest_batch_that_settings_allow_fits(self, project: str) -> None:
        """What the writer puts into one batch at most is stored in one request."""

        async def scenario() -> None:
            rows = [tick(1_700_836_200_000 + n, ticker="BRK/B") for n in range(20_000)]
            async with store(project) as opened:
                await opened.commit(batch_of(rows))
                assert await opened.position("MARKET", 0) == Position(CREATED_MS, 1, 1)

        asyncio.run(scenario())


class TestTheKey:
    """Whoever has the service key can do what the writer does, and no more of ours."""

    @pytest.mark.parametrize(
        "table", ["equity_data", "orders", "stream_positions", "kite_meta", "kite_migrations"]
    )
    def test_opens_no_table(self, project: str, table: str) -> None:
        """Tables refuse it: only functions are granted."""
        assert asyncio.run(self._status(project, f"{table}?limit=1", service_key())) == 403

    @pytest.mark.parametrize("key", [anon_key(), anon_key("authenticated"), PUBLISHABLE_KEY])
    def test_of_the_web_calls_no_function(self, project: str, key: str) -> None:
        """The keys that are in every page move no position and make no partition."""
        for function, arguments in (
            ("kite_commit", {
                "stream": "MARKET", "partition": 0, "stream_created_ms": 1, "before_seq": 0,
                "seq": 1, "frame_n": 1,
            }),
            ("kite_ensure_partition", {"parent": "candles", "day": "2027-01-01"}),
            ("kite_claim", {"meta": {}}),
            ("kite_positions", {}),
            ("kite_database_bytes", {}),
        ):  # fmt: skip
            status = asyncio.run(self._status(project, f"rpc/{function}", key, arguments))
            assert status in (401, 403), function

    @staticmethod
    async def _status(
        project: str, path: str, key: str, arguments: dict[str, Any] | None = None
    ) -> int:
        headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            method = "GET" if arguments is None else "POST"
            data = None if arguments is None else json.dumps(arguments)
            async with session.request(method, f"{project}/rest/v1/{path}", data=data) as answer:
                return answer.status


def test_no_error_holds_the_key(project: str) -> None:
    """Neither the text nor what caused it, whatever went wrong."""
    key = service_key(exp=1_000_000_000)

    async def scenario() -> KiteError:
        async with store(project, key) as opened:
            with pytest.raises(KiteError) as caught:
                await opened.position("MARKET", 0)
            return caught.value

    error: BaseException | None = asyncio.run(scenario())
    while error is not None:
        assert key.rpartition(".")[2] not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__
