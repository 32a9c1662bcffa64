"""Carries out what the supervisor decides: starts processes, watches them, reports what happens.

Each unit's process is one task here, from `prepare` over the spawn to its end, which reports
`Exited` exactly once. Every process leads a session of its own, so that Ctrl-C reaches the
supervisor alone, and on Linux the kernel ends it when the supervisor dies. Elsewhere, and as a
second line of defence, a file per process lets the next `up` find what was left behind: pid, start
and program must all agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cli.logs import LogFile
from cli.page import NOT_BUILT
from cli.recording import LEFT_OUT, left_out_line
from cli.servers.server import Command, stop_process
from cli.units import Event, Exited, Noted, Reached
from libs.common.errors import KiteError

__all__ = ["Processes", "Program", "leftovers", "process_identity", "stop_leftovers"]

_TAIL_LINES_MAX = 40
_WORDS_CHARS_MAX = 400
_EXIT_FINAL = 2
_DRAIN_S = 2.0
_LEFTOVER_WAIT_S = 5.0
_PR_SET_PDEATHSIG = 1
_MILESTONE = "milestone.reached"


class Program(Protocol):
    """What a unit runs. `cli.servers` and `cli.plan` have the implementations."""

    @property
    def name(self) -> str:
        """The unit's name."""
        ...

    def prepare(self) -> None:
        """Make ready to spawn; may block, may raise KiteError with one clear line."""
        ...

    def command(self) -> Command:
        """Return what to spawn."""
        ...

    async def watch(self, report: Callable[[Event], None]) -> None:
        """Report readiness until cancelled, which happens when the process ends."""
        ...

    def explain(self, log_tail: str) -> str | None:
        """Name the cause of an end in one line, from the last lines of the log."""
        ...


class Processes:
    """The running processes of one stack."""

    def __init__(
        self,
        programs: Mapping[str, Program],
        logs: Path,
        pid_files: Path,
        report: Callable[[Event], None],
    ) -> None:
        """Know the programs by unit; `report` is called on the loop with what happens."""
        self._programs = programs
        self._logs = logs
        self._pid_files = pid_files
        self._report = report
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._unwanted: set[str] = set()  # told to end before they were spawned

    def pid(self, name: str) -> int | None:
        """Return the process id of a unit that runs."""
        process = self._running.get(name)
        return process.pid if process is not None else None

    def start(self, name: str) -> None:
        """Start a unit's process; `Exited` will follow, whatever happens."""
        self._unwanted.discard(name)
        self._lives[name] = asyncio.create_task(self._live(self._programs[name]))

    def terminate(self, name: str) -> None:
        """Ask a unit's process to end."""
        process = self._running.get(name)
        if process is None:
            self._unwanted.add(name)
        else:
            _signal(process.pid, self._programs[name].command().stop_signal)

    def kill(self, name: str) -> None:
        """End a unit's process, and what it started in its session, without asking."""
        process = self._running.get(name)
        if process is None:
            self._unwanted.add(name)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        _signal(process.pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """End every process without asking."""
        for name in list(self._running):
            self.kill(name)

    async def _live(self, program: Program) -> None:
        log = LogFile(self._logs / f"{program.name}.log")
        try:
            code, words = await self._run(program, log)
        except KiteError as error:
            code, words = _EXIT_FINAL, str(error)
        except OSError as error:
            code, words = 1, f"cannot start it: {error}"
        finally:
            log.close()
        self._report(Exited(program.name, code, words))

    async def _run(self, program: Program, log: LogFile) -> tuple[int, str]:
        name = program.name
        await asyncio.to_thread(program.prepare)
        if name in self._unwanted:
            return 0, ""
        process = await _spawn(program.command())
        self._running[name] = process
        pid_file = self._pid_files / f"{name}.json"
        _remember(pid_file, process.pid, program.command().stop_signal)
        if name in self._unwanted:
            self.terminate(name)
        watch = asyncio.create_task(_guard(program.watch(self._report)))
        tail: deque[str] = deque(maxlen=_TAIL_LINES_MAX)
        copy = asyncio.create_task(self._copy_log(name, process, log, tail))
        try:
            code = await process.wait()
        finally:
            watch.cancel()
            del self._running[name]
            pid_file.unlink(missing_ok=True)
        # A child of the process may hold the pipe open for longer than it lived itself.
        await asyncio.wait({copy}, timeout=_DRAIN_S)
        copy.cancel()
        if code <= 0:  # ended as told, or by a signal: what it said before is no explanation
            return code, ""
        return code, program.explain("\n".join(tail)) or _last_words(tail)

    async def _copy_log(
        self, name: str, process: asyncio.subprocess.Process, log: LogFile, tail: deque[str]
    ) -> None:
        assert process.stdout is not None
        while data := await process.stdout.read(64 << 10):
            for line in log.write(data):
                tail.append(line)
                if _MILESTONE in line and (milestone := _field(line, "milestone")):
                    self._report(Reached(milestone))
                if LEFT_OUT in line and (note := left_out_line(line)):
                    self._report(Noted(note))
                if NOT_BUILT in line and (note := _field(line, "note")):
                    self._report(Noted(note))
        tail.extend(log.close())


async def _guard(watch: Awaitable[None]) -> None:
    """Wait for a watch that a dying process may break in any way; its end is reported elsewhere."""
    with contextlib.suppress(OSError, KiteError):
        await watch


async def _spawn(command: Command) -> asyncio.subprocess.Process:
    options: dict[str, Any] = command.spawn_options()
    if sys.platform == "linux":
        # Postgres and NATS recover from any end, but a Postgres that is told can take its
        # children with it at once.
        last = signal.SIGQUIT if command.stop_signal == signal.SIGINT else signal.SIGKILL
        options["preexec_fn"] = _die_with_parent(last)
    return await asyncio.create_subprocess_exec(
        *command.argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        **options,
    )


def _die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return what a child calls before exec: the kernel shall signal it when we die."""
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died in between, and the signal will not come
            os._exit(1)

    return ask_kernel


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# -- what a process said last ----------------------------------------------------------------------


def _last_words(tail: deque[str]) -> str:
    """Return what a process said about its end: its last error, or all its plain lines."""
    for line in reversed(tail):
        if _field(line, "level") in ("error", "critical"):
            words = _field(line, "error") or _field(line, "exception").strip().rpartition("\n")[2]
            return _shorten(words or _field(line, "event"))
    plain = [line.strip() for line in tail if line.strip() and not line.startswith("{")]
    return _shorten("; ".join(plain[-4:]))


def _shorten(text: str) -> str:
    return text if len(text) <= _WORDS_CHARS_MAX else text[: _WORDS_CHARS_MAX - 1] + "…"


def _field(line: str, name: str) -> str:
    if not line.startswith("{"):
        return ""
    try:
        return str(msgspec.json.decode(line, type=dict[str, Any]).get(name, ""))
    except msgspec.MsgspecError:
        return ""


# -- what an earlier supervisor left behind --------------------------------------------------------


class _Remembered(msgspec.Struct, frozen=True):
    pid: int
    identity: str
    stop_signal: int


def process_identity(pid: int) -> str | None:
    """Return what tells a process from every other that had or will have its pid; None if gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        name = process.name()
        if sys.platform != "linux":
            return f"{name} {process.create_time():.2f}"
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (psutil.Error, OSError):
        return None
    start_ticks = stat.rpartition(")")[2].split()[19]  # field 22; immune to a clock that is set
    return f"{name} {boot} {start_ticks}"


def _remember(path: Path, pid: int, stop: signal.Signals) -> None:
    """Write down a process; if the disk is full, the kernel's promise has to do."""
    identity = process_identity(pid)
    if identity is not None:
        with contextlib.suppress(OSError):
            path.write_bytes(msgspec.json.encode(_Remembered(pid, identity, stop)))


def stop_leftovers(pid_files: Path) -> list[str]:
    """Stop what an earlier supervisor left running, and return the units' names. Blocks."""
    stopped = []
    for path, left in _left(pid_files):
        _stop(left)
        stopped.append(path.stem)
    for path in pid_files.glob("*.json"):
        path.unlink()
    return stopped


def leftovers(pid_files: Path) -> list[str]:
    """Return the names of units that still run, of those written down."""
    return [path.stem for path, _ in _left(pid_files)]


def _left(pid_files: Path) -> Iterator[tuple[Path, _Remembered]]:
    for path in sorted(pid_files.glob("*.json")):
        with contextlib.suppress(msgspec.MsgspecError, OSError):
            left = msgspec.json.decode(path.read_bytes(), type=_Remembered)
            if process_identity(left.pid) == left.identity:
                yield path, left


def _stop(left: _Remembered) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        stop_process(
            psutil.Process(left.pid), signal.Signals(left.stop_signal), deadline_s=_LEFTOVER_WAIT_S
        )
