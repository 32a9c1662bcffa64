"""A second instance of a service, beside the one that the supervisor runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psutil

__all__ = ["Twin"]

_ENDS_WITHIN_S = 60.0


class Twin:
    """A second instance of a service, told the same as the one that the supervisor runs."""

    def __init__(self, service: str, pid: int, log: Path) -> None:
        process = psutil.Process(pid)
        self.service = service
        self._command = process.cmdline()
        self._cwd = process.cwd()
        self._environment = {**process.environ(), "KITE_METRICS_PORT": "0"}
        self._log = log
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the instance that runs now."""
        assert self._popen is not None, "not started"
        return self._popen.pid

    def start(self) -> None:
        """Start it, or start it again."""
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self._popen is not None, "not started"
        self._popen.kill()
        self._popen.wait(_ENDS_WITHIN_S)

    def metrics(self) -> str | None:
        """Return where it tells its metrics, which its log says as soon as it has started."""
        for line in self._log.read_text().splitlines():
            if "service.started" in line and (said := json.loads(line))["pid"] == self.pid:
                return f"{said['metrics']}/metrics"
        return None

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._popen.poll() if self._popen is not None else None
