"""What the containers find in their own small volumes: configurations, logins, addresses.

One folder a container, and each container mounts its own alone: whoever breaks into one reads no
other's password. Everything can be written again; passwords that exist are kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.credentials import Credentials, load_credentials
from deploy.nats import config as nats_config
from deploy.nats.policy import BACKUP, OPERATOR, USERS, permissions
from deploy.postgres import config as postgres_config
from deploy.private_files import write_private
from deploy.simulated_app import APP_KEY, APP_SECRET
from deploy.supabase.roles import (
    BACKUP_ROLE,
    DATABASE,
    GATEWAY_ROLE,
    LOGIN_ROLES,
    OWNER,
    READER,
    SUPERUSER,
)
from libs.common.postgres import DatabaseSettings
from libs.common.sealing import Key

__all__ = [
    "NATS_DATA",
    "POSTGRES_MAJOR",
    "SIMULATOR_URL",
    "Given",
    "keep_credentials",
    "nats_url",
    "postgres_dsn",
    "write_all",
]

POSTGRES_MAJOR: Final = 17
NATS_DATA: Final = Path("/var/lib/kite/nats")
SIMULATOR_URL: Final = "http://simulator:8700"

_NATS_PORT, _NATS_MONITOR_PORT = 4222, 8222
_POSTGRES_PORT = 5432
_POSTGRES_SOCKETS = "/var/run/postgresql"
# Who is inside the container of Postgres may read: whoever gets there owns the data anyway.
_READER_INSIDE = f"local {DATABASE} {READER} trust"
_EVERYBODY_INSIDE = "local all all scram-sha-256"
_PASSWORD_BYTES = 18
# For images that run under an account of their own; only they mount the volume.
_READABLE = 0o444
_OURS = 0o400


class Given(DatabaseSettings, frozen=True, kw_only=True):
    """What only a person can know (`deploy/init.py`); empty where the demo needs nothing of it."""

    nats_url: str = ""
    pg_dsn: str = ""
    pg_reader_dsn: str = ""
    supabase_url: str = ""
    supabase_service_key: str = ""
    schwab_app_key: str = ""
    schwab_app_secret: str = ""
    schwab_token_key: str = ""
    gateway_password: str = ""
    gateway_password_hash: str = ""
    grafana_password: str = ""
    backup_url: str = ""
    backup_s3_endpoint_url: str = ""
    backup_s3_access_key_id: str = ""
    backup_s3_secret_access_key: str = ""
    backup_ssh_key: str = ""
    backup_ssh_host_key: str = ""


@dataclass(frozen=True)
class _File:
    folder: str
    name: str
    text: str
    mode: int = _OURS


def keep_credentials(root: Path) -> Credentials:
    """Return all passwords, making those that are missing; raises ServerError."""
    return load_credentials(root / "init", nats_users=USERS, postgres_users=LOGIN_ROLES)


def nats_url(credentials: Credentials, user: str, host: str = f"nats:{_NATS_PORT}") -> str:
    """Return how `user` reaches NATS, from a container unless `host` says otherwise."""
    return f"nats://{user}:{credentials.nats[user]}@{host}"


def postgres_dsn(credentials: Credentials, role: str, database: str = DATABASE) -> str:
    """Return how `role` reaches Postgres from a container."""
    login = f"{role}:{credentials.postgres[role]}"
    return f"postgresql://{login}@postgres:{_POSTGRES_PORT}/{database}"


def write_all(root: Path, given: Given) -> None:
    """Write every container's files below `root`, of which each folder is a volume.

    Raises ServerError when a volume cannot be written.
    """
    credentials = keep_credentials(root)
    for file in (
        *_servers(credentials, given.partitions),
        *_services(credentials, given),
        *_account(root, given),
        *_backup(credentials, given),
        _File("gateway", "password", given.gateway_password),
        _File("gateway", "password-hash", given.gateway_password_hash),
        _File("grafana", "admin-password", _grafana_password(root, given), _READABLE),
    ):
        path = root / file.folder / file.name
        write_private(path, f"{file.text.rstrip()}\n")
        path.chmod(file.mode)


def _servers(credentials: Credentials, partitions: int) -> Iterator[_File]:
    options = nats_config.ServerOptions(
        name=f"kite-{credentials.server_id}",
        listen=f"0.0.0.0:{_NATS_PORT}",
        # For the health check, which runs in the same container.
        monitor=f"127.0.0.1:{_NATS_MONITOR_PORT}",
        store_dir=str(NATS_DATA),
        max_file_store_bytes=nats_config.MAX_FILE_STORE_BYTES,
    )
    text = nats_config.server_config(options, permissions(partitions), credentials.nats)
    yield _File("nats", "nats-server.json", text)
    text = postgres_config.server_config(
        "*", _POSTGRES_PORT, POSTGRES_MAJOR, sockets=_POSTGRES_SOCKETS
    )
    yield _File("postgres", "postgresql.conf", text, _READABLE)
    text = postgres_config.host_based_access("all", _READER_INSIDE, _EVERYBODY_INSIDE)
    yield _File("postgres", "pg_hba.conf", text, _READABLE)
    yield _File("postgres", "password", credentials.postgres[SUPERUSER], _READABLE)


def _services(credentials: Credentials, given: Given) -> Iterator[_File]:
    for user in ("ingest", "indicators", "signals", "writer", "gateway", "notifier", OPERATOR):
        yield _File(user, "nats-url", nats_url(credentials, user))
    # Empty where the database is ours: then there are roles to be made as well.
    yield _File("init", "pg-dsn", given.pg_dsn)
    owner = given.pg_dsn or postgres_dsn(credentials, OWNER)
    reader = given.pg_reader_dsn or given.pg_dsn or postgres_dsn(credentials, GATEWAY_ROLE)
    yield _File("writer", "pg-dsn", owner)
    yield _File("writer", "supabase-url", given.supabase_url)
    yield _File("writer", "supabase-service-key", given.supabase_service_key)
    yield _File("gateway", "pg-dsn", reader)


def _account(root: Path, given: Given) -> Iterator[_File]:
    """Let ingest know the broker's application: the person's own, or the simulator's.

    The token's key is made once, unless a person gave one; `init` needs it as well, to keep a token
    that was handed over.
    """
    key = given.schwab_token_key or _kept(root / "ingest" / "token-key") or Key.new().text
    yield _File("ingest", "token-key", key)
    yield _File("init", "token-key", key)
    real = given.source == "schwab"
    yield _File("ingest", "app-key", given.schwab_app_key if real else APP_KEY)
    yield _File("ingest", "app-secret", given.schwab_app_secret if real else APP_SECRET)
    # Empty means Schwab itself.
    yield _File("ingest", "base-url", "" if real else SIMULATOR_URL)


def _backup(credentials: Credentials, given: Given) -> Iterator[_File]:
    """Let the backup read everything and write nothing, but for the place that a person gave."""
    yield _File("backup", "nats-url", nats_url(credentials, BACKUP))
    hosted = given.pg_reader_dsn or given.pg_dsn
    yield _File("backup", "pg-dsn", hosted or postgres_dsn(credentials, BACKUP_ROLE))
    yield _File("backup", "url", given.backup_url)
    yield _File("backup", "s3-endpoint-url", given.backup_s3_endpoint_url)
    yield _File("backup", "s3-access-key-id", given.backup_s3_access_key_id)
    yield _File("backup", "s3-secret-access-key", given.backup_s3_secret_access_key)
    yield _File("backup", "ssh-key", given.backup_ssh_key)
    yield _File("backup", "ssh-host-key", given.backup_ssh_host_key)


def _grafana_password(root: Path, given: Given) -> str:
    """Return the password of Grafana's `admin`: the one given, the one kept, or a new one."""
    kept = _kept(root / "grafana" / "admin-password")
    return given.grafana_password or kept or secrets.token_urlsafe(_PASSWORD_BYTES)


def _kept(path: Path) -> str:
    """Return what stands in a file of ours, nothing if it is not there."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
