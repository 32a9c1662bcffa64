"""`./kite db backup|restore|verify|backups`: which servers and which place, and what is said."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from cli.backup import retention, work
from cli.backup.errors import BackupDamaged
from cli.backup.manifest import Manifest, made_ms_of
from cli.backup.place import Place, open_place
from cli.backup.progress import open_progress
from cli.backup.restore import into_servers
from cli.backup.settings import PlaceSettings
from cli.backup.take import CLOCK_FILE, Source
from cli.control import current_state
from cli.home import Home, Store
from cli.state import NotRunningError
from deploy.credentials import load_credentials
from deploy.nats.policy import BACKUP
from deploy.supabase.roles import BACKUP_ROLE, LOGIN_ROLES
from libs.common.clock import SystemClock
from libs.common.errors import SettingsError
from libs.common.settings import load

__all__ = ["run_backup", "run_list", "run_restore", "run_verify"]

_T = TypeVar("_T")


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Servers that `./kite up` does not run; both or none."""

    nats_url: str = ""
    pg_dsn: str = ""


def run_backup(home: Home, address: str, *, retain: str, verify: bool, as_json: bool) -> None:
    """Make a backup of the running stack, or of the servers that the environment names."""
    policy = retention.parse(retain) if retain else None
    source = _source(home)
    progress = open_progress(as_json=as_json)

    async def act(place: Place) -> tuple[Manifest, list[str]]:
        made = await work.back_up(source, place, home.root, SystemClock(), progress)
        if verify:
            await work.check(place, made.name, home.root, progress)
        removed = await work.prune(place, policy) if policy else []
        return made, list(removed)

    made, removed = _at(home, address, act)
    if as_json:
        _print_json({"backup": made.name, **_facts(made), "removed": removed})
        return
    print(f"{made.name}: {_words(made)}, {made.duration_ms / 1000:.1f} s")
    for name in removed:
        print(f"removed {name}")


def run_list(home: Home, address: str, *, as_json: bool) -> None:
    """List the whole backups of a place, oldest first."""

    async def act(place: Place) -> tuple[str, list[tuple[str, Manifest | None]]]:
        found: list[tuple[str, Manifest | None]] = []
        for name in await place.names():
            made = None
            with suppress(BackupDamaged):
                made = await work.find(place, name)
            found.append((name, made))
        return place.label, found

    label, found = _at(home, address, act)
    if as_json:
        _print_json(
            [{"backup": name, **(_facts(made) if made else {"damaged": True})}
             for name, made in found]
        )  # fmt: skip
        return
    if not found:
        print(f"there is no backup in {label}")
        return
    from cli.output import console, duration, size, table

    now_ms = SystemClock().now_ms()
    shown = table("backup", "age", "size", "rows", "messages", right=("age", "size", "rows"))
    for name, made in found:
        age = duration(max(0, now_ms - made_ms_of(name)) / 1000)
        rest = (
            (size(made.size_bytes), f"{made.rows}", f"{made.messages}")
            if made
            else ("damaged", "", "")
        )
        shown.add_row(name, age, *rest)
    console().print(shown)


def run_verify(home: Home, address: str, *, name: str, deep: bool, as_json: bool) -> None:
    """Check a backup's bytes; deep: restore it into servers of its own and compare."""
    progress = open_progress(as_json=as_json)
    clock = SystemClock()
    began_ms = clock.now_ms()

    async def act(place: Place) -> Manifest:
        if deep:
            return await work.try_restore(place, name, home, clock, progress)
        return await work.check(place, name, home.root, progress)

    made = _at(home, address, act)
    took_s = (clock.now_ms() - began_ms) / 1000
    if as_json:
        facts = {"backup": made.name, "whole": True, "restored": deep, "seconds": took_s}
        _print_json({**facts, **_facts(made)})
        return
    how = "restored and compared" if deep else "every part is whole"
    print(f"{made.name}: {how}: {_words(made)}, {took_s:.1f} s")


def run_restore(home: Home, address: str, *, name: str, as_json: bool) -> None:
    """Restore into a new store of the home, or into the servers that the environment names."""
    servers = load(ServerSettings, os.environ)
    if bool(servers.nats_url) != bool(servers.pg_dsn):
        raise SettingsError(["set both KITE_NATS_URL and KITE_PG_DSN, or none of them"])
    progress = open_progress(as_json=as_json)
    clock = SystemClock()
    began_ms = clock.now_ms()

    async def act(place: Place) -> tuple[str, Manifest]:
        if servers.nats_url:
            async with work.checked(place, name, home.root, progress) as (root, made):
                nats_url, dsn = servers.nats_url, servers.pg_dsn
                await into_servers(nats_url, dsn, root, made, clock, progress)
                return "the servers", made
        store, made = await work.restore_home(place, name, home, clock, progress)
        return str(store), made

    where, made = _at(home, address, act)
    took_s = (clock.now_ms() - began_ms) / 1000
    if as_json:
        _print_json({"backup": made.name, "into": where, "seconds": took_s, **_facts(made)})
        return
    print(f"restored {made.name} into {where}: {_words(made)}, {took_s:.1f} s")


def _source(home: Home) -> Source:
    """Find what to back up: the servers of the environment, or the running stack's."""
    servers = load(ServerSettings, os.environ)
    if servers.nats_url and servers.pg_dsn:
        return Source(nats_url=servers.nats_url, pg_dsn=servers.pg_dsn)
    if servers.nats_url or servers.pg_dsn:
        raise SettingsError(["set both KITE_NATS_URL and KITE_PG_DSN, or none of them"])
    try:
        state = current_state(home)
    except NotRunningError as error:
        raise NotRunningError(
            f"{error}, or name servers in KITE_NATS_URL and KITE_PG_DSN"
        ) from error
    root = Path(state.store or "")
    kept = load_credentials(root, nats_users=(BACKUP,), postgres_users=LOGIN_ROLES)
    nats, postgres = urlsplit(state.nats or ""), urlsplit(state.postgres or "")
    identity = Store(root).identity()
    return Source(
        nats_url=f"nats://{BACKUP}:{kept.nats[BACKUP]}@{nats.hostname}:{nats.port}",
        pg_dsn=f"postgresql://{BACKUP_ROLE}:{kept.postgres[BACKUP_ROLE]}@{postgres.hostname}"
        f":{postgres.port}{postgres.path}",
        store=root.relative_to(home.root).as_posix(),
        csv_sha256=identity.csv_sha256 if identity else "",
        files={CLOCK_FILE: root / CLOCK_FILE},
    )


def _at(home: Home, address: str, act: Callable[[Place], Awaitable[_T]]) -> _T:
    """Open the place that was named, in the command or the environment, and do something there."""
    settings = load(PlaceSettings, os.environ)

    async def run() -> _T:
        chosen = address or settings.backup_url or str(home.root / "backups")
        place = await open_place(chosen, settings)
        try:
            return await act(place)
        finally:
            await place.close()

    return asyncio.run(run())


def _facts(made: Manifest) -> dict[str, object]:
    return {
        "made_ms": made.made_ms,
        "duration_ms": made.duration_ms,
        "bytes": made.size_bytes,
        "rows": made.rows,
        "messages": made.messages,
        "source": made.source,
        "store": made.store,
        "digest": made.digest,
    }


def _words(made: Manifest) -> str:
    from cli.output import size

    return f"{made.rows} rows, {made.messages} messages, {size(made.size_bytes)}"


def _print_json(value: object) -> None:
    print(msgspec.json.encode(value).decode())
    sys.stdout.flush()
