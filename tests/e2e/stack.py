"""Drives a whole stack as a user does: `kite up` in a home of its own, asked from outside only."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import eventually

__all__ = ["REPOSITORY", "Stack"]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_READY_WITHIN_S = 60
_GONE_WITHIN_S = 40


class Stack:
    """One `kite up`; a context manager, so that nothing is left behind.

    It runs the code in `repository`, which is this one unless a test made another. Its gateway has
    no page, unless the settings say where one is, or with "" to build it as for everybody.
    """

    module = "cli"  # what is run as the `kite` command

    def __init__(
        self, home: Path, *options: str, repository: Path = REPOSITORY, **settings: str
    ) -> None:
        self.home = home
        self._repository = repository
        self._settings = settings
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self.output: list[str] = []
        self.complaints: list[str] = []

    def kite(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command against this home and return what it said."""
        return subprocess.run(
            self._command(arguments),
            cwd=self._repository, env=self._environment(),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def start(self) -> None:
        """Start and wait until it says that it is ready."""
        process = subprocess.Popen(
            self._command(("up", *self._options)),
            cwd=self._repository,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._process = process
        for stream, lines in ((process.stdout, self.output), (process.stderr, self.complaints)):
            reader = threading.Thread(target=_collect, args=(stream, lines), daemon=True)
            reader.start()
            self._readers.append(reader)
        eventually(
            lambda: self._is_ready() or process.poll() is not None,
            _READY_WITHIN_S,
            "kite up says ready",
        )
        assert self._is_ready(), f"exit code {process.returncode}\n" + "\n".join(self.complaints)

    def status(self) -> dict[str, Any]:
        """Return what `kite status --json` says."""
        answer: dict[str, Any] = json.loads(self.kite("status", "--json").stdout)
        return answer

    @functools.cached_property
    def postgres(self) -> str:
        """Where the database is, with credentials that may read everything."""
        dsn: str = self.status()["postgres"]
        return dsn

    @functools.cached_property
    def gateway(self) -> str:
        """Where the page and its API are."""
        url: str = self.status()["gateway"]
        return url

    def pid(self, service: str) -> int:
        """Return a service's process id."""
        pid: int = self.status()["services"][service]["pid"]
        return pid

    def kill(self, service: str) -> None:
        """Kill a service with -9, and wait until another process runs in its place."""
        before = self.pid(service)
        os.kill(before, signal.SIGKILL)

        def replaced() -> bool:
            entry = self.status()["services"][service]
            return entry["state"] == "running" and entry["pid"] not in (before, None)

        eventually(replaced, _READY_WITHIN_S, f"{service} runs again")

    def wait(self) -> int:
        """Wait for an end that was ordered before, and return the exit code."""
        assert self._process is not None
        return self._process.wait(_GONE_WITHIN_S)

    def stop(self) -> int:
        """Press Ctrl-C and return the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self.wait()

    def processes(self) -> list[psutil.Process]:
        """Return every process that belongs to this stack now, `kite up` included."""
        assert self._process is not None
        top = psutil.Process(self._process.pid)
        return [top, *top.children(recursive=True)]

    def __enter__(self) -> Stack:
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._stop_or_kill()
        for reader in self._readers:
            reader.join(_GONE_WITHIN_S)

    def _stop_or_kill(self) -> None:
        family = self.processes()
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            for process in family:
                if process.is_running():
                    process.kill()

    def _is_ready(self) -> bool:
        return any(line.startswith("ready ") for line in self.output)

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", self.module, *arguments]

    def _environment(self) -> dict[str, str]:
        own = {
            "KITE_HOME": str(self.home),
            "KITE_GATEWAY_DASHBOARD_DIR": str(self.home / "no-page"),
            "PYTHONPATH": str(self._repository),
        }
        return os.environ | own | self._settings


def _collect(stream: Any, lines: list[str]) -> None:
    with stream:
        lines.extend(line.rstrip("\n") for line in stream)
