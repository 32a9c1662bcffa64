"""Commands on the bus in memory: each done once, whatever gets lost on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from libs.common.bus import topology
from libs.common.bus.memory import MemoryBus, MemoryServer
from libs.common.codec import FRAME_BYTES_MAX
from libs.common.commands import ANSWERS_MAX, TEXT_CHARS_MAX, Answer
from libs.common.errors import PositionError, SchemaError
from libs.common.telemetry import Metrics, get_logger
from services.ingest.commands import Clerk, Done, Handler
from services.ingest.desk import Desk, TickerState, decoded, encoded
from services.ingest.orders import AHEAD_MAX, LINES_MAX, ORDERS_KEPT_MAX, Order
from services.ingest.watchlist import Refusal
from tests.waiting import eventually_async

DEADLINE_S = 10.0


class Note(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of the one command there is here."""

    word: str


class Life:
    """A clerk in a task, whose only command adds a word to the list of tickers."""

    def __init__(self, server: MemoryServer, configured: tuple[str, ...] = ("QQQ",)) -> None:
        self.bus: MemoryBus = server.connect()
        self.runs: list[str] = []
        self.clerk = Clerk(
            self.bus,
            {"note": Handler(Note, self._note)},
            configured,
            on_change=lambda desk: None,
            refreshed=lambda desk: desk,
            metrics=Metrics(),
            log=get_logger(),
            now_ms=lambda: 1,
        )
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.clerk.load()
        await self.clerk.run()

    async def _note(self, asked: Note, _: str, desk: Desk) -> Done:
        self.runs.append(asked.word)
        if asked.word == "refuse":
            raise Refusal("no such luck")
        if asked.word == "fail":
            raise ZeroDivisionError
        return Done(replace(desk, tickers=(*desk.tickers, asked.word)), f"noted {asked.word}")

    async def kill(self) -> None:
        """End it as a kill -9 does."""
        self.bus.kill()
        self.task.cancel()
        await asyncio.wait({self.task})


class Office:
    """A server, whoever gives commands to it, and the lives of one clerk after another."""

    def __init__(self) -> None:
        self.server = MemoryServer(topology.plan(1, "demo"))
        self.bus = self.server.connect()

    async def give(self, word: str, command_id: str = "") -> int:
        """Give a command."""
        return await self.raw(
            json.dumps({"id": command_id, "command": "note", "arguments": {"word": word}}).encode()
        )

    async def raw(self, data: bytes) -> int:
        """Store any message."""
        return await self.bus.append("commands.ingest", data)

    async def desk(self) -> Desk:
        """What is on record."""
        stored = await self.bus.last("STATE", "state.ingest.desk")
        assert stored is not None
        return decoded(stored.data)

    async def until_taken(self, seq: int) -> Desk:
        """Wait until a command is taken."""

        async def taken() -> bool:
            stored = await self.bus.last("STATE", "state.ingest.desk")
            return stored is not None and decoded(stored.data).commands_seq >= seq

        await eventually_async(taken, DEADLINE_S, f"command {seq} is taken")
        return await self.desk()

    async def letters(self) -> list[dict[str, Any]]:
        """Everything that was put aside."""
        found = await self.bus.read_many(
            "DEADLETTER", "deadletter.ingest", start_seq=1, messages_max=100, bytes_max=1 << 20
        )
        return [json.loads(each.data) for each in found]


def at(scenario: Callable[[Office], Awaitable[None]]) -> None:
    """Play a scenario."""

    async def main() -> None:
        await scenario(Office())

    asyncio.run(main())


def test_commands_are_done_in_order_and_answered() -> None:
    """Also those that were given before there was anybody."""

    async def scenario(office: Office) -> None:
        await office.give("A")
        life = Life(office.server)
        desk = await office.until_taken(await office.give("B", "mine"))
        assert desk.tickers == ("QQQ", "A", "B")
        assert [(a.id, a.ok, a.text) for a in desk.answers] == [
            ("seq-1", True, "noted A"),
            ("mine", True, "noted B"),
        ]
        await life.kill()

    at(scenario)


@pytest.mark.parametrize("stored", [True, False])
def test_a_lost_answer_is_cleared_up_by_reading_again(stored: bool) -> None:
    """Done once on record, whether the desk was stored or not."""

    async def scenario(office: Office) -> None:
        life = Life(office.server)
        await office.until_taken(0)
        for word in "ABCDE":
            life.bus.lose_next_answer(stored=stored)
            await office.until_taken(await office.give(word))
        assert (await office.desk()).tickers == ("QQQ", *"ABCDE")
        assert set(life.runs) == set("ABCDE")
        await life.kill()

    at(scenario)


def test_the_next_life_goes_on_where_the_last_was() -> None:
    """Killed again and again, each word is on record once."""

    async def scenario(office: Office) -> None:
        words = [f"W{number}" for number in range(12)]
        for word in words:
            life = Life(office.server)
            seq = await office.give(word)
            if int(word[1:]) % 3:
                await office.until_taken(seq)
            await life.kill()
        life = Life(office.server)
        desk = await office.until_taken(len(words))
        assert desk.tickers == ("QQQ", *words)
        assert len(desk.answers) == len(words)
        await life.kill()

    at(scenario)


def test_what_cannot_be_done_stops_nothing() -> None:
    """Refused: answered. Not understood, or failed in our own code: a dead letter as well."""

    async def scenario(office: Office) -> None:
        life = Life(office.server)
        await office.raw(b"[1, 2")
        await office.raw(b'{"command": "NOTE"}')
        await office.raw(b'{"command": "note", "arguments": {"word": 1}}')
        await office.raw(b'{"command": "other"}')
        await office.give("refuse")
        await office.give("fail")
        desk = await office.until_taken(await office.give("fine"))
        assert [answer.ok for answer in desk.answers] == [False] * 6 + [True]
        assert desk.answers[4].text == "no such luck"
        letters = await office.letters()
        assert [letter["reason"] for letter in letters] == ["bad_command"] * 5
        assert letters[3]["detail"] == "ingest knows no command 'other'; it knows note"
        assert letters[4]["detail"] == "note failed: ZeroDivisionError"
        assert desk.tickers == ("QQQ", "fine")
        await life.kill()

    at(scenario)


def test_an_id_is_done_once_as_long_as_it_is_remembered() -> None:
    """Its first answer stays."""

    async def scenario(office: Office) -> None:
        life = Life(office.server)
        await office.give("A", "x")
        desk = await office.until_taken(await office.give("B", "x"))
        assert (desk.tickers, len(desk.answers)) == (("QQQ", "A"), 1)
        for number in range(ANSWERS_MAX):
            await office.give(f"N{number}")
        desk = await office.until_taken(await office.give("B", "x"))
        assert desk.tickers[-1] == "B"
        assert len(desk.answers) == ANSWERS_MAX
        await life.kill()

    at(scenario)


def test_a_position_that_does_not_fit_is_refused() -> None:
    """A stream made anew has other commands at the same numbers."""

    async def scenario(office: Office) -> None:
        life = Life(office.server)
        await office.until_taken(await office.give("A"))
        await life.kill()
        office.server.recreate("COMMANDS")
        with pytest.raises(PositionError, match="was made anew"):
            await Life(office.server).clerk.load()

    at(scenario)


def test_a_desk_of_another_version_is_not_guessed_at() -> None:
    """Neither is one that is none."""
    desk = Desk(commands_created_ms=1, configured=("QQQ",), tickers=("QQQ",))
    assert decoded(encoded(desk)) == desk
    for data in (encoded(replace(desk, version=2)), b"{}", b"\xff"):
        with pytest.raises(SchemaError):
            decoded(data)


def test_the_largest_desk_fits_a_message() -> None:
    """Every list as long as it may get."""
    names = tuple(f"ABCDEF{number:03}" for number in range(300))
    says = "the broker has no such history; is the symbol right?"
    order = Order(
        "0123456789abcdef", names, "2026-10-06", "2026-11-19",
        ahead=tuple(range(9000, 9000 + AHEAD_MAX)),
        counts=dict.fromkeys(("stored", "unchanged", "empty", "refused"), 9000),
        with_minutes=names[:150], refused=names[150:],
        lines=tuple(f"{name}: {says}" for name in names[:LINES_MAX]),
    )  # fmt: skip
    desk = Desk(
        commands_created_ms=1, configured=names, tickers=names, orders=(order,) * ORDERS_KEPT_MAX,
        feed=tuple(
            TickerState(name, "quiet", True, True, "nothing came yet; a known symbol?")
            for name in names
        ),
    )  # fmt: skip
    for number in range(ANSWERS_MAX):
        answer = Answer("0123456789abcdef", number, "tickers-remove", True, "x" * 5_000)
        desk = desk.taken(number, answer)
    assert max(len(each.text) for each in desk.answers) == TEXT_CHARS_MAX
    assert len(encoded(desk)) < FRAME_BYTES_MAX
