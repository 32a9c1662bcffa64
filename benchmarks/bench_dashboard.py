"""What the page weighs, how fast its chart draws, and how late a pixel changes.

- `page_scripts`: what a first visit loads of JavaScript, gzip; the baseline is the target.
- `chart_first_render`: a day of 23,400 seconds with price and both averages, from nothing until it
  is on the canvas;
- `chart_frames`: frames a second while 50 points a second are appended and the day is in view; the
  baselines of both are targets. `…_recharts` are the same against Recharts with the same data.
- `chart_longest_frame_recharts`: the longest wait between two of these frames, of both.
- `wire_to_pixel_p99`, `wire_to_pixel_p50`: the demo at its pace; from the wire frame's arrival at
  ingest, before it is parsed, until the page has drawn the tick that came of it. It includes the
  gateway's batches of 100 ms. The clocks are one machine's.

All in Debian's Chromium without a graphics card. Run it as `python -m benchmarks.bench_dashboard
[--short]`; it prints one JSON line per figure, and none where there is no Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gzip
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from benchmarks.report import report
from cli.node import find
from libs.common import codec
from libs.common.bus import nats
from libs.common.events import TickIndicator
from tests.e2e.browser import DASHBOARD, Dash, built_page, chromium, find_chromium
from tests.e2e.stack import REPOSITORY, Stack
from tests.servers import temporary_home

SCRIPTS_TARGET_KB = 150.0
PIXEL_TARGET_MS = 200.0
APPENDS_PER_S = 50
SUBJECTS = ("engine", "recharts")
# Name, what the page calls it, unit, target.
FIGURES = (
    ("chart_first_render", "first_render_ms", "ms", 500.0),
    ("chart_frames", "frames_per_s", "frames/s", 55.0),
    ("chart_longest_frame", "longest_frame_ms", "ms", None),
)
_READ_MESSAGES, _READ_BYTES = 500, 8_000_000
# Notes when each newest tick was on the screen: drawn in one frame, shown before the next.
_WATCH = """() => {
    window.drawn = [];
    let newest = window.__dash.newestMs();
    const look = () => {
        const now = window.__dash.newestMs();
        if (now !== newest) {
            newest = now;
            requestAnimationFrame(() => window.drawn.push([now, Date.now()]));
        }
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing: standard output is for figures."""


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Hand out the files of a directory."""
    handler = functools.partial(_Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


# -- weight ---------------------------------------------------------------------------------------


def measure_scripts(browser: Browser, stack: Stack) -> None:
    """Load the page once and compress what scripts came."""
    with Dash(browser, stack.gateway) as dash:
        urls: set[str] = set()
        dash.page.on("response", lambda answer: urls.add(answer.url))
        dash.open(t="QQQ", tf="1m")
        bodies = [dash.page.request.get(url).body() for url in urls if url.endswith(".js")]
    total = sum(len(gzip.compress(body)) for body in bodies)
    report("page_scripts", "KB", total / 1000, SCRIPTS_TARGET_KB)


# -- the chart beside Recharts --------------------------------------------------------------------


def build_comparison() -> Path:
    """Build the page that draws the same day in both ways; it never gets near what is shipped."""
    node = find()
    for arguments in (
        ("--prefix", "bench", "ci", "--no-audit", "--no-fund", "--ignore-scripts"),
        ("run", "bench"),
    ):
        subprocess.run(
            [*node.npm, *arguments], cwd=DASHBOARD, env=node.environment(), check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return DASHBOARD / "bench" / "dist"


def measure_chart(directory: Path, seconds: float) -> None:
    """Draw the day and append to it, each way in a browser of its own."""
    figures = []
    for subject in SUBJECTS:
        with served(directory) as url, chromium() as browser:
            page = browser.new_page(viewport={"width": 1440, "height": 700})
            page.goto(url)
            page.wait_for_function("window.measure !== undefined")
            figures.append(
                page.evaluate(
                    "([name, rate, seconds]) => window.measure(name, rate, seconds)",
                    [subject, APPENDS_PER_S, seconds],
                )
            )
    ours, theirs = figures
    for name, key, unit, target in FIGURES:
        if target is not None:
            report(name, unit, ours[key], target)
        report(f"{name}_recharts", unit, ours[key], theirs[key])


# -- wire to pixel --------------------------------------------------------------------------------


async def received(url: str, ticker: str) -> dict[int, int]:
    """Return when ingest got the wire frame of each tick, by the tick's time; both in epoch ms."""
    bus = await nats.connect(url, name="bench")
    found: dict[int, int] = {}
    start_seq = 1
    try:
        while stored := await bus.read_many(
            "INDICATORS", "indicators.0", start_seq=start_seq,
            messages_max=_READ_MESSAGES, bytes_max=_READ_BYTES,
        ):  # fmt: skip
            for each in stored:
                frame = codec.decode_frame(each.data)
                for event in frame.events:
                    if isinstance(event, TickIndicator) and event.ticker == ticker:
                        found[event.ts_ms] = frame.received_ms
            start_seq = stored[-1].seq + 1
    finally:
        await bus.close()
    return found


def measure_pixels(browser: Browser, stack: Stack, watch_s: float) -> None:
    """Watch the newest tick of the page, and ask the bus afterwards when it had come in."""
    with Dash(browser, stack.gateway) as dash:
        dash.open(t="QQQ", tf="tick")
        dash.page.evaluate(_WATCH)
        dash.page.wait_for_timeout(1000 * watch_s)
        drawn: list[tuple[int, int]] = dash.page.evaluate("window.drawn")
    with ThreadPoolExecutor(1) as thread:  # the browser's driver has a loop in this one
        came = thread.submit(asyncio.run, received(stack.status()["nats"], "QQQ")).result()
    late_ms = sorted(at_ms - came[ts_ms] for ts_ms, at_ms in drawn if ts_ms in came)
    for name, share in (("wire_to_pixel_p50", 0.50), ("wire_to_pixel_p99", 0.99)):
        report(name, "ms", late_ms[round(share * (len(late_ms) - 1))], PIXEL_TARGET_MS)


def main() -> None:
    """Measure the chart apart, then the page in front of the demo."""
    parser = argparse.ArgumentParser(description="The page: weight, drawing, delay.")
    parser.add_argument("--short", action="store_true", help="look for seconds, not minutes")
    short = parser.parse_args().short
    if find_chromium() is None:
        print("bench_dashboard: no Chromium here, nothing measured", file=sys.stderr)
        return
    measure_chart(build_comparison(), 2.0 if short else 8.0)
    settings = {"KITE_GATEWAY_DASHBOARD_DIR": str(built_page())}
    with (
        temporary_home() as home,
        Stack(home, "--port", "0", repository=REPOSITORY, **settings) as stack,
        chromium() as browser,
    ):
        measure_scripts(browser, stack)
        measure_pixels(browser, stack, 10 if short else 120)


if __name__ == "__main__":
    main()
