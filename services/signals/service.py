"""Wiring: one owner loop per partition around the pure operator."""

from __future__ import annotations

from libs.common import subjects
from libs.common.bus import Bus
from libs.common.owner import own_all
from libs.common.runner import Runtime, connect_bus
from services.signals.core import Operator
from services.signals.live import live_signals
from services.signals.settings import SignalsSettings

__all__ = ["run", "serve"]


async def serve(runtime: Runtime[SignalsSettings]) -> None:
    """Connect, then answer until stopped."""
    async with connect_bus(runtime) as bus:
        await run(runtime, bus)


async def run(runtime: Runtime[SignalsSettings], bus: Bus) -> None:
    """Answer every INDICATORS frame of the partitions that the server gives us, until stopped."""
    settings = runtime.settings

    def new_operator() -> Operator:
        return Operator(settings.signal_timeframes, settings.signal_rules)

    await own_all(
        runtime,
        bus,
        input_stream=subjects.INDICATORS,
        output_stream=subjects.SIGNALS,
        new_operator=new_operator,
        new_live=lambda: live_signals,
    )
