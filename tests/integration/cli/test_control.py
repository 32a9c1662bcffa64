"""Orders over the socket, and states out of the file."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.control import Answer, Order, current_state, down, listen, restart
from cli.home import Home
from cli.processes import process_identity
from cli.state import NotRunningError, ProcessState, StackState, read_state, write_state
from libs.common.errors import KiteError, SettingsError
from tests.servers import temporary_home

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home() -> Iterator[Home]:
    """A prepared home that this process holds."""
    with temporary_home() as place:
        home = Home(place / "home")
        home.prepare()
        held = home.lock()
        assert held is not None
        yield home
        os.close(held)


def state(pid: int = 1) -> StackState:
    """Return the state of a stack with one service."""
    writer = ProcessState(pid=pid, state="running", restarts=0, metrics=None)
    return StackState(
        nats="nats://x", postgres=None, gateway=None, schwab=None, servers={},
        services={"writer": writer},
        running=True, ready=True, home="h",
    )  # fmt: skip


def test_a_state_is_read_back_by_its_owner_only(home: Home) -> None:
    """It holds passwords."""
    write_state(home, state())
    assert read_state(home) == state()
    assert home.state_file.stat().st_mode & 0o077 == 0


def test_the_state_comes_from_the_running_stack_itself(home: Home) -> None:
    """The file may be old: a full disk cannot take a new one."""

    async def scenario() -> StackState:
        write_state(home, state(pid=1))
        server = await listen(home, lambda _: Answer(ok=True, state=state(pid=2)))
        found = await asyncio.to_thread(current_state, home)
        server.close()
        return found

    assert asyncio.run(scenario()) == state(pid=2)
    assert current_state(home) == state(pid=1)


def test_the_state_of_a_dead_stack_counts_for_nothing() -> None:
    """The lock is free, whatever the file says."""
    with temporary_home() as place:
        home = Home(place)
        home.prepare()
        write_state(home, state())
        with pytest.raises(NotRunningError):
            read_state(home)


def test_a_restart_waits_for_the_new_process(home: Home) -> None:
    """The command returns when another process is running in its place."""
    orders: list[Order] = []

    def take(order: Order) -> Answer:
        if order.verb == "restart":
            orders.append(order)
        return Answer(ok=True, state=state(pid=2 if orders else 1))

    async def scenario() -> None:
        write_state(home, state(pid=1))
        server = await listen(home, take)
        await asyncio.to_thread(restart, home, "writer")
        server.close()

    asyncio.run(scenario())
    assert orders == [Order("restart", "writer")]


def test_an_unknown_process_is_refused_with_those_that_exist(home: Home) -> None:
    """A typo reaches nobody."""
    write_state(home, state())
    with pytest.raises(SettingsError, match="choose one of writer"):
        restart(home, "wirter")


def test_a_refusal_is_passed_on(home: Home) -> None:
    """In the words of the running stack."""

    async def scenario() -> None:
        write_state(home, state())
        server = await listen(home, lambda _: Answer(ok=False, text="the stack is stopping"))
        with pytest.raises(KiteError, match="the stack is stopping"):
            await asyncio.to_thread(restart, home, "writer")
        server.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("line", [b"{}\n", b"\xff\n", b'{"verb":"burn"}\n', b"x" * 9000, b""])
def test_what_is_no_order_does_no_harm(home: Home, line: bytes) -> None:
    """It is answered or dropped, and the next order is taken."""
    taken: list[Order] = []

    def take(order: Order) -> Answer:
        taken.append(order)
        return Answer(ok=True)

    def send(data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(home.socket_file))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile("rb").readline()

    async def scenario() -> None:
        server = await listen(home, take)
        await asyncio.to_thread(send, line)
        answer = await asyncio.to_thread(send, b'{"verb":"stop"}\n')
        assert answer == b'{"ok":true,"text":"","state":null}\n'
        server.close()

    asyncio.run(scenario())
    assert taken == [Order("stop")]


def test_down_without_a_stack_says_so() -> None:
    """There is nothing to wait for."""
    with temporary_home() as place, pytest.raises(NotRunningError, match="nothing is running"):
        down(Home(place))


# Lets the home go when it is told to stop, and takes its time to end.
LINGERS = """
import os, signal, sys, time
from pathlib import Path
from cli.home import Home
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
held = Home(Path(sys.argv[1])).lock()
print("held", flush=True)
signal.sigwait({signal.SIGTERM})
os.close(held)
time.sleep(0.5)
"""


def test_down_waits_for_the_process_itself() -> None:
    """Whoever looks right after it finds nothing that still runs."""
    with temporary_home() as place:
        home = Home(place / "home")
        home.prepare()
        command = (sys.executable, "-c", LINGERS, str(home.root))
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            down(home)
            assert process_identity(process.pid) is None
