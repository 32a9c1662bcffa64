"""What was published of each of the last days, as one number a day.

A day's digest is the sum of what each of its minutes is, so it grows with each bar that is
published and shrinks with each that is withdrawn, and a history of the same minutes has the same
one. Whoever holds a day against price history, because its session is over or because somebody
asked for it again, can tell by it that nothing is new, without keeping the day. A day that is not
known is never equal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from libs.common.events import HistoryBar

__all__ = ["DAYS_MAX", "Days"]

# As many as indicators count corrections of: an older day's count begins anew, so that a repeat of
# one is no new revision either.
DAYS_MAX = 64

_HOUR_MS = 3_600_000  # midnights of New York lie on whole hours
_BAR = struct.Struct("<qddddq")
_MASK = (1 << 32) - 1  # small, because a checkpoint holds one of each ticker and day


class Days:
    """Digests of the last days of one ticker, by New York midnight."""

    __slots__ = ("_digests",)

    def __init__(self) -> None:
        self._digests: dict[int, int] = {}

    def append(self, day_ms: int, bar: HistoryBar) -> None:
        """Note one more minute of a day."""
        self._keep(day_ms, self._digests.get(day_ms, 0) + _digest_of(bar) & _MASK)

    def withdraw(self, day_ms: int, bar: HistoryBar) -> None:
        """Take back a minute that was noted and not published after all."""
        if day_ms in self._digests:
            self._digests[day_ms] = self._digests[day_ms] - _digest_of(bar) & _MASK

    def replace(self, day_ms: int, bars: Iterable[HistoryBar]) -> None:
        """Note all minutes of a day; without any, the day is not known."""
        digest = _digest(bars)
        if digest is None:
            self.forget(day_ms)
        else:
            self._keep(day_ms, digest)

    def forget(self, day_ms: int) -> None:
        """Know nothing of a day any more."""
        self._digests.pop(day_ms, None)

    def equal(self, day_ms: int, bars: Sequence[HistoryBar]) -> bool:
        """Whether exactly these minutes were published of the day last."""
        digest = _digest(bars)
        return digest is not None and self._digests.get(day_ms) == digest

    def packed(self) -> tuple[int, ...]:
        """Return everything as small numbers: pairs of an hour since 1970 and a digest."""
        days = sorted(self._digests.items())
        return tuple(n for day_ms, digest in days for n in (day_ms // _HOUR_MS, digest))

    def unpack(self, packed: Sequence[int]) -> None:
        """Take up what `packed` gave."""
        pairs = zip(packed[::2], packed[1::2], strict=True)
        self._digests = {hour * _HOUR_MS: digest for hour, digest in pairs}

    def _keep(self, day_ms: int, digest: int) -> None:
        self._digests[day_ms] = digest
        if len(self._digests) > DAYS_MAX:
            del self._digests[min(self._digests)]


def _digest(bars: Iterable[HistoryBar]) -> int | None:
    digests = [_digest_of(bar) for bar in bars]
    return sum(digests) & _MASK if digests else None


def _digest_of(bar: HistoryBar) -> int:
    text = _BAR.pack(bar.ts_ms, bar.open, bar.high, bar.low, bar.close, bar.volume)
    return int.from_bytes(blake2b(text, digest_size=4).digest(), "little")
