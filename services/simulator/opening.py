"""Where a fresh synthetic day opens: shortly before something happens.

Whoever starts a demo wants to see a signal, and crosses of averages are minutes or an hour apart.
The market is known beforehand, so the clock can begin when one is near. The market itself is not
touched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from libs.common import calendar
from libs.common.calendar import Session
from services.simulator.market import MINUTE_MS, Market

__all__ = ["SHOWN_TICKERS", "before_a_cross_ms"]

SHOWN_TICKERS = ("QQQ", "SPY", "IWM", "AAPL")  # those of a demo that nobody told otherwise
# From the opening to the close of the minute that crosses: time for the history to come first.
_LEAD_MS = 45_000
_LAST_HOUR_MS = 3_600_000
_WINDOW = 9


def before_a_cross_ms(market: Market, from_ms: int) -> int:
    """Return when to open, at `from_ms` or later, so that a cross of a shown ticker comes soon.

    `from_ms` itself when there is none before the session's last hour.
    """
    session = calendar.session_at(from_ms)
    if session is None:
        return from_ms
    opens = (
        ts_ms + MINUTE_MS - _LEAD_MS
        for ticker in SHOWN_TICKERS
        for ts_ms in _crosses_ms(market, ticker, session)
    )
    last_ms = session.close_ms - _LAST_HOUR_MS
    return min((at_ms for at_ms in opens if from_ms <= at_ms <= last_ms), default=from_ms)


def _crosses_ms(market: Market, ticker: str, session: Session) -> Iterator[int]:
    """Yield the minutes of the regular session that cross.

    In such a minute the mean of the day's last nine closes changes sides with the mean of closes
    since the open, weighted by volume.
    """
    closes: deque[float] = deque(maxlen=_WINDOW)
    money, shares = 0.0, 0
    above: bool | None = None
    for bar in market.bars(ticker, session.day):
        closes.append(bar.close)
        if not session.open_ms <= bar.ts_ms < session.close_ms:
            continue
        money, shares = money + bar.close * bar.volume, shares + bar.volume
        if len(closes) < _WINDOW or not shares:
            continue
        before, above = above, sum(closes) / _WINDOW > money / shares
        if before is not None and above != before:
            yield bar.ts_ms
