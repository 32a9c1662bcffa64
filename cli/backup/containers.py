"""`docker compose run --rm restore [NAME]`: a backup into the containers' empty servers.

It has what the `init` job has, the administrator's and the owner's passwords, and is run by hand
while nothing but NATS and Postgres is up.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from msgspec import Struct

from cli.backup import restore, work
from cli.backup.manifest import Manifest
from cli.backup.place import open_place
from cli.backup.progress import open_progress
from cli.backup.settings import PlaceSettings
from cli.backup.take import CLOCK_FILE
from deploy import container_files
from deploy.container_files import nats_url
from deploy.init import owner_dsn
from deploy.nats.policy import ADMIN
from deploy.private_files import write_private
from libs.common.clock import SystemClock
from libs.common.errors import KiteError
from libs.common.settings import load

__all__ = ["Settings", "main", "put_back"]


class Settings(Struct, frozen=True, kw_only=True):
    """Where the job finds passwords and backups, and where the simulator keeps its clock.

    `pg_dsn` is a hosted database, used instead of the container's. How it is connected to, the
    connection itself reads from the environment.
    """

    init_dir: str = "/run/kite"
    pg_dsn: str = ""
    pg_ca_file: str = ""
    pg_private_host: str = ""
    pg_pooler: str = ""
    backup_dir: str = "/var/lib/kite/backup"
    backup_clock_file: str = ""


async def put_back(settings: Settings, places: PlaceSettings, name: str) -> Manifest:
    """Restore a backup, the newest if none is named; raises KiteError."""
    credentials = container_files.keep_credentials(Path(settings.init_dir))
    dsn = await owner_dsn(settings.pg_dsn, credentials)
    progress = open_progress(as_json=False)
    root = Path(settings.backup_dir)
    place = await open_place(places.backup_url or str(root / "backups"), places)
    try:
        async with work.checked(place, name, root, progress) as (parts, made):
            admin, clock = nats_url(credentials, ADMIN), SystemClock()
            await restore.into_servers(admin, dsn, parts, made, clock, progress)
            await asyncio.to_thread(_put_clock, parts / "files" / CLOCK_FILE, settings)
            return made
    finally:
        await place.close()


def _put_clock(kept: Path, settings: Settings) -> None:
    """Let the simulated market go on from where it was."""
    if settings.backup_clock_file and kept.exists():
        write_private(Path(settings.backup_clock_file), kept.read_text(encoding="utf-8"))


def main(arguments: list[str]) -> int:
    """Restore the backup that the first argument names; returns the exit code."""
    try:
        settings, places = load(Settings, os.environ), load(PlaceSettings, os.environ)
        made = asyncio.run(put_back(settings, places, arguments[0] if arguments else ""))
    except KiteError as error:
        print(f"restore: {error}", file=sys.stderr)
        return error.exit_code
    print(f"restored {made.name}: {made.rows} rows, {made.messages} messages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
