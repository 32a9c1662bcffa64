"""One stack under test: started as a user starts it, struck from outside, watched from outside.

The rig knows processes, files and sockets; it never reaches into a service. What a fault does is in
`rows`, what must hold afterwards in `oracle`.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from types import TracebackType

import httpx
import psutil

from cli.control import current_state
from cli.home import Home
from cli.state import ProcessState, StackState
from cli.supervisor import STABLE_AFTER_S
from libs.common.clock import SystemClock
from tests.e2e.stack import REPOSITORY, Stack
from tests.faults.bounds import QUEUES, Bounds
from tests.faults.detours import DetouredStack, Detours
from tests.faults.disks import Disk
from tests.faults.metrics import NO_TLS, TOLD_WITHIN_S, told
from tests.faults.page import Page
from tests.faults.recording import DAYS, TICKERS
from tests.faults.twin import Twin
from tests.faults.watch import Head, LiveTick, Watch
from tests.waiting import eventually_async

__all__ = ["CORE", "SERVERS", "SERVICES", "Rig"]

CORE = ("indicators", "signals", "writer")
SERVICES = ("ingest", *CORE, "gateway")
SERVERS = ("nats", "postgres")
UP_WITHIN_S = 120.0
CAUGHT_UP_WITHIN_S = 180.0
STILL_WITHIN_S = 60.0
REACHED_WITHIN_S = 120.0
_CONTROL_TOKEN = "faults"
_TICKS_PER_BAR = 4
# How far rows may be behind: the flush and the commit, on a machine that is busy with other stacks.
_CURRENT_MS_MAX = 2_000
_BROKER_TIME = "kite_sim_virtual_time_seconds"
_STILL = "TtZX"  # how the kernel calls a thread that is stopped, traced, or has ended


class Rig:
    """A running `kite up` on a recording, with everything that watches it.

    `disk` is where it keeps its data, `outside` what must survive the loss of all of that: the
    simulator's ledger and the logs of twins. `repository` has the code that runs. `counts`
    is what a strike has seen happen and wants to be told with its trial.
    """

    def __init__(
        self,
        disk: Disk,
        outside: Path,
        recording: Iterable[Path],
        *,
        speed: float,
        partitions: int = 1,
        repository: Path = REPOSITORY,
        detours: Detours | None = None,
        **settings: str,
    ) -> None:
        self.disk = disk
        self.home = Home(disk.home)
        self.repository = repository
        self.outside = outside
        self.ledger_file = outside / "ledger.txt"
        self.failpoint_file = outside / "failpoint"
        self.partitions = partitions
        self.live: dict[tuple[str, int], LiveTick] = {}
        self.contradictions: list[str] = []
        self.twins: dict[str, Twin] = {}
        self.page = Page(TICKERS[0], DAYS[0], lambda: self.state().gateway)
        self.bounds = Bounds()
        self.counts: Counter[str] = Counter()
        self.caught_up_within_s = CAUGHT_UP_WITHIN_S
        self._detours = detours
        self._clock = SystemClock()
        files = [part for path in recording for part in ("--csv", str(path))]
        self._options = (
            *files, "--speed", f"{speed:g}", "--partitions", str(partitions),
            "--port", "0",
            "--nats-port", str(detours.nats_port if detours else 0),
            "--postgres-port", str(detours.postgres_port if detours else 0),
        )  # fmt: skip
        self._settings = {
            "KITE_SIM_TICKS_PER_BAR": str(_TICKS_PER_BAR),
            "KITE_SIM_LEDGER_FILE": str(self.ledger_file),
            "KITE_SIM_CONTROL_TOKEN": _CONTROL_TOKEN,
            "KITE_SIM_REQUESTS_PER_MINUTE": "0",
            "KITE_INGEST_REQUESTS_PER_MINUTE_MAX": "100000",
            "KITE_INGEST_RECONNECT_FIRST_MS": "100",
            "KITE_FAILPOINT_FILE": str(self.failpoint_file),
            **settings,
        }
        self._stack: Stack | None = None
        self._watch: Watch | None = None

    # -- its life --

    async def __aenter__(self) -> Rig:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        await self.end()

    async def start(self) -> None:
        """Run `kite up` and wait until it is ready; also after an end."""
        kind, settings = Stack, self._settings
        if self._detours is not None:
            await self._detours.start()
            kind, settings = DetouredStack, {**settings, **self._detours.environment}
        stack = kind(self.home.root, *self._options, repository=self.repository, **settings)
        self._stack = stack
        try:
            await asyncio.to_thread(stack.start)
        except BaseException:
            await asyncio.to_thread(stack.__exit__)
            raise
        self._watch = Watch(self.state, self.partitions, self.live, self.contradictions)
        await self._watch.start()
        self.page.open()

    async def end(self) -> None:
        """Stop everything in good order."""
        await self.unwatch()
        try:
            await self.page.close()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        for twin in self.twins.values():
            twin.kill()
        self.twins.clear()
        if self._stack is not None:
            await asyncio.to_thread(self._stack.__exit__)
        self._stack = None
        if self._detours is not None:
            await self._detours.close()

    async def hold_still(self) -> None:
        """Stop every process, and wait until none of them is in the middle of a system call.

        They stop within milliseconds of each other, which none of them can tell from having had to
        wait for a processor.
        """
        assert self._stack is not None
        stopped: dict[int, psutil.Process] = {}
        while new := [each for each in self._stack.processes() if each.pid not in stopped]:
            for process in new:
                _signal(process.pid, signal.SIGSTOP)
                stopped[process.pid] = process
        await eventually_async(
            lambda: all(_is_still(pid) for pid in stopped), STILL_WITHIN_S, "every process stands"
        )

    async def vanish(self) -> None:
        """End everything at once, the supervisor included, as `kill -9` does."""
        assert self._stack is not None
        await self.unwatch()
        everybody = self._stack.processes()
        for process in everybody:
            _signal(process.pid, signal.SIGKILL)
        await asyncio.to_thread(psutil.wait_procs, everybody, UP_WITHIN_S)
        await asyncio.to_thread(self._stack.__exit__)
        self._stack = None

    async def empty(self) -> None:
        """Stop everything and forget all of its past, so that the next start is a first one."""
        await self.end()
        for path in self.home.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.ledger_file.unlink(missing_ok=True)
        self.live.clear()
        self.page.forget()

    async def unwatch(self) -> None:
        """Stop watching; what was seen so far is kept."""
        if self._watch is not None:
            await self._watch.stop()

    # -- its processes --

    def state(self) -> StackState:
        """Return what the supervisor says of its processes."""
        return current_state(self.home)

    def process(self, name: str) -> ProcessState:
        """Return one process as the supervisor sees it."""
        state = self.state()
        return {**state.services, **state.servers}[name]

    def pid(self, name: str) -> int:
        """Return the process id of what runs under that name."""
        pid = self.process(name).pid
        assert pid is not None, f"{name} has no process"
        return pid

    def kill(self, name: str) -> int:
        """Send `kill -9` and return the process id that was."""
        pid = self.pid(name)
        self.bounds.see(self.state())
        os.kill(pid, signal.SIGKILL)
        return pid

    async def steady(self) -> None:
        """Wait until everything has run for so long that its next start comes at once."""

        def settled() -> bool:
            state = self.state()
            pids = [each.pid for each in (*state.services.values(), *state.servers.values())]
            now_s = self.now_ms() / 1000
            return all(pid and now_s - _started_s(pid) > STABLE_AFTER_S for pid in pids)

        await eventually_async(settled, UP_WITHIN_S, "everything runs")

    async def replaced(self, name: str, pid: int) -> None:
        """Wait until another process runs in the place of `pid`."""

        def runs() -> bool:
            process = self.process(name)
            return process.state == "running" and process.pid not in (None, pid)

        await eventually_async(runs, UP_WITHIN_S, f"{name} runs again")

    def freeze(self, pid: int) -> None:
        """Stop a process in its tracks."""
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """Let a stopped process go on; it may be gone meanwhile."""
        _signal(pid, signal.SIGCONT)

    def twin(self, service: str) -> Twin:
        """Run a second instance of a service, and keep it until the end; start it if it died."""
        if service not in self.twins:
            log = self.outside / f"{service}-twin.log"
            self.twins[service] = Twin(service, self.pid(service), log)
            self.twins[service].start()
        elif self.twins[service].poll() is not None:
            self.twins[service].start()
        return self.twins[service]

    async def restart(self, name: str) -> None:
        """Restart a process in good order, as an operator does."""
        assert self._stack is not None
        answer = await asyncio.to_thread(self._stack.kite, "restart", name)
        assert answer.returncode == 0, answer.stderr

    def complaints(self) -> list[str]:
        """Return what `kite up` wrote for its operator."""
        return [] if self._stack is None else list(self._stack.complaints)

    # -- the points at which they can be struck --

    def arm(self, point: str, act: str = "") -> None:
        """Let the next process that reaches a failpoint die there, or do what `act` says."""
        whole = self.failpoint_file.with_suffix(".new")
        whole.write_text(f"{point} {act}\n")
        whole.rename(self.failpoint_file)

    async def reached(self) -> int:
        """Wait until a process has reached the armed point, count it, and return when that was."""

        def gone() -> bool:
            return not self.failpoint_file.exists()

        try:
            await eventually_async(gone, REACHED_WITHIN_S, "the failpoint is reached")
        finally:
            self.failpoint_file.unlink(missing_ok=True)
        self.counts["reached"] += 1
        return self.now_ms()

    @property
    def detours(self) -> Detours:
        """The lines between services and servers, in a scene that has them."""
        assert self._detours is not None, "this rig has no detours"
        return self._detours

    # -- the flow --

    @property
    def watch(self) -> Watch:
        """What is seen from outside."""
        assert self._watch is not None, "not started"
        return self._watch

    async def caught_up(self, since_ms: int) -> int:
        """Wait until what arrived after `since_ms` is in rows, and return when that was.

        Both are wall time in epoch milliseconds. The definition: a wire frame that was received
        after `since_ms` and stood at the end of MARKET has, within two seconds, its own rows and
        all that follow from it committed in every partition.
        """
        head: Head | None = None
        seen_ms = 0

        async def all_in_rows() -> bool:
            nonlocal head, seen_ms
            if head is None or self.now_ms() - seen_ms > _CURRENT_MS_MAX:
                head, seen_ms = await self.watch.head(), self.now_ms()
            if head is None or head.received_ms <= since_ms:
                head = None
                return False
            committed = await self.watch.committed()
            return committed is not None and head.within(committed)

        await eventually_async(all_in_rows, self.caught_up_within_s, "caught up with the broker")
        caught_up_ms = self.now_ms()
        self.bounds.see(self.state())
        for metric in QUEUES:
            self.bounds.queued(metric, await self.metric("ingest", metric))
        return caught_up_ms

    async def until_broker(self, at_ms: int, within_s: float = CAUGHT_UP_WITHIN_S) -> None:
        """Wait until broker time at the end of MARKET has reached `at_ms`."""

        async def there() -> bool:
            head = await self.watch.head()
            return head is not None and head.sent_ms >= at_ms

        await eventually_async(there, within_s, f"broker time {at_ms}")

    async def a_moment(self, random: Random, minutes_max: int = 4) -> None:
        """Let a random part of the recorded time pass, up to `minutes_max` minutes of it."""
        head = await eventually_async(self.watch.head, UP_WITHIN_S, "the end of MARKET")
        assert head is not None
        await self.until_broker(head.sent_ms + random.randrange(1000, minutes_max * 60_000))

    # -- the broker --

    async def broker_faults(self, **faults: object) -> None:
        """Make the simulator misbehave; see its `Faults`."""
        await self._control("POST", faults)

    async def broker_well(self) -> None:
        """End all faults of the simulator."""
        await self._control("DELETE", None)

    async def trading_goes_on(self, minutes: float, within_s: float = CAUGHT_UP_WITHIN_S) -> None:
        """Wait until so many minutes have passed for the broker, whether anybody listens or not."""
        begun_s = await self.metric("simulator", _BROKER_TIME)

        async def passed() -> bool:
            return await self.metric("simulator", _BROKER_TIME) - begun_s >= 60 * minutes

        await eventually_async(passed, within_s, f"{minutes:.1f} minutes of trading")

    async def broker_struck(self) -> dict[str, int]:
        """Return how often each fault of the simulator has struck."""
        struck: dict[str, int] = (await self._control("GET", None))["struck"]
        return struck

    async def _control(self, method: str, body: object) -> dict[str, dict[str, int]]:
        async with httpx.AsyncClient(
            trust_env=False, verify=NO_TLS, timeout=TOLD_WITHIN_S
        ) as client:
            answer = await client.request(
                method,
                f"{self.state().schwab}/sim/faults",
                json=body,
                headers={"Authorization": f"Bearer {_CONTROL_TOKEN}"},
            )
        answer.raise_for_status()
        found: dict[str, dict[str, int]] = answer.json()
        return found

    async def metric(self, service: str, name: str, **labels: str) -> float:
        """Return a service's metric, summed over other labels; 0 when it was never touched.

        Waits for a service that is just starting again, or has no time for its observers.
        """
        return await told(lambda: self.process(service).metrics, name, labels)

    async def metric_of_all(self, service: str, name: str, **labels: str) -> list[float]:
        """Return one metric of each instance of a service, the supervised one first."""
        twins = [twin for twin in self.twins.values() if twin.service == service]
        supervised = await self.metric(service, name, **labels)
        return [supervised, *[await told(twin.metrics, name, labels) for twin in twins]]

    async def fenced(self, service: str) -> int:
        """Return how many stale writes of all instances of a service were refused so far."""
        if service == "writer":
            counts = await self.metric_of_all(service, "kite_writer_fenced_total")
        else:
            publishes = "kite_bus_publishes_total"
            counts = await self.metric_of_all(service, publishes, outcome="fenced")
        return int(sum(counts))

    def now_ms(self) -> int:
        """Return wall time, the clock by which services stamp what they receive."""
        return self._clock.now_ms()

    @property
    def tickers(self) -> tuple[str, ...]:
        """What is traded."""
        return TICKERS


def _started_s(pid: int) -> float:
    """Return the wall time at which a process began; never, if it is gone already."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return math.inf


def _is_still(pid: int) -> bool:
    """Whether every thread of a process is stopped, or over."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return not psutil.pid_exists(pid)
    return all(stat.rpartition(")")[2].split()[0] in _STILL for stat in stats)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
