"""Commands taken from COMMANDS, each executed once, as everybody can see from outside.

Theory of operation. The position in COMMANDS is stored with what the command changed: the desk, one
message, fenced by its own last sequence. A process that dies before that message is stored has done
nothing, and the command comes again; one that dies after it passes the command over. Whatever a
handler does besides must stand being done twice (bars that are published already are not published
again). On any doubt the desk is read again, and what is read holds.

The id of a command is remembered with its answer: a command that was sent twice is done once. What
cannot be understood goes to the dead letters with the reason, and is answered, too. What is
understood and cannot be done is answered only.

Concurrency: everything runs on one loop; a lock keeps the desk's writers apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from libs.common import codec, failpoints, subjects
from libs.common.bus import Bus, Message
from libs.common.commands import Answer, BadCommand, Command, read_command
from libs.common.errors import BusError, KiteError
from libs.common.runner import Backoff
from libs.common.telemetry import Metrics
from services.ingest import wire
from services.ingest.desk import Desk, decoded, encoded, judge, opened
from services.ingest.watchlist import Refusal

__all__ = ["Clerk", "Done", "Handler"]

SERVICE = "ingest"
_BATCH_MAX = 16
_RECEIVE_WAIT_S = 1.0
_KEEP_EVERY_S = 0.5
OUTCOMES = ("done", "refused", "bad", "repeated")

A = TypeVar("A")


class Done(Struct, frozen=True):
    """The desk after a command, and the line that is answered."""

    desk: Desk
    text: str


class Handler(Struct, Generic[A], frozen=True):
    """What a command's arguments are, and who executes it; `run` may raise Refusal.

    It is given the arguments, the command's id and the desk, and changes nothing that a second
    execution would change again.
    """

    arguments: type[A]
    run: Callable[[A, str, Desk], Awaitable[Done]]


class Clerk:
    """Keeps the desk: takes commands, stores what they change, and what has changed by itself.

    `on_change` hears of each desk that is on record; `refreshed` adds what is new since.
    """

    def __init__(
        self,
        bus: Bus,
        handlers: Mapping[str, Handler[Any]],
        configured: tuple[str, ...],
        *,
        on_change: Callable[[Desk], None],
        refreshed: Callable[[Desk], Desk],
        metrics: Metrics,
        log: Any,
        now_ms: Callable[[], int],
    ) -> None:
        self._bus = bus
        self._handlers = handlers
        self._configured = configured
        self._on_change = on_change
        self._refreshed = refreshed
        self._log = log
        self._now_ms = now_ms
        self._lock = asyncio.Lock()
        self._desk: Desk | None = None
        self._on_record: Desk | None = None
        self._seq = 0  # of the desk's message
        self._in_doubt = True
        self._counter = metrics.counter("ingest_commands", "Commands taken", ["outcome"])
        for outcome in OUTCOMES:
            self._counter.labels(outcome)

    @property
    def desk(self) -> Desk:
        """What is on record, once it was loaded."""
        assert self._desk is not None, "load comes first"
        return self._desk

    async def load(self) -> None:
        """Read the desk; raises BusUnavailable, PositionError or SchemaError."""
        async with self._lock:
            await self._load()

    async def run(self) -> None:
        """Take commands and keep the desk until cancelled; raises PositionError or SchemaError."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_for_ever())
            tasks.create_task(self._keep_for_ever())

    # -- the desk --

    async def _load(self) -> None:
        commands = await self._bus.stream(subjects.COMMANDS)
        stored = await self._bus.last(subjects.STATE, subjects.desk_subject(SERVICE))
        desk = decoded(stored.data) if stored is not None else None
        if desk is not None:
            judge(desk, commands)
        self._seq = stored.seq if stored is not None else 0
        self._on_record = desk
        self._desk = opened(desk, commands, self._configured)
        self._in_doubt = False
        self._on_change(self._desk)

    async def _store(self, desk: Desk) -> None:
        """Put a desk on record, or raise BusError and doubt everything."""
        self._in_doubt = True
        failpoints.reach("ingest.command.before")
        self._seq = await self._bus.publish(
            subjects.desk_subject(SERVICE), encoded(desk), expected_last_seq=self._seq
        )
        failpoints.reach("ingest.command.stored")
        self._desk = self._on_record = desk
        self._in_doubt = False
        self._on_change(desk)

    async def _keep_for_ever(self) -> None:
        """Put on record what changed without a command: progress, and how the tickers stand."""
        while True:
            try:
                async with self._lock:
                    if self._in_doubt:
                        await self._load()
                    fresh = self._refreshed(self.desk)
                    if fresh != self._on_record:
                        await self._store(fresh)
            except BusError as error:
                self._log.debug("desk.waits", error=str(error))
            await asyncio.sleep(_KEEP_EVERY_S)

    # -- commands --

    async def _take_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with self._bus.lease(subjects.COMMANDS, SERVICE) as lease:
                    await self.load()
                    await lease.reset(self.desk.commands_seq + 1)
                    while True:
                        for message in await lease.receive(
                            frames_max=_BATCH_MAX, wait_s=_RECEIVE_WAIT_S
                        ):
                            await self._take(message)
                            await lease.ack(message)
                            backoff.reset()
            except BusError as error:
                self._log.info("commands.again", reason=type(error).__name__, error=str(error))
                await asyncio.sleep(backoff.next_s())

    async def _take(self, message: Message) -> None:
        async with self._lock:
            if self._in_doubt:
                await self._load()
            if message.seq <= self.desk.commands_seq:
                return
            desk, outcome = await self._executed(message)
            await self._store(desk)
            self._counter.labels(outcome).inc()

    async def _executed(self, message: Message) -> tuple[Desk, str]:
        """Return the desk after a command, and what kind of end it came to."""
        desk, seq = self.desk, message.seq
        known_id, name = f"seq-{seq}", ""
        try:
            command = read_command(message.data)
            known_id, name = command.id or known_id, command.command
            if desk.answer_to(known_id) is not None:
                self._log.info("command.repeated", id=known_id, command=name)
                return desk.taken(seq), "repeated"
            done = await self._run(command, known_id, desk)
        except Refusal as refusal:
            self._log.warning("command.refused", id=known_id, command=name, reason=str(refusal))
            return desk.taken(seq, Answer(known_id, seq, name, False, str(refusal))), "refused"
        except BadCommand as bad:
            await self._put_aside(message, str(bad))
            return desk.taken(seq, Answer(known_id, seq, name, False, str(bad))), "bad"
        self._log.info("command.done", id=known_id, command=name, text=done.text)
        return done.desk.taken(seq, Answer(known_id, seq, name, True, done.text)), "done"

    async def _run(self, command: Command, known_id: str, desk: Desk) -> Done:
        handler = self._handlers.get(command.command)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise BadCommand(f"ingest knows no command {command.command!r}; it knows {known}")
        try:
            arguments = msgspec.convert(command.arguments, handler.arguments)
        except msgspec.ValidationError as error:
            raise BadCommand(f"{command.command}: {error}") from None
        try:
            return await handler.run(arguments, known_id, desk)
        except (BusError, Refusal, BadCommand):
            raise
        except KiteError as error:
            raise Refusal(str(error)) from error
        except Exception as error:
            # One command must not stop the market data, each time it is read again.
            self._log.error("command.failed", command=command.command, exc_info=error)
            raise BadCommand(f"{command.command} failed: {type(error).__name__}") from error

    async def _put_aside(self, message: Message, reason: str) -> None:
        """Keep a message that cannot be understood, for whoever wants to look; raises BusError."""
        self._log.error("command.bad", seq=message.seq, reason=reason)
        letter = {
            "service": SERVICE,
            "reason": "bad_command",
            "detail": reason,
            "received_ms": self._now_ms(),
            "excerpt": wire.excerpt(message.data),
        }
        await self._bus.append(subjects.dead_letter_subject(SERVICE), codec.encode_json(letter))
