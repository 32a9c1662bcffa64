"""A guide as something to be followed: its commands, and what it says that they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.e2e.stack import REPOSITORY

__all__ = ["Follower", "blocks", "labels", "starting"]

FREE_PORTS = ("--port", "0", "--nats-port", "0", "--postgres-port", "0")
_WITHIN_S = 120
_ADDRESS = re.compile(r"^\s+(https?://\S+/authorize\?\S+)$", re.MULTILINE)


def blocks(guide: str, heading: str, language: str = "sh") -> list[str]:
    """Return the blocks of one language below a heading, up to the next one."""
    text = (REPOSITORY / "docs" / "guides" / guide).read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"{guide} has no {heading!r}"
    level = heading.partition(" ")[0]
    section = re.split(rf"^#{{2,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    fences = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    return [body for name, body in fences if name == language]


def labels(lines: str) -> list[str]:
    """Return what the lines of a printed answer begin with."""
    return [line.split()[0] for line in lines.splitlines() if line.strip()]


def starting(command: str, *more: str) -> tuple[dict[str, str], list[str]]:
    """Return the settings and options of a `./kite up` that a guide prints, on other ports."""
    words = shlex.split(command)
    at = words.index("./kite")
    assert words[at + 1] == "up", command
    settings = dict(word.split("=", 1) for word in words[:at])
    return settings, [*words[at + 2 :], *FREE_PORTS, *more]


class Follower:
    """Types what a guide says, in a folder with a `./kite`, and sees what comes."""

    def __init__(self, folder: Path, module: str, **environment: str) -> None:
        self._folder = folder / "checkout"
        self._folder.mkdir()
        launcher = self._folder / "kite"
        launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
        launcher.chmod(0o755)
        inherited = {name: v for name, v in os.environ.items() if not name.startswith("KITE_")}
        own = {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"}
        self.environment = {**inherited, **own, **environment}

    def type(self, commands: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Type a whole block, however its last command ends."""
        return subprocess.run(
            ["bash", "-c", commands], cwd=self._folder, env=self.environment, input=text,
            capture_output=True, text=True, timeout=_WITHIN_S, check=False,
        )  # fmt: skip

    def do(self, commands: str) -> str:
        """Type a whole block, in which everything has to work; returns what it said."""
        done = self.type(f"set -e\n{commands}")
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def running(self, module: str) -> Iterator[None]:
        """Have a service run with what is in the environment, until the context ends."""
        process = subprocess.Popen([sys.executable, "-m", module], env=self.environment)
        try:
            yield
        finally:
            process.terminate()
            process.wait(_WITHIN_S)

    def log_in(self, command: str) -> str:
        """Type a login, open its address as a browser elsewhere would, and paste where it ends."""
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=self._folder, env=self.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        said = ""
        while (found := _ADDRESS.search(said)) is None:
            line = process.stdout.readline()
            assert line, said
            said += line
        back = httpx.get(found[1]).headers["location"]
        rest, _ = process.communicate(f"{back}\n", timeout=_WITHIN_S)
        assert process.returncode == 0, rest
        return said + rest
