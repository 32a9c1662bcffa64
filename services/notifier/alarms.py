"""Alertmanager's webhook: `POST /alerts`, taken durably before it is answered.

    200  taken: it is in the journal, or was before
    400  not what Alertmanager sends; the answer says where
    413  too large
    415  not JSON by its header, so that no page in a browser can send it by a plain form
    503  the journal cannot take it now: Alertmanager tries again

Its Watchdog is no message: it becomes one request to the heartbeat's address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from libs.common import failpoints
from libs.common.errors import SettingsError
from libs.common.runner import Runtime
from services.notifier.book import Secret
from services.notifier.core import SEVERITIES, Alert, Channel
from services.notifier.journal import Journal, JournalAway
from services.notifier.metrics import NotifierMetrics
from services.notifier.settings import Settings

__all__ = ["WATCHDOG", "Alarms", "Heartbeat", "parse"]

WATCHDOG: Final = "Watchdog"
ALERTS_MAX: Final = 1_000
_HEARTBEAT_S: Final = 10.0
_TEXT_LENGTH_MAX: Final = 300

_Word = Annotated[str, Meta(max_length=16_384)]


class _WireAlert(Struct, rename="camel"):
    status: Literal["firing", "resolved"]
    labels: dict[_Word, _Word]
    annotations: dict[_Word, _Word]
    starts_at: Annotated[str, Meta(min_length=20, max_length=64, pattern=r"^\d{4}-\d\d-\d\dT")]
    fingerprint: Annotated[str, Meta(min_length=1, max_length=64)]


class _Wire(Struct, rename="camel"):
    version: Literal["4"]
    status: Literal["firing", "resolved"]
    receiver: _Word
    group_key: _Word
    alerts: Annotated[list[_WireAlert], Meta(max_length=ALERTS_MAX)]
    truncated_alerts: Annotated[int, Meta(ge=0)] = field(name="truncatedAlerts", default=0)


_decoder = msgspec.json.Decoder(_Wire)


def parse(body: bytes) -> tuple[Alert, ...]:
    """Read what Alertmanager sends; raises ValueError that says what is wrong, not what it was."""
    try:
        wire = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a webhook message of Alertmanager's: {error}") from None
    return tuple(_alert(alert) for alert in wire.alerts)


def _alert(wire: _WireAlert) -> Alert:
    severity = wire.labels.get("severity", "")
    name = wire.labels.get("alertname", "") or "unnamed"
    return Alert(
        fingerprint=wire.fingerprint,
        status=wire.status,
        name=name[:_TEXT_LENGTH_MAX],
        # One that somebody invents is no reason to be silent.
        severity=next((known for known in SEVERITIES if known == severity), "warning"),
        summary=wire.annotations.get("summary", "")[:_TEXT_LENGTH_MAX],
        runbook=wire.annotations.get("runbook_url", "")[:_TEXT_LENGTH_MAX],
        starts_at=wire.starts_at,
    )


class Heartbeat:
    """Asks for an address, at most once at a time, and forgets about it."""

    def __init__(self, runtime: Runtime[Any], url: Secret, metrics: NotifierMetrics) -> None:
        self._runtime = runtime
        self._url = url
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None

    def beat(self) -> None:
        """Ask for it in the background, unless that is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask())

    async def close(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _ask(self) -> None:
        reason = ""
        try:
            timeout = aiohttp.ClientTimeout(total=_HEARTBEAT_S)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(self._url.reveal(), allow_redirects=False) as answer,
            ):
                if answer.status >= 300:
                    reason = f"it answered {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            reason = type(error).__name__  # its text holds the address
        self._metrics.heartbeats.labels("failed" if reason else "sent").inc()
        if reason:
            self._runtime.log.warning("notifier.heartbeat_failed", reason=reason)


class Alarms:
    """The endpoint; a context manager that listens while it lasts."""

    def __init__(
        self, runtime: Runtime[Settings], journal: Journal, channels: Mapping[str, Channel],
        metrics: NotifierMetrics, ring: Callable[[str], None], heartbeat: Heartbeat | None,
    ) -> None:  # fmt: skip
        self._runtime = runtime
        self._journal = journal
        self._channels = channels
        self._metrics = metrics
        self._ring = ring
        self._heartbeat = heartbeat
        app = web.Application(client_max_size=runtime.settings.notifier_body_bytes_max)
        app.router.add_post("/alerts", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.url = ""

    async def __aenter__(self) -> Alarms:
        settings = self._runtime.settings
        await self._runner.setup()
        host, port = settings.notifier_host, settings.notifier_port
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(
                [
                    f"KITE_NOTIFIER_PORT: cannot listen on {host}:{port}: "
                    f"{error.strerror or type(error).__name__}; choose another port, or 0 for any "
                    "free one"
                ]
            ) from None
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/alerts"
        self._runtime.log.info("notifier.listening", url=self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        if self._heartbeat is not None:
            await self._heartbeat.close()

    async def _take(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return self._refuse(415, "expected Content-Type: application/json")
        try:
            alerts = parse(await request.read())
        except web.HTTPRequestEntityTooLarge:
            limit = self._runtime.settings.notifier_body_bytes_max
            return self._refuse(413, f"more than {limit} bytes")
        except ValueError as error:
            return self._refuse(400, str(error))
        alive = any(alert.name == WATCHDOG and alert.status == "firing" for alert in alerts)
        if alive and self._heartbeat is not None:
            self._heartbeat.beat()
        real = [alert for alert in alerts if alert.name != WATCHDOG]
        if real:
            try:
                await self._store(real)
            except JournalAway as error:
                self._runtime.log.warning("notifier.journal", error=str(error))
                return self._refuse(503, "the journal cannot take it now")
        return web.json_response({"taken": len(real)})

    async def _store(self, alerts: list[Alert]) -> None:
        journal = self._journal
        now_ms = self._runtime.clock.now_ms()
        told, repeated = await journal.do(journal.take_alerts, self._channels, alerts, now_ms)
        failpoints.reach("notifier.alerts.stored")
        self._metrics.alerts.labels("taken").inc(len(alerts) - repeated)
        self._metrics.alerts.labels("repeated").inc(repeated)
        for name in told:
            self._ring(name)

    def _refuse(self, status: int, reason: str) -> web.Response:
        self._metrics.alerts.labels("refused").inc()
        self._runtime.log.warning("notifier.alerts_refused", status=status, reason=reason)
        return web.json_response({"error": reason}, status=status)
