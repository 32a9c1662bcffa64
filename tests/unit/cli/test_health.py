"""How the answers of the database are judged."""

from __future__ import annotations

import msgspec
import pytest

from cli.health import TickerHealth, check_database, check_minutes, check_reconciled

GOOD = TickerHealth("QQQ", "healthy", 1.5, 250, 0.0, True)


def verdicts(
    *answers: TickerHealth, reported: bool = True, young: bool = False
) -> dict[str, bool | None]:
    """Return each check's verdict."""
    checks = check_database(list(answers), reported=reported, young=young)
    return {check.name: check.ok for check in checks}


def changed(**fields: object) -> TickerHealth:
    """Return the good answer with other values."""
    return msgspec.structs.replace(GOOD, **fields)


def test_fresh_ticks_are_healthy() -> None:
    """All three checks pass."""
    assert verdicts(GOOD) == {"freshness": True, "rows": True, "errors": True}


@pytest.mark.parametrize(
    ("answer", "failing"),
    [
        (changed(freshness_s=60.5), "freshness"),
        (changed(freshness_s=None), "freshness"),
        (changed(recent_rows=0), "rows"),
        (changed(error_rate=0.051), "errors"),
    ],
)
def test_each_fault_fails_its_check(answer: TickerHealth, failing: str) -> None:
    """And no other."""
    found = verdicts(answer)
    assert [name for name, ok in found.items() if not ok] == [failing]


def test_one_quiet_ticker_does_not_spoil_the_feed() -> None:
    """A thinly traded one may be silent for minutes."""
    assert verdicts(changed(ticker="FXY", freshness_s=300.0, recent_rows=0), GOOD)["freshness"]


def test_a_closed_market_is_healthy() -> None:
    """Old data is right then; errors still count."""
    closed = changed(market_open=False, freshness_s=40_000.0, recent_rows=0)
    assert verdicts(closed) == {"freshness": True, "errors": True}


def test_without_reports_nobody_knows_the_time() -> None:
    """Too early to tell just after the start, a failure later."""
    assert verdicts(GOOD, reported=False, young=True) == {"reports": None}
    assert verdicts(GOOD, reported=False) == {"reports": False}


SWEPT = 'kite_writer_reconcile_sweep_timestamp_seconds{partition="0",stream="MARKET"} 1000.0\n'


def test_agreeing_streams_and_rows_are_healthy() -> None:
    """It says how long ago the last whole comparison was."""
    check = check_reconciled(SWEPT, now_s=1012.0)
    assert (check.ok, check.detail) == (True, "streams and rows agreed 12 s ago")


def test_a_difference_is_a_fault_until_it_is_mended() -> None:
    """It names stream, partition and kind; a gauge back at 0 is none."""
    gauge = 'kite_writer_reconcile_mismatches{kind="rows",partition="0",stream="MARKET"}'
    check = check_reconciled(f"{SWEPT}{gauge} 3.0\n", now_s=1012.0)
    assert check.ok is False
    assert "MARKET partition 0: rows differ from the frames (3)" in check.detail
    assert check_reconciled(f"{SWEPT}{gauge} 0.0\n", now_s=1012.0).ok


def test_before_the_first_comparison_nobody_can_say() -> None:
    """Neither healthy nor a fault."""
    assert check_reconciled("", now_s=0.0).ok is None


LOOKED = "kite_writer_unexplained_sessions 3.0\n"


def test_every_minute_explained_is_healthy() -> None:
    """The line says so in these words."""
    check = check_minutes(f"{LOOKED}kite_writer_unexplained_minutes 0.0\n")
    assert (check.ok, check.detail) == (True, "unexplained minutes: 0 in 3 sessions")


def test_an_unexplained_minute_is_a_fault() -> None:
    """It says how many, and where the places are named."""
    check = check_minutes(f"{LOOKED}kite_writer_unexplained_minutes 7.0\n")
    assert check.ok is False
    assert check.detail.startswith("unexplained minutes: 7; ./kite logs writer")


@pytest.mark.parametrize("metrics", ["", "kite_writer_unexplained_minutes 0.0\n"])
def test_minutes_that_nobody_has_counted_are_not_called_explained(metrics: str) -> None:
    """Just after the start, or with a writer that compares nothing."""
    assert check_minutes(metrics).ok is None


@pytest.mark.parametrize(("age_s", "ok"), [(65.0, True), (179.0, True), (181.0, False)])
def test_minutes_are_as_fresh_as_minutes_can_be(age_s: float, ok: bool) -> None:
    """Where no ticks are kept, the newest minute gets a minute old before the next is stored."""
    answers = [changed(freshness_s=age_s)]
    checks = check_database(answers, reported=True, young=False, minutes_only=True)
    found = {check.name: check for check in checks}
    assert found["freshness"].ok is ok
    assert found["freshness"].detail == f"newest minute {age_s:.0f} s old"
