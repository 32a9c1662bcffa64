"""Real processes, small ones: started, watched, logged, ended, and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cli.processes import Processes, leftovers, process_identity, stop_leftovers
from cli.servers.server import Command
from cli.units import Event, Exited, Reached, Ready
from libs.common.errors import ServerError
from tests.waiting import eventually, eventually_async

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 20
FOREVER = "import time; print('here', flush=True); time.sleep(1000)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('here', flush=True); time.sleep(1000)"
)


@dataclass
class Script:
    """A program of a few lines of Python."""

    text: str
    name: str = "script"
    refusal: str = ""

    def prepare(self) -> None:
        if self.refusal:
            raise ServerError(self.refusal)

    def command(self) -> Command:
        argv = (sys.executable, "-c", self.text)
        return Command(argv, dict(os.environ), ROOT, None, signal.SIGTERM)

    async def watch(self, report: Callable[[Event], None]) -> None:
        report(Ready(self.name))

    def explain(self, log_tail: str) -> str | None:
        return "it was the butler" if "butler" in log_tail else None


@dataclass
class Stage:
    """Processes with their files, and what they reported."""

    place: Path
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("logs", "pids"):
            (self.place / name).mkdir()

    def processes(self, *scripts: Script) -> Processes:
        programs = {script.name: script for script in scripts}
        return Processes(programs, self.place / "logs", self.place / "pids", self.events.append)

    def log(self, name: str = "script") -> str:
        path = self.place / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    async def exited(self) -> Exited:
        def last() -> Exited | None:
            return next((each for each in self.events if isinstance(each, Exited)), None)

        found = await eventually_async(last, DEADLINE_S, "the process ended")
        assert found is not None
        return found


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """An empty stage."""
    return Stage(tmp_path)


async def start(stage: Stage, script: Script) -> tuple[Processes, int]:
    """Start a script and wait until it printed something."""
    processes = stage.processes(script)
    processes.start(script.name)
    await eventually_async(lambda: "here" in stage.log(script.name), DEADLINE_S, "it speaks")
    pid = processes.pid(script.name)
    assert pid is not None
    return processes, pid


def test_a_process_is_logged_and_its_end_told_with_its_last_error(stage: Stage) -> None:
    """The last JSON line of level error explains an exit code."""
    lines = [
        {"level": "error", "event": "old", "error": "first"},
        {"level": "error", "event": "service.refused", "error": "no such stream"},
        {"level": "info", "event": "bye"},
    ]
    text = "".join(f"print({json.dumps(json.dumps(line))})\n" for line in lines) + "exit(3)"

    async def scenario() -> Exited:
        stage.processes(Script(text)).start("script")
        return await stage.exited()

    assert asyncio.run(scenario()) == Exited("script", 3, "no such stream")
    assert stage.log().count("\n") == 3


def test_plain_lines_explain_an_end_as_well(stage: Stage) -> None:
    """Settings that are wrong are printed one a line, all of them are passed on."""

    async def scenario() -> Exited:
        stage.processes(Script("print('A: missing'); print('B: wrong'); exit(2)")).start("script")
        return await stage.exited()

    assert asyncio.run(scenario()) == Exited("script", 2, "A: missing; B: wrong")


def test_a_program_that_knows_its_log_explains_it(stage: Stage) -> None:
    """Servers recognise what their logs say."""

    async def scenario() -> Exited:
        stage.processes(Script("print('… butler …'); exit(1)")).start("script")
        return await stage.exited()

    assert asyncio.run(scenario()).last_words == "it was the butler"


def test_what_cannot_be_prepared_ends_with_the_reason(stage: Stage) -> None:
    """A taken port is a refusal, not a crash: nothing was spawned."""

    async def scenario() -> Exited:
        stage.processes(Script("", refusal="port 1 is taken")).start("script")
        return await stage.exited()

    assert asyncio.run(scenario()) == Exited("script", 2, "port 1 is taken")


def test_milestones_are_read_from_the_log(stage: Stage) -> None:
    """A job tells how far it came by one kind of log line."""
    line = json.dumps({"event": "milestone.reached", "milestone": "streams"})

    async def scenario() -> None:
        stage.processes(Script(f"print({line!r})")).start("script")
        await stage.exited()

    asyncio.run(scenario())
    assert Reached("streams") in stage.events


def test_terminate_lets_a_process_end_in_order(stage: Stage) -> None:
    """It gets the signal that its command names."""

    async def scenario() -> Exited:
        processes, _ = await start(stage, Script(FOREVER))
        processes.terminate("script")
        return await stage.exited()

    assert asyncio.run(scenario()) == Exited("script", -signal.SIGTERM, "")


def test_kill_ends_what_does_not_listen_and_all_that_it_started(stage: Stage) -> None:
    """The whole session goes."""
    child_too = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {STUBBORN!r}])\n"

    async def scenario() -> None:
        processes, pid = await start(stage, Script(child_too + STUBBORN))
        child = await eventually_async(
            lambda: psutil.Process(pid).children(), DEADLINE_S, "the child runs"
        )
        processes.terminate("script")
        processes.kill("script")
        assert (await stage.exited()).code == -signal.SIGKILL
        await eventually_async(lambda: not alive(child[0].pid), DEADLINE_S, "the child is gone")

    asyncio.run(scenario())


def test_a_stop_that_comes_before_the_process_still_ends_it(stage: Stage) -> None:
    """Between the decision to start and the spawn there is time for a Ctrl-C."""

    async def scenario() -> Exited:
        processes = stage.processes(Script(FOREVER))
        processes.start("script")
        processes.terminate("script")
        return await stage.exited()

    assert asyncio.run(scenario()).unit == "script"


def test_a_process_leaves_no_file_when_it_ended(stage: Stage) -> None:
    """What is written down is what runs."""

    async def scenario() -> None:
        _, pid = await start(stage, Script(FOREVER))
        assert leftovers(stage.place / "pids") == ["script"]
        os.kill(pid, signal.SIGKILL)
        await stage.exited()

    asyncio.run(scenario())
    assert leftovers(stage.place / "pids") == []
    assert list((stage.place / "pids").iterdir()) == []


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.integration.cli.test_processes import FOREVER, Script, Stage, start

async def main():
    stage = Stage(Path({place!r}))
    _, pid = await start(stage, Script(FOREVER))
    print(pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def supervised(place: Path) -> tuple[subprocess.Popen[str], int]:
    """Run a supervisor of one process in a process of its own; return it and the child's pid."""
    text = SUPERVISOR.format(root=str(ROOT), place=str(place))
    supervisor = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    return supervisor, int(supervisor.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of a parent's death")
def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """Nobody is there to stop them, so the kernel does."""
    supervisor, pid = supervised(tmp_path)
    supervisor.kill()
    supervisor.communicate()
    eventually(lambda: not alive(pid), DEADLINE_S, "the child is gone")


def test_leftovers_are_stopped_by_the_next_start(tmp_path: Path) -> None:
    """Pid, start and program agree, so it is ours."""
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    identity = eventually(lambda: process_identity(orphan.pid), DEADLINE_S, "it has a name")
    write_pid_file(tmp_path / "orphan.json", orphan.pid, str(identity))
    assert stop_leftovers(tmp_path) == ["orphan"]
    assert not alive(orphan.pid)
    orphan.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_stranger_with_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    """The file of a process that is long gone must not hit its successor."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    write_pid_file(tmp_path / "old.json", stranger.pid, "python another-boot 12345")
    (tmp_path / "broken.json").write_text("{")
    assert stop_leftovers(tmp_path) == []
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def write_pid_file(path: Path, pid: int, identity: str) -> None:
    """Write down a process as an earlier supervisor would have."""
    path.write_text(json.dumps({"pid": pid, "identity": identity, "stop_signal": 15}))


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    return process_identity(pid) is not None
