"""Runs every benchmark, one after the other and each in a process of its own: `make bench`.

`--short` takes seconds instead of minutes for each, and is what CI runs to see that they work.
Prints one JSON line per figure; the exit code is 1 when one of them failed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run all `bench_*.py`, and name those that failed on standard error."""
    failed = []
    for path in sorted(HERE.glob("bench_*.py")):
        command = [sys.executable, "-m", f"benchmarks.{path.stem}", *sys.argv[1:]]
        if subprocess.run(command, cwd=HERE.parent, check=False).returncode != 0:
            failed.append(path.stem)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
