"""What `./kite up` was asked for, and the market that follows from it.

Everything that can be checked before something is started is checked here, all mistakes at once.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from cli.login_place import token_file, token_settings
from libs.common.errors import SettingsError
from libs.common.settings import StoreSource, load
from libs.common.token_file import TokenFile, TokenInvalid, TokenMissing

__all__ = [
    "DEMO_TICKERS",
    "Market",
    "UpOptions",
    "parse_tickers",
    "recording_start",
    "resolve",
    "ticker_of",
    "warnings",
]

# A lively page: three funds and a stock, of which the simulator knows typical price and volume.
DEMO_TICKERS = ("QQQ", "SPY", "IWM", "AAPL")
SCHWAB_TICKERS = ("QQQ",)
TICKERS_MAX = 300
PARTITIONS_MAX = 64
SPEED_MAX = 10_000
SPEED_SURE_MAX = 1_000
CSV_COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
_LEAD = dt.timedelta(seconds=2)
_T = TypeVar("_T")
_TICKER = re.compile(r"[$A-Z0-9][A-Z0-9./^-]{0,14}")


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """The options of `./kite up` as they were given; `None` means not given."""

    home: Path
    schwab: bool = False
    tickers: str | None = None
    csv: tuple[Path, ...] = ()
    speed: float | None = None
    exit_after_s: float | None = None
    partitions: int | None = None
    gateway_port: int | None = None
    nats_port: int | None = None
    postgres_port: int | None = None
    fresh: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Market:
    """Whose data it is: the source, the tickers, and for CSV the files and what is in them."""

    source: StoreSource
    tickers: tuple[str, ...]
    csv: tuple[tuple[str, Path], ...] = ()
    csv_sha256: str = ""

    @property
    def store_name(self) -> str:
        """Return the store's directory below the data home: one per source and set of files."""
        if not self.csv:
            return self.source
        more = f"+{len(self.csv) - 1}" if len(self.csv) > 1 else ""
        return f"csv/{self.csv[0][1].stem}{more}-{self.csv_sha256[:8]}"


def resolve(options: UpOptions, environ: Mapping[str, str]) -> Market:
    """Find the market that was asked for; raises SettingsError with every problem found."""
    problems = [*_contradictions(options), *_out_of_range(options)]
    chosen: tuple[str, ...] = ()
    files: tuple[tuple[str, Path], ...] = ()
    if options.tickers is not None:
        chosen = _collect(problems, lambda: parse_tickers(options.tickers or ""))
    if options.csv:
        files = _collect(problems, lambda: _csv_files(options.csv, chosen))
    if options.schwab:
        problems += _missing_credentials(options.home, environ)
    if problems:
        raise SettingsError(problems)
    if options.schwab:
        return Market("schwab", chosen or SCHWAB_TICKERS)
    if files:
        return Market("csv", tuple(ticker for ticker, _ in files), files, _digest(files))
    return Market("demo", chosen or DEMO_TICKERS)


def warnings(options: UpOptions) -> Iterator[str]:
    """Say what was asked for that may turn out otherwise than it was meant."""
    if options.speed is not None and options.speed > SPEED_SURE_MAX:
        yield (
            f"--speed {options.speed:g}: this machine may not keep up; "
            "what it cannot take at once waits in the spool, and arrives late"
        )


def parse_tickers(text: str, name: str = "--tickers") -> tuple[str, ...]:
    """Turn `qqq, spy` into tickers without repeats; raises SettingsError naming each wrong one.

    `name` is what they were given to.
    """
    tickers = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    problems = [
        f"{name}: {ticker!r} is no ticker; write for example {name} QQQ,SPY,BRK.B"
        for ticker in tickers
        if not _TICKER.fullmatch(ticker)
    ]
    if not tickers:
        problems.append(f"{name}: empty; name at least one, for example {name} QQQ,SPY")
    if len(tickers) > TICKERS_MAX:
        problems.append(
            f"{name}: {len(tickers)} tickers, but Schwab sends minute bars for at most "
            f"{TICKERS_MAX}"
        )
    if problems:
        raise SettingsError(problems)
    return tickers


def _contradictions(options: UpOptions) -> Iterator[str]:
    if options.schwab and options.csv:
        yield "--schwab and --csv: choose one source of data"
    if options.schwab and options.speed is not None:
        yield "--speed: a real market cannot be hurried; leave out --speed or --schwab"
    if options.schwab and options.fresh:
        yield "--fresh: recorded market data is never deleted by this; remove its store by hand"


def _out_of_range(options: UpOptions) -> Iterator[str]:
    if options.speed is not None and not 0 < options.speed <= SPEED_MAX:
        yield f"--speed {options.speed:g}: choose more than 0 and at most {SPEED_MAX}"
    if options.exit_after_s is not None and options.exit_after_s < 0:
        yield f"--exit-after {options.exit_after_s:g}: choose 0 or more, in seconds from ready"
    if options.partitions is not None and not 1 <= options.partitions <= PARTITIONS_MAX:
        yield f"--partitions {options.partitions}: choose 1 to {PARTITIONS_MAX}"
    ports = {
        "gateway": options.gateway_port,
        "nats": options.nats_port,
        "postgres": options.postgres_port,
    }
    for name, port in ports.items():
        if port is not None and not 0 <= port <= 65_535:
            option = "--port" if name == "gateway" else f"--{name}-port"
            yield f"{option} {port}: choose 1 to 65535, or 0 for any free one"


def _collect(problems: list[str], parse: Callable[[], tuple[_T, ...]]) -> tuple[_T, ...]:
    try:
        return parse()
    except SettingsError as error:
        problems += error.problems
        return ()


def _csv_files(paths: tuple[Path, ...], tickers: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    """Pair each file with its ticker: the one named for it, else the beginning of its name."""
    if tickers and len(tickers) != len(paths):
        raise SettingsError(
            [f"--tickers: with --csv name one ticker a file, {len(paths)} in all, or leave it out"]
        )
    named = tickers or tuple(re.split(r"[-_ ]", path.stem, maxsplit=1)[0].upper() for path in paths)
    problems = [
        problem
        for path, ticker in zip(paths, named, strict=True)
        for problem in (*_misnamed(path, ticker), *_csv_problems(path, ticker))
    ]
    if len(set(named)) < len(named):
        problems.append("--csv: two files of one ticker; put their rows into one file")
    if problems:
        raise SettingsError(problems)
    return tuple((ticker, path.resolve()) for ticker, path in zip(named, paths, strict=True))


def ticker_of(path: Path, named: str | None) -> str:
    """Return whose bars a file holds: the ticker that was named, else the beginning of its name.

    Raises ValueError when neither is one.
    """
    found = (named or re.split(r"[-_ ]", path.stem, maxsplit=1)[0]).upper()
    if not _TICKER.fullmatch(found):
        raise ValueError(f"{found!r} is no ticker; name the file TICKER-anything.csv")
    return found


def _misnamed(path: Path, ticker: str) -> Iterator[str]:
    """Refuse to play the bars of one ticker as those of another.

    A name such as FXY-2023.csv says whose bars the file holds; `bars.csv` leaves it open.
    """
    named, separator, _ = path.stem.replace("_", "-").replace(" ", "-").partition("-")
    if separator and _TICKER.fullmatch(named) and named != ticker:
        yield (
            f"--csv {path}: holds {named} as its name says, and no {ticker}; leave out --tickers "
            f"(and KITE_TICKERS), or name {named} there, or rename the file"
        )


def _csv_problems(path: Path, ticker: str) -> Iterator[str]:
    """Look at the name and the first line; the simulator checks every row."""
    if not _TICKER.fullmatch(ticker):
        yield f"--csv {path}: {ticker!r} is no ticker; call it TICKER-….csv or add --tickers TICKER"
    if "," in str(path.resolve()):
        yield f"--csv {path}: the path may not hold a comma; move or rename the file"
    try:
        with path.open(encoding="utf-8") as file:
            header = [name.strip().lower() for name in file.readline().split(",")]
    except OSError as error:
        yield f"--csv {path}: {(error.strerror or str(error)).lower()}"
        return
    except UnicodeDecodeError:
        yield f"--csv {path}: is not a text file"
        return
    missing = [name for name in CSV_COLUMNS if name not in header]
    if missing:
        yield (
            f"--csv {path}: the first line lacks {', '.join(missing)}; "
            f"it must name the columns {','.join(CSV_COLUMNS)}"
        )


def recording_start(market: Market) -> str | None:
    """Return the time just before the first bar of a CSV market, as an ISO time.

    So that nobody waits through the hours before it. None when it cannot be told: whatever is wrong
    with the first row, the simulator will name it.
    """
    try:
        starts = [_first_stamp(path) for _, path in market.csv]
        return (min(starts) - _LEAD).isoformat() if starts else None
    except (ValueError, OverflowError, csv.Error, StopIteration, KeyError, TypeError):
        return None


def _first_stamp(path: Path) -> dt.datetime:
    with path.open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file, skipinitialspace=True))
    stamp = dt.datetime.fromisoformat(row["timestamp"].strip())
    return stamp.replace(tzinfo=dt.UTC) if stamp.tzinfo is None else stamp


def _digest(files: tuple[tuple[str, Path], ...]) -> str:
    """Identify what the files hold, and for which tickers."""
    digest = hashlib.sha256()
    for ticker, path in sorted(files):
        digest.update(f"{ticker}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _missing_credentials(home: Path, environ: Mapping[str, str]) -> Iterator[str]:
    for name in ("KITE_SCHWAB_APP_KEY", "KITE_SCHWAB_APP_SECRET"):
        if not environ.get(name):
            yield f"{name}: not set; it is in the app's details on developer.schwab.com"
    token = token_file(home / "schwab", environ)
    try:
        TokenFile(token, _token_key(home, token, environ)).read()
    except TokenMissing:
        yield f"there is no token file {token}: log in with ./kite auth login"
    except TokenInvalid as error:
        yield str(error)


class _Key(msgspec.Struct, frozen=True):
    schwab_token_key: str = ""


def _token_key(home: Path, token: Path, environ: Mapping[str, str]) -> str:
    if not token.exists():
        return ""
    return load(_Key, {**environ, **token_settings(home, token, environ)}).schwab_token_key
