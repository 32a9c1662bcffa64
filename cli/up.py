"""`./kite up`: takes the data home, starts the stack, keeps it running, stops it in order.

Thin: `options` says what was asked for, `plan` which processes that means, `supervisor` what to do
when, `processes` does it. Here they are wired, and what happens is told: one line `ready <url>` on
standard output, progress on standard error, events in `logs/kite.log`, the state in a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from datetime import UTC, datetime

import msgspec

from cli import control
from cli.home import Home, Store, StoreIdentity
from cli.logs import LogFile
from cli.options import Market, UpOptions, resolve, warnings
from cli.output import size
from cli.plan import Stack, build
from cli.ports import Ports
from cli.processes import Processes, stop_leftovers
from cli.progress import Progress, open_progress
from cli.recording import end_line
from cli.servers.host import require_free_space
from cli.state import write_state
from cli.supervisor import Supervisor
from cli.units import (
    Action,
    Announce,
    Elapsed,
    Event,
    Exited,
    Finish,
    ForceAsked,
    Kill,
    Noted,
    Reached,
    Ready,
    Report,
    RestartAsked,
    Start,
    State,
    StopAsked,
    Terminate,
)
from cli.view import View
from libs.common.clock import SystemClock
from libs.common.errors import SettingsError

__all__ = ["up"]

TO_BEGIN_BYTES = 512 << 20
LOW_BYTES = 128 << 20
EVENTS_MAX = 4096  # a process reports at most twenty times a second, and all is handled at once
_LOOK_EVERY_S = 2.0
_SHOW_EVERY_S = 0.1
_IDLE_S = 1.0


def up(options: UpOptions) -> int:
    """Run the stack until it is told to stop; return the exit code. Raises KiteError."""
    market = resolve(options, os.environ)
    home = Home(options.home.absolute())
    home.prepare()
    lock = home.lock()
    if lock is None:
        raise SettingsError(
            [
                f"the stack runs already on {home.root} (pid {home.lock_holder()}): "
                "./kite status shows it, ./kite down stops it, --home DIR makes another"
            ]
        )
    try:
        store = _claim_store(home, market, options)
        with Ports() as ports:
            stack = build(home, store, market, options, ports)
            return asyncio.run(_Run(options, home, stack, ports.notes).until_stopped())
    finally:
        home.state_file.unlink(missing_ok=True)
        os.close(lock)


def _claim_store(home: Home, market: Market, options: UpOptions) -> Store:
    """Make the store ready for this market, after the leftovers of an earlier run have ended."""
    for name in stop_leftovers(home.run / "pids"):
        print(f"kite: stopped {name}, left running by an earlier start", file=sys.stderr)
    store = Store(home.root / market.store_name)
    if options.fresh:
        store.clear()
    found = store.identity()
    require_free_space(home.root, LOW_BYTES if found else TO_BEGIN_BYTES)
    partitions = options.partitions or (found.partitions if found else 1)
    store.claim(StoreIdentity(market.source, partitions, market.csv_sha256))
    return store


class _Run:
    """One run of the stack."""

    def __init__(self, options: UpOptions, home: Home, stack: Stack, notes: list[str]) -> None:
        self._options = options
        self._home = home
        self._stack = stack
        self._supervisor = Supervisor(stack.units)
        self._events: asyncio.Queue[Event] = asyncio.Queue(EVENTS_MAX)
        self._processes = Processes(
            stack.programs, home.logs, home.run / "pids", self._events.put_nowait
        )
        self._log = LogFile(home.logs / "kite.log")
        self._clock = SystemClock()
        now_ms = self._clock.now_ms()
        self._view = View(stack, self._supervisor, self._processes, now_ms)
        self._progress: Progress = open_progress(_title(stack.market, stack.store))
        self._notes = notes
        self._code: int | None = None
        self._look_due_s = 0.0
        self._told: set[str] = set()
        self._disk_is_low = False
        self._ended = False

    async def until_stopped(self) -> int:
        """Carry out what the supervisor says until the last process is gone."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        orders = await control.listen(self._home, self._on_order)
        for note in self._notes:
            self._tell("info", note)
        for warning in warnings(self._options):
            self._tell("warning", warning)
        try:
            self._handle(Elapsed())
            while self._code is None:
                self._handle(await self._next_event(loop))
            return self._code
        finally:
            self._processes.kill_all()  # none is left, unless we failed ourselves
            self._progress.finish([])
            orders.close()
            self._home.socket_file.unlink(missing_ok=True)
            self._log.close()

    async def _next_event(self, loop: asyncio.AbstractEventLoop) -> Event:
        """Wait for something to happen, at most until the supervisor or the display is due."""
        due_s = self._supervisor.next_due_s()
        wait_s = _IDLE_S if self._supervisor.announced else _SHOW_EVERY_S
        if due_s is not None:
            wait_s = min(wait_s, max(0.0, due_s - loop.time()))
        try:
            async with asyncio.timeout(wait_s):
                return await self._events.get()
        except TimeoutError:
            return Elapsed()

    def _handle(self, event: Event) -> None:
        before = self._view.fingerprint()
        if isinstance(event, Exited):
            self._look_due_s = 0.0  # perhaps for want of room
        self._look_around()
        if isinstance(event, Noted):
            self._tell_once("warning", event.text)
        if isinstance(event, Exited) and event.code != 0:
            self._write_log("warning", "process.ended", unit=event.unit, code=event.code)
        if isinstance(event, Reached | Ready):
            name = event.milestone if isinstance(event, Reached) else event.unit
            self._view.reached_ms.setdefault(name, self._clock.now_ms() - self._view.started_ms)
        for action in self._supervisor.handle(event, asyncio.get_running_loop().time()):
            self._act(action)
        if self._view.fingerprint() != before:
            self._write_state()
        if not self._supervisor.announced:
            self._progress.show(self._view.rows())

    def _look_around(self) -> None:
        """Look now and then at what no process reports: the disk, the end of a recording."""
        loop_s = asyncio.get_running_loop().time()
        if loop_s < self._look_due_s:
            return
        self._look_due_s = loop_s + _LOOK_EVERY_S
        self._watch_disk()
        if not self._ended and (line := end_line(self._stack.market, self._stack.store.root)):
            self._ended = True
            self._tell("info", line)

    def _watch_disk(self) -> None:
        """Say once that the disk is nearly full, and once that there is room again.

        Then whoever could not start for want of it need not wait any longer.
        """
        free = shutil.disk_usage(self._home.root).free
        if free < LOW_BYTES and not self._disk_is_low:
            where = f"{size(free)} left on the disk of {self._home.root}"
            self._tell("error", f"only {where}: free some, nothing more can be stored soon")
        elif free >= LOW_BYTES and self._disk_is_low:
            self._tell("info", "there is room on the disk again")
            for unit in self._stack.units:
                if self._supervisor.state(unit.name) in (State.BACKOFF, State.REFUSED):
                    self._events.put_nowait(RestartAsked(unit.name))
        self._disk_is_low = free < LOW_BYTES

    def _act(self, action: Action) -> None:
        match action:
            case Start(name):
                self._view.since_ms[name] = self._clock.now_ms()
                self._processes.start(name)
            case Terminate(name):
                self._processes.terminate(name)
            case Kill(name):
                self._processes.kill(name)
            case Report(level, text):
                self._tell(level, text)
            case Announce():
                self._announce()
            case Finish(code):
                self._progress.finish([])
                self._tell("info", "stopped")
                self._code = code

    # -- orders from outside -----------------------------------------------------------------------

    def _on_signal(self) -> None:
        if self._supervisor.stopping:
            self._tell("warning", "stopping at once")
            self._events.put_nowait(ForceAsked())
        else:
            self._tell("info", "stopping; once more to stop at once")
            self._events.put_nowait(StopAsked())

    def _on_order(self, order: control.Order) -> control.Answer:
        if order.verb == "stop":
            self._tell("info", "stopping, as ./kite down asks")
            self._events.put_nowait(StopAsked())
            return control.Answer(ok=True)
        if order.verb == "state":
            return control.Answer(ok=True, state=self._view.state())
        if order.unit not in self._restartable():
            return control.Answer(ok=False, text=f"there is no {order.unit!r} to restart")
        if self._supervisor.stopping:
            return control.Answer(ok=False, text="the stack is stopping")
        self._tell("info", f"restarting {order.unit}, as ./kite restart asks")
        self._events.put_nowait(RestartAsked(order.unit))
        return control.Answer(ok=True)

    def _restartable(self) -> list[str]:
        return [unit.name for unit in self._stack.units if not unit.job]

    # -- telling -----------------------------------------------------------------------------------

    def _announce(self) -> None:
        took_ms = self._clock.now_ms() - self._view.started_ms
        self._view.reached_ms["ready"] = took_ms
        self._write_log("info", "stack.ready", timings_ms=self._view.reached_ms)
        self._progress.show(self._view.rows())
        self._write_state()
        self._progress.finish(
            [
                ("ready", f"after {took_ms / 1000:.1f} s"),
                ("open", self._stack.gateway_url),
                ("watch", "./kite tail"),
                ("look", "./kite status"),
                ("check", "./kite health"),
                ("stop", "Ctrl-C, or ./kite down"),
            ]
        )
        self._print_ready()
        if self._options.exit_after_s is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._options.exit_after_s, self._events.put_nowait, StopAsked())

    def _print_ready(self) -> None:
        url = self._stack.gateway_url
        line = f"ready {url}"
        if self._options.as_json:
            facts = {"event": "ready", "url": url, "timings_ms": self._view.reached_ms}
            line = msgspec.json.encode(facts).decode()
        with contextlib.suppress(BrokenPipeError):  # nobody listens; the stack runs all the same
            print(line, flush=True)

    def _tell_once(self, level: str, text: str) -> None:
        """Leave out what was said before: a process says it again whenever it is restarted."""
        if text not in self._told:
            self._told.add(text)
            self._tell(level, text)

    def _tell(self, level: str, text: str) -> None:
        self._progress.say(level, text)
        self._write_log(level, text)

    def _write_log(self, level: str, event: str, **facts: object) -> None:
        record = {
            "timestamp": datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(),
            "level": level,
            "event": event,
            "service": "kite",
            **facts,
        }
        self._log.write(msgspec.json.encode(record) + b"\n")

    def _write_state(self) -> None:
        try:
            write_state(self._home, self._view.state())
        except OSError as error:  # whoever asks us over the socket still gets the truth
            self._write_log("warning", "state.not_written", error=str(error))


def _title(market: Market, store: Store) -> str:
    kind = {"demo": "simulated market", "csv": "market from CSV", "schwab": "Schwab account"}
    tickers = " ".join(market.tickers[:8]) + (" …" if len(market.tickers) > 8 else "")
    return f"{kind[market.source]} · {tickers} · {store.root}"
