"""Schwab through the schwab-py library: the only file that knows it, but for the login's address.

`Account` holds the REST client and its token, `Connection` one streamer socket. The library is used
as it is. Three of its public hooks make it fit:

- the client's constructor takes an HTTP session of ours, whose transport may lead to a simulator;
- the socket's arguments take a factory, so that the socket can be bounded and closed;
- the JSON decoder sees every frame of the socket exactly once, in order, also those that arrive
  while a command awaits its answer. `_Tap` takes the frames there, with their field numbers and
  heartbeats. The library itself is only shown answers to commands that it is waiting for, with the
  documented success codes it does not know turned into the one it does.

Commands and reads belong to one task, because the library serialises them with a lock that a
waiting read holds.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import httpx

with warnings.catch_warnings(record=True):
    # schwab-py stands on the legacy API of websockets and on httpx under authlib; both say at every
    # import that they are old. `record` is for authlib, which overrides filters.
    warnings.simplefilter("ignore", DeprecationWarning)
    from authlib.common.errors import AuthlibBaseError
    from schwab.auth import TOKEN_ENDPOINT, TokenMetadata
    from schwab.client import AsyncClient
    from schwab.contrib.util import StreamJsonDecoder
    from schwab.debug import register_redactions
    from schwab.streaming import StreamClient, UnexpectedResponseCode
    from websockets.legacy.client import WebSocketClientProtocol

from libs.common.calendar import Session
from libs.common.clock import Clock
from libs.common.events import HistoryBar
from libs.common.telemetry import get_logger
from libs.common.token_file import TokenBusy, TokenFile, TokenInvalid, TokenUnsafe
from services.ingest import wire
from services.ingest.answers import admin_code, awaited_answer, code_name
from services.ingest.budget import BudgetPaused, RequestBudget
from services.ingest.candles import minutes_of
from services.ingest.hours import hours_of
from services.ingest.oauth import AccountSession, mounts
from services.ingest.quotes import Quotes, quotes_of
from services.ingest.refusals import CommandRefused, Denied, RequestFailed, require_ok
from services.ingest.subscriptions import SubscriptionCut
from services.ingest.wire import Reject

__all__ = [
    "Account",
    "CommandRefused",
    "Connection",
    "Denied",
    "RefreshOutcome",
    "RequestFailed",
]

SOCKET_BYTES_MAX = 32 << 20
LOGIN_DENIED, EVICTED, SYMBOL_LIMIT, STOPPED = 3, 12, 19, 30
FAILED_COMMANDS = frozenset({22, 23, 24, 25})  # "often parallel commands": worth a second try
_CLOSE_S_MAX = 2

_LEVEL_ONE_FIELDS = (
    StreamClient.LevelOneEquityFields.SYMBOL,
    StreamClient.LevelOneEquityFields.BID_PRICE,
    StreamClient.LevelOneEquityFields.ASK_PRICE,
    StreamClient.LevelOneEquityFields.LAST_PRICE,
    StreamClient.LevelOneEquityFields.TOTAL_VOLUME,
    StreamClient.LevelOneEquityFields.SECURITY_STATUS,
    StreamClient.LevelOneEquityFields.QUOTE_TIME_MILLIS,
    StreamClient.LevelOneEquityFields.TRADE_TIME_MILLIS,
)

Take = Callable[[int, int, dict[str, Any] | Reject], None]

# What came of fetching a new access token. Only a person can mend `refused`, by logging in.
RefreshOutcome = Literal["renewed", "refused", "failed"]


class Account:
    """The REST side of one account; builds its client anew from the token file when in doubt.

    Every request takes its pass from `budget`, those of the library for a token too. `login_read`
    is set whenever another login than before was read from the file, whoever came to read it.
    """

    def __init__(
        self,
        key: str,
        secret: str,
        token_path: Path,
        base_url: str | None,
        on_refresh: Callable[[RefreshOutcome], None] = lambda outcome: None,
        *,
        budget: RequestBudget,
        token_key: str = "",
    ) -> None:
        self._on_refresh = on_refresh
        self._budget = budget
        self._token_created_s: float | None = None
        self.login_read = asyncio.Event()
        self._key = key
        self._secret = secret
        self._token_file = TokenFile(token_path, token_key)
        self._base_url = base_url
        self._client: AsyncClient | None = None
        self._outdated = False
        self._refreshing = asyncio.Lock()

    def client(self) -> AsyncClient:
        """Return the library's client; raises TokenInvalid when there is no usable token."""
        if self._client is None:
            self._client = self._build()
        return self._client

    def token_age_s(self, now_ms: int) -> float:
        """Return how long ago the login was that the token goes back to; 0 before it is read.

        It is remembered while there is no client: a refused token does not get younger.
        """
        if self._token_created_s is None:
            return 0.0
        return max(0.0, now_ms / 1000 - self._token_created_s)

    def access_token_left_s(self, now_ms: int) -> float | None:
        """Return how long the access token at hand is good; None without one."""
        if self._client is None:
            return None
        return float(self._client.token_metadata.token["expires_at"]) - now_ms / 1000

    def access_token_age_s(self, now_ms: int) -> float:
        """Return how long ago the access token at hand was fetched; 0 without one."""
        left_s = self.access_token_left_s(now_ms)
        if self._client is None or left_s is None:
            return 0.0
        life_s = self._client.token_metadata.token.get("expires_in")
        return max(0.0, life_s - left_s) if isinstance(life_s, int | float) else 0.0

    async def take_over(self) -> float:
        """Build the client anew if somebody has logged in again; return when that login was.

        Raises TokenInvalid when there is no usable token at all.
        """
        known_s = self._token_created_s or 0.0
        if self._client is not None and self._token_file.is_newer_than(known_s):
            await self.forget_client()
        self.client()
        return self._token_created_s or 0.0

    async def forget_client(self) -> None:
        """Drop the client; the next one reads the token file again."""
        client, self._client = self._client, None
        self._outdated = False
        if client is not None:
            await client.close_async_session()

    async def refresh(self) -> None:
        """Fetch a new access token now; raises TokenInvalid or RequestFailed."""
        session = self.client().session
        before = session.token.get("access_token")
        async with self._refreshing:
            if session.token.get("access_token") == before:
                await self._guarded(
                    session.refresh_token(
                        TOKEN_ENDPOINT, refresh_token=session.token.get("refresh_token")
                    )
                )

    async def minutes(
        self, ticker: str, start_ms: int, end_ms: int
    ) -> tuple[list[HistoryBar] | None, int]:
        """Return the minute bars of [start_ms, end_ms), ascending, and how many were unusable.

        None when the broker says there is no such history. Raises RequestFailed, TokenInvalid.
        """
        response = await self._guarded(
            self.client().get_price_history_every_minute(
                ticker,
                start_datetime=_datetime(start_ms),
                end_datetime=_datetime(end_ms),
                need_extended_hours_data=True,
            )
        )
        await self._require_token(response)
        if response.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND):
            return None, 0
        require_ok(response, "price history")
        try:
            return minutes_of(response.content, start_ms, end_ms)
        except ValueError as error:
            raise RequestFailed(str(error)) from None

    async def market_hours(self, day: date) -> Session | None:
        """Return what the broker says of a day: its session, or None when it is closed.

        Raises RequestFailed, TokenInvalid.
        """
        client = self.client()
        response = await self._guarded(
            client.get_market_hours([client.MarketHours.Market.EQUITY], date=day)
        )
        await self._require_token(response)
        require_ok(response, "market hours")
        try:
            return hours_of(response.content, day)
        except ValueError as error:
            raise RequestFailed(str(error)) from None

    async def quotes(self, tickers: Sequence[str]) -> Quotes:
        """Return the quotes of some tickers; raises RequestFailed, TokenInvalid."""
        fields = [AsyncClient.Quote.Fields.QUOTE]
        response = await self._guarded(self.client().get_quotes(tickers, fields=fields))
        await self._require_token(response)
        require_ok(response, "quotes")
        try:
            return quotes_of(response.content, response.headers.get("Date"))
        except ValueError as error:
            raise RequestFailed(str(error)) from None

    async def _require_token(self, response: httpx.Response) -> None:
        """Raise RequestFailed, after a refresh, when the access token was refused."""
        if response.status_code == httpx.codes.UNAUTHORIZED:
            await self.refresh()
            raise RequestFailed("the access token was refused and has been refreshed")

    async def _guarded(self, request: Any) -> Any:
        """Await a request; whatever it says about the token makes the client be built anew."""
        try:
            answer = await request
        except TokenInvalid as error:
            self._on_refresh("failed")
            raise await self.not_taken(error) from None
        except AuthlibBaseError as error:
            raise await self.refused(error) from None
        except BudgetPaused as error:
            raise RequestFailed(str(error)) from None
        except httpx.HTTPStatusError as error:
            # Requests themselves raise no such thing; only the library's refresh does.
            self._on_refresh("failed")
            await self.forget_client()
            raise RequestFailed(f"token refresh: HTTP {error.response.status_code}") from None
        except (httpx.HTTPError, TokenBusy) as error:
            raise RequestFailed(f"{type(error).__name__}: {error}") from None
        except RuntimeError as error:
            # Another request learned that the token is dead and closed the client under this one.
            raise RequestFailed(f"the client was closed meanwhile: {error}") from None
        except (ValueError, KeyError, TypeError) as error:
            # A token endpoint under maintenance answers 200 with a page, and the library trips.
            self._on_refresh("failed")
            await self.forget_client()
            raise RequestFailed(f"an answer that makes no sense: {type(error).__name__}") from None
        if self._outdated:
            await self.forget_client()
        return answer

    async def not_taken(self, error: TokenInvalid) -> TokenInvalid | RequestFailed:
        """Return what to raise for a token that was not kept.

        An answer that was no token, such as one of 429, says nothing about the login: later again.
        A file that is not to be trusted needs a person.
        """
        await self.forget_client()
        if isinstance(error, TokenUnsafe):
            return error
        return RequestFailed("token refresh: the answer was no token")

    async def refused(self, error: AuthlibBaseError) -> TokenInvalid:
        """Note that the broker refused the token, and return what to raise."""
        self._on_refresh("refused")
        await self.forget_client()
        return TokenInvalid(f"the broker refused the token: {error.error}")

    def _build(self) -> AsyncClient:
        content = self._token_file.read()
        created_s = float(content["creation_timestamp"])
        if created_s != self._token_created_s:
            self.login_read.set()
        self._token_created_s = created_s
        metadata = TokenMetadata.from_loaded_token(content, self._token_file.write)
        register_redactions(metadata.token)
        write = metadata.wrapped_token_write_func()

        async def update(token: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            try:
                if self._token_file.is_newer_than(created_s):
                    # Somebody has logged in again. That login is not overwritten; it is read once
                    # this request is over, and the token at hand does until then.
                    self._outdated, metadata.token = True, token
                    get_logger().info("token.newer_login")
                else:
                    write(token, *args, **kwargs)
            except (OSError, TokenUnsafe) as error:
                # Work goes on with the new token, and the next refresh writes again. The library
                # knows it for requests by now, and for logins to the streamer only from here.
                metadata.token = token
                reason = error.strerror if isinstance(error, OSError) else str(error)
                get_logger().error("token.not_saved", reason=reason)
            self._on_refresh("renewed")

        def taken_over(wrapped: dict[str, Any]) -> None:
            register_redactions(wrapped["token"])
            metadata.token = wrapped["token"]
            self._outdated = wrapped["creation_timestamp"] != created_s

        session = AccountSession(
            self._token_file,
            created_s,
            taken_over,
            client_id=self._key,
            client_secret=self._secret,
            token=metadata.token,
            token_endpoint=TOKEN_ENDPOINT,
            update_token=update,
            mounts=mounts(self._base_url),
            event_hooks=self._budget.hooks,
        )
        return AsyncClient(self._key, session, token_metadata=metadata)


class Connection:
    """One socket of the streamer, from login to its end; never used again after an error.

    Pings go out every `ping_s`; one that stays unanswered for half as long again ends the socket.
    """

    def __init__(
        self, account: Account, clock: Clock, take: Take, *, answer_s_max: float, ping_s: float
    ) -> None:
        self._account = account
        self._answer_s_max = answer_s_max
        self._ping_s = ping_s
        self._tap = _Tap(clock, take)
        self._socket: WebSocketClientProtocol | None = None
        self._stream: StreamClient | None = None
        self._commands = 0

    @property
    def evicted(self) -> bool:
        """Whether the broker closed this socket in favour of another session."""
        return self._tap.admin_code == EVICTED

    @property
    def ended_by_broker(self) -> str:
        """The notice with which the broker ends this socket, in words; "" while there is none."""
        code = self._tap.admin_code
        return f"the broker says {code_name(code)}" if code in (EVICTED, STOPPED) else ""

    async def login(self) -> int:
        """Connect and log in; returns broker time.

        Raises Denied when the token is refused, CommandRefused for what no token mends, and
        whatever the library and the socket raise.
        """
        self._stream = StreamClient(self._account.client())
        self._stream.set_json_decoder(self._tap)
        arguments = {
            "create_protocol": self._create_socket,
            "max_size": SOCKET_BYTES_MAX,
            "ping_interval": self._ping_s,
            "ping_timeout": 1.5 * self._ping_s,
            "close_timeout": _CLOSE_S_MAX,
        }
        try:
            await self._command(self._stream.login(arguments), 2 * self._answer_s_max)
        except UnexpectedResponseCode as error:
            code, text = _answered(error)
            raise (Denied(text) if code == LOGIN_DENIED else CommandRefused(code, text)) from None
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.UNAUTHORIZED:
                raise Denied("user preferences: HTTP 401") from None
            await self._account.forget_client()
            raise RequestFailed(f"before login: HTTP {error.response.status_code}") from None
        except AuthlibBaseError as error:
            raise await self._account.refused(error) from None
        except TokenInvalid as error:
            raise await self._account.not_taken(error) from None
        except TokenBusy as error:
            raise RequestFailed(str(error)) from None
        return self._tap.answer_ms

    async def subscribe_level_one(self, tickers: Sequence[str], *, first: bool) -> None:
        """Ask for level one of some more tickers; raises SubscriptionCut, or as `login` does."""
        stream = self._logged_in()
        subscribe = stream.level_one_equity_subs if first else stream.level_one_equity_add
        await self._subscribe(lambda: subscribe(tickers, fields=list(_LEVEL_ONE_FIELDS)))

    async def subscribe_bars(self, tickers: Sequence[str], *, first: bool) -> None:
        """Ask for minute bars of some more tickers; raises SubscriptionCut, or as `login` does."""
        stream = self._logged_in()
        subscribe = stream.chart_equity_subs if first else stream.chart_equity_add
        await self._subscribe(lambda: subscribe(tickers))

    async def unsubscribe(self, service: str, tickers: Sequence[str]) -> None:
        """Ask for some tickers no more; raises as `login` does."""
        stream = self._logged_in()
        leave = (
            stream.chart_equity_unsubs if service == wire.CHART else stream.level_one_equity_unsubs
        )
        await self._subscribe(lambda: leave(tickers))

    async def read(self) -> None:
        """Wait for one frame; it has gone to `take` when this returns."""
        await self._logged_in().handle_message()

    async def close(self) -> None:
        """End the socket; can be repeated.

        The library's own close takes a cancellation of its caller for the end of its reader and
        swallows it, so that a stop would be forgotten. It therefore runs in a task of its own.
        """
        if self._socket is None:
            return
        closing = asyncio.create_task(self._socket.close())
        try:
            await asyncio.wait({closing}, timeout=2 * _CLOSE_S_MAX)
        finally:
            # Half-open sockets fail to close in many ways; here it ends anyway.
            if not closing.done() or closing.cancelled() or closing.exception() is not None:
                closing.cancel()
                self._socket.fail_connection()

    async def _subscribe(self, command: Callable[[], Awaitable[None]]) -> None:
        """Run a command; one that "failed" without a reason is given a second chance."""
        for last_try in (False, True):
            try:
                await self._command(command(), self._answer_s_max)
            except UnexpectedResponseCode as error:
                code, text = _answered(error)
                if code == SYMBOL_LIMIT:
                    raise SubscriptionCut(text) from None
                if last_try or code not in FAILED_COMMANDS:
                    raise CommandRefused(code, text) from None
            else:
                return

    async def _command(self, command: Any, s_max: float) -> None:
        """Run one command; the library numbers them from 0, and the tap watches for that number."""
        self._tap.expected = str(self._commands)
        self._commands += 1
        try:
            async with asyncio.timeout(s_max):
                await command
        finally:
            self._tap.expected = None

    def _create_socket(self, *args: Any, **kwargs: Any) -> WebSocketClientProtocol:
        self._socket = WebSocketClientProtocol(*args, **kwargs)
        return self._socket

    def _logged_in(self) -> StreamClient:
        assert self._stream is not None, "login comes first"
        return self._stream


class _Tap(StreamJsonDecoder):  # type: ignore[misc]  # the library has no types
    """Takes every frame off the socket and shows the library only what it has to see."""

    def __init__(self, clock: Clock, take: Take) -> None:
        self._clock = clock
        self._take = take
        self.expected: str | None = None
        self.answer_ms = 0
        self.admin_code = 0

    def decode_json_string(self, raw: str | bytes) -> dict[str, Any]:
        """Stamp, parse and pass on one frame; never raises."""
        received_ms = self._clock.now_ms()
        message = wire.message_of(raw)
        self._take(received_ms, len(raw), message)
        if isinstance(message, Reject):
            return {}
        self.admin_code = admin_code(message.get("notify")) or self.admin_code
        if self.expected is None:
            return {}
        answer = awaited_answer(message.get("response"), self.expected)
        if answer is None:
            return {}
        self.answer_ms = answer.sent_ms or self.answer_ms
        return answer.message


def _answered(error: UnexpectedResponseCode) -> tuple[int, str]:
    content = error.response["response"][0]["content"]
    text = re.sub(r"[^\x20-\x7e]", "?", content["msg"])[: wire.EXCERPT_CHARS_MAX]
    return int(content["code"]), f"{code_name(content['code'])}: {text}"


def _datetime(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
