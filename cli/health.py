"""`./kite health`: is the stack doing its work? Exit code 0 if so, else 1: for scripts, monitors.

The database is reachable; in market hours, by the broker's clock, the newest tick is under a minute
old and rows arrived lately; few records failed; every process runs; streams and rows agree; every
minute that has no candle is explained. A closed market is healthy.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import asyncpg
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from cli.control import current_state
from cli.desk import tickers_of
from cli.home import Home
from cli.output import console, table
from cli.programs import ask
from cli.state import NotRunningError, StackState
from deploy.supabase.migrate import connect
from libs.common.clock import SystemClock
from libs.common.errors import SettingsError, StoreUnavailable

__all__ = ["Check", "TickerHealth", "check_database", "run"]

FRESH_S_MAX = 60.0
# A minute is stored when it is over, and waits up to 90 seconds for one that is missing.
FRESH_MINUTE_S_MAX = 180.0
ERROR_RATE_MAX = 0.05
# The writer reports every 15 s; before that nobody knows the broker's time.
_FIRST_REPORT_S = 45.0
_REPORTED = "select count(*) from streaming_metrics where timestamp > now() - interval '2 minutes'"
_MISMATCHES = "kite_writer_reconcile_mismatches"
_UNEXPLAINED = "kite_writer_unexplained_minutes"
_LOOKED_AT = "kite_writer_unexplained_sessions"
_SWEPT = "kite_writer_reconcile_sweep_timestamp_seconds"
_DIFFERS = {
    "rows": "rows differ from the frames",
    "frames": "frames are missing or cannot be read",
    "order": "rows are not in order",
    "shape": "the stream is not whole",
    "file": "its newest file is damaged",
}
_KEPT = "select value from kite_meta where key = 'store'"
_HEALTH = "select * from get_streaming_health($1)"


@dataclass(frozen=True)
class Check:
    """One question and its answer; `ok` None means that it is too early to tell."""

    name: str
    ok: bool | None
    detail: str


class TickerHealth(msgspec.Struct, frozen=True):
    """What the database says of one ticker (`get_streaming_health`)."""

    ticker: str
    status: str
    freshness_s: float | None
    recent_rows: int
    error_rate: float
    market_open: bool | None


def run(home: Home, *, as_json: bool) -> int:
    """Print every check and return 0 if none failed."""
    state: StackState | None = None
    try:
        state = current_state(home)
    except NotRunningError:
        if not os.environ.get("KITE_PG_DSN"):
            raise
    dsn = os.environ.get("KITE_PG_DSN") or (state.postgres if state else None) or ""
    named = os.environ.get("KITE_TICKERS", "").split(",")
    tickers = tickers_of(home, state) if state else tuple(ticker for ticker in named if ticker)
    if not tickers:
        raise SettingsError(["KITE_TICKERS: name the tickers to look at, for example QQQ,SPY"])
    checks = [_processes(state)] if state else []
    young = state is not None and _age_s(state) < _FIRST_REPORT_S
    found, details = asyncio.run(_ask(dsn, tickers, young))
    checks += found
    if state is not None:
        checks += asyncio.run(_compared(state))
    healthy = all(check.ok is not False for check in checks)
    if as_json:
        answer = {"healthy": healthy, "checks": checks, "tickers": details}
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    else:
        _draw(checks)
    return 0 if healthy else 1


def _age_s(state: StackState) -> float:
    return (SystemClock().now_ms() - (state.started_ms or 0)) / 1000


def _processes(state: StackState) -> Check:
    everybody = {**state.servers, **state.services}
    down = [
        f"{name} is {process.state}"
        for name, process in everybody.items()
        if process.state != "running"
    ]
    return Check("processes", not down, ", ".join(down) or f"all {len(everybody)} running")


async def _ask(
    dsn: str, tickers: tuple[str, ...], young: bool
) -> tuple[list[Check], list[TickerHealth]]:
    try:
        connection = await connect(dsn)
    except StoreUnavailable as error:
        return [Check("database", False, str(error).removeprefix("the database "))], []
    try:
        # One transaction, because a pooler may lend a connection for no longer.
        async with connection.transaction(readonly=True):
            reported = bool(await connection.fetchval(_REPORTED))
            minutes_only = await connection.fetchval(_KEPT) == "minutes"
            answers = [await _ticker(connection, ticker) for ticker in tickers]
    except asyncpg.PostgresError as error:
        return [Check("database", False, f"reachable, but refuses: {error}")], []
    finally:
        await connection.close()
    checks = [Check("database", True, "reachable")]
    found = check_database(answers, reported=reported, young=young, minutes_only=minutes_only)
    return checks + found, answers


async def _ticker(connection: asyncpg.Connection, ticker: str) -> TickerHealth:
    row = await connection.fetchrow(_HEALTH, ticker)
    assert row is not None
    freshness = row["freshness_seconds"]
    return TickerHealth(
        ticker,
        row["status"],
        float(freshness) if freshness is not None else None,
        row["recent_rows"],
        float(row["error_rate"]),
        row["market_open"],
    )


def check_database(
    answers: list[TickerHealth], *, reported: bool, young: bool, minutes_only: bool = False
) -> list[Check]:
    """Judge what the database says.

    `reported`: a service reported lately, so that the broker's time is known; `young`: the stack
    was started so short a time ago that none may have yet. The freshest ticker speaks for the
    feed: a thinly traded one may well be silent for a minute. Where `minutes_only` are stored, the
    newest one is what can be fresh.
    """
    if not reported:
        text = (
            "the first report comes within seconds" if young else "nothing reports to the database"
        )
        return [Check("reports", None if young else False, text)]
    if not any(answer.market_open for answer in answers):
        return [Check("freshness", True, "the market is closed"), _errors(answers)]
    ages = [answer.freshness_s for answer in answers if answer.freshness_s is not None]
    rows = sum(answer.recent_rows for answer in answers)
    what, fresh_s_max = ("minute", FRESH_MINUTE_S_MAX) if minutes_only else ("tick", FRESH_S_MAX)
    newest = f"newest {what} {min(ages):.0f} s old" if ages else f"no {what} yet"
    return [
        Check("freshness", bool(ages) and min(ages) <= fresh_s_max, newest),
        Check("rows", rows > 0, f"{rows:,} in the last 5 minutes"),
        _errors(answers),
    ]


async def _compared(state: StackState) -> list[Check]:
    """Ask the writer what its comparisons have found: of streams and rows, and of minutes."""
    writer = state.services.get("writer")
    port = urlsplit(writer.metrics or "").port if writer is not None else None
    if port is None:
        return [Check("reconciled", None, "the writer is not running")]
    try:
        status, body = await ask(port, "/metrics")
    except OSError as error:
        return [Check("reconciled", None, f"the writer does not answer: {error}")]
    if status != HTTPStatus.OK:
        return [Check("reconciled", None, f"the writer answers {status}")]
    metrics = body.decode()
    now_s = SystemClock().now_ms() / 1000
    return [check_reconciled(metrics, now_s), check_minutes(metrics)]


def check_minutes(metrics: str) -> Check:
    """Judge the writer's count of minutes that have neither a candle nor a reason."""
    counts = {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name in (_UNEXPLAINED, _LOOKED_AT)
    }
    sessions = counts.get(_LOOKED_AT, 0)
    if not sessions:
        return Check("minutes", None, "unexplained minutes: not counted yet")
    minutes = counts.get(_UNEXPLAINED, 0)
    text = f"unexplained minutes: {minutes:.0f}"
    if minutes:
        return Check("minutes", False, f"{text}; ./kite logs writer names the sessions")
    return Check("minutes", True, f"{text} in {sessions:.0f} sessions")


def check_reconciled(metrics: str, now_s: float) -> Check:
    """Judge the writer's metrics: whatever differs between streams and rows is a fault."""
    differing: list[str] = []
    swept_s: list[float] = []
    for family in text_string_to_metric_families(metrics):
        for name, labels, value, *_ in family.samples:
            if name == _MISMATCHES and value:
                what = _DIFFERS.get(labels["kind"], labels["kind"])
                place = "" if labels["partition"] == "all" else f" partition {labels['partition']}"
                differing.append(f"{labels['stream']}{place}: {what} ({value:.0f})")
            elif name == _SWEPT:
                swept_s.append(value)
    if differing:
        found = ", ".join(sorted(differing))
        return Check("reconciled", False, f"{found}; ./kite logs writer names the places")
    if not swept_s:
        return Check("reconciled", None, "the first comparison of streams and rows is under way")
    return Check("reconciled", True, f"streams and rows agreed {now_s - min(swept_s):.0f} s ago")


def _errors(answers: list[TickerHealth]) -> Check:
    rate = max(answer.error_rate for answer in answers)
    return Check("errors", rate <= ERROR_RATE_MAX, f"{rate:.1%} of records in the last 5 minutes")


def _draw(checks: list[Check]) -> None:
    from rich.text import Text

    marks = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("…", "cyan")}
    shown = table("", "check", "")
    shown.columns[-1].no_wrap = False
    for check in checks:
        shown.add_row(Text(*marks[check.ok]), check.name, check.detail)
    console().print(shown)
