"""The simulated broker as one object: market, clock, accounts and rules, for REST and streamer."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.common import calendar
from libs.common.clock import Clock
from libs.common.errors import SettingsError
from services.simulator import clock_file, csv_bars
from services.simulator.chart_feed import ChartFeed
from services.simulator.faults import FaultPlan
from services.simulator.feeds import Feed
from services.simulator.level_one_feed import LevelOneFeed
from services.simulator.limiter import RateLimiter
from services.simulator.load import LoadFeed
from services.simulator.market import Market
from services.simulator.oauth import OAuth, OAuthRules
from services.simulator.opening import before_a_cross_ms
from services.simulator.options_feed import OptionsFeed
from services.simulator.settings import Settings
from services.simulator.streamer import Identity, Rules, Service, StreamSession
from services.simulator.synthetic import SyntheticMarket
from services.simulator.virtual_clock import Anchor, VirtualClock, mid_session_ms, resume

__all__ = ["Simulation", "build"]


@dataclass(frozen=True, slots=True)
class Simulation:
    """Everything the aiohttp shell needs; time comes from `wall` and `clock` only."""

    settings: Settings
    market: Market
    wall: Clock
    clock: VirtualClock
    oauth: OAuth
    limiter: RateLimiter
    identity: Identity
    services: dict[str, Service]
    rules: Rules
    faults: FaultPlan
    log: Any

    def now_ms(self) -> int:
        """Return virtual time."""
        return self.clock.now_ms(self.wall.now_ms())

    def token_valid(self, token: str) -> bool:
        """Tell whether an access token is good now."""
        return self.oauth.access_valid(
            token, self.clock.token_ms(self.wall.now_ms()), self.clock.speed
        )

    def request_allowed(self) -> bool:
        """Count one REST request against the limit."""
        virtual = self.settings.sim_rate_clock == "virtual"
        return self.limiter.allow(self.now_ms() if virtual else self.wall.now_ms())

    def session(self) -> StreamSession:
        """Begin a streamer connection now."""
        return StreamSession(
            self.services,
            self.identity,
            self.token_valid,
            self.rules,
            position_ms=self.now_ms(),
            wall_ms=self.wall.now_ms(),
            speed=lambda: self.clock.speed,
        )

    def save_clock(self, *, stopped: bool = False) -> None:
        """Write the clock's line and a sign of life (OSError)."""
        if self.settings.sim_clock_file:
            mark = self.clock.mark(self.wall.now_ms(), stopped=stopped)
            clock_file.save(Path(self.settings.sim_clock_file), mark)

    def keep_clock(self, *, stopped: bool = False) -> None:
        """Write it if that can be done; a full disk is no reason for time to stop."""
        try:
            self.save_clock(stopped=stopped)
        except OSError as error:
            self.log.warning("clock.not_saved", error=str(error))


def build(settings: Settings, wall: Clock, log: Any) -> Simulation:
    """Wire a simulation from its settings; raises SettingsError for files that cannot be used."""
    market = _market(settings, log)
    made = Simulation(
        settings=settings,
        market=market,
        wall=wall,
        clock=_clock(settings, market, wall),
        log=log,
        oauth=OAuth(_oauth_rules(settings), settings.sim_seed),
        limiter=RateLimiter(settings.sim_requests_per_minute),
        identity=_identity(settings.sim_seed),
        services=_services(settings, market),
        rules=Rules(
            success_codes=settings.sim_success_codes,
            limit_in_one_frame=settings.sim_limit_in_one_frame,
            limit_named=settings.sim_limit_named,
            empty_stop_wall_ms=settings.sim_empty_stop_s * 1000,
            close_code=settings.sim_close_code,
        ),
        faults=FaultPlan(settings.faults(), settings.sim_seed),
    )
    try:
        made.save_clock()
    except OSError as error:
        path = settings.sim_clock_file
        raise SettingsError(
            [f"KITE_SIM_CLOCK_FILE: cannot write {path}: {error.strerror}"]
        ) from error
    made.clock.on_anchor = lambda anchor: made.keep_clock()
    return made


def _services(settings: Settings, market: Market) -> dict[str, Service]:
    """Return the data services by name; a further one is a further line here."""

    load: tuple[float, int] | None = None
    if settings.sim_load_frames_per_s:
        period_ms = 1000 * settings.sim_speed / settings.sim_load_frames_per_s
        load = (period_ms, settings.sim_load_items)

    def level_one() -> Feed:
        return LevelOneFeed(market) if load is None else LoadFeed(market, *load)

    return {
        "LEVELONE_EQUITIES": Service(settings.sim_equities_max, level_one),
        "LEVELONE_OPTIONS": Service(settings.sim_options_max, lambda: OptionsFeed(market, load)),
        "CHART_EQUITY": Service(
            settings.sim_charts_max, lambda: ChartFeed(market, image=settings.sim_chart_image)
        ),
    }


def _market(settings: Settings, log: Any) -> Market:
    if not settings.sim_csv:
        return SyntheticMarket(settings.sim_seed, settings.sim_bar_volume_share)
    sources = csv_bars.parse_sources(settings.sim_csv)
    market, outside = csv_bars.load(sources, settings.sim_seed, settings.sim_ticks_per_bar)
    if outside:
        log.warning("csv.rows_left_out", count=outside, reason="outside the extended session")
    return market


def _clock(settings: Settings, market: Market, wall: Clock) -> VirtualClock:
    wall_ms = wall.now_ms()
    path = Path(settings.sim_clock_file) if settings.sim_clock_file else None
    stored = clock_file.load(path, market.name) if path else None
    skip = settings.sim_skip_closed
    if stored is not None and stored.started:
        clock = resume(stored, market, wall_ms, speed=settings.sim_speed, skip_closed=skip)
    else:
        anchor = Anchor(
            market=market.name,
            wall_ms=wall_ms,
            virtual_ms=_start_ms(settings, market, wall_ms),
            token_ms=wall_ms,
            speed=settings.sim_speed,
            alive_wall_ms=wall_ms,
            started=not settings.sim_wait_for_subscription,
        )
        clock = VirtualClock(anchor, market, skip_closed=skip)
    return clock


def _start_ms(settings: Settings, market: Market, wall_ms: int) -> int:
    chosen_ms = settings.start_ms()
    if chosen_ms is not None:
        return chosen_ms
    first_ms = market.first_open_ms()
    if first_ms is not None:
        return first_ms
    bounded_ms = min(wall_ms, calendar.day_bounds_ms(calendar.LAST_DAY)[0])
    return before_a_cross_ms(market, mid_session_ms(bounded_ms))


def _oauth_rules(settings: Settings) -> OAuthRules:
    return OAuthRules(
        app_key=settings.sim_app_key,
        app_secret=settings.sim_app_secret,
        callbacks=settings.sim_callbacks,
        code_life_s=settings.sim_code_s,
        access_life_s=settings.sim_access_token_s,
        refresh_life_s=settings.sim_refresh_token_s,
        rotate_refresh=settings.sim_rotate_refresh_token,
        refresh_once=settings.sim_refresh_token_once,
        login_ends_older=settings.sim_login_ends_older,
        revoke_on_authorize=settings.sim_revoke_on_authorize,
    )


def _identity(seed: str) -> Identity:
    digest = hashlib.sha256(f"identity/{seed}".encode()).digest()
    return Identity(digest.hex(), str(uuid.UUID(bytes=digest[:16], version=4)))
