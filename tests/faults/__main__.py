"""`make faults`: run trials of every row, judge each run, and write docs/faults.md.

    python -m tests.faults --trials 100 --other-trials 30     everything, for hours
    python -m tests.faults --short                            a slice for each change
    python -m tests.faults --rows "kill -9 writer" --trials 5 some rows only, and no page
    python -m tests.faults --replay SEED --rows …             one run again
    python -m tests.faults --sensitivity                      every planted defect must be found

Results are appended to `docs/faults.jsonl`, each with a digest of the code that was tested. The
page counts those of the present code, and those of `changes`; so does `--trials`: a long campaign
that was interrupted, or found something that was mended, goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults import hunts, report
from tests.faults.campaign import Run, Trial, baseline, run
from tests.faults.recording import write_recording
from tests.faults.rows import ROWS, Row
from tests.faults.scenes import Scene
from tests.servers import temporary_home

__all__ = ["main"]

BASELINE_HOURS = 12.0
SHORT_BASELINE_HOURS = 6.0
SHORT_TRIALS = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; 0 if nothing was violated, 1 otherwise, 2 for wrong usage."""
    # Like Ctrl-C: no process, no mounted disk and no detour may be left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = _options(arguments)
    chosen = _choose(options.rows)
    if chosen is None:
        return 2
    usable = [row for row in chosen if _is_usable(row.scene)]
    if options.sensitivity:
        return 0 if asyncio.run(hunts.every(usable)) else 1
    runs = asyncio.run(_campaign(options, usable))
    if not options.short and options.replay is None and not options.rows:
        report.write(ROWS)
    Console().print(report.summary(runs))
    sharp = not options.short or asyncio.run(hunts.short(usable))
    # Last, because whoever looks at a log begins at its end.
    failed = [each for each in runs if each.violations]
    for each in failed:
        _tell(each)
    missed = "" if sharp else "; not every planted defect was found out"
    print(f"\n{len(runs)} runs, {len(failed)} violated{missed}")
    return 1 if failed or not sharp else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make faults ARGS=…", description="Injects faults into the real stack and compares."
    )
    parser.add_argument("--trials", type=int, default=10, help="of each process row (10)")
    parser.add_argument("--other-trials", type=int, default=3, help="of each other row (3)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only rows with these words")
    parser.add_argument("--jobs", type=int, default=1, help="stacks side by side (1)")
    parser.add_argument("--short", action="store_true", help="the slice that runs on each change")
    parser.add_argument("--replay", type=int, metavar="SEED", help="one run with this seed")
    parser.add_argument("--sensitivity", action="store_true", help="hunt the planted defects")
    return parser.parse_args(arguments)


def _choose(wanted: Sequence[str] | None) -> list[Row] | None:
    if not wanted:
        return list(ROWS)
    chosen = [row for row in ROWS if any(word in row.name for word in wanted)]
    if not chosen:
        names = "\n  ".join(row.name for row in ROWS)
        print(f"no row is called like {wanted}; there are:\n  {names}", file=sys.stderr)
        return None
    return chosen


def _is_usable(scene: Scene) -> bool:
    reason = scene.unusable()
    if reason is not None:
        print(f"SKIPPED scene {scene.name}: {reason}")
    return reason is None


async def _campaign(options: argparse.Namespace, rows: Sequence[Row]) -> list[Run]:
    """Run after run until every row has had its trials, `--jobs` of them side by side."""
    left = _wanted(options, rows)
    runs: list[Run] = []
    if not left.total():
        return runs
    with temporary_home() as folder, _progress() as progress:
        recording = write_recording(folder)
        bar = progress.add_task("a run without faults", total=left.total())
        hours = SHORT_BASELINE_HOURS if options.short else BASELINE_HOURS
        expected = await baseline(recording, hours)

        def on_trial(trial: Trial) -> None:
            progress.advance(bar)

        async def work() -> None:
            while batch := _next_batch(rows, left):
                seed = options.replay if options.replay is not None else secrets.randbelow(2**32)
                progress.update(bar, description=f"{batch[0].scene.name}, seed {seed}")
                left.subtract(row.name for row in batch)
                found = await run(batch[0].scene, batch, seed, recording, expected, on_trial)
                found = msgspec.structs.replace(found, jobs=options.jobs)
                runs.append(found)
                if not options.short and options.replay is None:
                    report.keep(found)
                if options.replay is not None:
                    left.clear()
                elif not found.violations:  # the recording ended before all were struck
                    left.update(row.name for row in batch)
                    left.subtract(trial.row for trial in found.trials)

        async with asyncio.TaskGroup() as workers:
            for _ in range(options.jobs):
                workers.create_task(work())
    return runs


def _wanted(options: argparse.Namespace, rows: Sequence[Row]) -> Counter[str]:
    """Return how many trials each row still needs, beside those that the page counts."""
    if options.short or options.replay is not None:
        return Counter({row.name: SHORT_TRIALS for row in rows})
    made = report.trials()
    wanted = {row.name: options.trials if row.process else options.other_trials for row in rows}
    return Counter({name: max(0, number - made[name]) for name, number in wanted.items()})


def _next_batch(rows: Sequence[Row], left: Counter[str]) -> list[Row]:
    """Take rows of one scene and one kind of judgement, in turns, so that no process dies often."""
    first = max(rows, key=lambda row: left[row.name])
    if left[first.name] <= 0:
        return []
    alike = [
        row for row in rows if row.scene == first.scene and row.misses_input == first.misses_input
    ]
    batch: list[Row] = []
    taken: Counter[str] = Counter()
    while len(batch) < first.scene.trials_max:
        more = [row for row in alike if left[row.name] > taken[row.name]]
        if not more:
            break
        batch += more
        taken.update(row.name for row in more)
    return batch[: first.scene.trials_max]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True),
    )  # fmt: skip


def _tell(found: Run) -> None:
    names = " ".join(f'"{name}"' for name in sorted({trial.row for trial in found.trials}))
    print(f"\nVIOLATED in scene {found.scene}, seed {found.seed}, rows {names}:")
    for violation in found.violations:
        print(f"  {violation}")
    print(f"  again: make faults ARGS='--replay {found.seed} --rows {names}'")
    print(f"  logs: .faults/{found.seed}")


if __name__ == "__main__":
    sys.exit(main())
