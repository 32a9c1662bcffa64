"""Settings of the simulator, from `KITE_SIM_*`; all of them have defaults."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from libs.common import calendar
from libs.common.calendar import NEW_YORK
from libs.common.settings import Port, Positive, ServiceSettings
from services.simulator.faults import Faults

__all__ = ["Settings"]

Count = Annotated[int, Meta(ge=0)]


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """A simulated broker; it never uses the bus, so `nats_url` may stay empty.

    Where sources disagree on how the broker behaves there is a switch, and its default is what was
    seen most. Lives of tokens are virtual seconds; what a person or a socket waits for is wall
    time.

    - `sim_host`, `sim_port`: where it listens; 0 takes a free port, which the log tells. Whoever
      reaches it may log in: on loopback, or where only the stack is.
    - `sim_seed`: decides everything: prices, times, tokens, faults.
    - Market. `sim_csv`: files of minute bars, `TICKER=FILE` or `TICKER-anything.csv`; none: a
      synthetic market that knows every ticker. `sim_ticks_per_bar`: updates a CSV minute has at
      most. `sim_bar_volume_share`: the part of level one's volume that synthetic bars carry.
    - Clock. `sim_start`: ISO time, New York unless it says otherwise; none: after 10:30 of the
      latest session, shortly before a cross of QQQ, SPY, IWM or AAPL, or the pre-market open of
      the first CSV day. `sim_speed`: virtual seconds a second.
      `sim_skip_closed`: jump over closed hours and days without data. `sim_wait_for_subscription`:
      time begins with the first subscription. `sim_clock_file`: where it survives a restart; after
      a stop or a long absence a recording, or a market faster than ours, goes on from where it was.
    - OAuth. `sim_app_key`, `sim_app_secret`, `sim_callbacks`: the registered application.
      `sim_code_s` (wall), `sim_access_token_s`, `sim_refresh_token_s`: how long they live.
      `sim_rotate_refresh_token`: a refresh brings a new refresh token; `sim_refresh_token_once`:
      and ends the one before. `sim_login_ends_older`: a login ends the refresh tokens of earlier
      ones. `sim_revoke_on_authorize`: beginning a login ends the access tokens there are.
    - REST. `sim_requests_per_minute`: more get 429 (0: no limit), counted on `sim_rate_clock`, with
      a body that is `sim_too_many_body` and, above 0, `Retry-After: sim_retry_after_s`.
      `sim_minute_depth_days`: how far back minutes go. `sim_history_whole_days`: a part of a day is
      answered with all of it. `sim_unknown_symbol`: how history answers for those.
    - Streamer. `sim_equities_max`, `sim_options_max`, `sim_charts_max`: symbols a service takes.
      `sim_connections_max`: of one user. `sim_empty_stop_s` (wall): without symbols it hangs up.
      `sim_success_codes`: 26 to 29 instead of 0. `sim_limit_in_one_frame`: code 19 and the failure
      after it come together; `sim_limit_named`: its text names the limit. `sim_close_code`: how a
      socket ends after the codes 12 and 30; 1006: without a close frame. `sim_chart_image`: a chart
      subscription brings the last bar.
    - Load. `sim_load_frames_per_s` above 0: level one, of equities and of options, is that many
      frames a wall second with `sim_load_items` items each.
    - Tests. `sim_faults`: what goes wrong, as JSON (see `Faults`). `sim_control_token`: opens
      `/sim/faults` and `/sim/ledger`. `sim_ledger_file`: every data frame sent is appended to it.
    """

    nats_url: str = ""
    sim_host: str = "127.0.0.1"
    sim_port: Port = 8700
    sim_seed: str = "1"
    sim_csv: tuple[str, ...] = ()
    sim_ticks_per_bar: Annotated[int, Meta(ge=4, le=60)] = 12
    sim_bar_volume_share: Annotated[float, Meta(gt=0, le=1)] = 0.77

    sim_start: str = ""
    sim_speed: Annotated[float, Meta(gt=0, le=100_000)] = 1.0
    sim_skip_closed: bool = True
    sim_wait_for_subscription: bool = False
    sim_clock_file: str = ""

    sim_app_key: str = "SimulatorAppKey0SimulatorAppKey0"
    sim_app_secret: str = "SimulatorSecret0"  # noqa: S105 - it opens nothing but a simulator
    sim_callbacks: tuple[str, ...] = ("https://127.0.0.1:8182",)
    sim_code_s: Positive = 30
    sim_access_token_s: Positive = 1_800
    sim_refresh_token_s: Positive = 7 * 86_400
    sim_rotate_refresh_token: bool = False
    sim_refresh_token_once: bool = False
    sim_login_ends_older: bool = False
    sim_revoke_on_authorize: bool = True

    sim_requests_per_minute: Count = 120
    sim_rate_clock: Literal["wall", "virtual"] = "wall"
    sim_too_many_body: Literal["json", "text", "none"] = "json"
    sim_retry_after_s: Count = 0
    sim_minute_depth_days: Positive = 48
    sim_history_whole_days: bool = True
    sim_unknown_symbol: Literal["empty", "404"] = "empty"

    sim_equities_max: Positive = 3_000
    sim_options_max: Positive = 3_000
    sim_charts_max: Positive = 300
    sim_connections_max: Annotated[int, Meta(ge=1, le=2)] = 1
    sim_empty_stop_s: Positive = 30
    sim_success_codes: bool = False
    sim_limit_in_one_frame: bool = False
    sim_limit_named: bool = True
    sim_close_code: Literal[1000, 1001, 1006, 1008, 1011] = 1000
    sim_chart_image: bool = False

    sim_load_frames_per_s: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    sim_load_items: Annotated[int, Meta(ge=1, le=3_000)] = 250

    sim_faults: str = ""
    sim_control_token: str = ""
    sim_ledger_file: str = ""

    def __post_init__(self) -> None:
        self.start_ms()
        self.faults()

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
        if not calendar.FIRST_DAY < start.date() < calendar.LAST_DAY:
            raise ValueError(f"KITE_SIM_START: {self.sim_start} is outside the calendar's years")
        return int(start.timestamp() * 1000)

    def faults(self) -> Faults:
        """Return what shall go wrong (ValueError when malformed)."""
        if not self.sim_faults:
            return Faults()
        try:
            return msgspec.json.decode(self.sim_faults, type=Faults)
        except msgspec.MsgspecError as error:
            raise ValueError(f"KITE_SIM_FAULTS: {error}") from error
