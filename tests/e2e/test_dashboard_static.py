"""The same page without any server of ours: static files, and Supabase's tables by anon key."""

from __future__ import annotations

import fnmatch
import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.home import Home
from deploy.credentials import load_credentials
from deploy.nats.policy import USERS
from deploy.supabase.roles import LOGIN_ROLES, SUPERUSER
from tests.e2e import oracle
from tests.e2e.browser import Dash, built_page, chromium
from tests.e2e.recorded import INDA, INDA_DAYS, cut, played, wait_until_played
from tests.e2e.stack import REPOSITORY, Stack
from tests.postgrest import anon_key, postgrest
from tests.servers import temporary_home

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

DAYS = INDA_DAYS[:2]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two days that were played to their end."""
    recording = cut(INDA, DAYS, tmp_path_factory.mktemp("recording"))
    expected = oracle.candles(oracle.minute_bars(recording))
    with temporary_home() as home, played(home, recording) as running:
        wait_until_played(running, "INDA", expected)
        yield running


def superuser_dsn(stack: Stack) -> str:
    """Return how to open the stack's database as somebody who may take every role."""
    (store,) = [path.parent for path in Home(stack.home).root.glob("csv/*/store.json")]
    kept = load_credentials(store, nats_users=USERS, postgres_users=LOGIN_ROLES)
    address = stack.postgres.partition("@")[2]
    return f"postgresql://{SUPERUSER}:{kept.postgres[SUPERUSER]}@{address}"


class _Host(http.server.SimpleHTTPRequestHandler):
    """Serves files with the headers that the host's configuration names."""

    rules: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()

    def end_headers(self) -> None:
        """Add what belongs to this path."""
        for pattern, headers in self.rules:
            if fnmatch.fnmatch(self.path, pattern):
                for name, value in headers:
                    self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def hosted(folder: Path, supabase: str, key: str) -> Iterator[str]:
    """Serve the built page as `deploy/vercel.json` asks for it; its Supabase is the stand-in."""
    shutil.copytree(built_page(), folder, dirs_exist_ok=True)
    settings = {"gateway": "", "supabase_url": supabase, "supabase_anon_key": key}
    (folder / "config.json").write_text(json.dumps(settings))
    text = (REPOSITORY / "deploy" / "vercel.json").read_text()
    rules = tuple(
        (
            rule["source"].replace("(.*)", "*"),
            tuple((each["key"], each["value"]) for each in rule["headers"]),
        )
        for rule in json.loads(text.replace("https://*.supabase.co", supabase))["headers"]
    )
    kind = type("Host", (_Host,), {"rules": rules})
    handler = functools.partial(kind, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_page_reads_the_same_numbers_from_supabase(stack: Stack, tmp_path: Path) -> None:
    """Candles and ticks by way of the anon role equal those of the gateway."""
    with (
        postgrest(superuser_dsn(stack)) as supabase,
        hosted(tmp_path, supabase, anon_key()) as address,
        chromium() as browser,
        Dash(browser, address) as static,
    ):
        for day, timeframe in ((DAYS[0], "1m"), (DAYS[1], "15m"), (DAYS[1], "tick")):
            static.open(t="INDA", d=day, tf=timeframe)
            wanted = static.page.request.get(
                f"{stack.gateway}/api/v1/series",
                params={"ticker": "INDA", "date": day, "timeframe": timeframe},
            ).json()
            shown = static.store()
            assert len(shown["ts_ms"]) > 10
            names = set(shown) & set(wanted) - {"ticker", "date", "timeframe"}
            assert {"ts_ms", "sma9", "vwap"} <= names
            assert {name: shown[name] for name in names} == {name: wanted[name] for name in names}
        static.open(t="INDA", d=DAYS[0], tf="1m")
        signals = static.page.request.get(
            f"{stack.gateway}/api/v1/signals", params={"date": DAYS[0], "ticker": "INDA"}
        ).json()["signals"]
        assert signals
        static.until(lambda: len(static.markers()) == len(signals), "its signals are marked")
        assert {each["id"] for each in static.markers()} == {each["id"] for each in signals}
        static.picture("supabase")
        assert static.complaints == []


def test_what_the_anon_key_may_not_read_is_refused(stack: Stack, tmp_path: Path) -> None:
    """A forged key shows nothing but a reason; the trading tables are nobody's."""
    forged = anon_key("kite_owner")[:-4] + "AAAA"
    with (
        postgrest(superuser_dsn(stack)) as supabase,
        hosted(tmp_path, supabase, forged) as address,
        chromium() as browser,
        Dash(browser, address) as dash,
    ):
        dash.open(wait=False)
        dash.page.get_by_text("JWSError").first.wait_for()
        for table, column in (("stream_positions", "stream"), ("orders", "account")):
            answer = dash.page.request.get(
                f"{supabase}/rest/v1/{table}?select={column}",
                headers={"apikey": anon_key(), "Authorization": f"Bearer {anon_key()}"},
            )
            assert (answer.status, answer.json()["code"]) == (401, "42501"), answer.text()
