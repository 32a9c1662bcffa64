"""Settings of the signals service, `KITE_*` in the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from libs.common.settings import ServiceSettings
from services.signals import rules

__all__ = ["SignalTimeframe", "SignalsSettings"]

SignalTimeframe = Literal["tick", "1m", "5m", "15m", "1h"]


class SignalsSettings(ServiceSettings, frozen=True, kw_only=True):
    """`signal_timeframes` are those in which signals are looked for, by the `signal_rules`."""

    signal_timeframes: Annotated[tuple[SignalTimeframe, ...], Meta(min_length=1)] = ("1m",)
    signal_rules: Annotated[tuple[str, ...], Meta(min_length=1)] = ("cross",)

    def __post_init__(self) -> None:
        """Refuse names that are not known, or given twice (ValueError)."""
        for name in self.signal_rules:
            try:
                rules.make(name)
            except ValueError as error:
                raise ValueError(f"KITE_SIGNAL_RULES: {error}") from error
        for variable, names in (
            ("KITE_SIGNAL_RULES", self.signal_rules),
            ("KITE_SIGNAL_TIMEFRAMES", self.signal_timeframes),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{variable}: {','.join(names)!r} names one twice")
