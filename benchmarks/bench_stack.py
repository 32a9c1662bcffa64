"""The whole stack as a user starts it: time to the first tick, memory, and delays under load.

- `up_to_ready`: from typing `kite up` in an empty home, with everything installed, until it says
  ready, which takes the first live tick; the baseline is the target.
- `up_again_to_ready`: the same with the data there.
- `memory_core_services`, `memory_whole_stack`: proportional set size, so that shared pages count
  once, after a while in the demo; the baseline is the target.
- `received_to_live_p99`, `received_to_row_p99`: 10 wire frames a second with 250 trades each. From
  the wire frame's arrival, before it is parsed, until the answer of indicators is durable (its live
  messages leave next), and until its rows are committed. Upper ends of histogram buckets, as the
  services export them; the baseline is the target.

Run it as `python -m benchmarks.bench_stack [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.report import report
from tests.e2e.stack import Stack
from tests.servers import temporary_home

CORE_SERVICES = ("ingest", "indicators", "signals", "writer")
READY_TARGET_S = 5.0
CORE_TARGET_MB, WHOLE_TARGET_MB = 250.0, 512.0
LIVE_TARGET_MS, ROW_TARGET_MS = 25.0, 400.0
LOAD_TICKERS = 250
LOAD: dict[str, Any] = {  # as keywords, of which some are no text
    "KITE_SIM_LOAD_FRAMES_PER_S": "10",
    "KITE_SIM_LOAD_ITEMS": str(LOAD_TICKERS),
    "KITE_SIM_REQUESTS_PER_MINUTE": "0",
    "KITE_INGEST_REQUESTS_PER_MINUTE_MAX": "10000",
}
_MB = 1_000_000


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the proportional set size of some processes and all their children."""
    family = {child for top in processes for child in (top, *top.children(recursive=True))}
    return float(sum(process.memory_full_info().pss for process in family)) / _MB


def measure_demo(home: Path, watch_s: float) -> None:
    """Start twice, and look at the memory once everything has been at work."""
    for name in ("up_to_ready", "up_again_to_ready"):
        started_s = time.perf_counter()
        with Stack(home) as stack:
            report(name, "s", time.perf_counter() - started_s, READY_TARGET_S)
            if name == "up_again_to_ready":
                continue
            time.sleep(watch_s)
            core = [psutil.Process(stack.pid(service)) for service in CORE_SERVICES]
            report("memory_core_services", "MB", memory_mb(core), CORE_TARGET_MB)
            report("memory_whole_stack", "MB", memory_mb(stack.processes()), WHOLE_TARGET_MB)


def buckets(url: str, metric: str) -> dict[float, float]:
    """Return a histogram's cumulative counts by upper bound, summed over its labels."""
    text = httpx.get(url).text
    found: dict[float, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{metric}_bucket":
                bound = float(sample.labels["le"])
                found[bound] = found.get(bound, 0.0) + sample.value
    return found


def quantile_ms(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Return where a share of what came in between lies, interpolated inside its bucket."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    wanted = share * counts[float("inf")]
    for (lower, below), (upper, upto) in pairwise([(0.0, 0.0), *counts.items()]):
        if upto >= wanted:
            inside = (wanted - below) / (upto - below)
            return 1000 * (lower if upper == float("inf") else lower + inside * (upper - lower))
    raise AssertionError("the last bucket holds everything")


def measure_load(home: Path, settle_s: float, watch_s: float) -> None:
    """Load the stack and read the delays that the services themselves measure."""
    tickers = ",".join(f"T{number:03}" for number in range(LOAD_TICKERS))
    figures = (
        (
            "received_to_live_p99",
            "indicators",
            "kite_received_to_published_seconds",
            LIVE_TARGET_MS,
        ),
        ("received_to_row_p99", "writer", "kite_writer_commit_lag_seconds", ROW_TARGET_MS),
    )
    with Stack(home, "--tickers", tickers, **LOAD) as stack:
        time.sleep(settle_s)  # the history of so many tickers comes behind the first frames
        urls = {name: entry["metrics"] for name, entry in stack.status()["services"].items()}
        before = {metric: buckets(urls[service], metric) for _, service, metric, _ in figures}
        time.sleep(watch_s)
        for name, service, metric, target_ms in figures:
            after = buckets(urls[service], metric)
            report(name, "ms", quantile_ms(before[metric], after, 0.99), target_ms)


def main() -> None:
    """Measure the demo, then the load, each in a home of its own."""
    parser = argparse.ArgumentParser(description="The whole stack: start, memory, delays.")
    parser.add_argument("--short", action="store_true", help="look for seconds, not minutes")
    short = parser.parse_args().short
    with temporary_home() as home:
        measure_demo(home, watch_s=5 if short else 60)
    with temporary_home() as home:
        measure_load(home, settle_s=15 if short else 90, watch_s=8 if short else 60)


if __name__ == "__main__":
    main()
