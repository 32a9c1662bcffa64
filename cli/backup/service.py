"""The backup service: once a day copy, read back, now and then restore, and delete what is old.

It holds no state that matters: how old the newest backup is stands in the place itself, and when
one was last restored in a small file. So a restart neither repeats nor forgets anything. What fails
is counted, logged, and tried again after a while; it disturbs nobody else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from cli.backup import retention, schedule, work
from cli.backup.manifest import Manifest, made_ms_of
from cli.backup.place import Place, open_place
from cli.backup.progress import Quiet
from cli.backup.settings import PlaceSettings, Settings
from cli.backup.take import CLOCK_FILE, Source
from cli.home import Home
from deploy.private_files import write_private
from libs.common.errors import KiteError, SettingsError
from libs.common.runner import Backoff, Runtime
from libs.common.settings import load

__all__ = ["serve"]

_RETRY_FIRST_S, _RETRY_MAX_S = 30.0, 1800.0
_WAIT_S_MAX = 3600.0  # a clock may be set
_DAY_MS = 86_400_000


class _Tried(Struct, frozen=True):
    """When a backup was last restored and found right, and how long that took."""

    at_ms: int = 0
    backup: str = ""
    took_s: float = 0.0


async def serve(runtime: Runtime[Settings]) -> None:
    """Work until stopped; what is under way then is given up, and made anew after the next start.

    Raises SettingsError for a place that is none.
    """
    work_task = asyncio.create_task(_Service(runtime).run())
    stopped = asyncio.create_task(runtime.stop.wait())
    try:
        await asyncio.wait({work_task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        work_task.cancel()
        await asyncio.wait({work_task})
    if not work_task.cancelled():
        work_task.result()


class _Service:
    """One life of the service."""

    def __init__(self, runtime: Runtime[Settings]) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._place_settings = load(PlaceSettings, os.environ)
        self._at = schedule.parse_time(self._settings.backup_at)
        self._home = Home(Path(self._settings.backup_dir))
        self._backoff = Backoff(_RETRY_FIRST_S, _RETRY_MAX_S)
        self._tried = _read_tried(self._tried_file)
        metrics = runtime.metrics
        self._made = metrics.gauge(
            "backup_timestamp_seconds", "When the newest backup was begun, epoch; 0: there is none"
        )
        self._verified = metrics.gauge(
            "backup_verified_timestamp_seconds", "When a backup was last restored and compared"
        )
        self._bytes = metrics.gauge("backup_bytes", "Size of the newest backup")
        self._duration = metrics.gauge("backup_duration_seconds", "How long the last backup took")
        self._restore = metrics.gauge(
            "backup_restore_duration_seconds", "How long the last trial restore took"
        )
        self._failures = metrics.counter("backup_failures", "Attempts that failed", ["step"])
        for step in ("backup", "restore"):
            self._failures.labels(step)
        self._show_tried()

    @property
    def _tried_file(self) -> Path:
        return self._home.root / "tried.json"

    async def run(self) -> None:
        """Do what is due, wait for what is next."""
        self._runtime.health.require("place", "not looked at yet")
        while True:
            try:
                wait_s = await self._turn()
            except SettingsError:
                raise
            except KiteError as error:
                wait_s = self._backoff.next_s()
                self._runtime.health.require("place", str(error))
                said = {"error": str(error), "again_s": round(wait_s)}
                self._runtime.log.error("backup.failed", **said)  # noqa: TRY400  # says it all
            with suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, _WAIT_S_MAX)):
                    await self._runtime.stop.wait()

    async def _turn(self) -> float:
        """Make and try what is due; return how long nothing will be."""
        chosen = self._place_settings.backup_url or str(self._home.root / "backups")
        place = await open_place(chosen, self._place_settings)
        try:
            await self._look(place)
            due_ms = schedule.last_due_ms(self._now_ms, self._at)
            if await self._newest_ms(place) < due_ms:
                await self._counted("backup", self._back_up(place))
            if self._trial_is_due():
                await self._counted("restore", self._try_restore(place))
        finally:
            await place.close()
        self._backoff.reset()
        self._runtime.health.met("place")
        return (schedule.next_due_ms(self._now_ms, self._at) - self._now_ms) / 1000

    async def _counted(self, step: str, act: Awaitable[None]) -> None:
        try:
            await act
        except KiteError:
            self._failures.labels(step).inc()
            raise

    async def _look(self, place: Place) -> None:
        """Export how old and how big the newest backup is."""
        names = await place.names()
        if names:
            found = await work.find(place, names[-1])
            self._made.set(found.made_ms / 1000)
            self._bytes.set(found.size_bytes)

    async def _newest_ms(self, place: Place) -> int:
        names = await place.names()
        return made_ms_of(names[-1]) if names else 0

    async def _back_up(self, place: Place) -> None:
        """Copy, read back, delete what the policy does not keep."""
        settings = self._settings
        clock_file = settings.backup_clock_file
        source = Source(
            nats_url=settings.nats_url,
            pg_dsn=settings.pg_dsn,
            files={CLOCK_FILE: Path(clock_file)} if clock_file else {},
        )
        clock, root = self._runtime.clock, self._home.root
        began_ms = self._now_ms
        made = await work.back_up(source, place, root, clock, Quiet())
        await work.check(place, made.name, root, Quiet())
        removed = await work.prune(place, retention.parse(settings.backup_retain))
        self._show(made, (self._now_ms - began_ms) / 1000)
        self._runtime.log.info(
            "backup.made", backup=made.name, place=place.label, bytes=made.size_bytes,
            rows=made.rows, messages=made.messages, digest=made.digest, removed=list(removed),
        )  # fmt: skip

    async def _try_restore(self, place: Place) -> None:
        """Restore the newest backup into servers of its own, and remember that it went well."""
        began_ms = self._now_ms
        made = await work.try_restore(place, "", self._home, self._runtime.clock, Quiet())
        took_s = (self._now_ms - began_ms) / 1000
        self._tried = _Tried(self._now_ms, made.name, took_s)
        text = msgspec.json.encode(self._tried).decode()
        await asyncio.to_thread(write_private, self._tried_file, text)
        self._show_tried()
        self._runtime.log.info("backup.restored", backup=made.name, took_s=took_s)

    def _trial_is_due(self) -> bool:
        days = self._settings.backup_restore_days
        return days > 0 and self._now_ms - self._tried.at_ms >= days * _DAY_MS

    def _show(self, made: Manifest, took_s: float) -> None:
        self._made.set(made.made_ms / 1000)
        self._bytes.set(made.size_bytes)
        self._duration.set(took_s)

    def _show_tried(self) -> None:
        self._verified.set(self._tried.at_ms / 1000)
        self._restore.set(self._tried.took_s)

    @property
    def _now_ms(self) -> int:
        return self._runtime.clock.now_ms()


def _read_tried(path: Path) -> _Tried:
    """Return when a backup was last tried; never, if the file is away or is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Tried)
    except (OSError, msgspec.MsgspecError):
        return _Tried()
