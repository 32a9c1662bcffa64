"""Debian's Chromium, and the dashboard in it as somebody sees and uses it.

The driver keeps an event loop in its thread while it runs, so it is started for one module and
stopped at its end, and whoever needs a loop meanwhile takes a thread.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image, ImageColor
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from cli import page as page_files
from tests.waiting import eventually

__all__ = [
    "DASHBOARD",
    "MANY_REQUESTS",
    "Dash",
    "built_page",
    "chromium",
    "count_near",
    "find_chromium",
    "install_axe",
]

T = TypeVar("T")

DASHBOARD = Path(__file__).resolve().parents[2] / "dashboard"
WITHIN_S = 30.0
# One address opens page after page, faster than any person.
MANY_REQUESTS = {"KITE_GATEWAY_REQUESTS_PER_MINUTE_MAX": "60000"}
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--disable-gpu", "--disable-dev-shm-usage")
_ARTIFACTS = Path(os.environ["KITE_TEST_PICTURES"]) if "KITE_TEST_PICTURES" in os.environ else None


@functools.cache
def built_page() -> Path:
    """Return where the page is, built as `kite up` builds it; once for all tests."""
    target = DASHBOARD / "dist"
    page_files.build(DASHBOARD, target)
    return target


def find_chromium() -> str | None:
    """Return the browser's program, if there is one."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser; skips the test where there is none."""
    found = find_chromium()
    if found is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    # Chromium refuses to put root into its sandbox.
    flags = [*_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else list(_FLAGS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


class Dash:
    """One viewer's page; what the browser says against it stands in `complaints`."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        size: tuple[int, int] = (1440, 900),
        timezone: str = "America/New_York",
        **context: Any,
    ) -> None:
        self.url = url
        width, height = size
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, timezone_id=timezone, **context
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type == "error" else None,
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def __enter__(self) -> Dash:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    # -- what it shows ----------------------------------------------------------------------------

    def open(self, *, wait: bool = True, **query: str) -> None:
        """Go to an address of the page, and wait until a day is drawn."""
        self.page.goto(f"{self.url}/?{urlencode(query)}")
        if wait:
            self.wait_drawn()

    def wait_drawn(self) -> None:
        """Wait until a day is loaded and drawn."""
        self.until(lambda: self._evaluate("window.__dash?.ready === true"), "a day is drawn")
        self.next_frame()

    def next_frame(self) -> None:
        """Let the page draw what it has."""
        self._evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def store(self) -> dict[str, Any]:
        """Return the columns behind the chart, with None for what is not defined."""
        found: dict[str, Any] = self._evaluate("window.__dash?.store() ?? {}")
        return {
            name: [None if value != value else value for value in values]
            if isinstance(values, list)
            else values
            for name, values in found.items()
        }

    def markers(self) -> list[dict[str, Any]]:
        """Return the signals that are marked in the chart."""
        found: list[dict[str, Any]] = self._evaluate("window.__dash.markers()")
        return found

    def badge(self) -> str:
        """Return what the connection's badge says."""
        said: str = self._evaluate("window.__dash.badge()")
        return said

    def mode(self) -> str | None:
        """Tell whether the view follows the newest value."""
        mode: str | None = self._evaluate("window.__dash.mode()")
        return mode

    def address(self) -> str:
        """Return what is in the address bar; the page writes it without a navigation."""
        address: str = self._evaluate("location.href")
        return address

    def view(self) -> dict[str, float]:
        """Return the stretch of time in view."""
        view: dict[str, float] = self._evaluate("window.__dash.visibleRange()")
        return view

    def find(self, test_id: str) -> Locator:
        """Return the element with this test id."""
        return self.page.get_by_test_id(test_id)

    def button(self, name: str) -> Locator:
        """Return the button with exactly this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def shown_date(self) -> str | None:
        """Return the New York day on the screen."""
        return self.find("date").get_attribute("datetime")

    # -- pictures ---------------------------------------------------------------------------------

    def picture(self, name: str, of: Locator | None = None) -> Image.Image:
        """Return what is on the screen; kept as a file where KITE_TEST_PICTURES names a folder."""
        data = self.page.screenshot() if of is None else of.screenshot()
        if _ARTIFACTS is not None:
            _ARTIFACTS.mkdir(parents=True, exist_ok=True)
            (_ARTIFACTS / f"{name}.png").write_bytes(data)
        return Image.open(io.BytesIO(data)).convert("RGB")

    def colour(self, token: str) -> tuple[int, int, int]:
        """Return a colour of the style sheet by its name."""
        text = self._evaluate(
            "(name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()",
            f"--{token}",
        )
        red, green, blue = ImageColor.getrgb(text)[:3]
        return red, green, blue

    # -- waiting ----------------------------------------------------------------------------------

    def until(self, predicate: Callable[[], T], what: str, within_s: float = WITHIN_S) -> T:
        """Wait for something to become true; a failure tells what the browser said."""
        try:
            return eventually(predicate, within_s, what)
        except AssertionError as error:
            said = "; ".join(self.complaints) or "nothing"
            raise AssertionError(f"{error}; the browser said: {said}") from None

    def _evaluate(self, expression: str, argument: Any = None) -> Any:
        return self.page.evaluate(expression, argument)


def count_near(
    picture: Image.Image, colour: tuple[int, int, int], tolerance: int = 24
) -> tuple[int, int]:
    """Count the pixels, and the columns of pixels, that have about this colour."""
    near = (np.abs(np.asarray(picture, dtype=int) - colour) <= tolerance).all(axis=2)
    return int(near.sum()), int(near.any(axis=0).sum())


def install_axe(dash: Dash) -> Callable[[], list[str]]:
    """Put axe-core into the page; what is returned lists its violations, each in one line."""
    source = (DASHBOARD / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    dash.page.evaluate(source)

    def violations() -> list[str]:
        found: dict[str, Any] = dash.page.evaluate("() => axe.run()")
        return [
            f"{each['id']}: {each['help']} ({each['nodes'][0]['html'][:120]})"
            for each in found["violations"]
        ]

    return violations
