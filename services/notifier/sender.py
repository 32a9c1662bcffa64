"""One channel's way out: Apprise in a thread of its own, and what became of each try.

Promises:

- `send` never raises and never blocks the loop or another channel; it returns within three times
  the channel's time-out.
- The address, and what an error says about it, reach no log: of Apprise's own lines only the
  status code of the answer is kept.
- `doubt` is returned when the try took so long that the channel may have taken the message: a
  refusal comes at once, and connecting has a shorter time-out than waiting for the answer.

A thread that hangs longer is left to itself (it is a daemon's), and the channel makes no other try
before it has ended: a channel has one thread at most.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal

from msgspec import Struct

from libs.common.errors import SettingsError
from services.notifier.book import Entry
from services.notifier.texts import Text

__all__ = ["CONNECT_S", "Outcome", "Sender", "senders"]

CONNECT_S: Final = 4.0
_HARD_FACTOR: Final = 3
_STATUS: Final = re.compile(r"\berror=(\d{3})\b")
# What these say may hold addresses.
_TALKATIVE: Final = ("apprise", "requests", "urllib3")


class Outcome(Struct, frozen=True):
    """What became of a try, and why, in words without secrets."""

    result: Literal["sent", "failed", "doubt"]
    reason: str = ""


class _Overheard(logging.Handler):
    """Keeps the status code of the last error that a thread met."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Note the status code, and nothing else."""
        found = _STATUS.search(record.getMessage())
        if found:
            self._last.status = found[1]

    def take(self) -> str | None:
        """Return what this thread met since it asked last."""
        status: str | None = getattr(self._last, "status", None)
        self._last.status = None
        return status


_overheard = _Overheard()


def _silence() -> None:
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logger.handlers = [_overheard]


def senders(entries: tuple[Entry, ...]) -> dict[str, Sender]:
    """Make the senders of all channels; raises SettingsError with a line for each bad address."""
    made: dict[str, Sender] = {}
    problems: list[str] = []
    for entry in entries:
        try:
            made[entry.name] = Sender(entry)
        except ValueError as error:
            problems.append(f"channels.{entry.name}.url: {error}")
    if problems:
        raise SettingsError(problems)
    return made


class Sender:
    """Sends to one channel, one message at a time."""

    def __init__(self, entry: Entry) -> None:
        """Understand the address; raises ValueError that does not repeat it."""
        self.name = entry.name
        self._timeout_s = float(entry.channel.timeout_s)
        self._target = _instantiate(entry.url.reveal(), self._timeout_s)
        self._running: asyncio.Future[Outcome] | None = None

    @property
    def service(self) -> str:
        """What kind of channel this is, e.g. `Telegram`."""
        return str(self._target.service_name)

    async def send(self, text: Text, key: str) -> Outcome:
        """Try once; `key` is the same in every try of one message."""
        hard_s = _HARD_FACTOR * self._timeout_s
        if self._running is not None and not self._running.done():
            await asyncio.wait({self._running}, timeout=hard_s)
            if not self._running.done():
                return Outcome("failed", "the try before still hangs")
        running = _in_a_thread(lambda: self._try(text, key), self.name)
        self._running = running
        begun_s = asyncio.get_running_loop().time()
        await asyncio.wait({running}, timeout=hard_s)
        if not running.done():
            return Outcome("doubt", f"no end after {hard_s:.0f} s")
        outcome = running.result()
        took_s = asyncio.get_running_loop().time() - begun_s
        if outcome.result == "failed" and took_s >= self._timeout_s:
            return Outcome("doubt", f"no answer within {self._timeout_s:.0f} s")
        return outcome

    def _try(self, text: Text, key: str) -> Outcome:
        """Send, in the channel's thread."""
        target = self._target
        _overheard.take()
        if _is_webhook(target):
            # Whoever receives this can tell a repetition by it.
            identity = f"{self.name}:{key}"
            target.headers["Idempotency-Key"] = identity
            target.payload_extras["id"] = identity
        try:
            done = target.notify(
                body=text.body, title=text.title, notify_type=text.level, body_format="text"
            )
        except Exception as error:  # noqa: BLE001 - any plugin may raise anything, with its address
            return Outcome("failed", type(error).__name__)
        if done:
            return Outcome("sent")
        status = _overheard.take()
        return Outcome("failed", f"it answered {status}" if status else "no connection or refused")


def _instantiate(url: str, timeout_s: float) -> Any:
    import apprise  # 15 MB: only who has channels pays for it

    _silence()
    target: Any = None
    try:
        target = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it may quote the address
        raise ValueError(f"Apprise cannot read its value ({type(error).__name__})") from None
    if target is None:
        raise ValueError(
            "its value is no address that Apprise knows; docs/guides/notifications.md shows some"
        )
    if len(target) == 0:
        raise ValueError("its value names no receiver")
    if len(target) > 1:
        raise ValueError(
            f"its value names {len(target)} receivers; give each a channel of its own, or a "
            "repeated try tells some of them twice"
        )
    target.socket_connect_timeout = min(CONNECT_S, timeout_s)
    target.socket_read_timeout = timeout_s
    target.overflow_mode = apprise.OverflowMode.TRUNCATE
    target.retry = 0  # the journal decides what is tried again
    return target


def _is_webhook(target: Any) -> bool:
    return hasattr(target, "payload_extras") and isinstance(getattr(target, "headers", None), dict)


def _in_a_thread(work: Callable[[], Outcome], name: str) -> asyncio.Future[Outcome]:
    """Run `work` in a daemon's thread: one that hangs does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()

    def settle(outcome: Outcome) -> None:
        if not future.done():
            future.set_result(outcome)

    def run() -> None:
        outcome = work()
        with suppress(RuntimeError):  # the loop is closed: the process ends, nobody asks any more
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name=f"send-{name}", daemon=True).start()
    return future
