"""What a backup needs to know: where it goes, and for the service what, when and how long."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from cli.backup import retention, schedule
from libs.common.errors import SettingsError
from libs.common.postgres import DatabaseSettings

__all__ = ["PlaceSettings", "Settings"]


class PlaceSettings(Struct, frozen=True, kw_only=True):
    """Where backups go, and how to get in there.

    `backup_url` is a directory, `s3://bucket/prefix` or `ssh://user@host:port/path`. For S3 the key
    and its secret; `backup_s3_endpoint_url` names a server other than Amazon's. For ssh
    `backup_ssh_key` is a private key without a passphrase, otherwise the agent's and the user's own
    are tried; `backup_ssh_host_key` is the host's public key as `ssh-keyscan` prints it, if it does
    not stand in the user's `known_hosts`.
    """

    backup_url: str = ""
    backup_s3_endpoint_url: str = ""
    backup_s3_region: str = "us-east-1"
    backup_s3_access_key_id: str = ""
    backup_s3_secret_access_key: str = ""
    backup_ssh_key: str = ""
    backup_ssh_host_key: str = ""


class Settings(DatabaseSettings, frozen=True, kw_only=True):
    """What is backed up, when, and what is kept.

    `nats_url` is that of the user `backup`, `pg_dsn` that of the role `kite_backup`, or of another
    which may read everything.
    `backup_at` is a time of day in New York; one that was missed is made up for at once. Every
    backup is read back from its place and each byte compared; after `backup_restore_days` days one
    is restored into servers of its own as well, 0 turns that off. `backup_retain` says what is
    kept, such as `last=3,daily=7,weekly=5`. `backup_dir` holds what is being made, tried, and the
    backups themselves if KITE_BACKUP_URL names no other place. `backup_clock_file` is where the
    simulator keeps its clock, if there is one.
    """

    pg_dsn: str
    backup_at: str = "20:30"
    backup_retain: str = "last=3,daily=7,weekly=5"
    backup_restore_days: Annotated[int, Meta(ge=0, le=366)] = 7
    backup_dir: str = "/var/lib/kite/backup"
    backup_clock_file: str = ""

    def __post_init__(self) -> None:
        """Refuse a time that is none and a policy that keeps nothing."""
        try:
            schedule.parse_time(self.backup_at)
        except ValueError as error:
            raise ValueError(f"KITE_BACKUP_AT: {error}") from error
        try:
            retention.parse(self.backup_retain)
        except SettingsError as error:
            raise ValueError(f"KITE_BACKUP_RETAIN: {error}") from error
