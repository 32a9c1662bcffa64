"""What a newcomer gets: a checkout without a page, `./kite up`, and soon the page."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import Dash, chromium
from tests.e2e.stack import REPOSITORY, Stack
from tests.servers import temporary_home

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(400)]

BUILT_WITHIN_S = 240.0


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a clone of this tree has, so without what was built."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            copy = tmp_path / "checkout" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copy)
    return tmp_path / "checkout"


@pytest.fixture
def stack(checkout: Path) -> Iterator[Stack]:
    """`./kite up` in that copy, with a home of its own."""
    with (
        temporary_home() as home,
        Stack(
            home, "--port", "0", "--nats-port", "0", "--postgres-port", "0",
            repository=checkout, KITE_GATEWAY_DASHBOARD_DIR="",
        ) as running,
    ):  # fmt: skip
        yield running


def test_the_page_opens_by_itself_once_it_is_built(stack: Stack, checkout: Path) -> None:
    """Whoever opens the address too early is told so, waits, and sees the day move."""
    with chromium() as browser, Dash(browser, stack.gateway) as dash:
        dash.open(t="QQQ", tf="tick", wait=False)
        at_first = dash.page.content()
        if not (checkout / "dashboard" / "dist").exists():
            assert "The page is not there yet" in at_first
        dash.until(lambda: dash.find("badge").count() == 1, "the page is built", BUILT_WITHIN_S)
        dash.wait_drawn()
        count = len(dash.store()["ts_ms"])
        dash.until(lambda: len(dash.store()["ts_ms"]) > count, "a live tick")
