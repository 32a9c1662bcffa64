"""Settings of the simulator, from `KITE_SIM_*`; all of them have defaults.

Where sources disagree on how the broker behaves there is a switch, and its default is what was seen
most. Lengths of tokens are virtual seconds; whatever a person or a socket waits for is wall time.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from msgspec import Meta

from libs.common.calendar import NEW_YORK
from libs.common.settings import Port, Positive, ServiceSettings

__all__ = ["Settings"]

Count = Annotated[int, Meta(ge=0)]


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """Each field is `KITE_<NAME>`."""

    nats_url: str = ""  # the simulator stands outside the stack and never uses the bus

    # -- where it listens (loopback only); 0 takes a free port, which the log line tells
    sim_port: Port = 8700

    # -- market: CSV files (TICKER=FILE or TICKER-anything.csv), or a synthetic one without them
    sim_seed: str = "1"
    sim_csv: tuple[str, ...] = ()
    sim_ticks_per_bar: Annotated[int, Meta(ge=4, le=60)] = 12  # CSV only: updates a minute, at most
    # Synthetic only: the share of level one's volume that minute bars carry.
    sim_bar_volume_share: Annotated[float, Meta(gt=0, le=1)] = 0.77

    # -- virtual clock. `start` is an ISO time, New York unless it says otherwise; empty: the middle
    # of the last session, or the pre-market open of the first CSV day
    sim_start: str = ""
    sim_speed: Annotated[float, Meta(gt=0, le=100_000)] = 1.0
    sim_skip_closed: bool = True
    sim_wait_for_subscription: bool = False
    sim_clock_file: str = ""

    # -- OAuth
    sim_app_key: str = "SimulatorAppKey0SimulatorAppKey0"
    sim_app_secret: str = "SimulatorSecret0"  # noqa: S105 - no secret: it opens a simulator
    sim_callbacks: tuple[str, ...] = ("https://127.0.0.1:8182",)
    sim_code_s: Positive = 30
    sim_access_token_s: Positive = 1_800
    sim_refresh_token_s: Positive = 7 * 86_400
    sim_rotate_refresh_token: bool = False
    sim_revoke_on_authorize: bool = True

    # -- REST; requests_per_minute 0 is no limit
    sim_requests_per_minute: Count = 120
    sim_rate_clock: Literal["wall", "virtual"] = "wall"
    sim_minute_depth_days: Positive = 48
    sim_history_whole_days: bool = True
    sim_unknown_symbol: Literal["empty", "404"] = "empty"

    # -- streamer
    sim_equities_max: Positive = 3_000
    sim_charts_max: Positive = 300
    sim_connections_max: Annotated[int, Meta(ge=1, le=2)] = 1
    sim_empty_stop_s: Positive = 30
    sim_success_codes: bool = False  # answer 26 to 29 instead of 0
    sim_limit_in_one_frame: bool = False  # code 19 and the failure after it share a frame
    sim_chart_image: bool = False  # a chart subscription is answered with the last bar

    def __post_init__(self) -> None:
        if self.sim_start:
            self.start_ms()

    def start_ms(self) -> int | None:
        """Return the chosen start in epoch milliseconds, or None (ValueError when malformed)."""
        if not self.sim_start:
            return None
        try:
            start = dt.datetime.fromisoformat(self.sim_start)
        except ValueError:
            raise ValueError(
                f"KITE_SIM_START: {self.sim_start!r} is not a time; write 2026-11-20T10:30"
            ) from None
        start = start.replace(tzinfo=NEW_YORK) if start.tzinfo is None else start
        return int(start.timestamp() * 1000)
