"""The job that makes the containers' stack ready: `python -m deploy.init [STEP]`.

    secrets    passwords, configurations and logins, into a volume for each container
    ready      roles and schema, streams and consumers, a login at the simulator (the default)
    token      keep the account's token, read from standard input
    live-url   print the address at which anybody may listen to `live.>`

`secrets` comes before the servers, `ready` before the services. Both can be repeated at any time:
what is there stays, what is missing is made. No log line and no error holds a secret; `live-url`
prints one, because that is what it was asked for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from os import environ
from pathlib import Path

import msgspec

from deploy import container_files
from deploy.bootstrap import log_in_to_simulator, make_schema, make_streams, patiently
from deploy.container_files import Given, nats_url, postgres_dsn
from deploy.credentials import Credentials
from deploy.nats.policy import ADMIN, PUBLIC
from deploy.postgres.accounts import make_accounts
from deploy.private_files import explain_os_errors
from deploy.simulated_app import APP_KEY, APP_SECRET
from deploy.simulated_login import LoginError
from deploy.supabase.roles import OWNER, SUPERUSER
from libs.common.bus import topology
from libs.common.errors import KiteError, SettingsError
from libs.common.settings import Port, Positive, load
from libs.common.telemetry import configure_logging, get_logger
from libs.common.token_file import (
    TokenFile,
    TokenInvalid,
    TokenMissing,
    TokenUnsafe,
    private_folder,
)

__all__ = ["Settings", "keep_token", "main", "make_ready", "make_secrets", "owner_dsn"]

_TOKEN_BYTES_MAX = 1 << 20
_NOT_LOGGED_IN = (
    "nobody has logged in to the account yet: docker compose run --rm ingest auth login; ingest "
    "waits for it"
)
_NO_SIMULATOR = (
    "; for your account, set COMPOSE_PROFILES=schwab in .env: --profile on the command line starts "
    "the right containers but tells them nothing"
)


class Settings(Given, frozen=True, kw_only=True):
    """What a person gave, which the job hands on to those who need it; all of it may be empty.

    `pg_dsn` is a hosted database, used instead of the container's; `pg_reader_dsn` is for gateway
    and backup, if they shall log in there with fewer rights. `supabase_url` and
    `supabase_service_key` are for a writer that shall write through the project's REST interface.
    `nats_port` is the one published on the host, `init_dir` the place of the containers' folders.
    Without `grafana_password` one is made.
    """

    init_dir: str = "/run/kite"
    nats_port: Port = 4222
    schwab_token_file: str = "/var/lib/kite/ingest/schwab-token.json"  # noqa: S105 - its place
    stream_bytes_max: Positive = topology.STREAM_BYTES_MAX

    @property
    def root(self) -> Path:
        """The directory of the containers' folders."""
        return Path(self.init_dir)


def make_secrets(settings: Settings) -> None:
    """Write every container's files; raises SettingsError when the account's application lacks."""
    if settings.source == "schwab":
        _require_application(settings)
    container_files.write_all(settings.root, settings)
    get_logger().info("init.secrets_written", partitions=settings.partitions)


def _require_application(settings: Settings) -> None:
    problems = [
        f"KITE_{name}: not set; it is in the app's details on developer.schwab.com"
        for name, value in (
            ("SCHWAB_APP_KEY", settings.schwab_app_key),
            ("SCHWAB_APP_SECRET", settings.schwab_app_secret),
        )
        if not value
    ]
    if problems:
        raise SettingsError(problems)


async def make_ready(settings: Settings, results: topology.ResultSettings) -> None:
    """Make streams, database and login side by side; raises the first KiteError of them."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_make_streams(settings, results))
        tasks.create_task(_make_database(settings))
        tasks.create_task(_log_in(settings))
    get_logger().info("init.ready")


async def _make_streams(settings: Settings, results: topology.ResultSettings) -> None:
    plan = topology.plan(
        settings.partitions,
        settings.source,
        results,
        stream_bytes_max=settings.stream_bytes_max,
    )
    credentials = container_files.keep_credentials(settings.root)
    await make_streams(nats_url(credentials, ADMIN), plan)
    get_logger().info("init.streams_made")


async def owner_dsn(hosted: str, credentials: Credentials) -> str:
    """Return how the schema's owner reaches the database: the hosted one, if a person named one.

    On the container's own, roles and database are made first. Raises StoreUnavailable.
    """
    if hosted:
        return hosted
    await patiently(
        lambda: make_accounts(
            lambda database: postgres_dsn(credentials, SUPERUSER, database), credentials.postgres
        )
    )
    return postgres_dsn(credentials, OWNER)


async def _make_database(settings: Settings) -> None:
    credentials = container_files.keep_credentials(settings.root)
    applied = await make_schema(await owner_dsn(settings.pg_dsn, credentials))
    get_logger().info("init.schema_made", applied=[step.label for step in applied])


async def _log_in(settings: Settings) -> None:
    """Log in at the simulator; for the account a person must, and ingest waits for the token."""
    if settings.source == "schwab":
        _look_for_token(settings)
        return
    try:
        url = container_files.SIMULATOR_URL
        await log_in_to_simulator(url, APP_KEY, APP_SECRET, _token_file(settings))
    except LoginError as error:
        raise LoginError(f"{error}{_NO_SIMULATOR}") from error
    get_logger().info("init.logged_in")


def _look_for_token(settings: Settings) -> None:
    try:
        _token_file(settings).read()
    except TokenMissing:
        get_logger().warning("init.not_logged_in", note=_NOT_LOGGED_IN)
    except TokenInvalid as error:
        get_logger().error("init.token_unusable", reason=str(error))


def keep_token(settings: Settings, content: bytes) -> None:
    """Seal and store the account's token, as schwab-py wrote it.

    Raises SettingsError for anything else, and for a token there that may not be replaced.
    """
    token_file = _token_file(settings)
    try:
        wrapped = msgspec.json.decode(content)
        with explain_os_errors(token_file.path.parent), token_file.locked():
            token_file.write(wrapped)
    except TokenUnsafe as error:
        raise SettingsError([str(error)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, TokenInvalid):
        # Without the decoder's own words, which may hold a piece of the token.
        raise SettingsError(["standard input: not a token file of schwab-py"]) from None
    get_logger().info("init.token_kept")


def _token_file(settings: Settings) -> TokenFile:
    """Return the token's file in the volume that ingest has, which is its alone."""
    path = Path(settings.schwab_token_file)
    with explain_os_errors(path.parent):
        private_folder(path.parent)
    return TokenFile(path, settings.schwab_token_key)


def _print_live_url(settings: Settings) -> None:
    credentials = container_files.keep_credentials(settings.root)
    print(nats_url(credentials, PUBLIC, f"127.0.0.1:{settings.nats_port}"))


def _make_ready(settings: Settings) -> None:
    asyncio.run(make_ready(settings, load(topology.ResultSettings, environ)))


_STEPS: Mapping[str, Callable[[Settings], None]] = {
    "secrets": make_secrets,
    "ready": _make_ready,
    "token": lambda settings: keep_token(settings, sys.stdin.buffer.read(_TOKEN_BYTES_MAX)),
    "live-url": _print_live_url,
}


def main(arguments: list[str]) -> int:
    """Take one step with the environment's settings; returns the exit code."""
    configure_logging("init")
    code = 0
    try:
        name = arguments[0] if arguments else "ready"
        step = _STEPS.get(name)
        if step is None:
            raise SettingsError([f"{name!r} is no step: expected one of {', '.join(_STEPS)}"])
        step(load(Settings, environ))
    except* KiteError as group:
        for error in _leaves(group):
            get_logger().error("init.refused", error=str(error))
            code = error.exit_code
    return code


def _leaves(group: ExceptionGroup[KiteError]) -> list[KiteError]:
    """Return the single errors of a group of groups."""
    found: list[KiteError] = []
    for inner in group.exceptions:
        found += _leaves(inner) if isinstance(inner, ExceptionGroup) else [inner]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
