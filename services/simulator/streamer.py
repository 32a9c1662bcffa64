"""The streamer's protocol for one connection: text in, frames out, no socket and no clock.

Promises:

- Frames leave in the order of virtual time, each stamped with the instant at which it was due. A
  caller that comes late gets all of them, old stamps and all: frames are delayed, never skipped.
- A command is answered at `position_ms`, between the frames before and after it; images follow
  their acknowledgement at once and fit the deltas that come later.
- What the client sends is never trusted: anything unexpected is answered with a code.

The data services are a table of `Service`; ADMIN is built in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from services.simulator.commands import Request, field_numbers, read_requests, split_keys
from services.simulator.feeds import Feed, Item
from services.simulator.tape import NEVER_MS

__all__ = [
    "Breathe",
    "Close",
    "Code",
    "Identity",
    "Output",
    "Rules",
    "Send",
    "Service",
    "StreamSession",
    "data_frame",
    "stop_notice",
]

REQUEST_BYTES_MAX = 65_535
_SYMBOLS_PER_STEP = 4
_HEARTBEAT_MS = 10_000
_HEARTBEAT_WALL_MS_MIN = 50
_KEYED_COMMANDS = {"SUBS": 26, "UNSUBS": 27, "ADD": 28, "VIEW": 29}
_FAILED = {"SUBS": 22, "UNSUBS": 23, "ADD": 24, "VIEW": 25}


class Code:
    """Response and notify codes."""

    SUCCESS = 0
    LOGIN_DENIED = 3
    SERVICE_NOT_AVAILABLE = 11
    CLOSE_CONNECTION = 12
    REACHED_SYMBOL_LIMIT = 19
    STREAM_CONN_NOT_FOUND = 20
    BAD_COMMAND_FORMAT = 21
    STOP_STREAMING = 30


@dataclass(frozen=True, slots=True)
class Send:
    """Send one text frame; `service` and `items` say what data it carries, if any."""

    text: bytes
    kind: Literal["reply", "notify", "heartbeat", "data", "garbage"]
    service: str = ""
    items: tuple[Item, ...] = ()
    image: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket with a code of RFC 6455."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Breathe:
    """Nothing to send: long work goes on, and others may have a turn."""


Output = Send | Close | Breathe


def data_frame(service: str, items: list[Item], at_ms: int, *, image: bool = False) -> Send:
    """Return one data frame of one service, stamped with a virtual instant."""
    data = {"service": service, "timestamp": at_ms, "command": "SUBS", "content": items}
    return Send(msgspec.json.encode({"data": [data]}), "data", service, tuple(items), image)


def stop_notice(code: int, msg: str, at_ms: int) -> Send:
    """Return the notice with which the broker ends a connection."""
    notice = {"service": "ADMIN", "timestamp": at_ms, "content": {"code": code, "msg": msg}}
    return _send({"notify": [notice]}, "notify")


@dataclass(frozen=True, slots=True)
class Identity:
    """The streamer's identity of the user, as userPreference states it."""

    customer_id: str
    correl_id: str


@dataclass(frozen=True, slots=True)
class Service:
    """One data service: how many symbols it takes, and how its feed is made."""

    symbols_max: int
    make_feed: Callable[[], Feed]


@dataclass(frozen=True, slots=True)
class Rules:
    """What sources disagree about, and limits; see settings for the meaning of each."""

    success_codes: bool = False
    limit_in_one_frame: bool = False
    limit_named: bool = True
    empty_stop_wall_ms: int = 30_000
    close_code: int = 1000


class StreamSession:
    """One connection; `logged_in` and `closed` are for its owner to watch."""

    def __init__(
        self,
        services: Mapping[str, Service],
        identity: Identity,
        token_valid: Callable[[str], bool],
        rules: Rules,
        *,
        position_ms: int,
        wall_ms: int,
        speed: Callable[[], float],
    ) -> None:
        self._feeds: dict[str, Feed] = {name: item.make_feed() for name, item in services.items()}
        self._symbols_max = {name: item.symbols_max for name, item in services.items()}
        self._identity = identity
        self._token_valid = token_valid
        self._rules = rules
        self._speed = speed
        self._next_heartbeat_ms = NEVER_MS
        self._empty_since_wall_ms: int | None = wall_ms
        self.position_ms = position_ms
        self.logged_in = False
        self.closed = False
        self.subscribed = False

    @property
    def subscriptions(self) -> dict[str, int]:
        """How many symbols each service has."""
        return {name: len(list(feed.keys)) for name, feed in self._feeds.items()}

    def due_ms(self) -> int:
        """Return when `advance` has something to say next, as far as is known now."""
        if not self.logged_in or self.closed:
            return NEVER_MS
        feeds = (feed.due_ms(self.position_ms) for feed in self._feeds.values())
        return max(self.position_ms, min(self._next_heartbeat_ms, *feeds))

    def advance(self, now_ms: int, wall_ms: int) -> Iterator[Output]:
        """Yield every frame that is due by `now_ms`; afterwards the position is `now_ms`."""
        while not self.closed:
            due_ms = self.due_ms()
            if due_ms > now_ms:
                break
            self.position_ms = due_ms
            yield from self._emit(due_ms)
        self.position_ms = max(self.position_ms, now_ms)
        since_ms = self._empty_since_wall_ms
        if since_ms is not None and wall_ms - since_ms >= self._rules.empty_stop_wall_ms:
            yield from self._stop(Code.STOP_STREAMING, "Stop streaming due to empty subscription")

    def skip_to(self, to_ms: int) -> None:
        """Jump over a stretch without traffic, or to a new speed; a heartbeat tells it at once."""
        self.position_ms = max(self.position_ms, to_ms)
        if self.logged_in:
            self._next_heartbeat_ms = self.position_ms

    def evict(self) -> Iterator[Output]:
        """Make room for a newer connection of the same user."""
        yield from self._stop(
            Code.CLOSE_CONNECTION,
            "Stream disconnected because of another connection of the same user",
        )

    def on_text(self, text: str | bytes, wall_ms: int) -> Iterator[Output]:
        """Answer one text frame of the client."""
        raw = text.encode(errors="replace") if isinstance(text, str) else text
        if len(raw) > REQUEST_BYTES_MAX:
            self.closed = True
            yield Close(1009, "request too long")
            return
        for request in read_requests(raw):
            if not self.closed:
                yield from self._answer(request, wall_ms)

    def _heartbeat_ms(self) -> int:
        """Ten seconds of virtual time, yet not more often than a socket should be bothered."""
        return max(_HEARTBEAT_MS, int(_HEARTBEAT_WALL_MS_MIN * self._speed()))

    def _emit(self, at_ms: int) -> Iterator[Output]:
        for name, feed in self._feeds.items():
            if feed.due_ms(at_ms) <= at_ms:
                items = feed.emit(at_ms)
                if items:
                    yield data_frame(name, items, at_ms)
        if at_ms >= self._next_heartbeat_ms:
            self._next_heartbeat_ms = at_ms + self._heartbeat_ms()
            yield _send({"notify": [{"heartbeat": str(at_ms)}]}, "heartbeat")

    def _stop(self, code: int, msg: str) -> Iterator[Output]:
        self.closed = True
        yield stop_notice(code, msg, self.position_ms)
        yield Close(self._rules.close_code)

    # -- commands ---------------------------------------------------------------------------------

    def _answer(self, request: Request, wall_ms: int) -> Iterator[Output]:
        is_login = (request.service, request.command) == ("ADMIN", "LOGIN")
        if not request.well_formed:
            yield self._reply(request, Code.BAD_COMMAND_FORMAT, "Bad command format")
        elif not (is_login or self.logged_in) or not self._is_me(request):
            yield self._reply(request, Code.STREAM_CONN_NOT_FOUND, "Stream connection not found")
        elif is_login:
            yield from self._login(request, wall_ms)
        elif (request.service, request.command) == ("ADMIN", "LOGOUT"):
            self.closed = True
            yield self._reply(request, Code.SUCCESS, "LOGOUT command succeeded")
            yield Close(1000)
        elif request.service not in self._feeds and request.service != "ADMIN":
            yield self._reply(request, Code.SERVICE_NOT_AVAILABLE, "Service not available")
        elif request.service == "ADMIN" or request.command not in _KEYED_COMMANDS:
            yield self._reply(request, Code.BAD_COMMAND_FORMAT, "Unknown command")
        else:
            yield from self._keyed(request, self._feeds[request.service], wall_ms)

    def _is_me(self, request: Request) -> bool:
        me = self._identity
        return (request.customer_id, request.correl_id) == (me.customer_id, me.correl_id)

    def _login(self, request: Request, wall_ms: int) -> Iterator[Output]:
        token = request.parameters.get("Authorization")
        if not isinstance(token, str) or not self._token_valid(token):
            self.closed = True
            text = "Login Denied.: token is invalid or has expired."
            yield self._reply(request, Code.LOGIN_DENIED, text)
            yield Close(1000)
            return
        self.logged_in = True
        self._empty_since_wall_ms = wall_ms
        self._next_heartbeat_ms = self.position_ms + self._heartbeat_ms()
        yield self._reply(request, Code.SUCCESS, "server=s0166bdv-1;status=NP")

    def _keyed(self, request: Request, feed: Feed, wall_ms: int) -> Iterator[Output]:
        keys = split_keys(request.parameters.get("keys"))
        wanted = field_numbers(request.parameters.get("fields"), feed.fields_max)
        needs_keys = request.command != "VIEW"
        needs_fields = request.command != "UNSUBS"
        if (needs_keys and not keys) or (needs_fields and not wanted):
            yield self._reply(request, Code.BAD_COMMAND_FORMAT, "Missing or invalid parameters")
            return
        if request.command == "VIEW":
            feed.view(wanted)
            yield self._succeeded(request)
        elif request.command == "UNSUBS":
            feed.unsubscribe(keys)
            yield self._succeeded(request)
        else:
            yield from self._subscribe(request, feed, keys, wanted)
        self._note_keys(wall_ms)

    def _subscribe(
        self, request: Request, feed: Feed, keys: list[str], wanted: tuple[int, ...]
    ) -> Iterator[Output]:
        kept = set(feed.keys) if request.command == "ADD" else set()
        new = [key for key in keys if key not in kept]
        room = self._symbols_max[request.service] - len(kept)
        discarded = max(0, len(new) - room)
        refused = set(new[room:])
        accepted = [key for key in keys if key not in refused]
        if request.command == "SUBS":
            feed.unsubscribe(set(feed.keys).difference(accepted))
        images: list[Item] = []
        for first in range(0, len(accepted), _SYMBOLS_PER_STEP):
            step = accepted[first : first + _SYMBOLS_PER_STEP]
            images += feed.subscribe(step, wanted, self.position_ms)
            yield Breathe()
        self.subscribed = True
        if discarded:
            yield from self._over_limit(request, discarded)
        else:
            yield self._succeeded(request)
        if images:
            yield data_frame(request.service, images, self.position_ms, image=True)

    def _over_limit(self, request: Request, discarded: int) -> Iterator[Output]:
        limit = self._symbols_max[request.service]
        text = "You've reached the maximum number of symbols allowed."
        if self._rules.limit_named:
            text += f"  ({request.service}={limit}, DISCARDED={discarded})"
        failed = f"{request.command} command failed"
        first = self._response(request, Code.REACHED_SYMBOL_LIMIT, text)
        second = self._response(request, _FAILED[request.command], failed)
        if self._rules.limit_in_one_frame:
            yield _send({"response": [first, second]}, "reply")
        else:
            yield _send({"response": [first]}, "reply")
            yield _send({"response": [second]}, "reply")

    def _note_keys(self, wall_ms: int) -> None:
        if any(self.subscriptions.values()):
            self._empty_since_wall_ms = None
        elif self._empty_since_wall_ms is None:
            self._empty_since_wall_ms = wall_ms

    def _succeeded(self, request: Request) -> Send:
        own = _KEYED_COMMANDS[request.command]
        code = own if self._rules.success_codes else Code.SUCCESS
        return self._reply(request, code, f"{request.command} command succeeded")

    def _reply(self, request: Request, code: int, msg: str) -> Send:
        return _send({"response": [self._response(request, code, msg)]}, "reply")

    def _response(self, request: Request, code: int, msg: str) -> dict[str, Any]:
        return {
            "service": request.service,
            "command": request.command,
            "requestid": request.requestid,
            "SchwabClientCorrelId": request.correl_id,
            "timestamp": self.position_ms,
            "content": {"code": code, "msg": msg},
        }


def _send(frame: dict[str, Any], kind: Literal["reply", "notify", "heartbeat"]) -> Send:
    return Send(msgspec.json.encode(frame), kind)
