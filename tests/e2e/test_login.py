"""A login that ends and the next one, on a whole running stack, as the guide tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.simulated_app import APP_SECRET
from libs.common.token_file import TokenFile
from tests.e2e.stack import REPOSITORY, Stack
from tests.servers import temporary_home
from tests.waiting import eventually

pytestmark = pytest.mark.soak

FREE_PORTS = ("--port", "0", "--nats-port", "0", "--postgres-port", "0")
# Long enough to be ready before it ends, also on a slow machine.
SHORT = {"KITE_SIM_REFRESH_TOKEN_S": "60", "KITE_SIM_ACCESS_TOKEN_S": "20"}
WITHIN_S = 100


def ingest(stack: Stack) -> dict[str, Any]:
    """How the stack says ingest is."""
    found: dict[str, Any] = stack.status()["services"]["ingest"]
    return found


def bars(stack: Stack) -> int:
    """How many minutes of today's history the gateway shows."""
    base = f"{stack.gateway}/api/v1"
    day = httpx.get(f"{base}/sessions").json()["today"]
    answer = httpx.get(f"{base}/series", params={"ticker": "QQQ", "date": day, "timeframe": "1m"})
    assert answer.status_code == 200, answer.text
    return len(answer.json()["ts_ms"])


def log_in(stack: Stack) -> str:
    """The two steps of the guide, with a program in the browser's place; returns the code."""
    address = stack.kite("auth", "url").stdout.strip()
    back = httpx.get(address).headers["location"]
    done = stack.kite("auth", "login", "--received", back)
    assert done.returncode == 0, done.stderr
    assert "Logged in" in done.stderr
    return back.partition("code=")[2].partition("%40")[0]


def secrets_of(home: Path) -> set[str]:
    """The token as it is now, its key, and the application's secret."""
    key = (home / "keys" / "schwab-token.key").read_text().strip()
    token = TokenFile(home / "demo" / "login" / "schwab-token.json", key).read()["token"]
    return {key, APP_SECRET, token["access_token"], token["refresh_token"]}


def test_the_second_login() -> None:
    """Ready, ended, not ready with the reason and history there, ready again; and no secret shown.

    The canary looks into everything that the stack has written: logs, streams, the database's
    files, its state; and into the metrics.
    """
    options = ("--tickers", "QQQ", *FREE_PORTS)
    with temporary_home() as home, Stack(home, *options, repository=REPOSITORY, **SHORT) as stack:
        secrets = secrets_of(home)
        first = json.loads(stack.kite("auth", "status", "--json").stdout)
        assert (first["state"], first["encrypted"]) == ("ok", True)

        eventually(lambda: ingest(stack)["state"] == "unready", WITHIN_S, "the login has ended")
        pid = ingest(stack)["pid"]
        assert stack.kite("auth", "refresh").returncode == 1
        assert bars(stack) > 0
        eventually(
            lambda: "auth login" in stack.kite("logs", "ingest", "-n", "200").stdout,
            WITHIN_S,
            "the log says what to do",
        )

        code = log_in(stack)
        secrets |= {code} | secrets_of(home)
        eventually(lambda: ingest(stack)["state"] == "running", WITHIN_S, "ready again")
        assert ingest(stack)["pid"] == pid, "it was restarted"
        assert stack.kite("auth", "refresh").returncode == 0
        secrets |= secrets_of(home)
        shown = "".join(
            httpx.get(service["metrics"]).text
            for service in stack.status()["services"].values()
            if service["metrics"]
        )
        assert stack.stop() == 0
        said = "\n".join(stack.output + stack.complaints)
        assert "kite_ingest_token_age_seconds" in shown
        places = {"metrics": shown.encode(), "terminal": said.encode(), **written(home)}
        assert any(b"token.login_taken_over" in content for content in places.values())
        for place, content in places.items():
            for secret in secrets:
                assert secret.rstrip("@=").encode() not in content, f"a secret is in {place}"


def written(home: Path) -> dict[str, bytes]:
    """Everything in the home but the key itself, by its path."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.parent != home / "keys"
    }
