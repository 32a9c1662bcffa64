"""Other people's libraries, each run as its documentation says, in a process and environment apart.

`run` makes the environment of requirements/bench.txt first when it is not there yet. The modules
beside this file run inside it: they import nothing of ours, take their work as arguments, and print
one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from deploy import make_venv

__all__ = ["run"]

GROUP = "bench"
_TIMEOUT_S = 900


def run(module: str, *arguments: str) -> dict[str, Any]:
    """Run `benchmarks.rivals.<module>` to its end and return what it printed.

    Raises SetupError when the packages cannot be installed, CalledProcessError when it failed.
    """
    done = subprocess.run(
        [_python(), "-m", f"benchmarks.rivals.{module}", *arguments],
        cwd=make_venv.ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=_TIMEOUT_S,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _python() -> Path:
    own = Path(os.environ.get("KITE_HOME") or Path.home() / ".local/share/alphakite")
    venv = make_venv.make(GROUP, [make_venv.ROOT / ".venv-bench", own / "venv-bench"])
    return venv / "bin" / "python"
