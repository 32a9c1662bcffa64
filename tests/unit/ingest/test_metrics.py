"""What ingest counts, where alarms depend on how."""

from __future__ import annotations

from msgspec import structs

from libs.common.events import SESSION_CHECK, Clock, Gap, GapSeries, GapState
from libs.common.telemetry import Metrics
from services.ingest.core import Core, Step
from services.ingest.metrics import IngestMetrics
from tests.unit.ingest.builders import OPEN_MS


def gap(state: GapState, series: GapSeries = "bars", reason: str = "") -> Gap:
    """A gap of five minutes."""
    end_ms = OPEN_MS + 300_000
    return Gap(f"QQQ:{series}:1", "QQQ", series, OPEN_MS, end_ms, "restart", state, reason)


def test_gaps_are_counted_by_what_became_of_them() -> None:
    """From 0 on: a first lost minute has to be a growth."""
    registry = Metrics()
    metrics = IngestMetrics(registry)

    def count(series: str, state: str, reason: str = "") -> float | None:
        labels = {"series": series, "state": state, "reason": reason}
        return registry.registry.get_sample_value("kite_ingest_gaps_total", labels)

    assert count("bars", "unfillable", "incomplete") == 0
    lost = gap("unfillable", reason="incomplete")
    metrics.step(Step(OPEN_MS, [gap("open"), lost, Clock(OPEN_MS)]))
    assert (count("bars", "open"), count("bars", "unfillable", "incomplete")) == (1, 1)
    assert count("bars", "unfillable", "no_trade") == 0
    assert count("ticks", "unfillable", "tick_series") == 0


def test_sessions_that_were_checked_are_no_gaps() -> None:
    """They have a counter of their own, by what came of it."""
    registry = Metrics()
    metrics = IngestMetrics(registry)
    check = structs.replace(gap("filled"), cause=SESSION_CHECK)
    metrics.step(Step(OPEN_MS, [check], checked=["equal"]))
    value = registry.registry.get_sample_value
    filled = {"series": "bars", "state": "filled", "reason": ""}
    assert value("kite_ingest_gaps_total", filled) == 0
    assert value("kite_ingest_sessions_checked_total", {"outcome": "equal"}) == 1
    assert value("kite_ingest_sessions_checked_total", {"outcome": "corrected"}) == 0


def test_what_calls_a_person_begins_at_zero() -> None:
    """A refused login and a token that cannot be used."""
    registry = Metrics()
    IngestMetrics(registry)
    value = registry.registry.get_sample_value
    assert value("kite_ingest_token_refreshes_total", {"outcome": "refused"}) == 0
    assert value("kite_ingest_reconnects_total", {"cause": "token"}) == 0


def test_open_gaps_are_those_that_wait_for_history() -> None:
    """One for each ticker and day: of a ticker never seen, this session and the one before."""
    core = Core(("QQQ", "SPY"))
    core.login(OPEN_MS + 600_000)
    assert core.gaps_open == 0
    core.interrupted(["QQQ"], "restart")
    assert core.gaps_open == 2
    core.interrupted(["QQQ", "SPY"], "restart")
    assert core.gaps_open == 4
