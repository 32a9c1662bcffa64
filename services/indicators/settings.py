"""Settings of the indicators service, `KITE_*` in the environment."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from libs.common.settings import ServiceSettings
from services.indicators import catalog

__all__ = ["Definition", "IndicatorsSettings", "VwapPrice"]

VwapPrice = Literal["close", "hlc3"]


# A closing hour of 300 tickers, or the candles of a corrected day, must fit one frame.
_EXTRA_BYTES_MAX = 130  # of each of up to 1200 candles
_VALUE_BYTES = 10


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
        """Refuse extras that are unknown, named twice, or too many for a frame (ValueError)."""
        extra_bytes = 0
        for name in self.extras:
            try:
                outputs = catalog.output_names(name, catalog.make(name))
            except ValueError as error:
                raise ValueError(f"KITE_EXTRAS: {error}") from error
            extra_bytes += sum(len(output) + _VALUE_BYTES for output in outputs)
        if extra_bytes > _EXTRA_BYTES_MAX:
            raise ValueError(
                f"KITE_EXTRAS: {len(self.extras)} indicators take {extra_bytes} bytes of a candle, "
                f"at most {_EXTRA_BYTES_MAX} fit: name fewer"
            )
        if len(set(self.extras)) < len(self.extras):
            raise ValueError(f"KITE_EXTRAS: {','.join(self.extras)!r} names an indicator twice")

    @property
    def definition(self) -> Definition:
        """The part that decides the numbers."""
        return Definition(self.sma_continuous, self.vwap_price, self.extras)
