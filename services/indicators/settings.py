"""Settings of the indicators service, `KITE_*` in the environment."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from libs.common.settings import ServiceSettings
from services.indicators import catalog

__all__ = ["Definition", "IndicatorsSettings", "VwapPrice"]

VwapPrice = Literal["close", "hlc3"]


class Definition(Struct, frozen=True):
    """What decides the numbers: equal definitions and equal input give equal output."""

    sma_continuous: bool = False
    vwap_price: VwapPrice = "close"
    extras: tuple[str, ...] = ()


class IndicatorsSettings(ServiceSettings, frozen=True, kw_only=True):
    """`sma_continuous` carries averages over to the next day instead of starting each day anew.

    `vwap_price` `hlc3` weighs a candle's (high + low + close) / 3 instead of its close. `extras`
    names further indicators of the catalogue, e.g. `ema9,rsi14,atr14,bollinger20`.
    """

    sma_continuous: bool = False
    vwap_price: VwapPrice = "close"
    extras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that the catalogue does not have (ValueError)."""
        for name in self.extras:
            try:
                catalog.make(name)
            except ValueError as error:
                raise ValueError(f"KITE_EXTRAS: {error}") from error
        if len(set(self.extras)) < len(self.extras):
            raise ValueError(f"KITE_EXTRAS: {','.join(self.extras)!r} names an indicator twice")

    @property
    def definition(self) -> Definition:
        """The part that decides the numbers."""
        return Definition(self.sma_continuous, self.vwap_price, self.extras)
