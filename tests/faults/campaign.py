"""Runs: a rig, a seed, a number of faults, and the judgement at the end.

Everything random in a run follows from its seed: which faults in which order, and how much recorded
time passes between them. What cannot be repeated is the instant at which a process is hit, because
the operating system schedules the rest; a seed repeats the schedule, not the race.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec

from libs.common import calendar
from tests.faults import oracle
from tests.faults.evidence import EVIDENCE, code_digest
from tests.faults.ledger import read_bars, read_ledger
from tests.faults.oracle import Book
from tests.faults.recording import DAYS
from tests.faults.rig import Rig
from tests.faults.rows import Row
from tests.faults.scenes import PLAIN, Scene
from tests.waiting import eventually_async

__all__ = ["Baseline", "Run", "Trial", "baseline", "judge", "run", "strike"]

BASELINE_SPEED = 600.0
PLAYED_WITHIN_S = 1_200.0
SETTLED_WITHIN_S = 60.0
BASELINE_FILE = EVIDENCE / "baseline.msgpack"
_SETTLE_MS = 120_000
_END_MARGIN_MS = 30 * 60_000
_LINES_MAX = 20
_HOUR_MS = 3_600_000


class Trial(msgspec.Struct, frozen=True):
    """One fault that was injected; `recovery_ms` is None if the stack did not come back.

    `counts` is what was seen to happen, such as stale writes that were fenced.
    """

    row: str
    recovery_ms: int | None
    counts: dict[str, int] = {}


class Run(msgspec.Struct, frozen=True):
    """What one run found; no violations means that everything held.

    `jobs` is how many stacks shared the machine with it, itself included.
    """

    scene: str
    seed: int
    trials: tuple[Trial, ...]
    violations: tuple[str, ...]
    rss_bytes: dict[str, int] = {}
    jobs: int = 1


class Baseline(msgspec.Struct, frozen=True):
    """The rows of a run without faults, complete up to `until_ms` of broker time."""

    code: str
    book: Book
    until_ms: int


async def baseline(recording: Sequence[Path], hours: float) -> Baseline:
    """Play the recording without faults for some hours of broker time; raises AssertionError.

    What was played for the same code before is taken from the disk.
    """
    session = calendar.session(DAYS[0])
    assert session is not None
    until_ms = session.pre_open_ms + int(hours * _HOUR_MS)
    known = _kept_baseline(until_ms)
    if known is not None:
        return known
    calm = dataclasses.replace(PLAIN, name="baseline", speed=BASELINE_SPEED)
    async with calm.rig(recording) as rig:
        await rig.until_broker(until_ms + _SETTLE_MS, PLAYED_WITHIN_S)
        await rig.caught_up(rig.now_ms())
        made = Baseline(code_digest(), await oracle.read_book(rig.watch.read), until_ms)
    EVIDENCE.mkdir(exist_ok=True)
    BASELINE_FILE.write_bytes(msgspec.msgpack.encode(made))
    return made


def _kept_baseline(until_ms: int) -> Baseline | None:
    try:
        kept = msgspec.msgpack.decode(BASELINE_FILE.read_bytes(), type=Baseline)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return kept if kept.code == code_digest() and kept.until_ms >= until_ms else None


async def run(
    scene: Scene,
    rows: Sequence[Row],
    seed: int,
    recording: Sequence[Path],
    expected: Baseline,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Run:
    """Inject the rows' faults one after the other, in an order that the seed decides, and judge.

    Ends early when the broker comes near the end of what `expected` knows.
    """
    random = Random(seed)
    trials: list[Trial] = []
    violations: list[str] = []
    order = random.sample(rows, len(rows))
    rss_bytes: dict[str, int] = {}
    try:
        async with scene.rig(recording) as rig:
            try:
                await _strike_all(order, rig, random, trials, expected, on_trial)
                violations += await judge(rig, order, expected)
            except AssertionError as error:
                violations.append(str(error))
            rss_bytes = rig.bounds.rss_bytes
            if violations:
                violations += [f"kite said: {line}" for line in rig.complaints()[-_LINES_MAX:]]
                _keep_evidence(rig, seed)
    except Exception as error:  # noqa: BLE001 - one rig that breaks must not end a campaign
        violations.append("".join(traceback.format_exception(error)))
    return Run(scene.name, seed, tuple(trials), tuple(violations), rss_bytes)


async def _strike_all(
    order: Sequence[Row],
    rig: Rig,
    random: Random,
    trials: list[Trial],
    expected: Baseline,
    on_trial: Callable[[Trial], None],
) -> None:
    for row in order:
        await rig.steady()
        await rig.a_moment(random)
        if await _broker_ms(rig) > expected.until_ms - _END_MARGIN_MS:
            return
        try:
            trials.append(await strike(row, rig, random))
        except AssertionError:
            trials.append(Trial(row.name, None))
            raise
        on_trial(trials[-1])


def _keep_evidence(rig: Rig, seed: int) -> None:
    """Copy the logs of a run that failed to where they outlive it."""
    kept = EVIDENCE / str(seed)
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    if rig.home.logs.exists():  # its disk may be what failed
        shutil.copytree(rig.home.logs, kept / "logs", dirs_exist_ok=True)
    for path in rig.outside.iterdir():
        shutil.copy(path, kept)


async def strike(row: Row, rig: Rig, random: Random) -> Trial:
    """Inject one fault and wait for the way back; raises AssertionError when there is none."""
    rig.counts.clear()
    try:
        since_ms = await row.strike(rig, random)
        return Trial(row.name, await rig.caught_up(since_ms) - since_ms, dict(rig.counts))
    except AssertionError as error:
        raise AssertionError(f"{row.name}: {error}") from error


async def judge(
    rig: Rig, rows: Sequence[Row], expected: Baseline, settled_within_s: float = SETTLED_WITHIN_S
) -> list[str]:
    """Compare when all has settled; what differs then will not settle any more."""
    until_ms = min(await _broker_ms(rig), expected.until_ms)
    await rig.until_broker(until_ms + _SETTLE_MS)
    lossy = any(row.loses_frames for row in rows)
    compare = oracle.same_day if any(row.misses_input for row in rows) else oracle.same_rows

    async def look() -> list[str]:
        await rig.caught_up(rig.now_ms())
        book = await oracle.read_book(rig.watch.read)
        sent = await asyncio.to_thread(read_ledger, rig.ledger_file)
        if lossy:
            bars = await asyncio.to_thread(read_bars, rig.ledger_file)
            live = rig.live.values()
            found = oracle.same_minutes(book, expected.book, sent, live, until_ms, bars)
            unexplained = await rig.metric("writer", "kite_writer_unexplained_minutes")
            found += [f"{unexplained:.0f} minutes are unexplained"] if unexplained else []
        else:
            found = compare(book, expected.book, sent, list(rig.live.values()), until_ms)
        return [*found, *rig.page.differs(book.ticks.get(rig.page.ticker, []), until_ms)]

    now_s = asyncio.get_running_loop().time
    settled_s = now_s() + settled_within_s
    while True:  # a busy machine may need longer for one look; the last one counts all the same
        try:
            found = await look()
        except AssertionError as error:
            found = [str(error)]
        if not found or now_s() >= settled_s:
            break
    mismatches = await rig.metric("writer", "kite_writer_reconcile_mismatches")
    if mismatches:
        found = [*found, f"the reconciler reports {mismatches:.0f} differences"]
    return [
        *found,
        *rig.contradictions,
        *rig.page.contradictions[:_LINES_MAX],
        *rig.bounds.violations(),
    ]


async def _broker_ms(rig: Rig) -> int:
    head = await eventually_async(rig.watch.head, SETTLED_WITHIN_S, "the end of MARKET")
    assert head is not None
    return head.sent_ms
