"""Real servers for tests: the classes that `./kite up` supervises, spawned without a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cli.servers.server import LocalServer
from libs.common.errors import ServerError

__all__ = ["Running", "temporary_home"]

_STOP_WAIT_S = 15.0


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """Yield a data home that the servers' account can reach, which pytest's tmp_path is not."""
    home = Path(tempfile.mkdtemp(prefix="kite-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


class Running:
    """One spawned server; its log is a file, shown when the start fails.

    `extra` arguments are for tests alone, such as not to wait for the disk.
    """

    def __init__(self, server: LocalServer, log: Path, *, extra: tuple[str, ...] = ()) -> None:
        self.server = server
        self.log = log
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the server's main process."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the main process still runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Prepare, spawn and wait until the server is ready."""
        self.server.prepare()
        command = self.server.command()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                (*command.argv, *self._extra), stdout=log, stderr=log, **command.spawn_options()
            )
        self._process = process
        try:
            asyncio.run(self.server.wait_ready(alive=lambda: process.poll() is None))
        except ServerError as error:
            self.kill()
            tail = self.log.read_text(errors="replace")[-3000:]
            raise ServerError(f"{error}: {self.server.explain(tail)}\n{tail}") from error

    def stop(self) -> int:
        """Stop in good order and return the exit code."""
        assert self._process is not None, "not started"
        self._process.send_signal(self.server.command().stop_signal)
        return self._process.wait(_STOP_WAIT_S)

    def kill(self) -> None:
        """Kill the main process as `kill -9` does."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.wait(_STOP_WAIT_S)

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
