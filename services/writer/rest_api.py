"""A Supabase project's REST interface, as far as the writer uses it: calls of functions.

`call` returns the function's answer or raises an error of ours, whatever went wrong on the way:

- StoreFenced, RowsRefused: what the function said, by its SQLSTATE;
- SettingsError, StoreMismatch: the address, the key or the schema is wrong, so nothing will ever
  work. Only until the first answer: what has worked before is waited for;
- StoreUnavailable: everything else. A call that got no answer may have been carried out.

A page that anybody else hands out, a proxy or a portal, is never taken for an answer: it is none
unless it is JSON of the kind that was asked for. No text holds the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from libs.common import failpoints
from libs.common.errors import (
    KiteError,
    RowsRefused,
    SettingsError,
    StoreFenced,
    StoreMismatch,
    StoreUnavailable,
)
from services.writer.project import WHERE_KEYS_ARE

if TYPE_CHECKING:
    from supabase import AsyncClient

__all__ = ["MIGRATION", "Refused", "RestApi"]

MIGRATION = "20261123000500_rest_sink"

_CONNECT_TIMEOUT_S = 10.0
_MARGIN_S = 10.0
_SAID_MAX = 300

_FENCED, _TOO_LARGE = "PT409", "PT413"
_DATA_EXCEPTION, _CONSTRAINT_VIOLATION = "22", "23"
_NO_PARTITION = "no partition of relation"
_NO_FUNCTION = ("PGRST202", "42883")
_NO_SCHEMA = "PGRST106"
_FORBIDDEN = "42501"
_NOT_FOUND = (301, 302, 307, 308, 404, 405)
_PAUSED = 540


class _Said(msgspec.Struct):
    """What PostgREST says of an error; others leave fields out."""

    code: str | None = None
    message: str | None = None
    details: str | None = None
    hint: str | None = None


class Refused(Exception):
    """An answer that is no success; the cause of what `call` raises of it."""

    def __init__(self, status: int, said: _Said | None) -> None:
        self.status = status
        self.said = said or _Said()
        self.code = self.said.code or ""
        super().__init__(status)

    @property
    def text(self) -> str:
        """One line of what the other side says, with the row or key that it names."""
        said = self.said
        parts = [self.code, said.message]
        text = ": ".join(filter(None, parts)) or f"HTTP {self.status}"
        text += "".join(f" ({more})" for more in (said.details, said.hint) if more)
        return " ".join(text.split())[:_SAID_MAX]


class RestApi:
    """Calls functions with the service key; a context manager."""

    def __init__(
        self, url: str, key: str, *, connections_max: int, statement_timeout_s: int
    ) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._connections_max = connections_max
        self._answer_timeout_s = statement_timeout_s + _MARGIN_S
        self._client: AsyncClient | None = None
        self._http: httpx.AsyncClient | None = None
        self._worked = False

    async def __aenter__(self) -> RestApi:
        # Here and not above: it takes two seconds and 24 MB, which the other sink does without.
        from supabase import AsyncClient, AsyncClientOptions

        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(self._answer_timeout_s, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(
                max_connections=self._connections_max,
                max_keepalive_connections=self._connections_max,
            ),
            event_hooks={"response": [_judge]},
        )
        options = AsyncClientOptions(
            httpx_client=self._http,
            auto_refresh_token=False,
            persist_session=False,
            # Doubt is the caller's to settle: it asks for the position.
            postgrest_client_retry=False,
        )
        self._client = await AsyncClient.create(self._url, self._key, options)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def call(self, function: str, arguments: Mapping[str, Any], kind: Any) -> Any:
        """Return what the function answers, which is of a `kind`; raises as said above."""
        assert self._client is not None, "the interface is used outside its context"
        try:
            answer = await self._client.rpc(function, dict(arguments)).execute()
        except Refused as refused:
            raise self._error(refused, function) from refused
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"{self._url} does not answer: {_reason(error)}") from error
        try:
            data = msgspec.convert(answer.data, kind)
        except msgspec.ValidationError as error:
            raise StoreUnavailable(f"{self._url}: {function} answers {error}") from error
        self._worked = True
        return data

    def _error(self, refused: Refused, function: str) -> KiteError:
        code = refused.code
        if code == _FENCED:
            return StoreFenced(refused.said.message or refused.text)
        if code == _TOO_LARGE:
            return RowsRefused(refused.text)
        if code[:2] in (_DATA_EXCEPTION, _CONSTRAINT_VIOLATION):
            if _NO_PARTITION not in (refused.said.message or ""):
                return RowsRefused(refused.text)
        elif not self._worked and (wrong := self._wrong(refused, function)) is not None:
            return wrong
        if refused.status == _PAUSED:
            return StoreUnavailable("the project is paused: wake it in Supabase's console")
        return StoreUnavailable(f"{self._url}: {refused.text}")

    def _wrong(self, refused: Refused, function: str) -> KiteError | None:
        """Return what no repetition will heal, as long as nothing has ever worked."""
        code, status = refused.code, refused.status
        if code in _NO_FUNCTION:
            return StoreMismatch(
                f"{self._url} has no function {function}: bring its schema up to date with "
                f"`./kite db migrate` (migration {MIGRATION}), then start the writer again"
            )
        if code == _NO_SCHEMA:
            return StoreMismatch(
                f"{self._url} does not expose the schema public: add it in the project's "
                "settings, Data API"
            )
        if code == _FORBIDDEN or status in (401, 403):
            return SettingsError(
                [
                    f"KITE_SUPABASE_SERVICE_KEY: {self._url} refuses it ({refused.text}): it must "
                    f"be this project's secret or service_role key, {WHERE_KEYS_ARE}"
                ]
            )
        if status in _NOT_FOUND and not code:
            return SettingsError(
                [
                    f"KITE_SUPABASE_URL: {self._url} answers, but not as a Supabase project "
                    f"(HTTP {status}): expected https://<project>.supabase.co"
                ]
            )
        return None


async def _judge(response: httpx.Response) -> None:
    """Let pass only what is a success and JSON; the client library would not tell them apart."""
    if response.request.url.path.endswith("/kite_commit"):
        failpoints.reach("writer.commit.sent")
    content = await response.aread()
    is_json = response.headers.get("content-type", "").startswith("application/json")
    if response.is_success and is_json:
        return
    if response.is_success:
        raise Refused(404, None)
    try:
        said = msgspec.json.decode(content, type=_Said) if is_json else None
    except msgspec.MsgspecError:
        said = None
    raise Refused(response.status_code, said)


def _reason(error: httpx.HTTPError) -> str:
    return " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
