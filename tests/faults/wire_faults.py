"""Rows about the broker: a wire that breaks, stalls or lies, and a web interface that refuses.

The simulator commits the faults and counts them; a trial waits until it says that it has. What the
broker then did not send cannot be stored: rows of that kind are judged as missed input. What it
sent besides (garbage, repeats, strays) must change nothing at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random

from libs.common import calendar
from tests.faults.recording import DAYS
from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.faults.scenes import PLAIN, Scene
from tests.waiting import eventually_async

__all__ = ["WIRE_ROWS"]

STRUCK_WITHIN_S = 120.0
FELT_WITHIN_S = 10.0  # longer than a stall, and than what ingest bears
OPEN_WITHIN_S = 180.0
IMPATIENT = Scene(
    "impatient",
    settings={
        "KITE_INGEST_RECONNECT_FIRST_MS": "20",
        "KITE_INGEST_SILENCE_MS": "3000",
        "KITE_INGEST_FROZEN_MS": "2000",
        "KITE_INGEST_ANSWER_MS_MAX": "2000",
        "KITE_INGEST_PING_MS": "1500",
    },
)
"""Where ingest takes seconds for what it takes half a minute for elsewhere.

Not fewer: on a busy machine it would take its own slowness for the broker's, reconnect, and ask for
the day's history each time, which makes it slower still.
"""


async def _until_open(rig: Rig) -> None:
    session = calendar.session(DAYS[0])
    assert session is not None
    await rig.until_broker(session.open_ms, OPEN_WITHIN_S)


# Ingest takes silence for a frozen feed in regular hours only, so a run must stay within them.
MID_SESSION = Scene("mid-session", settings=IMPATIENT.settings, trials_max=8, prepare=_until_open)
_REFUSALS = (401, 403, 429, 500, 502, 503)
_TOKEN_REFUSALS = (400, 401, 403, 429, 500, 503)
_ANSWERS_AT_LOGIN = 3  # to the login and to two subscriptions
_LIVELY_TICKS = 300
_RECONNECTS = "kite_ingest_reconnects_total"
_NOTES = "kite_ingest_notes_total"
_REJECTS = "kite_ingest_rejects_total"
_LETTERS = "kite_ingest_dead_letters_total"
_HISTORY = "kite_ingest_history_requests_total"
_EVENTS = "kite_ingest_events_total"


# -- the broker's faults, and the proof that they struck -------------------------------------------


async def _strike(rig: Rig, kind: str, times: int = 1, skip: int = 0, **more: object) -> None:
    """Commit one kind of fault so many times, and wait until it is done."""
    before = (await rig.broker_struck()).get(kind, 0)
    await rig.broker_faults(next={kind: times}, skip={kind: skip}, **more)
    await _struck(rig, kind, before + times)
    rig.counts[kind] += times


async def _struck(rig: Rig, kind: str, times: int) -> None:
    async def done() -> bool:
        return (await rig.broker_struck()).get(kind, 0) >= times

    await eventually_async(done, STRUCK_WITHIN_S, f"the broker has struck with {kind}")


class _Grown:
    """Waits for a counter of ingest to grow."""

    def __init__(self, rig: Rig, name: str, **labels: str) -> None:
        self._rig, self._name, self._labels = rig, name, labels
        self._before = 0.0

    async def __call__(self) -> int:
        """Return by how much it has grown since `begin`."""
        now = await self._rig.metric("ingest", self._name, **self._labels)
        return int(now - self._before)

    async def begin(self) -> _Grown:
        self._before = await self._rig.metric("ingest", self._name, **self._labels)
        return self

    async def by(self, least: int, within_s: float = STRUCK_WITHIN_S) -> None:
        async def enough() -> bool:
            return await self() >= least

        what = f"{self._name} {self._labels or ''} has grown by {least}"
        await eventually_async(enough, within_s, what)


# -- what changes nothing --------------------------------------------------------------------------


async def _stall(rig: Rig, random: Random) -> int:
    """Hold everything back for a moment, then send it at once, with its old stamps."""
    stall_s = random.uniform(0.3, 3.0)
    await _strike(rig, "stall", stall_s=stall_s)
    return rig.now_ms() + int(stall_s * 1000)


async def _malformed(rig: Rig, random: Random) -> int:
    """Every broken frame is one dead letter, no more and no fewer."""
    times = random.randint(1, 10)
    rejects = await _Grown(rig, _REJECTS).begin()
    letters = await _Grown(rig, _LETTERS).begin()
    await _strike(rig, "malformed", times)
    await letters.by(times)
    assert await rejects() == await letters() == times, "not one dead letter for each broken frame"
    return rig.now_ms()


async def _hostile(rig: Rig, random: Random) -> int:
    """Send values of wrong types, absurd ones, unknown names; whatever is refused is kept."""
    rejects, letters = await _Grown(rig, _REJECTS).begin(), await _Grown(rig, _LETTERS).begin()
    await _strike(rig, "hostile", random.randint(1, 20))
    frames = await _Grown(rig, "kite_ingest_wire_frames_total").begin()
    await frames.by(1)
    await letters.by(await rejects())
    return rig.now_ms()


async def _doubled(rig: Rig, random: Random) -> int:
    times = random.randint(1, 8)
    noticed = await _Grown(rig, _NOTES, note="duplicate_bar").begin()
    await _strike(rig, "duplicate_bar", times)
    await noticed.by(times)
    return rig.now_ms()


async def _besides(kind: str, times_max: int, rig: Rig, random: Random) -> int:
    await _strike(rig, kind, random.randint(1, times_max))
    return rig.now_ms()


async def _no_heartbeats(rig: Rig, random: Random) -> int:
    """Let data come without heartbeats for some minutes of the broker's time."""
    await rig.broker_faults(no_heartbeats=True)
    await rig.a_moment(random, minutes_max=1)  # what was on its way has arrived
    clocks = await _Grown(rig, _EVENTS, kind="clock").begin()
    ticks = await _Grown(rig, _EVENTS, kind="tick").begin()
    await rig.a_moment(random)
    await ticks.by(1)
    assert await clocks() == 0, "there were heartbeats"
    return rig.now_ms()


# -- what misses input -----------------------------------------------------------------------------


async def _broken(kind: str, rig: Rig, random: Random) -> int:
    """End the connection at any frame, also while ingest subscribes once more."""
    reconnects = await _Grown(rig, _RECONNECTS).begin()
    await _strike(rig, kind, random.randint(1, 2), skip=random.randint(0, 5))
    struck_ms = rig.now_ms()
    await reconnects.by(1)
    return struck_ms


async def _silent(rig: Rig, random: Random) -> int:
    """Stall for longer than ingest bears; what was held back then meets a closed socket.

    The row before may have left a connection that ingest is giving up, and the broker not yet. A
    stall that strikes that one is not felt, so another follows.
    """
    silences = await _Grown(rig, _RECONNECTS, cause="silence").begin()

    async def felt() -> bool:
        await _strike(rig, "stall", stall_s=random.uniform(3.5, 5.0))
        with suppress(AssertionError):
            await silences.by(1, FELT_WITHIN_S)
        return await silences() > 0

    await eventually_async(felt, STRUCK_WITHIN_S, "ingest has given up a silent connection")
    return rig.now_ms()


async def _half_open(rig: Rig, random: Random) -> int:
    """Stop the broker in its tracks: its sockets stand and say nothing, not even pongs."""
    silences = await _Grown(rig, _RECONNECTS).begin()
    pid = rig.pid("simulator")
    rig.freeze(pid)
    try:
        await silences.by(random.randint(1, 2))
    finally:
        rig.thaw(pid)
    return rig.now_ms()


async def _no_pongs(rig: Rig, random: Random) -> int:
    """Leave pings unanswered until ingest has given up a connection or two because of it."""
    given_up = await _Grown(rig, _RECONNECTS, cause="reconnect").begin()
    await rig.broker_faults(no_pongs=True)
    await given_up.by(random.randint(1, 2))
    return rig.now_ms()


async def _frozen(rig: Rig, random: Random) -> int:
    """Stop data, not heartbeats, on a connection that has brought enough to tell it from quiet."""
    ticks = await _Grown(rig, _EVENTS, kind="tick").begin()
    await ticks.by(_LIVELY_TICKS)
    given_up = await _Grown(rig, _RECONNECTS, cause="silence").begin()
    await rig.broker_faults(freeze_data=True)
    await given_up.by(1)
    return rig.now_ms()


async def _unanswered(kind: str, rig: Rig, random: Random) -> int:
    """Break the connection and do not answer, or too late, one of the requests of the next."""
    before = (await rig.broker_struck()).get(kind, 0)
    await rig.broker_faults(
        next={"drop": 1, kind: 1},
        skip={kind: random.randrange(_ANSWERS_AT_LOGIN)},
        late_ack_s=random.uniform(0.1, 4.0),
    )
    await _struck(rig, kind, before + 1)
    rig.counts[kind] += 1
    return rig.now_ms()


async def _bars(kind: str, rig: Rig, random: Random) -> int:
    """Miss minute bars or send them late; the broker's history knows better."""
    asked = await _Grown(rig, _HISTORY, outcome="complete").begin()
    await _strike(rig, kind, random.randint(1, 8))
    await asked.by(1)
    return rig.now_ms()


async def _refused_login(rig: Rig, random: Random) -> int:
    """Refuse every request while ingest wants to come back."""
    reconnects = await _Grown(rig, _RECONNECTS).begin()
    await _strike(rig, "drop", rest_status=random.choice(_REFUSALS))
    await reconnects.by(random.randint(2, 4))  # the first is the drop itself
    return rig.now_ms()


async def _refused_history(rig: Rig, random: Random) -> int:
    """Refuse price history when a bar is missing."""
    failed = await _Grown(rig, _HISTORY, outcome="failed").begin()
    await _strike(rig, "missing_bar", rest_status=random.choice(_REFUSALS))
    await failed.by(1)
    return rig.now_ms()


async def _refused_token(rig: Rig, random: Random) -> int:
    """Accept the access token no more, and give no other one."""
    reconnects = await _Grown(rig, _RECONNECTS).begin()
    await _strike(rig, "drop", rest_status=401, token_status=random.choice(_TOKEN_REFUSALS))
    await reconnects.by(random.randint(2, 4))
    return rig.now_ms()


# -- the catalogue ---------------------------------------------------------------------------------


def _row(
    name: str,
    what: str,
    strike: Callable[[Rig, Random], Awaitable[int]],
    scene: Scene = PLAIN,
    *,
    misses_input: bool = False,
) -> Row:
    async def and_heal(rig: Rig, random: Random) -> int:
        try:
            return await strike(rig, random)
        finally:
            await rig.broker_well()

    return Row(f"wire: {name}", what, and_heal, scene, misses_input=misses_input)


def _harmless() -> tuple[Row, ...]:
    return (
        _row("stale burst", "nothing comes for up to 3 s (7 minutes of the market), then all at "
             "once, with old stamps", _stall),
        _row("malformed", "half frames between the whole ones", _malformed),
        _row("hostile", "wrong types, absurd values, unknown names, deep nesting", _hostile),
        _row("duplicate bar", "minute bars come twice", _doubled),
        _row("big frame", "data frames beyond 1 MiB", partial(_besides, "big_frame", 3)),
        _row("stray answer", "answers that nobody asked for",
             partial(_besides, "stray_response", 10)),
        _row("no heartbeats", "data comes, heartbeats do not", _no_heartbeats),
    )  # fmt: skip


def _missing() -> tuple[Row, ...]:
    missing = partial(_row, misses_input=True)
    return (
        missing("drop", "the connection is reset, also during login", partial(_broken, "drop"),
                IMPATIENT),
        missing("close", "the connection is closed politely, also during login",
                partial(_broken, "close"), IMPATIENT),
        missing("silent stall", "the socket stands and brings nothing until ingest gives it up",
                _silent, IMPATIENT),
        missing("half-open", "the broker stops in its tracks, its sockets stand", _half_open,
                IMPATIENT),
        missing("no pongs", "data comes, pings stay unanswered", _no_pongs, IMPATIENT),
        missing("frozen data", "heartbeats come, data does not", _frozen, MID_SESSION),
        missing("swallowed answer", "a request at login is carried out and not answered",
                partial(_unanswered, "swallow_ack"), IMPATIENT),
        missing("late answer", "a request at login is answered late, or too late",
                partial(_unanswered, "late_ack"), IMPATIENT),
        missing("late bar", "bars come after the ones that follow them",
                partial(_bars, "late_bar")),
        missing("missing bar", "bars never come", partial(_bars, "missing_bar")),
        missing("volume reset", "the day's volume of symbols begins anew",
                partial(_besides, "volume_reset", 8)),
        missing("REST refuses at login", "401, 403, 429 or 5xx while ingest wants to come back",
                _refused_login, IMPATIENT),
        missing("REST refuses history", "401, 403, 429 or 5xx while a bar is missing",
                _refused_history),
        missing("token refused", "the access token is refused, and so is a new one",
                _refused_token, IMPATIENT),
    )  # fmt: skip


WIRE_ROWS: tuple[Row, ...] = (*_harmless(), *_missing())
