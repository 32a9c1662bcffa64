"""The weekly login from a phone: a real browser, the whole running stack, the simulator's pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import argon2
import httpx
import pytest
from playwright.sync_api import Browser

from deploy.simulated_app import APP_SECRET, CALLBACK
from tests.e2e.browser import MANY_REQUESTS, Dash, built_page, chromium, install_axe
from tests.e2e.stack import REPOSITORY, Stack
from tests.e2e.test_login import ingest, secrets_of, written
from tests.servers import temporary_home

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

PASSWORD = "a phone in a train"
CONTROL = "control of the demo's broker"
PHONE: dict[str, Any] = {"size": (390, 844), "has_touch": True, "is_mobile": True}
FREE_PORTS = ("--port", "0", "--nats-port", "0", "--postgres-port", "0")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser."""
    with chromium() as running:
        yield running


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty data home that the servers' own account can reach."""
    with temporary_home() as made:
        yield made


def protected(home: Path) -> Stack:
    """A demo whose gateway asks for a password, and whose broker knows one login at a time."""
    settings = {
        "KITE_GATEWAY_AUTH": "password",
        "KITE_GATEWAY_PASSWORD_HASH": argon2.PasswordHasher().hash(PASSWORD),
        "KITE_GATEWAY_DASHBOARD_DIR": str(built_page()),
        "KITE_SIM_CONTROL_TOKEN": CONTROL,
        "KITE_SIM_LOGIN_ENDS_OLDER": "1",
        **MANY_REQUESTS,
    }
    return Stack(home, "--tickers", "QQQ", *FREE_PORTS, repository=REPOSITORY, **settings)


def sign_in(dash: Dash) -> None:
    """Go to the gateway's login and through it."""
    dash.page.get_by_label("Password").fill(PASSWORD)
    dash.button("Sign in").click()
    dash.wait_drawn()


def consent(dash: Dash) -> str:
    """Follow the link to the broker; returns where the browser is sent, which leads nowhere."""
    with (
        dash.context.expect_event(
            "requestfailed", lambda request: request.url.startswith(CALLBACK)
        ) as failed,
        dash.context.expect_page() as opened,
    ):
        dash.page.get_by_role("link", name="Log in at the simulated broker").click()
    opened.value.close()
    address: str = failed.value.url
    return address


def paste(dash: Dash, address: str) -> None:
    """Put an address into the page and finish."""
    dash.page.get_by_label("Paste it here").fill(address)
    dash.button("Finish").click()


def cut_the_socket(stack: Stack) -> None:
    """Let the broker drop the connection once; the next one needs a token that works."""
    done = httpx.post(
        f"{stack.status()['schwab']}/sim/faults",
        json={"next": {"drop": 1}},
        headers={"Authorization": f"Bearer {CONTROL}"},
    )
    assert done.status_code == 200, done.text


def test_a_login_from_a_phone(browser: Browser, home: Path) -> None:
    """From the gateway's password to ticks by the new token; and no secret is left anywhere."""
    with protected(home) as stack, Dash(browser, stack.gateway, **PHONE) as dash:
        secrets = secrets_of(home)
        dash.page.goto(f"{stack.gateway}/schwab")
        dash.page.get_by_text("Log in to the gateway first").wait_for()
        dash.picture("broker-stranger")
        dash.page.get_by_role("link", name="Go to its login").click()
        sign_in(dash)
        dash.open(wait=False, p="status")
        dash.page.get_by_role("link", name="Broker login").click()
        dash.page.get_by_text("The login works").wait_for()
        dash.picture("broker-works")
        dash.button("Log in again").click()

        first = consent(dash)
        paste(dash, first.replace("state=", "state=x"))
        dash.page.get_by_text("belongs to another login").wait_for()
        assert first.partition("code=")[2][:20] not in dash.page.content()
        dash.picture("broker-refused")
        pid = ingest(stack)["pid"]
        address = consent(dash)
        paste(dash, address)
        dash.page.get_by_text("Logged in").wait_for()
        assert "next login is due" in dash.page.inner_text("[role=status]")
        dash.picture("broker-done")

        cut_the_socket(stack)
        dash.open()
        before = len(dash.store()["ts_ms"])
        dash.until(lambda: len(dash.store()["ts_ms"]) > before, "minutes come", 90)
        assert ingest(stack)["pid"] == pid, "it was restarted"
        assert stack.kite("auth", "status").returncode == 0
        secrets |= secrets_of(home)
        secrets |= {each.partition("code=")[2].partition("%40")[0] for each in (first, address)}
        assert stack.stop() == 0
        assert APP_SECRET in secrets
        for place, content in written(home).items():
            for secret in secrets:
                assert secret.rstrip("@=").encode() not in content, f"a secret is in {place}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1280, 800)])
def test_it_can_be_read_and_used_everywhere(
    stack: Stack, browser: Browser, scheme: str, size: tuple[int, int]
) -> None:
    """On a phone and on a desk, by day and by night: nothing is cut off, and axe finds nothing."""
    with Dash(browser, stack.gateway, size=size, color_scheme=scheme) as dash:
        dash.open(wait=False)
        sign_in(dash)
        for press in (None, "Log in again"):
            dash.page.goto(f"{stack.gateway}/schwab")
            if press is not None and dash.button(press).count():
                dash.button(press).click()
                dash.page.get_by_label("Paste it here").wait_for()
            wide = dash.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size[0], "it scrolls sideways"
            for target in dash.page.locator("button, .button, input[type=text]").all():
                box = target.bounding_box()
                assert box is not None
                assert box["height"] >= 44, "too small for a thumb"
            dash.picture(f"broker-{scheme}-{size[0]}-{'open' if press else 'begin'}")
            assert install_axe(dash)() == []
        assert dash.complaints == []


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A demo behind a password, for all who only look."""
    with temporary_home() as home, protected(home) as running:
        yield running
