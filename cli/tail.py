"""`./kite tail SUBJECT…`: what flows over the bus right now, one line a message.

A plain subscription as `observer`, who may read everything and change nothing. Live subjects carry
JSON, durable ones frames, which are shown event by event. A terminal cuts lines to its width, a
pipe or a file gets them whole. A message that was sent while nobody
listened is gone: rows and streams are for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import nats
from nats.aio.msg import Msg

from cli.control import current_state
from cli.home import Home
from cli.lines import json_line, lines
from cli.output import console
from deploy.nats.policy import OBSERVER, inbox_prefix
from libs.common.errors import BusUnavailable, SettingsError

__all__ = ["run"]

PENDING_MESSAGES_MAX = 10_000
_QUIET_S = 5.0


def run(home: Home, subjects: tuple[str, ...], *, count: int | None, as_json: bool) -> None:
    """Print messages until `count` came, Ctrl-C, or the server's end.

    Raises NotRunningError, SettingsError for a malformed subject, BusUnavailable.
    """
    for subject in subjects:
        if not subject or any(part == "" for part in subject.split(".")) or " " in subject:
            raise SettingsError(
                [f"{subject!r} is no subject; for example 'live.signal.>' or live.tick.QQQ"]
            )
    url = current_state(home).nats or ""
    asyncio.run(_tail(url, subjects, count, as_json))


async def _tail(url: str, subjects: tuple[str, ...], count: int | None, as_json: bool) -> None:
    messages: asyncio.Queue[Msg | None] = asyncio.Queue(PENDING_MESSAGES_MAX)
    errors: list[Exception] = []

    async def on_message(message: Msg) -> None:
        await messages.put(message)

    async def on_error(error: Exception) -> None:
        errors.append(error)

    async def on_closed() -> None:
        with contextlib.suppress(asyncio.QueueFull):
            messages.put_nowait(None)

    try:
        client = await nats.connect(
            url,
            name="kite tail",
            inbox_prefix=inbox_prefix(OBSERVER).encode(),
            allow_reconnect=False,
            closed_cb=on_closed,
            error_cb=on_error,
        )
    except (OSError, nats.errors.Error) as error:
        raise BusUnavailable(f"NATS does not answer: {error}") from error
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, messages.put_nowait, None)
    for subject in subjects:
        await client.subscribe(subject, cb=on_message)
    printed = 0
    put = _Printer(as_json)
    hint = asyncio.get_running_loop().call_later(_QUIET_S, _say_quiet, subjects)
    while (count is None or printed < count) and (message := await messages.get()) is not None:
        hint.cancel()
        put(message.subject, message.data)
        printed += 1
    hint.cancel()
    if client.is_closed:
        raise BusUnavailable(f"NATS went away: {errors[-1] if errors else 'connection closed'}")
    await client.close()


def _say_quiet(subjects: tuple[str, ...]) -> None:
    """Tell whoever looks at nothing where something would be: a typo is no error on a bus."""
    named = ", ".join(repr(subject) for subject in subjects)
    known = "live subjects are live.tick.>, live.candle.>, live.signal.>"
    print(f"kite: nothing on {named} yet; {known}", file=sys.stderr, flush=True)


class _Printer:
    """Prints messages: as JSON lines with their subject, or for people."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._screen = None if as_json else console()
        self._cut = sys.stdout.isatty()
        if self._cut and not as_json:
            print("kite: times are New York", file=sys.stderr, flush=True)

    def __call__(self, subject: str, data: bytes) -> None:
        if self._screen is None:
            print(json_line(subject, data), flush=True)
            return
        for line in lines(subject, data):
            if self._cut:
                self._screen.print(line, no_wrap=True, overflow="ellipsis", crop=True)
            else:
                self._screen.print(line, soft_wrap=True)
