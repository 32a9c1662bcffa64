"""Wiring: one owner loop per partition around the pure operator."""

from __future__ import annotations

from libs.common import subjects
from libs.common.bus import Bus
from libs.common.owner import own_all
from libs.common.runner import Runtime, connect_bus
from services.indicators.core import ANOMALIES, Operator
from services.indicators.live import LiveFeed
from services.indicators.settings import IndicatorsSettings

__all__ = ["run", "serve"]


async def serve(runtime: Runtime[IndicatorsSettings]) -> None:
    """Connect, then answer until stopped."""
    async with connect_bus(runtime) as bus:
        await run(runtime, bus)


async def run(runtime: Runtime[IndicatorsSettings], bus: Bus) -> None:
    """Answer every MARKET frame of the partitions that the server gives us, until stopped."""
    settings = runtime.settings
    anomalies = runtime.metrics.counter(
        "indicators_anomalies", "Input that should not occur, by what it was", ["kind"]
    )
    counters = {kind: anomalies.labels(kind) for kind in ANOMALIES}

    def new_operator() -> Operator:
        return Operator(settings.definition, lambda kind: counters[kind].inc())

    await own_all(
        runtime,
        bus,
        input_stream=subjects.MARKET,
        output_stream=subjects.INDICATORS,
        new_operator=new_operator,
        new_live=LiveFeed,
    )
