"""Virtual time: a straight line over wall time, with jumps over the nights.

Theory of operation. An `Anchor` pins one instant of wall time to one of virtual time; in between,
virtual time runs `speed` times as fast. When skipping is on, the line ends at the moment all
traffic of a session has been sent (`_SETTLE_MS` after the extended close), and a new one starts at
the next pre-market open. Where such a jump happens follows from the anchor and the market alone, so
a process that was killed and comes back computes the same line, as if it had never stopped. Only a
consumer that lags holds a jump back: virtual time then stands at the end of the session until
`may_jump` agrees, and goes on from there.

After a longer absence, or a stop in good order, a recording goes on from where it was: nobody wants
to find that days of it were played to an empty house. So does a market that runs faster than ours.
What runs at the pace of real life goes on as real life does.

The clock has a second axis, `token_ms`: it runs at the same speed but never jumps. Tokens live on
it, so that `lifetime / speed` is exactly what a client counts in wall seconds.

Pure: wall time is an argument, storage is a callback.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from libs.common import calendar
from services.simulator.market import Market

__all__ = ["Anchor", "VirtualClock", "mark_every_s", "mid_session_ms", "resume"]

_SETTLE_MS = 20_000
_MID_SESSION_MS = 3_600_000  # after the open: 10:30 New York
_RESTART_WALL_MS = 60_000
_MARK_LATE_WALL_MS = 1_000  # on a busy machine a sign of life comes that much late


class Anchor(msgspec.Struct, frozen=True):
    """One point of the line, and its slope; also what is stored.

    `alive_wall_ms` is the last sign of life of the process that wrote it; `started` is False while
    time stands still; `ended` says that all recorded days were played; `stopped` that the process
    ended in good order, at `alive_wall_ms`.
    """

    market: str
    wall_ms: int
    virtual_ms: int
    token_ms: int
    speed: float
    alive_wall_ms: int
    started: bool = True
    ended: bool = False
    stopped: bool = False


class VirtualClock:
    """Virtual time as a function of wall time.

    `on_anchor` is called with every new line, before anybody reads a time from it.
    """

    def __init__(
        self,
        anchor: Anchor,
        market: Market,
        *,
        skip_closed: bool,
    ) -> None:
        self._anchor = anchor
        self._market = market
        self._skip_closed = skip_closed
        self._held = False
        self.on_anchor: Callable[[Anchor], None] = lambda anchor: None
        self.may_jump: Callable[[int], bool] = lambda at_ms: True
        self.jumped_to_ms = 0
        self._jump_at_ms = self._next_jump_ms()

    @property
    def anchor(self) -> Anchor:
        """The current line."""
        return self._anchor

    @property
    def started(self) -> bool:
        """Whether time runs."""
        return self._anchor.started

    @property
    def speed(self) -> float:
        """Virtual milliseconds per wall millisecond."""
        return self._anchor.speed

    def start(self, wall_ms: int) -> None:
        """Begin to run now; nothing happens when it already does."""
        if not self.started:
            self._move(msgspec.structs.replace(self._anchor, wall_ms=wall_ms, started=True))

    def now_ms(self, wall_ms: int) -> int:
        """Return virtual time; jumps over a closed night when that is due."""
        if not self.started:
            return self._anchor.virtual_ms
        now_ms = self._line_ms(wall_ms)
        while self._jump_at_ms is not None and now_ms >= self._jump_at_ms:
            if not self.may_jump(self._jump_at_ms):
                self._held = True
                return self._jump_at_ms
            self._jump(self._jump_at_ms, wall_ms)
            now_ms = self._line_ms(wall_ms)
        return now_ms

    def token_ms(self, wall_ms: int) -> int:
        """Return the time that tokens count: as fast as virtual time, but without jumps."""
        if not self.started:
            return self._anchor.token_ms
        return self._anchor.token_ms + int((wall_ms - self._anchor.wall_ms) * self.speed)

    def mark(self, wall_ms: int, *, stopped: bool = False) -> Anchor:
        """Return what to store as a sign of life, or (`stopped`) as the last one.

        While a lagging consumer holds a jump back, the line is pinned to where it stands.
        """
        anchor = self._anchor
        if self._held and self._jump_at_ms is not None:
            anchor = msgspec.structs.replace(
                anchor,
                wall_ms=wall_ms,
                virtual_ms=self._jump_at_ms,
                token_ms=self.token_ms(wall_ms),
            )
        return msgspec.structs.replace(anchor, alive_wall_ms=wall_ms, stopped=stopped)

    def wall_ms_until(self, virtual_ms: int, wall_ms: int) -> float:
        """Return how long to wait for an instant; less when a jump comes before it."""
        goal_ms = virtual_ms if self._jump_at_ms is None else min(virtual_ms, self._jump_at_ms)
        return max(0.0, (goal_ms - self._line_ms(wall_ms)) / self.speed)

    def _line_ms(self, wall_ms: int) -> int:
        passed_ms = max(0, wall_ms - self._anchor.wall_ms)
        return self._anchor.virtual_ms + int(passed_ms * self.speed)

    def _jump(self, at_ms: int, wall_ms: int) -> None:
        crossed_wall_ms = self._anchor.wall_ms + round(
            (at_ms - self._anchor.virtual_ms) / self.speed
        )
        from_wall_ms = wall_ms if self._held else crossed_wall_ms
        self._held = False
        goal_ms = self._market.next_open_ms(at_ms)
        # After the last recorded day nothing is left to hurry for: time goes on at its own pace.
        speed = self.speed if goal_ms is not None else 1.0
        self.jumped_to_ms = at_ms if goal_ms is None else goal_ms
        self._move(
            msgspec.structs.replace(
                self._anchor,
                wall_ms=from_wall_ms,
                virtual_ms=self.jumped_to_ms,
                token_ms=self.token_ms(from_wall_ms),
                speed=speed,
                ended=goal_ms is None,
            )
        )

    def _move(self, anchor: Anchor) -> None:
        self._anchor = anchor
        self._jump_at_ms = self._next_jump_ms()
        self.on_anchor(anchor)

    def _next_jump_ms(self) -> int | None:
        """Return when the traffic of the current or next session is all sent."""
        if not self._skip_closed or self._anchor.ended:
            return None
        now_ms = self._anchor.virtual_ms
        found = calendar.session_at(now_ms)
        if found is None or now_ms >= found.post_close_ms + _SETTLE_MS:
            return now_ms
        return found.post_close_ms + _SETTLE_MS


def mid_session_ms(now_ms: int) -> int:
    """Return 10:30 New York of the most recent session at `now_ms`."""
    found = calendar.session_at(now_ms)
    if found is None or found.open_ms + _MID_SESSION_MS > now_ms:
        found = calendar.previous_session(calendar.day_of(now_ms))
    return found.open_ms + _MID_SESSION_MS


def mark_every_s(speed: float) -> int:
    """Return after how many wall seconds the next sign of life is due at that speed."""
    return 5 if speed <= 1 else 1


def resume(
    stored: Anchor, market: Market, wall_ms: int, *, speed: float, skip_closed: bool
) -> VirtualClock:
    """Continue the stored line at `speed` from now on; time never runs backwards.

    After a short absence it goes on as if nothing had stopped it. After a longer one, or a stop in
    good order, a recording or a market faster than ours goes on from where it was.

    A market without an end at our own pace that was away for longer, and would now be outside the
    regular session, opens in the middle of the next session instead: whoever starts a demo the next
    day wants to see it trade.
    """
    clock = VirtualClock(stored, market, skip_closed=skip_closed)
    away = wall_ms - stored.alive_wall_ms >= _RESTART_WALL_MS
    endless = market.first_open_ms() is None
    rested = (away or stored.stopped) and (stored.speed > 1 or not endless)
    until_ms = min(wall_ms, _last_sent_wall_ms(stored)) if rested else wall_ms
    now_ms = clock.now_ms(max(until_ms, stored.alive_wall_ms))
    if away and endless and speed <= 1 and not calendar.is_open(now_ms):
        now_ms = _next_mid_session_ms(now_ms)
    anchor = msgspec.structs.replace(
        clock.anchor,
        wall_ms=wall_ms,
        virtual_ms=now_ms,
        token_ms=clock.token_ms(wall_ms),
        speed=1.0 if clock.anchor.ended else speed,
        alive_wall_ms=wall_ms,
        stopped=False,
    )
    return VirtualClock(anchor, market, skip_closed=skip_closed)


def _last_sent_wall_ms(stored: Anchor) -> int:
    """Return when the process may have sent something last.

    Killed, it may have lived until its next sign of life was due, and nothing is sent twice.
    """
    if stored.stopped:
        return stored.alive_wall_ms
    return stored.alive_wall_ms + 1000 * mark_every_s(stored.speed) + _MARK_LATE_WALL_MS


def _next_mid_session_ms(after_ms: int) -> int:
    found = calendar.session_at(after_ms)
    if found is None or found.open_ms + _MID_SESSION_MS < after_ms:
        found = calendar.next_session(calendar.day_of(after_ms))
    return found.open_ms + _MID_SESSION_MS
