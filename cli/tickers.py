"""`./kite tickers list|add|remove`: which tickers ingest asks for, and how each of them stands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cli.desk import DeskClient, connected
from cli.home import Home
from cli.options import parse_tickers
from cli.output import console, printable, table
from libs.common.errors import KiteError
from services.ingest.desk import Desk, TickerState

__all__ = ["run_add", "run_list", "run_remove"]

STYLES = {"streaming": "green", "quiet": "yellow", "waiting": "cyan", "dropped": "bold red"}
_STEADY_WAIT_S = 12.0
_POLL_S = 0.2
_PASSING = ("waiting", "quiet")


class Listed(Struct, frozen=True):
    """The list as JSON: tickers in order of priority, and what the broker takes at most."""

    tickers: tuple[TickerState, ...]
    caps: dict[str, int]
    answer: str = ""


def run_list(home: Home, *, as_json: bool) -> None:
    """Show every ticker of the list and how it stands; raises KiteError."""

    async def work() -> None:
        async with connected(home) as client:
            _show(await _listed(client), as_json=as_json)

    asyncio.run(work())


def run_add(home: Home, names: Sequence[str], *, first: bool, as_json: bool) -> int:
    """Add tickers, wait until the broker sends them or not; 1 if one of them is dropped."""
    tickers = parse_tickers(",".join(names), name="tickers add")

    async def work() -> Listed:
        async with connected(home) as client:
            arguments = {"tickers": tickers, "first": first}
            answer = await client.ask("tickers-add", arguments)
            return replace(await _steady(client, tickers), answer=answer.text)

    listed = asyncio.run(work())
    _show(listed, as_json=as_json)
    dropped = {each.ticker for each in listed.tickers if each.state == "dropped"}
    return 1 if dropped.intersection(tickers) else 0


def run_remove(home: Home, names: Sequence[str], *, as_json: bool) -> None:
    """Remove tickers; what is stored of them stays. Raises KiteError."""
    tickers = parse_tickers(",".join(names), name="tickers remove")

    async def work() -> Listed:
        async with connected(home) as client:
            answer = await client.ask("tickers-remove", {"tickers": tickers})
            return replace(await _listed(client), answer=answer.text)

    _show(asyncio.run(work()), as_json=as_json)


async def _steady(client: DeskClient, tickers: Sequence[str]) -> Listed:
    """Return the list once these tickers came, or were dropped, or nothing came for a while."""
    deadline_s = asyncio.get_running_loop().time() + _STEADY_WAIT_S
    while True:
        listed = await _listed(client)
        there = {each.ticker: each.state for each in listed.tickers}
        if not any(there.get(ticker, "waiting") in _PASSING for ticker in tickers):
            return listed
        if asyncio.get_running_loop().time() >= deadline_s:
            return listed
        await asyncio.sleep(_POLL_S)


async def _listed(client: DeskClient) -> Listed:
    desk = await client.read()
    if desk is None:
        raise KiteError("ingest has not begun yet; wait until it runs")
    return Listed(_standing(desk, running=client.running()), desk.caps)


def _standing(desk: Desk, *, running: bool) -> tuple[TickerState, ...]:
    """Return how each ticker of the list stands; a process that is away brings nothing."""
    if not running:
        return tuple(
            TickerState(ticker, "waiting", reason="ingest does not run") for ticker in desk.tickers
        )
    known = {each.ticker: each for each in desk.feed}
    return tuple(
        known.get(ticker) or TickerState(ticker, "waiting", reason="about to be asked for")
        for ticker in desk.tickers
    )


def _show(listed: Listed, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(listed), indent=2).decode())
        return
    from rich.text import Text

    if listed.answer:
        print(printable(listed.answer))
    shown = table("", "ticker", "state", "ticks", "bars", "", right=("",))
    shown.columns[-1].no_wrap = False
    for number, each in enumerate(listed.tickers, 1):
        shown.add_row(
            str(number),
            each.ticker,
            Text(each.state, STYLES.get(each.state, "")),
            "yes" if each.ticks else "",
            "yes" if each.bars else "",
            Text(each.reason, "dim"),
        )
    console().print(shown)
