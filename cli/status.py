"""`./kite status`: what runs, since when and where; as a table, or as the JSON of the contract.

The tickers are those of ingest's desk, as in `./kite tickers list`; those of the start as long as
nobody can tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from cli.control import current_state
from cli.desk import tickers_of
from cli.home import Home
from cli.output import STATE_STYLES, console, duration, size, table
from cli.state import NotRunningError, ProcessState, StackState
from libs.common.clock import SystemClock

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["show"]

EXIT_NOT_RUNNING = 1
_TICKERS_SHOWN = 8
_KINDS = {"demo": "simulated market", "csv": "market from CSV", "schwab": "Schwab account"}


def show(home: Home, *, as_json: bool) -> int:
    """Print the state; return 0 if the stack runs, else 1."""
    try:
        state = current_state(home)
        state = replace(state, tickers=tickers_of(home, state))
    except NotRunningError as error:
        if not as_json:
            raise
        state = _nothing(home, str(error))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(state), indent=2).decode())
    else:
        _draw(state)
    return 0 if state.running else EXIT_NOT_RUNNING


def _nothing(home: Home, reason: str) -> StackState:
    return StackState(
        nats=None,
        postgres=None,
        gateway=None,
        schwab=None,
        services={},
        servers={},
        running=False,
        ready=False,
        home=str(home.root),
        reason=reason,
    )


def _draw(state: StackState) -> None:
    from rich.text import Text

    screen = console()
    up_s = (SystemClock().now_ms() - (state.started_ms or 0)) / 1000
    source = _KINDS.get(state.source or "", state.source)
    more = len(state.tickers) - _TICKERS_SHOWN
    tickers = " ".join(state.tickers[:_TICKERS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    screen.print(
        Text.assemble(
            ("Alpha Kite Max", "bold"),
            f"  {source} · {tickers} · up {duration(up_s)}\n",
        )
    )
    screen.print(_processes(state))
    screen.print()
    for label, value in (
        ("page", state.gateway),
        ("nats", state.nats),
        ("postgres", state.postgres),
        ("schwab", state.schwab),
        ("store", state.store),
    ):
        screen.print(Text.assemble((f"{label:<10}", "dim"), value or "-"), soft_wrap=True)


def _processes(stack: StackState) -> Table:
    """Draw one line for each process; the last column says why one does not run."""
    from rich.text import Text

    shown = table(
        "process",
        "state",
        "pid",
        "up",
        "restarts",
        "memory",
        "",
        right=("pid", "memory", "restarts", "up"),
    )
    shown.columns[-1].no_wrap = False
    total_bytes, now_ms = 0, SystemClock().now_ms()
    itself = ProcessState(stack.supervisor, "running", 0, None, since_ms=stack.started_ms)
    for name, process in {"kite": itself, **stack.servers, **stack.services}.items():
        used_bytes = _memory_bytes(process.pid, family=process is not itself)
        total_bytes += used_bytes or 0
        up = (
            duration((now_ms - process.since_ms) / 1000) if process.pid and process.since_ms else ""
        )
        shown.add_row(
            name,
            Text(process.state, style=STATE_STYLES.get(process.state, "")),
            str(process.pid or ""),
            up,
            str(process.restarts or ""),
            size(used_bytes) if used_bytes is not None else "",
            Text(process.reason, style="yellow"),
        )
    shown.add_section()
    shown.add_row("", "", "", "", "", size(total_bytes), "")
    return shown


def _memory_bytes(pid: int | None, *, family: bool) -> int | None:
    """Return what a process holds, with its children if it is a `family`.

    Shared pages count once where the system knows them.
    """
    import psutil

    if pid is None:
        return None
    total = 0
    try:
        process = psutil.Process(pid)
        for each in (process, *(process.children(recursive=True) if family else ())):
            memory = each.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    except psutil.Error:
        return total or None
    return total
