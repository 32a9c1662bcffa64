"""The demo in the browser: it moves, survives the gateway's death, and everybody can use it."""

from __future__ import annotations

import functools
import gzip
import http.server
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import argon2
import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.e2e.browser import MANY_REQUESTS, Dash, built_page, chromium, install_axe
from tests.e2e.recorded import query
from tests.e2e.stack import REPOSITORY, Stack
from tests.servers import temporary_home

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

FREE_PORTS = ("--port", "0", "--nats-port", "0", "--postgres-port", "0")
PHONE = (390, 844)
SCRIPT_BYTES_MAX = 150_000
PASSWORD = "correct horse battery staple"


@contextmanager
def demo(**settings: str) -> Iterator[Stack]:
    """Run the demo with its page."""
    settings |= {"KITE_GATEWAY_DASHBOARD_DIR": str(built_page()), **MANY_REQUESTS}
    with (
        temporary_home() as home,
        Stack(home, *FREE_PORTS, repository=REPOSITORY, **settings) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A running demo."""
    with demo() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all viewers of the module."""
    with chromium() as running:
        yield running


@pytest.fixture
def viewer(browser: Browser, stack: Stack) -> Iterator[Dash]:
    """A page that has just been opened, on a wide window."""
    with Dash(browser, stack.gateway) as dash:
        dash.open(t="QQQ", tf="tick")
        yield dash


# -- it lives -------------------------------------------------------------------------------------


def test_the_address_of_up_shows_the_day_and_moves(viewer: Dash, stack: Stack) -> None:
    """What `ready` names is a page with the hours so far, to which every second adds."""
    assert stack.output[0] == f"ready {stack.gateway}"
    viewer.open()
    assert viewer.store()["timeframe"] == "1m"
    assert len(viewer.store()["ts_ms"]) > 50, "the demo opens an hour into the session"
    viewer.page.keyboard.press("1")
    viewer.until(lambda: viewer.store().get("timeframe") == "tick", "ticks")
    viewer.wait_drawn()
    before = viewer.store()["ts_ms"]
    after = viewer.until(
        lambda: (now := viewer.store()["ts_ms"])[-1] >= before[-1] + 5000 and now, "five seconds"
    )
    assert after[: len(before)] == before
    assert all(earlier < later for earlier, later in itertools.pairwise(after))
    assert viewer.mode() == "follow"
    assert viewer.badge().startswith("SIMULATED")
    assert viewer.complaints == []


def test_what_came_live_is_what_the_rows_say(viewer: Dash, stack: Stack) -> None:
    """Ticks that the page got one by one equal the database's, with their averages."""
    first_live = len(viewer.store()["ts_ms"])
    viewer.until(lambda: len(viewer.store()["ts_ms"]) >= first_live + 5, "five live ticks")
    shown = viewer.store()
    columns = zip(shown["ts_ms"], shown["price"], shown["sma9"], shown["vwap"], strict=True)
    live = list(columns)[first_live:]
    sql = """
        SELECT round(extract(epoch FROM timestamp) * 1000)::bigint, price, i.sma9, i.vwap
        FROM indicators i JOIN equity_data USING (ticker, timestamp)
        WHERE ticker = 'QQQ' AND timestamp >= to_timestamp($1 / 1000.0) ORDER BY timestamp
    """

    def rows() -> list[tuple[Any, ...]]:
        found = query(stack, sql, live[0][0])
        return [
            (ts_ms, *(None if value is None else float(value) for value in values))
            for ts_ms, *values in found
        ][: len(live)]

    viewer.until(lambda: len(rows()) == len(live), "the rows are written")
    assert rows() == live


def test_a_candle_in_the_making_is_replaced_by_the_closed_one(viewer: Dash) -> None:
    """The provisional candle stands apart, and when its minute is over there is one more."""
    viewer.open(t="QQQ", tf="1m")
    viewer.until(
        lambda: viewer.page.evaluate("window.__dash.provisional() !== null"), "a provisional one"
    )
    provisional = viewer.page.evaluate("window.__dash.provisional()")
    count = len(viewer.store()["ts_ms"])
    assert provisional["ts_ms"] > viewer.store()["ts_ms"][-1]
    shown = viewer.until(
        lambda: (now := viewer.store())["ts_ms"][count:] and now, "the minute closes", 90
    )
    assert shown["ts_ms"][count] == provisional["ts_ms"]


def test_new_data_never_moves_a_view_that_was_chosen(viewer: Dash) -> None:
    """After panning the stretch stays; "To live" brings it back."""
    viewer.find("chart").focus()
    for _ in range(4):
        viewer.page.keyboard.press("ArrowLeft")
    viewer.until(lambda: viewer.mode() == "free", "the view is free")
    chosen = viewer.view()
    newest = viewer.store()["ts_ms"][-1]
    viewer.until(lambda: viewer.store()["ts_ms"][-1] >= newest + 3000, "three seconds")
    assert viewer.view() == pytest.approx(chosen, abs=2)
    viewer.button("To live").click()
    viewer.until(lambda: viewer.mode() == "follow", "it follows again")
    assert viewer.view()["to_ms"] > newest


def test_the_gateway_may_die_while_somebody_watches(stack: Stack, browser: Browser) -> None:
    """The badge says so, the numbers stay, and nothing is missing or double afterwards."""
    with Dash(browser, stack.gateway) as dash:
        dash.open(t="QQQ", tf="tick")
        before = dash.store()["ts_ms"]
        stack.kill("gateway")
        dash.until(lambda: dash.store()["ts_ms"][-1] > before[-1] + 3000, "ticks come again", 60)
        dash.until(lambda: dash.badge().startswith("SIMULATED"), "the badge is well again")
        shown = dash.store()
        sql = """
            SELECT round(extract(epoch FROM timestamp) * 1000)::bigint FROM indicators
            WHERE ticker = 'QQQ' AND timestamp BETWEEN to_timestamp($1 / 1000.0)
                AND to_timestamp($2 / 1000.0) ORDER BY timestamp
        """
        first, last = shown["ts_ms"][0], shown["ts_ms"][-1]
        dash.until(
            lambda: [row[0] for row in query(stack, sql, first, last)] == shown["ts_ms"],
            "the page has exactly the ticks of the rows",
        )


def test_the_status_page_counts_a_restart(stack: Stack, browser: Browser) -> None:
    """Services, lanes and checks are there; a killed service shows with one restart."""
    with Dash(browser, stack.gateway) as dash:
        dash.open(wait=False, p="status")
        dash.page.get_by_role("heading", name="Services").wait_for()
        table = dash.page.get_by_role("region", name="Services, scrollable")
        for name in ("ingest", "indicators", "writer"):
            table.get_by_role("cell", name=name, exact=True).first.wait_for()

        def restarts() -> set[int]:
            rows = table.locator("tbody tr").all_inner_texts()
            cells = [row.split("\t") for row in rows]
            return {int(each[-1]) for each in cells if each[0] == "signals"}

        dash.until(lambda: restarts() == {0}, "signals is there")
        stack.kill("signals")
        dash.until(lambda: restarts() == {1}, "one restart", 60)
        for heading in ("Checks", "Lanes: from stream to rows", "Gaps of today"):
            assert dash.page.get_by_role("heading", name=heading).count() == 1
        dash.picture("status")


def test_the_readme_s_picture_is_of_this_page(browser: Browser, stack: Stack) -> None:
    """`make pictures` takes it here; what is shown there is what there is."""
    with Dash(browser, stack.gateway, color_scheme="dark") as dash:
        dash.open(t="QQQ", tf="1m")
        dash.until(dash.markers, "signals are marked")
        dash.page.mouse.move(900, 400)
        dash.next_frame()
        picture = dash.picture("dashboard")
    with Image.open(REPOSITORY / "docs" / "images" / "dashboard.png") as kept:
        assert kept.size == picture.size


def test_its_scripts_stay_small(browser: Browser, stack: Stack) -> None:
    """What a first visit loads, compressed as every server does it, is within the budget."""
    with Dash(browser, stack.gateway) as dash:
        scripts: dict[str, bytes] = {}
        dash.page.on(
            "response",
            lambda answer: (
                scripts.update({answer.url: b""}) if answer.url.endswith(".js") else None
            ),
        )
        dash.open(t="QQQ", tf="1m")
        for url in scripts:
            scripts[url] = dash.page.request.get(url).body()
        assert len(scripts) > 1
        assert sum(len(gzip.compress(body)) for body in scripts.values()) <= SCRIPT_BYTES_MAX


# -- everybody can use it -------------------------------------------------------------------------


def test_the_keyboard_is_enough(viewer: Dash) -> None:
    """Timeframe, ticker, day, help and status without a pointer; the focus is always seen."""
    page = viewer.page
    viewer.find("chart").focus()
    page.keyboard.press("2")
    viewer.until(lambda: viewer.store().get("timeframe") == "1m", "one minute")
    page.keyboard.press("/")
    page.keyboard.type("SPY")
    page.keyboard.press("Enter")
    viewer.until(lambda: viewer.store().get("ticker") == "SPY", "SPY")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    viewer.until(lambda: page.get_by_role("dialog").count() == 0, "the help is closed")
    page.keyboard.press("h")
    page.get_by_role("heading", name="Services").wait_for()
    page.keyboard.press("h")
    viewer.wait_drawn()
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                """() => {
                    const at = document.activeElement;
                    const style = getComputedStyle(at);
                    const name = at.getAttribute("aria-label") ?? at.textContent ?? "";
                    return at === document.body || style.outlineStyle !== "none"
                        || style.boxShadow !== "none" ? name.trim() : "unseen: " + name;
                }"""
            )
        )
    assert not [name for name in seen if name.startswith("unseen")]
    assert {"SMA9", "VWAP", "1m", "Previous trading day", "Keyboard shortcuts"} <= seen


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [(1440, 900), (1000, 700), PHONE], ids=["wide", "middle", "phone"])
def test_axe_finds_nothing(
    browser: Browser, stack: Stack, scheme: str, size: tuple[int, int]
) -> None:
    """No violation on chart, dialogs, picker, settings and status page."""
    with Dash(browser, stack.gateway, size=size, color_scheme=scheme) as dash:
        dash.open(t="QQQ", tf="1m")
        violations = install_axe(dash)
        name = f"{scheme}-{size[0]}"
        dash.picture(name)
        found = {"chart": violations()}
        dash.page.keyboard.press("?")
        dash.page.get_by_role("dialog").wait_for()
        found["help"] = violations()
        dash.page.keyboard.press("Escape")
        dash.page.keyboard.press("g")
        dash.page.locator("[data-date]").first.wait_for()
        found["days"] = violations()
        dash.page.keyboard.press("Escape")
        dash.page.keyboard.press("/")
        dash.page.get_by_role("combobox").wait_for()
        found["search"] = violations()
        dash.page.keyboard.press("Escape")
        dash.page.keyboard.press("h")
        dash.page.get_by_role("heading", name="Services").wait_for()
        found["status"] = violations()
        dash.picture(f"{name}-status")
        assert {place: list_ for place, list_ in found.items() if list_} == {}
        assert dash.complaints == []


def test_a_phone_has_one_column_and_no_overflow(browser: Browser, stack: Stack) -> None:
    """Nothing is wider than the window, and the chart is as wide as it."""
    with Dash(browser, stack.gateway, size=PHONE, has_touch=True, is_mobile=True) as dash:
        dash.open(t="QQQ", tf="1m")
        width = dash.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE[0]
        wider = dash.page.evaluate(
            """(most) => [...document.querySelectorAll("body *")]
                .filter((each) => each.getBoundingClientRect().right > most + 1)
                .filter((each) => !each.closest("ul, .sr-only, [data-arrows], table"))
                .map((each) => each.outerHTML.slice(0, 100))""",
            PHONE[0],
        )
        assert wider == []
        dash.context.set_offline(True)
        stack.kill("gateway")
        dash.until(lambda: "RECONNECTING" in dash.badge(), "the badge is at its widest")
        assert dash.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        box = dash.find("chart").bounding_box()
        assert box is not None
        assert box["width"] >= PHONE[0] - 2


def test_the_page_can_be_installed(viewer: Dash, stack: Stack) -> None:
    """The manifest and its icon are there, with the right types."""
    manifest = viewer.page.locator('link[rel="manifest"]').get_attribute("href")
    assert manifest is not None
    answer = viewer.page.request.get(f"{stack.gateway}/{manifest.removeprefix('./')}")
    assert answer.headers["content-type"].startswith("application/manifest+json")
    for icon in answer.json()["icons"]:
        found = viewer.page.request.get(f"{stack.gateway}/{icon['src'].removeprefix('./')}")
        assert found.ok


# -- nobody else can ------------------------------------------------------------------------------


def test_nothing_breaks_the_content_security_policy(browser: Browser, stack: Stack) -> None:
    """Walking through the whole page violates nothing, and the policy allows no inline script."""
    with Dash(browser, stack.gateway) as dash:
        dash.page.add_init_script(
            "window.broken = []; addEventListener('securitypolicyviolation', "
            "(event) => broken.push(`${event.violatedDirective} ${event.blockedURI}`))"
        )
        dash.open(t="QQQ", tf="1m")
        for key in ("?", "Escape", "g", "Escape", "/", "Escape", "t", "t", "c", "h", "h"):
            dash.page.keyboard.press(key)
            dash.next_frame()
        assert dash.page.evaluate("window.broken") == []
        dash.page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.strange = 1";
                document.body.append(script);
            }"""
        )
        dash.until(lambda: dash.page.evaluate("window.broken.length"), "the policy notices")
        assert dash.page.evaluate("window.strange") is None


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def stranger(folder: Path) -> Iterator[str]:
    """Serve a page of somebody else, from another origin."""
    (folder / "index.html").write_text("<!doctype html><title>Somebody else</title>")
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_page_of_another_origin_gets_nothing(
    browser: Browser, stack: Stack, tmp_path: Path
) -> None:
    """It can neither read the API nor open a live connection, though the browser can."""
    with stranger(tmp_path) as address:
        page = browser.new_page()
        page.goto(address)
        read = "(url) => fetch(url).then((answer) => answer.text(), () => 'refused')"
        assert page.evaluate(read, f"{stack.gateway}/api/v1/tickers") == "refused"
        connect = """(url) => new Promise((done) => {
            const socket = new WebSocket(url);
            socket.onopen = () => done("open");
            socket.onerror = () => done("refused");
        })"""
        live = f"{stack.gateway}/api/v1/live".replace("http", "ws", 1)
        assert page.evaluate(connect, live) == "refused"
        page.close()


def test_with_a_password_the_page_asks_for_it(browser: Browser) -> None:
    """Nothing is shown before, a wrong one is told, the right one opens, and out is out."""
    hashed = argon2.PasswordHasher().hash(PASSWORD)
    settings = {"KITE_GATEWAY_AUTH": "password", "KITE_GATEWAY_PASSWORD_HASH": hashed}
    with demo(**settings) as stack, Dash(browser, stack.gateway) as dash:
        dash.open(wait=False)
        field = dash.page.get_by_label("Password")
        field.wait_for()
        assert dash.find("chart").count() == 0
        field.fill("wrong")
        dash.button("Sign in").click()
        dash.page.get_by_text("This is not the password.").wait_for()
        assert install_axe(dash)() == []
        field.fill(PASSWORD)
        dash.button("Sign in").click()
        dash.wait_drawn()
        before = len(dash.store()["ts_ms"])
        dash.until(lambda: len(dash.store()["ts_ms"]) > before, "it lives", 90)
        dash.button("Settings").click()
        dash.page.get_by_role("button", name="Sign out").click()
        dash.page.get_by_label("Password").wait_for()
        assert dash.find("chart").count() == 0
