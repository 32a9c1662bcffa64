"""The dashboard's files: where they are, and the job that builds them once when they are missing.

The page is built from `dashboard/` with the Node of this machine, or with the one that pip
installed. What was built says from which sources; when those change, it is built anew. A checkout
that cannot be written to is left alone: the page is then built below the data home. Nothing waits
for it but the word `ready`, and without it (no Node, no network) the stack runs all the same: the
gateway says what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cli.node import Node, find
from libs.common.errors import ServerError
from libs.common.telemetry import configure_logging, get_logger

__all__ = ["NOT_BUILT", "PAGE", "build", "built", "digest", "directory", "main"]

PAGE: Final = "page"
NOT_BUILT: Final = "page.not_built"

BUILD_WAIT_S = 600.0
_SOURCES = ("package.json", "package-lock.json", "index.html", "tsconfig.json", "vite.config.ts")
_SOURCE_TREES = ("src", "public")
_MARK = ".built-from"
_WORDS_MAX = 300


def directory(checkout: Path, runtime: Path) -> Path:
    """Return where the page belongs: in the checkout if we may write there, else with our data."""
    dashboard = checkout / "dashboard"
    return dashboard / "dist" if os.access(dashboard, os.W_OK) else runtime / "page"


def digest(dashboard: Path) -> str:
    """Return a digest of everything that the page is made of; raises OSError."""
    found = hashlib.sha256()
    trees = (path for tree in _SOURCE_TREES for path in (dashboard / tree).rglob("*"))
    for path in sorted([*(dashboard / name for name in _SOURCES), *trees]):
        if path.is_file() and ".test." not in path.name:
            found.update(str(path.relative_to(dashboard)).encode() + b"\0")
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def built(dashboard: Path, target: Path) -> bool:
    """Tell whether the page stands at `target`, made of these sources; raises OSError."""
    try:
        return (target / _MARK).read_text(encoding="ascii") == digest(dashboard)
    except FileNotFoundError:
        return False


def build(dashboard: Path, target: Path) -> None:
    """Build the page and put it in place in one step; raises ServerError."""
    made_from = digest(dashboard)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent), tempfile.TemporaryDirectory(
        prefix=".page-", dir=target.parent
    ) as folder:  # fmt: skip
        if built(dashboard, target):
            return  # another start did it meanwhile
        work = Path(folder)
        for name in _SOURCES:
            shutil.copy(dashboard / name, work)
        for tree in _SOURCE_TREES:
            shutil.copytree(dashboard / tree, work / tree)
        node = find()
        _npm(node, ("ci", "--no-audit", "--no-fund", "--ignore-scripts"), work)
        _npm(node, ("run", "build"), work)
        (work / "dist" / _MARK).write_text(made_from, encoding="ascii")
        # The old page is moved away and not removed first: there is one all but a moment.
        if target.exists():
            target.rename(work / "old")
        (work / "dist").rename(target)


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold a lock, so that two starts do not build at once."""
    with (place / ".page.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _npm(node: Node, arguments: tuple[str, ...], place: Path) -> None:
    command = (*node.npm, *arguments)
    try:
        done = subprocess.run(
            command, cwd=place, env=node.environment(), capture_output=True, text=True,
            check=False, timeout=BUILD_WAIT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"npm {arguments[0]}: {error}") from error
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())[-_WORDS_MAX:]
        raise ServerError(f"npm {arguments[0]} failed: {words}")


def main() -> int:
    """Build the page named by the arguments; what goes wrong is told, and stops nobody."""
    configure_logging(PAGE, "info")
    dashboard, target = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        build(dashboard, target)
    except (ServerError, OSError) as error:
        get_logger().warning(NOT_BUILT, note=f"the page is not built: {error}")
    else:
        get_logger().info("page.built", directory=str(target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
