"""The OpenAPI document describes the interface, and nothing that fits or does not is a 5xx."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from cli.servers.nats import NatsServer
from deploy.supabase.migrate import migrate
from tests.databases import throw_away_database
from tests.integration.gateway.running import DAY, fill, gateway
from tests.integration.writer.stage import feed

EXAMPLES = 8
PATHS = ("tickers", "sessions", "series", "signals", "gaps", "clock", "health", "me",
         "series.csv", "signals.csv", "gaps.csv")  # fmt: skip


@pytest.fixture(scope="module")
def running(nats_server: NatsServer, postgres: Any) -> Iterator[str]:
    """The address of a gateway on a thread of its own, for clients that know no coroutines."""
    with throw_away_database(postgres) as database:
        asyncio.run(migrate(database.owner))
        asyncio.run(fill(database.owner))
        started, stop, address = threading.Event(), asyncio.Event(), []
        loop = asyncio.new_event_loop()

        async def run() -> None:
            async with (
                feed(nats_server),
                gateway(nats_server.url("gateway"), database.gateway) as found,
            ):
                address.append(found.url)
                started.set()
                await stop.wait()

        def work() -> None:
            try:
                loop.run_until_complete(run())
            finally:
                started.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert started.wait(30)
        try:
            yield address[0]
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(20)
            loop.close()


def document(url: str) -> Any:
    """Return the OpenAPI document."""
    return httpx.get(f"{url}/api/openapi.json").json()


def test_every_path_is_described(running: str) -> None:
    """What answers stands in the document, with its parameters and the form of its errors."""
    paths = document(running)["paths"]
    assert {f"/api/v1/{name}" for name in PATHS} <= set(paths)
    assert "/api/v1/commands/{service}" in paths
    for path, item in paths.items():
        for operation in item.values():
            assert operation["summary"], path
            assert operation["description"], path
            error = operation["responses"]["400"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorAnswer"}
    names = [parameter["name"] for parameter in paths["/api/v1/series"]["get"]["parameters"]]
    assert names == ["ticker", "date", "timeframe", "version"]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_generated_requests_get_what_the_document_says(running: str, mode: GenerationMode) -> None:
    """Requests made from the document, fitting and not, never fail and answer as described."""
    schema = schemathesis.openapi.from_dict(document(running))
    schema.config.update(base_url=running)
    tried = 0
    for result in schema.get_all_operations():
        found: Any = result
        operation = found.ok()
        takes_something = bool(list(operation.iter_parameters())) or bool(operation.body)
        if mode is GenerationMode.NEGATIVE and not takes_something:
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def conforms(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case.path, answer.status_code, answer.text[:300])
            checks = [not_a_server_error, response_schema_conformance]
            case.validate_response(answer, checks=checks)

        conforms()
        tried += 1
    assert tried >= 8


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    query=st.lists(
        st.tuples(
            st.sampled_from(("ticker", "date", "timeframe", "from", "to", "x")),
            st.one_of(
                st.sampled_from(("QQQ", str(DAY), "tick", "1m", "", "2026-01-99", "1990-01-01")),
                st.text(max_size=20),
            ),
        ),
        max_size=5,
    ),
)
def test_no_query_makes_it_fail(running: str, path: str, query: list[tuple[str, str]]) -> None:
    """Any text in any parameter is an answer or a 400 of the usual form."""
    answer = httpx.get(f"{running}/api/v1/{path}", params=httpx.QueryParams(list[Any](query)))
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "target",
    ["/api/v1/%ff", "/api/v1/series?%ff=%ff", "/api/v1/series?ticker=%00", "/%2e%2e/%2e%2e/etc",
     "//", "/api/v1/series?ticker=QQQ&date=%F0%9F%92%A9", "/api/v1/commands/%2f", "/?" + "x" * 9000,
     "/api/v1/gaps?" + "&".join(f"a{n}=1" for n in range(500))],
)  # fmt: skip
def test_odd_targets_are_refused_politely(running: str, target: str) -> None:
    """Bytes that are no text, climbing paths and endless queries get a 4xx or the page."""
    answer = httpx.get(running + target)
    assert answer.status_code < 500 or (answer.status_code == 503 and "npm" in answer.text)
