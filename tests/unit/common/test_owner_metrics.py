"""How an owner shows how far it has come."""

from __future__ import annotations

import asyncio

from libs.common.clock import SystemClock
from libs.common.owner import OwnerMetrics
from libs.common.runner import Runtime
from libs.common.settings import ServiceSettings
from libs.common.telemetry import Health, Metrics, get_logger


def test_a_partition_shows_from_its_first_owner_on() -> None:
    """Who gets stuck before the first answer falls behind visibly; a reload hides nothing."""
    settings, health, stop = ServiceSettings(nats_url=""), Health(), asyncio.Event()
    runtime = Runtime("signals", settings, Metrics(), health, SystemClock(), get_logger(), stop)
    metrics = OwnerMetrics(runtime)
    value = runtime.metrics.registry.get_sample_value
    name, lane = "kite_frame_timestamp_seconds", {"partition": "0"}
    assert value(name, lane) is None
    metrics.begin("0", 5_000)
    assert value(name, lane) == 5
    assert value("kite_holes_total", lane) == 0
    metrics.begin("0", 9_000)
    assert value(name, lane) == 5
