"""`./kite import FILE.csv…`: minute bars of files into a store of files, a day at a time.

The files have the form that `./kite up --csv` plays. Each day goes to ingest as one command, which
publishes it as it does with price history; a day that is stored already and equal changes nothing.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from cli.desk import DeskClient, connected
from cli.home import Home
from cli.options import ticker_of
from cli.output import console, printable
from libs.common.commands import Answer
from libs.common.errors import CalendarError, KiteError, SettingsError
from libs.common.events import HistoryBar
from services.ingest.requests import pack_bars
from services.simulator.csv_bars import read_bars
from services.simulator.market import DayBars

__all__ = ["run"]

# The rest of the stream is for other commands; what is taken leaves it after a week.
_ROOM_SHARE_MAX = 0.8
_AHEAD_MAX = 8  # commands given before the first of them is answered
EXIT_LEFT_OUT = 1


@dataclass(frozen=True)
class Day:
    """One ticker's day of a file."""

    ticker: str
    day: date
    bars: list[HistoryBar]


def run(home: Home, files: Sequence[Path], ticker: str | None) -> int:
    """Import all files; returns 1 if a day was refused. Raises SettingsError for wrong files."""
    days, outside = _read(files, ticker)
    if outside:
        print(f"kite: {outside} rows outside the extended session are left out", file=sys.stderr)
    answers = asyncio.run(_bring(home, days))
    refused = [answer.text for answer in answers if not answer.ok]
    stored = sum(answer.text.endswith("stored") for answer in answers)
    for text in dict.fromkeys(refused):
        print(f"kite: {printable(text)}", file=sys.stderr)
    print(
        f"{stored} days stored, {len(answers) - stored - len(refused)} unchanged, "
        f"{len(refused)} refused"
    )
    return EXIT_LEFT_OUT if refused else 0


def _read(files: Sequence[Path], ticker: str | None) -> tuple[list[Day], int]:
    """Read everything before anything is sent; raises SettingsError with every problem."""
    if ticker is not None and len(files) > 1:
        raise SettingsError(["--ticker: for one file only; others are named TICKER-anything.csv"])
    days: list[Day] = []
    problems: list[str] = []
    outside = 0
    for path in files:
        try:
            name = ticker_of(path, ticker)
            with path.open(newline="", encoding="utf-8-sig") as file:
                found, left_out = read_bars(file)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            problems.append(f"cannot read {path}: {reason}")
        except (ValueError, csv.Error, CalendarError) as error:
            problems.append(f"{path}: {error}")
        else:
            outside += left_out
            days += _days(name, found)
            if not found:
                problems.append(f"{path}: holds no row within the trading sessions")
    if problems:
        raise SettingsError(problems)
    return sorted(days, key=lambda each: (each.day, each.ticker)), outside


def _days(ticker: str, found: Mapping[date, DayBars]) -> Iterator[Day]:
    for day, bars in found.items():
        columns = (bars.ts_ms, bars.open, bars.high, bars.low, bars.close, bars.volume)
        yield Day(ticker, day, list(map(HistoryBar, *columns)))


async def _bring(home: Home, days: Sequence[Day]) -> list[Answer]:
    """Give all days to ingest, a few ahead of the answers, and return these."""
    answers: list[Answer] = []
    waiting: list[tuple[str, int]] = []
    async with connected(home) as client:
        with _shown(len(days)) as advance:
            for day in days:
                if len(waiting) >= _AHEAD_MAX:
                    answers.append(await client.answer(*waiting.pop(0)))
                    advance()
                    if _is_hopeless(answers):
                        break
                waiting.append(await _send(client, day))
            for each in waiting:
                answers.append(await client.answer(*each))
                advance()
    return answers


def _is_hopeless(answers: Sequence[Answer]) -> bool:
    """Whether the store takes no file at all: then the rest need not be tried."""
    return len(answers) == 1 and not answers[0].ok and "of the source" in answers[0].text


async def _send(client: DeskClient, day: Day) -> tuple[str, int]:
    if await client.room_share() > _ROOM_SHARE_MAX:
        raise KiteError(
            f"the stream of commands has no room for {day.ticker} {day.day} and what follows; the "
            "days before are imported. It makes room after seven days, or raise "
            "KITE_STREAM_BYTES_MAX and restart; then import again"
        )
    arguments = {"ticker": day.ticker, "day": day.day.isoformat(), "bars": pack_bars(day.bars)}
    return await client.send("import", arguments)


@contextmanager
def _shown(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True)) as shown:
        task = shown.add_task("days", total=total)
        yield lambda: shown.advance(task)
