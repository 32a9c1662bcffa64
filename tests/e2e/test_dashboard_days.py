"""Recorded days in the browser: what is drawn is what is in the database, on every day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.e2e import oracle
from tests.e2e.browser import MANY_REQUESTS, Dash, built_page, chromium, count_near
from tests.e2e.recorded import FXY, FXY_DAYS, cut, played, query, wait_until_played
from tests.e2e.stack import Stack
from tests.servers import temporary_home

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(600)]

CANDLES = """
    SELECT timestamp, open, high, low, close, volume, sma9, vwap FROM candles
    WHERE ticker = $1 AND timeframe = $2 AND timestamp >= $3 AND timestamp < $4 ORDER BY timestamp
"""
SIGNALS = """
    SELECT timestamp, direction, price FROM signals
    WHERE ticker = $1 AND state = 'active' AND timestamp >= $2 AND timestamp < $3
    ORDER BY timestamp
"""
# The Wednesday before Thanksgiving.
DAY = "2023-11-22"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Five days that were played to their end."""
    recording = cut(FXY, FXY_DAYS, tmp_path_factory.mktemp("recording"))
    expected = oracle.candles(oracle.minute_bars(recording))
    page = {"KITE_GATEWAY_DASHBOARD_DIR": str(built_page()), **MANY_REQUESTS}
    with temporary_home() as home, played(home, recording, **page) as running:
        wait_until_played(running, "FXY", expected)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all viewers."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def viewer(stack: Stack, browser: Browser) -> Iterator[Dash]:
    """A page in front of the stack; each test opens the address that it wants."""
    with Dash(browser, stack.gateway) as dash:
        yield dash


def bounds(day: str) -> tuple[datetime, datetime]:
    """Return the hours around a day's session, in UTC; no session of another day is in them."""
    return (
        datetime.fromisoformat(f"{day}T05:00:00").replace(tzinfo=UTC),
        datetime.fromisoformat(f"{day}T23:59:59").replace(tzinfo=UTC),
    )


def stored(stack: Stack, day: str, timeframe: str) -> dict[str, list[Any]]:
    """Return a day's candles as the database has them, in columns."""
    rows = query(stack, CANDLES, "FXY", timeframe, *bounds(day))
    names = ("ts_ms", "open", "high", "low", "close", "volume", "sma9", "vwap")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for timestamp, *values in rows:
        columns["ts_ms"].append(round(timestamp.timestamp() * 1000))
        for name, value in zip(names[1:], values, strict=True):
            columns[name].append(None if value is None else float(value))
    return columns


@pytest.mark.parametrize("timeframe", ["1m", "5m", "15m", "1h"])
def test_the_chart_holds_what_the_database_has(stack: Stack, viewer: Dash, timeframe: str) -> None:
    """Every candle and both averages of a day, value by value."""
    viewer.open(t="FXY", d=DAY, tf=timeframe)
    shown = viewer.store()
    expected = stored(stack, DAY, timeframe)
    assert len(expected["ts_ms"]) > 5
    assert {name: shown[name] for name in expected} == expected


def test_the_day_is_on_the_screen(viewer: Dash, stack: Stack) -> None:
    """Candles of both colours and both averages are drawn from the first to the last minute."""
    viewer.open(t="FXY", d=DAY, tf="1m")
    chart = viewer.find("chart")
    # The legend's figures have the same colours.
    chart.evaluate("(e) => { e.querySelector('.chart-legend').style.visibility = 'hidden'; }")
    picture = viewer.picture("day", chart)
    candles = len(stored(stack, DAY, "1m")["ts_ms"])
    width, _ = picture.size
    for token in ("up", "down"):
        pixels, _ = count_near(picture, viewer.colour(token))
        assert pixels > candles // 2, f"{token}: {pixels} pixels of {candles} candles"
    for token, share in (("sma", 0.3), ("vwap", 0.6)):  # thin lines are pale where they are steep
        _, columns = count_near(picture, viewer.colour(token))
        assert columns > share * width, f"{token} is drawn over {columns} of {width} pixels"
    empty = viewer.colour("panel")
    pixels, _ = count_near(picture, empty, 2)
    assert pixels < 0.97 * picture.size[0] * picture.size[1]
    assert viewer.complaints == []


def test_what_is_switched_off_is_not_drawn(viewer: Dash) -> None:
    """The averages disappear from the picture with their buttons, and come back."""
    viewer.open(t="FXY", d=DAY, tf="1m")
    chart = viewer.find("chart")

    def pixels(token: str) -> int:
        found, _ = count_near(viewer.picture("switched", chart), viewer.colour(token))
        return found

    for name, token in (("SMA9", "sma"), ("VWAP", "vwap")):
        viewer.button(name).click()
        viewer.until(partial(lambda token: pixels(token) < 50, token), f"{name} is gone")
        viewer.button(name).click()
        viewer.until(partial(lambda token: pixels(token) > 200, token), f"{name} is back")


def test_markers_are_the_signals_of_the_table_and_of_the_database(
    stack: Stack, viewer: Dash
) -> None:
    """Chart, table and database name the same crosses."""
    for day in FXY_DAYS:
        viewer.open(t="FXY", d=day, tf="1m")
        expected = [
            (round(timestamp.timestamp() * 1000), direction, float(price))
            for timestamp, direction, price in query(stack, SIGNALS, "FXY", *bounds(day))
        ]
        viewer.until(partial(marked, viewer, len(expected)), f"{len(expected)} markers on {day}")
        found = [(each["ts_ms"], each["direction"], each["price"]) for each in viewer.markers()]
        assert sorted(found) == expected
        rows = viewer.find("signals").locator("tbody tr")
        times = [text[:8] for text in rows.locator("td:first-child").all_inner_texts()]
        assert sorted(times) == [new_york(ts_ms) for ts_ms, _, _ in expected]


def marked(viewer: Dash, count: int) -> bool:
    """Tell whether so many signals are marked."""
    return len(viewer.markers()) == count


def new_york(ts_ms: int) -> str:
    """Return the time of day in New York; in these November days of winter five hours back."""
    when = datetime.fromtimestamp(ts_ms / 1000, UTC)
    hours = 4 if when.date().isoformat() < "2023-11-05" else 5
    return datetime.fromtimestamp(ts_ms / 1000 - hours * 3600, UTC).strftime("%H:%M:%S")


def test_a_click_on_a_signal_centres_it(viewer: Dash) -> None:
    """The chart goes where the row is from, also from another place of the day."""
    viewer.open(t="FXY", d=DAY, tf="1m")
    viewer.until(viewer.markers, "signals are there")
    first = viewer.find("signals").locator("tbody tr").last
    first.click()
    wanted: int = min(each["ts_ms"] for each in viewer.markers())

    def off_centre_ms() -> float:
        view = viewer.view()
        return abs((view["from_ms"] + view["to_ms"]) / 2 - wanted)

    viewer.until(lambda: off_centre_ms() < 5 * 60_000, "the signal is in the middle")


def test_days_are_walked_over_weekends_and_holidays(viewer: Dash) -> None:
    """Previous and next go from session to session; the half day says so, an empty one why."""
    viewer.open(t="FXY", tf="1m", d="2023-11-24")
    assert viewer.page.get_by_text("Half day").count() == 1
    for start, button, expected in (
        ("2023-11-24", "Previous trading day", "2023-11-22"),
        ("2023-11-22", "Next trading day", "2023-11-24"),
        ("2023-11-06", "Previous trading day", "2023-11-03"),
        ("2023-11-03", "Next trading day", "2023-11-06"),
    ):
        viewer.open(t="FXY", tf="1m", d=start)
        viewer.button(button).click()
        viewer.until(partial(shows, viewer, expected), f"{expected} after {start}")
        viewer.wait_drawn()
        assert new_york_day(viewer.store()["ts_ms"][0]) == expected
    viewer.open(t="FXY", tf="1m", d="2023-11-22")
    viewer.button("Previous trading day").click()
    viewer.page.get_by_text("Nothing was recorded").wait_for()
    assert viewer.shown_date() == "2023-11-21"
    assert viewer.complaints == []


def shows(viewer: Dash, day: str) -> bool:
    """Tell whether this day is on the screen."""
    return viewer.shown_date() == day


def new_york_day(ts_ms: int) -> str:
    """Return the date; no session goes beyond midnight in either place."""
    return datetime.fromtimestamp(ts_ms / 1000, UTC).date().isoformat()


def test_a_holiday_says_why_it_is_empty(viewer: Dash) -> None:
    """Thanksgiving has no session, and the picker does not offer it."""
    viewer.open(wait=False, t="FXY", d="2023-11-23")
    notice = viewer.page.get_by_text("No session: Thanksgiving")
    notice.wait_for()
    viewer.page.keyboard.press("g")
    holiday = viewer.page.locator('[data-date="2023-11-23"]')
    holiday.wait_for()
    assert holiday.get_attribute("aria-disabled") == "true"
    assert "Thanksgiving" in (holiday.get_attribute("title") or "")
    viewer.page.locator('[data-date="2023-11-22"]').click()
    viewer.wait_drawn()
    assert viewer.shown_date() == "2023-11-22"


def test_a_viewer_in_tokyo_sees_new_york(stack: Stack, browser: Browser) -> None:
    """Clock, table and legend are New York's, wherever the browser is."""
    with Dash(browser, stack.gateway, timezone="Asia/Tokyo") as dash:
        dash.open(t="FXY", d=DAY, tf="1m")
        dash.until(dash.markers, "signals are there")
        assert dash.page.evaluate("new Date(0).getTimezoneOffset()") == -540
        wanted = sorted(new_york(each["ts_ms"]) for each in dash.markers())
        rows = dash.find("signals").locator("tbody td:first-child")
        assert sorted(text[:8] for text in rows.all_inner_texts()) == wanted
        assert all("09:30:00" <= time < "16:00:00" for time in wanted)
        assert dash.shown_date() == DAY


def test_a_link_shows_somebody_else_the_same(viewer: Dash, stack: Stack) -> None:
    """Ticker, day, timeframe, style and stretch are in the address."""
    viewer.open(t="FXY", d=DAY, tf="5m")
    viewer.find("chart").focus()
    for _ in range(3):
        viewer.page.keyboard.press("+")
    viewer.page.keyboard.press("c")
    viewer.until(
        lambda: all(part in viewer.address() for part in ("from=", "style=line")),
        "the address",
    )
    viewer.next_frame()
    mine = viewer.view()
    link = viewer.address()
    with_link = viewer.context.new_page()
    with_link.goto(link)
    viewer.until(
        lambda: with_link.evaluate("window.__dash?.ready === true"), "the other page is drawn"
    )
    theirs = with_link.evaluate("window.__dash.visibleRange()")
    with_link.close()
    for name in ("from_ms", "to_ms"):
        assert theirs[name] == pytest.approx(mine[name], abs=60_000)


def test_csv_is_what_the_table_shows(viewer: Dash, tmp_path: Path) -> None:
    """The download has a line for each signal, with both times."""
    viewer.open(t="FXY", d=DAY, tf="1m")
    viewer.until(viewer.markers, "signals are there")
    with viewer.page.expect_download() as download:
        viewer.page.get_by_role("button", name="CSV").click()
    saved = tmp_path / "signals.csv"
    download.value.save_as(saved)
    lines = saved.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(viewer.markers())
    assert DAY in lines[1]
