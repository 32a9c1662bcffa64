"""Runs every benchmark, one after the other and each in a process of its own: `make bench`.

`--short` takes seconds instead of minutes for each, and is what CI runs to see that they work.
`--only NAME` runs `bench_NAME.py` alone; it can be repeated. `--page` puts the figures into
docs/benchmarks.md. Prints one JSON line per figure on standard output and, on a terminal, a table
of them all in the end; the exit code is 1 when a benchmark failed. A missed target is no failure:
it is a figure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import page
from benchmarks.report import show

HERE = Path(__file__).resolve().parent


def run(name: str, options: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """Run one benchmark, passing its lines on; returns its figures and whether it succeeded."""
    figures = []
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("{"):
                figures.append(json.loads(line))
    return figures, process.returncode == 0


def main() -> int:
    """Run the benchmarks, and name those that failed on standard error."""
    names = [path.stem for path in sorted(HERE.glob("bench_*.py"))]
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure on this machine.")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes for each")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="one of them; can be repeated",
        choices=[name.removeprefix("bench_") for name in names],
    )  # fmt: skip
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md as well")
    wanted = parser.parse_args()
    where = page.machine()
    figures: list[dict[str, Any]] = []
    failed = []
    for name in names:
        if wanted.only and name.removeprefix("bench_") not in wanted.only:
            continue
        found, succeeded = run(name, ["--short"] if wanted.short else [])
        figures += found
        if not succeeded:
            failed.append(name)
    console = Console(stderr=True)
    if console.is_terminal and figures:
        show(figures, console)
    if wanted.page:
        page.write(figures, where)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
