"""Compare the page's chart with Recharts on a day of seconds, and print one JSON line a figure.

Build first: `npm ci --prefix bench && npm run bench`. Each subject gets a browser of its own.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, sync_playwright

DIST = Path(__file__).parent / "dist"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
FIGURES = (
    ("chart_first_render", "first_render_ms", "ms"),
    ("chart_first_render_busy", "first_render_busy_ms", "ms"),
    ("chart_frames", "frames_per_s", "1/s"),
    ("chart_longest_frame", "longest_frame_ms", "ms"),
)
SUBJECTS = ("engine", "recharts")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing: standard output is for figures."""


@contextmanager
def _served(directory: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def measure(chromium: str, subject: str, appends_per_s: int, seconds: float) -> dict[str, float]:
    """Draw the day once and append to it; return what the page measured."""
    with _served(DIST) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 700})
        page.goto(url)
        page.wait_for_function("window.measure !== undefined")
        session = page.context.new_cdp_session(page)
        # In the thread's own time: that of other programs on the machine does not count.
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = _busy_s(session)
        page.evaluate("(name) => window.measure(name, 0, 0)", subject)
        first_s = _busy_s(session) - before
        page.reload()
        page.wait_for_function("window.measure !== undefined")
        figures: dict[str, float] = page.evaluate(
            "([name, rate, seconds]) => window.measure(name, rate, seconds)",
            [subject, appends_per_s, seconds],
        )
        browser.close()
    return {**figures, "first_render_busy_ms": first_s * 1000}


def _busy_s(session: CDPSession) -> float:
    """Read how long the page's main thread has worked."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


def _line(name: str, ours: float, theirs: float, unit: str) -> str:
    ratio = round(ours / theirs, 3) if theirs else None
    figure = {"name": name, "value": round(ours, 1), "unit": unit, "baseline": round(theirs, 1)}
    return json.dumps({**figure, "ratio": ratio})


def main() -> None:
    """Measure both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--appends-per-s", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=6.0)
    asked = parser.parse_args()
    ours, theirs = (
        measure(asked.chromium, subject, asked.appends_per_s, asked.seconds) for subject in SUBJECTS
    )
    for name, key, unit in FIGURES:
        sys.stdout.write(_line(name, ours[key], theirs[key], unit) + "\n")


if __name__ == "__main__":
    main()
