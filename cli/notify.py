"""`./kite notify …`: try the channels of KITE_NOTIFY_FILE, and see how they stand.

Neither prints an address: they are secrets.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from cli.control import current_state
from cli.home import Home
from cli.output import console, duration, printable, table
from libs.common.clock import SystemClock
from libs.common.errors import KiteError, SettingsError
from services.notifier import book, journal
from services.notifier.sender import Sender, senders
from services.notifier.texts import Text

__all__ = ["run_status", "run_test"]

_STYLES = {"sent": "green", "failed": "bold red", "doubt": "yellow"}


class Tried(msgspec.Struct, frozen=True):
    """What became of one test message."""

    channel: str
    service: str
    outcome: str
    reason: str
    duration_ms: int


def run_test(channel: str | None, *, as_json: bool) -> int:
    """Send one test message to each channel, or to one; return 0 if all of them took it.

    Raises SettingsError when there is no such channel, or what is wrong with the file.
    """
    known = senders(_book().entries)
    if channel is not None and channel not in known:
        raise SettingsError([f"{channel}: no such channel; there are {', '.join(known)}"])
    chosen = [sender for name, sender in known.items() if channel in (None, name)]
    tried = asyncio.run(_try_all(chosen))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(tried), indent=2).decode())
    else:
        _draw_tried(tried)
    return 0 if all(each.outcome == "sent" for each in tried) else 1


def run_status(home: Home, *, as_json: bool) -> int:
    """Show what every channel of the running stack was sent, and what waits.

    Raises NotRunningError, or KiteError when no notifier runs.
    """
    state = current_state(home)
    if "notifier" not in state.services:
        raise KiteError("no notifier runs: set KITE_NOTIFY_FILE and start ./kite up again")
    found = journal.standings(Path(state.store or "") / "notifier" / journal.FILE_NAME)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return 0
    now_ms = SystemClock().now_ms()
    shown = table("channel", "sent", "waiting", "summed up", "perhaps sent", "last sent",
                  right=("sent", "waiting", "summed up", "perhaps sent"))  # fmt: skip
    for each in found:
        waiting = each.fates.get("pending", 0) + each.fates.get("sending", 0)
        counts = (each.fates.get(fate, 0) for fate in ("summarised", "perhaps"))
        last = each.last_sent_ms
        ago = f"{duration((now_ms - last) / 1000)} ago" if last is not None else ""
        shown.add_row(
            each.channel, str(each.fates.get("sent", 0)), str(waiting), *map(str, counts), ago
        )
    console().print(shown if found else "nothing was to be told yet")
    return 0


def _book() -> book.Book:
    path = os.environ.get("KITE_NOTIFY_FILE", "")
    if not path:
        raise SettingsError(
            ["KITE_NOTIFY_FILE: not set; docs/guides/notifications.md says what it names"]
        )
    found = book.load(path)
    if not found.entries:
        raise SettingsError([f"{path}: no channel in it; docs/guides/notifications.md shows some"])
    return found


async def _try_all(chosen: list[Sender]) -> list[Tried]:
    stamp = SystemClock().now_ms()
    return list(await asyncio.gather(*(_try(sender, f"test:{stamp}") for sender in chosen)))


async def _try(sender: Sender, key: str) -> Tried:
    now_s = asyncio.get_running_loop().time
    begun_s = now_s()
    text = Text(
        "Test of Alpha Kite Max",
        f"Messages for the channel {sender.name} will arrive here.",
        "info",
    )
    outcome = await sender.send(text, key)
    took_ms = round((now_s() - begun_s) * 1000)
    return Tried(sender.name, sender.service, outcome.result, outcome.reason, took_ms)


def _draw_tried(tried: list[Tried]) -> None:
    from rich.text import Text as Drawn

    shown = table("channel", "service", "outcome", "ms", "", right=("ms",))
    for each in tried:
        outcome = Drawn(each.outcome, _STYLES[each.outcome])
        shown.add_row(
            each.channel, printable(each.service), outcome, str(each.duration_ms), each.reason
        )
    console().print(shown)
