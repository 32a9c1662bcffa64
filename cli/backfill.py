"""`./kite backfill`: days of the past from the broker's price history, and how far they are.

ingest does the work, in its own time; whoever looks away loses nothing. The same request joins the
one that is under way.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from cli.arguments import called
from cli.desk import DeskClient, connected
from cli.home import Home
from cli.options import parse_tickers
from cli.output import console, printable, table
from libs.common.errors import KiteError
from services.ingest.orders import Order

__all__ = ["run_backfill", "run_cancel", "run_show"]

_POLL_S = 0.25
_TELL_EVERY_S = 10.0
EXIT_LEFT_OUT = 1

Tell = Callable[[Order, str], None]


def run_backfill(
    home: Home,
    names: Sequence[str],
    first: dt.date | None,
    last: dt.date | None,
    *,
    waiting: bool,
    as_json: bool,
) -> int:
    """Ask for days and watch them come; returns 1 if the broker had nothing of a ticker."""
    tickers = parse_tickers(",".join(names), name="--ticker")
    arguments: dict[str, object] = {"tickers": tickers}
    arguments |= {"from": first.isoformat()} if first else {}
    arguments |= {"to": last.isoformat()} if last else {}

    async def work() -> Order:
        async with connected(home) as client:
            answer = await client.ask("backfill", arguments)
            order_id = answer.text.partition(":")[0]
            order, _ = await _order(client, order_id)
            if not as_json:
                print(f"kite: {printable(answer.text)}", file=sys.stderr)
                _print_lines(order.lines)
            return await _watch(client, order, as_json=as_json) if waiting else order

    try:
        order = asyncio.run(work())
    except KeyboardInterrupt:
        hint = f"{called()} backfill shows how far it is"
        print(f"kite: it goes on without you; {hint}", file=sys.stderr)
        raise
    _show_end(order, as_json=as_json)
    left_out = set(order.tickers) - set(order.with_minutes)
    return EXIT_LEFT_OUT if order.state == "cancelled" or (waiting and left_out) else 0


def run_show(home: Home, *, as_json: bool) -> None:
    """Show the last orders and how far they are."""

    async def work() -> tuple[Order, ...]:
        async with connected(home) as client:
            desk = await client.read()
            return desk.orders if desk is not None else ()

    orders = asyncio.run(work())
    if as_json:
        print(
            msgspec.json.format(msgspec.json.encode([_facts(o) for o in orders]), indent=2).decode()
        )
        return
    if not orders:
        example = f"{called()} backfill --ticker QQQ --from 2026-11-02"
        print(f"nothing was asked for; for example: {example}")
        return
    shown = table("id", "state", "days", "tickers", "from", "to", right=("days",))
    for order in orders:
        named = " ".join(order.tickers[:6]) + (" …" if len(order.tickers) > 6 else "")
        shown.add_row(
            order.id, order.state, f"{order.finished}/{order.units}", named,
            order.first_day, order.last_day,
        )  # fmt: skip
    console().print(shown)
    for order in orders:
        _print_lines(order.lines)


def run_cancel(home: Home, order_id: str) -> None:
    """Cancel an order, or all that are under way."""

    async def work() -> str:
        async with connected(home) as client:
            return (await client.ask("backfill-cancel", {"id": order_id})).text

    print(asyncio.run(work()))


async def _order(client: DeskClient, order_id: str) -> tuple[Order, str]:
    desk = await client.read()
    for order in desk.orders if desk is not None else ():
        if order.id == order_id:
            return order, desk.trouble if desk is not None else ""
    raise KiteError(f"backfill {order_id} is not known any more; ask for it again")


async def _watch(client: DeskClient, order: Order, *, as_json: bool) -> Order:
    """Follow an order to its end."""
    said = len(order.lines)
    with _progress(order, quiet=as_json) as tell:
        while order.state == "running":
            await asyncio.sleep(_POLL_S)
            order, trouble = await _order(client, order.id)
            tell(order, trouble or ("" if client.running() else "ingest does not run"))
    if not as_json:
        _print_lines(order.lines[said:])
    return order


@contextmanager
def _progress(order: Order, *, quiet: bool) -> Iterator[Tell]:
    """Show how far it is: a bar on a terminal, a line now and then elsewhere."""
    if quiet:
        yield lambda order, trouble: None
    elif sys.stderr.isatty():
        with _bar(order) as tell:
            yield tell
    else:
        yield _Lines()


@contextmanager
def _bar(order: Order) -> Iterator[Tell]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[yellow]{task.fields[trouble]}"),
    )
    with Progress(*columns, console=console(stderr=True)) as shown:
        task = shown.add_task("days", total=order.units, completed=order.finished, trouble="")

        def tell(order: Order, trouble: str) -> None:
            shown.update(task, completed=order.finished, trouble=printable(trouble))

        yield tell


class _Lines:
    """A line at most every ten seconds."""

    def __init__(self) -> None:
        self._next_s = asyncio.get_running_loop().time() + _TELL_EVERY_S

    def __call__(self, order: Order, trouble: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _TELL_EVERY_S
        more = f"; {printable(trouble)}" if trouble else ""
        print(f"kite: {order.finished} of {order.units} days{more}", file=sys.stderr, flush=True)


def _show_end(order: Order, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(_facts(order)), indent=2).decode())
        return
    counts = ", ".join(f"{number} {what}" for what, number in sorted(order.counts.items()))
    said = {"done": "done", "cancelled": "cancelled", "running": "under way"}[order.state]
    print(
        f"{order.id}: {said}, {order.finished} of {order.units} days{f': {counts}' * bool(counts)}"
    )


def _facts(order: Order) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(order)
    del facts["ahead"], facts["done"]
    return {**facts, "days_finished": order.finished, "days": order.units}


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"kite: {printable(line)}", file=sys.stderr)
