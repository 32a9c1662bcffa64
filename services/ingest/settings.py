"""What ingest needs to know, read from the environment."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from msgspec import Meta

from libs.common.codec import FRAME_BYTES_MAX
from libs.common.settings import Positive, ServiceSettings

__all__ = ["DEFAULT_CALLBACK", "TICKERS_MAX", "Settings"]

# Schwab's cap for minute bars; without bars a ticker has no candles, so it caps the whole list.
TICKERS_MAX = 300
_POLLED_SHARE = 0.9
# What schwab-py's documentation tells people to register; nobody else listens there.
DEFAULT_CALLBACK = "https://127.0.0.1:8182"

Ticker = Annotated[str, Meta(pattern=r"^[$A-Z0-9][A-Z0-9./^-]{0,14}$")]
Milliseconds = Annotated[int, Meta(ge=10)]


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """Everything about the account, the socket, price history and the spool.

    `tickers` is the list that a store begins with, the most important first: when the broker takes
    fewer, the last are dropped. `./kite tickers add|remove` change the list, and that outlives
    restarts. Where the setting itself has changed since the last start, what was put into it is
    added, what was taken out of it is removed, and its tickers come first, in its order.

    `schwab_base_url` points REST and login at a simulator; unset means Schwab itself.
    `schwab_token_file` is sealed with `schwab_token_key`, 32 bytes in base64; without one a key is
    kept beside the file. `schwab_callback` is the address registered with the app, to which a
    browser returns after a login. `ingest_data_dir` holds the lock, the spool, and
    when the last minute's requests were made.

    `ingest_feed` is `stream`, or `poll` for an account that may not stream: quotes of all tickers
    every `ingest_poll_quotes_ms`, and each ticker's bars once a minute.
    """

    tickers: tuple[Ticker, ...]
    schwab_app_key: str
    schwab_app_secret: str
    schwab_token_file: str
    schwab_token_key: str = ""
    schwab_callback: str = DEFAULT_CALLBACK
    schwab_base_url: str | None = None
    ingest_data_dir: str

    # -- the socket, or what stands in for it --
    ingest_feed: Literal["stream", "poll"] = "stream"
    ingest_poll_quotes_ms: Milliseconds = 5_000
    ingest_reconnect_first_ms: Milliseconds = 1_000
    ingest_evicted_pause_ms: Milliseconds = 300_000
    ingest_idle_retry_ms: Milliseconds = 1_800_000
    ingest_silence_ms: Milliseconds = 30_000
    ingest_frozen_ms: Milliseconds = 60_000
    ingest_answer_ms_max: Milliseconds = 15_000
    ingest_ping_ms: Milliseconds = 20_000

    # -- price history --
    ingest_requests_per_minute_max: Positive = 110
    ingest_history_concurrency_max: Positive = 4
    ingest_history_retry_first_ms: Milliseconds = 1_000

    # -- bounds --
    ingest_spool_bytes_max: Annotated[int, Meta(ge=FRAME_BYTES_MAX)] = 64 << 20
    ingest_spill_after_ms: Milliseconds = 1_000

    def __post_init__(self) -> None:
        """Refuse lists that the broker would cut and a base address without a scheme."""
        problems = []
        if not self.tickers:
            problems.append("KITE_TICKERS: empty; name at least one, for example QQQ,SPY")
        doubled = sorted({t for t in self.tickers if self.tickers.count(t) > 1})
        if doubled:
            problems.append(f"KITE_TICKERS: named twice: {', '.join(doubled)}")
        if len(self.tickers) > TICKERS_MAX:
            problems.append(
                f"KITE_TICKERS: {len(self.tickers)} tickers, but Schwab sends minute bars for at "
                f"most {TICKERS_MAX}"
            )
        if self.ingest_feed == "poll":
            problems += self._too_much_to_poll()
        url = self.schwab_base_url
        if url is not None and not url.startswith(("http://", "https://")):
            problems.append("KITE_SCHWAB_BASE_URL: must begin with http:// or https://")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def polled_max(self) -> int:
        """How many tickers the budget can poll; what it leaves besides is for price history."""
        most = int(self.ingest_requests_per_minute_max * _POLLED_SHARE)
        return max(0, most - self._quotes_per_minute)

    @property
    def _quotes_per_minute(self) -> int:
        return math.ceil(60_000 / self.ingest_poll_quotes_ms)

    def _too_much_to_poll(self) -> list[str]:
        if len(self.tickers) <= self.polled_max:
            return []
        return [
            f"KITE_INGEST_FEED: poll asks {len(self.tickers)} times a minute for bars and "
            f"{self._quotes_per_minute} times for quotes; {self.ingest_requests_per_minute_max} "
            f"requests a minute leave room for {self.polled_max} tickers: name fewer, or raise "
            "KITE_INGEST_POLL_QUOTES_MS"
        ]
