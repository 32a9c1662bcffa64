"""What `./kite export` was asked for: checked before the database is, all mistakes at once."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

from cli.export.tables import TABLES, Table
from cli.options import parse_tickers
from libs.common import calendar
from libs.common.errors import CalendarError, SettingsError

__all__ = ["ALL", "DEFAULT_TIMEFRAME", "Asked", "Format", "Request", "moment", "resolve"]

Format = Literal["csv", "parquet"]

ALL = "all"
DEFAULT_TIMEFRAME = "1m"
_STDOUT = "-"
_ENDINGS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMEFRAME = re.compile(r"\d{1,3}[a-z]{1,2}")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options as they were given; empty means not given."""

    what: tuple[str, ...]
    tickers: str = ""
    since: str = ""
    until: str = ""
    timeframes: str = ""
    format: str = ""
    output: str = ""
    force: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Request:
    """What follows from it.

    Instants are epoch milliseconds, `[from_ms, to_ms)`, None without an end. `path` is None for
    standard output; in a directory each kind and ticker has a file of its own, and so has each
    time frame of candles.
    """

    tables: tuple[Table, ...]
    tickers: tuple[str, ...]
    from_ms: int | None
    to_ms: int | None
    timeframes: tuple[str, ...] | None
    format: Format
    path: Path | None
    in_directory: bool
    force: bool
    span: str

    def timeframes_of(self, table: Table) -> tuple[str, ...]:
        """Return which time frames of a table are meant; none means all, or that it has none.

        Candles of several time frames in one file are seldom what somebody wants.
        """
        if not table.has_timeframe:
            return ()
        if self.timeframes is None:
            return (DEFAULT_TIMEFRAME,) if table.name == "candles" else ()
        return self.timeframes

    def file(self, table: Table, ticker: str, timeframe: str | None) -> Path:
        """Return where rows go in a directory: the ticker first, as `./kite up --csv` wants it."""
        assert self.path is not None
        name = "-".join(
            part
            for part in (
                quote(ticker, safe="$"),
                "" if table.name == "candles" else table.name,
                timeframe or "",
                re.sub(r"[^0-9TZ-]", "", self.span),
            )
            if part
        )
        return self.path / f"{name}.{self.format}"


def resolve(asked: Asked) -> Request:
    """Return what to do; raises SettingsError with a line for each mistake."""
    problems: list[str] = []
    unknown = [name for name in asked.what if name not in TABLES]
    if unknown or not asked.what:
        named = f"{', '.join(unknown)}: unknown; " if unknown else ""
        problems.append(f"{named}name what to export: {', '.join(TABLES)}")
    tables = tuple(TABLES[name] for name in dict.fromkeys(asked.what) if name in TABLES)
    none: tuple[str, ...] = ()
    csv: Format = "csv"
    tickers = _collect(problems, lambda: _tickers(asked.tickers), none)
    from_ms = _collect(problems, lambda: moment("--from", asked.since, end=False), None)
    to_ms = _collect(problems, lambda: moment("--to", asked.until, end=True), None)
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        problems.append(f"--to {asked.until}: is not after --from {asked.since}")
    timeframes = _collect(problems, lambda: _timeframes(asked.timeframes, tables), None)
    path = None if asked.output in ("", _STDOUT) else Path(asked.output).expanduser()
    in_directory = path is not None and (asked.output.endswith("/") or path.is_dir())
    chosen = _collect(problems, lambda: _format(asked, path, in_directory), csv)
    if len(tables) > 1 and not in_directory:
        problems.append("several kinds of rows need a directory: add -o DIRECTORY/")
    if asked.as_json and path is None:
        problems.append("--json: the rows go to standard output already; add -o FILE")
    if problems:
        raise SettingsError(problems)
    span = "-".join(part for part in (asked.since, asked.until) if part)
    return Request(
        tables, tickers, from_ms, to_ms, timeframes, chosen, path, in_directory, asked.force, span
    )


def _collect(problems: list[str], parse: Callable[[], _T], otherwise: _T) -> _T:
    try:
        return parse()
    except SettingsError as error:
        problems += error.problems
        return otherwise


def moment(option: str, text: str, *, end: bool) -> int | None:
    """Return an instant: that of an ISO time with its zone, or a bound of a New York day.

    A day as an `end` is meant whole. Raises SettingsError.
    """
    if not text:
        return None
    try:
        if _DAY.fullmatch(text):
            return calendar.day_bounds_ms(dt.date.fromisoformat(text))[end]
        stamp = dt.datetime.fromisoformat(text)
    except CalendarError as error:
        raise SettingsError([f"{option} {text}: {error}"]) from error
    except ValueError as error:
        raise SettingsError(
            [f"{option} {text}: no day such as 2026-01-05, and no time such as 2026-01-05T14:30Z"]
        ) from error
    if stamp.tzinfo is None:
        raise SettingsError([f"{option} {text}: in which zone? Write {text}Z, or {text}-05:00"])
    return round(stamp.timestamp() * 1000)


def _tickers(text: str) -> tuple[str, ...]:
    return parse_tickers(text) if text else ()


def _timeframes(text: str, tables: tuple[Table, ...]) -> tuple[str, ...] | None:
    """Return which time frames were named; none means all, None that nothing was said."""
    if not text:
        return None
    if tables and not any(table.has_timeframe for table in tables):
        raise SettingsError([f"--timeframe {text}: {tables[0].name} have none; leave it out"])
    if text == ALL:
        return ()
    named = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [name for name in named if not _TIMEFRAME.fullmatch(name)]
    if wrong or not named:
        raise SettingsError([f"--timeframe {text}: no time frame such as 1m, 5m or 1h, nor {ALL}"])
    return named


def _format(asked: Asked, path: Path | None, in_directory: bool) -> Format:
    given: Format | None = "csv" if asked.format == "csv" else "parquet" if asked.format else None
    if path is None or in_directory:
        return given or "csv"
    ending = _ENDINGS.get(path.suffix.lower())
    if given is None and ending is None:
        raise SettingsError(
            [f"-o {asked.output}: which format? End the name with .csv or .parquet, add --format, "
             "or end it with / for a directory"]
        )  # fmt: skip
    if given is not None and ending is not None and given != ending:
        raise SettingsError([f"--format {given}: the file's name says {ending}: {asked.output}"])
    return given or ending or "csv"
