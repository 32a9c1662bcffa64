"""Connections to another machine: encrypted or not made at all, checked if there is an authority.

The other machine is this one under a name that only the test knows.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.servers.binaries import postgres_programs_in
from cli.servers.postgres import PostgresServer
from deploy.supabase import migrate
from libs.common.errors import SettingsError, StoreUnavailable
from libs.common.postgres import DatabaseSettings
from services.gateway.store import Store as GatewayStore
from services.writer.store import PostgresStore
from tests.certificates import Certificates, make_certificates
from tests.databases import connected
from tests.servers import Running, temporary_home

HOST = "db.kite.example"
DEBIAN = Path("/usr/lib/postgresql/15/bin")
HOW = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    """An authority, and a certificate for the host's name."""
    with temporary_home() as home:
        yield make_certificates(home, HOST)


@pytest.fixture(scope="module")
def encrypted(certificates: Certificates) -> Iterator[PostgresServer]:
    """A Postgres that speaks TLS, which the one from the wheel cannot."""
    if not DEBIAN.is_dir():
        pytest.skip(f"no Postgres with TLS in {DEBIAN} (Debian: apt install postgresql-15)")
    with temporary_home() as home:
        server = PostgresServer(home, programs=postgres_programs_in(DEBIAN))
        server.prepare()
        account = server.command().account
        if account is not None:
            os.chown(certificates.key, account.uid, account.gid)
        certificates.key.chmod(0o600)
        options = (
            "-c", "ssl=on", "-c", f"ssl_cert_file={certificates.certificate}",
            "-c", f"ssl_key_file={certificates.key}",
        )  # fmt: skip
        with Running(server, home / "postgres.log", extra=("-c", "fsync=off", *options)):
            asyncio.run(migrate.migrate(server.dsn()))
            yield server


@pytest.fixture(autouse=True)
def _name_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host's name lead to this machine, and no environment decide."""
    genuine = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        return genuine("127.0.0.1" if host in (HOST, f"other.{HOST}") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for name in ("KITE_PG_CA_FILE", "KITE_PG_PRIVATE_HOST"):
        monkeypatch.delenv(name, raising=False)


def remote(server: PostgresServer, host: str = HOST, options: str = "") -> str:
    """Return the address of a server as that of another machine."""
    return server.dsn().replace("127.0.0.1", host) + options


def settings(**fields: Any) -> DatabaseSettings:
    """Return settings of whoever connects."""
    return DatabaseSettings(nats_url="", **fields)


async def is_encrypted(dsn: str) -> bool:
    """Connect as the writer does, and ask the server."""
    async with (
        PostgresStore(dsn, connections_max=1, statement_timeout_s=5) as store,
        store._connection() as connection,
    ):
        return bool(await connection.fetchval(HOW))


@pytest.mark.parametrize("options", ["", "?sslmode=require"])
def test_to_another_machine_it_is_encrypted(encrypted: PostgresServer, options: str) -> None:
    """Without a word in the address, too."""
    assert asyncio.run(is_encrypted(settings().secured(remote(encrypted, options=options))))


def test_the_private_host_may_be_plain(postgres: PostgresServer) -> None:
    """The one that is named, as the container of Postgres is, needs no TLS."""
    dsn = settings(pg_private_host=HOST).secured(remote(postgres))
    assert not asyncio.run(is_encrypted(dsn))


def test_a_server_without_tls_is_not_talked_to(postgres: PostgresServer) -> None:
    """Nothing falls back to a plain connection, whoever connects."""
    dsn = settings().secured(remote(postgres))

    async def gateway() -> None:
        async with GatewayStore(dsn) as store:
            await store.ping()

    for attempt in (is_encrypted(dsn), gateway(), migrate.connect(remote(postgres))):
        with pytest.raises(StoreUnavailable, match="rejected SSL upgrade"):
            asyncio.run(attempt)


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "none", ""])
def test_a_plain_connection_is_refused(postgres: PostgresServer, mode: str) -> None:
    """One line that says what to do, and nothing of the address."""
    dsn = remote(postgres, options=f"?sslmode={mode}")
    with pytest.raises(SettingsError, match="KITE_PG_DSN: its sslmode lets") as caught:
        asyncio.run(migrate.connect(dsn))
    assert str(caught.value) == settings().pg_fault(dsn)
    assert HOST not in str(caught.value)


def test_with_an_authority_the_server_is_checked(
    encrypted: PostgresServer, certificates: Certificates
) -> None:
    """Its certificate must be signed by the authority and for the name in the address."""
    known = settings(pg_ca_file=str(certificates.authority))
    assert asyncio.run(is_encrypted(known.secured(remote(encrypted))))
    stranger = settings(pg_ca_file=str(certificates.stranger))
    for wrong in (
        stranger.secured(remote(encrypted)),
        known.secured(remote(encrypted, f"other.{HOST}")),
        # An address cannot ask for less than the setting.
        known.secured(remote(encrypted, f"other.{HOST}", "?sslmode=require")),
    ):
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            asyncio.run(is_encrypted(wrong))


def test_migrations_are_encrypted_by_the_environment(
    encrypted: PostgresServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line takes the authority from the same variable."""
    monkeypatch.setenv("KITE_PG_CA_FILE", str(certificates.stranger))
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        asyncio.run(migrate.connect(remote(encrypted)))
    monkeypatch.setenv("KITE_PG_CA_FILE", str(certificates.authority))

    async def look() -> bool:
        connection = await migrate.connect(remote(encrypted))
        try:
            return bool(await connection.fetchval(HOW))
        finally:
            await connection.close()

    assert asyncio.run(look())


def test_on_this_machine_nothing_changes(postgres: PostgresServer) -> None:
    """Loopback is plain, whatever else is set."""

    async def look() -> bool:
        async with connected(settings(pg_ca_file="/none").secured(postgres.dsn())) as connection:
            return bool(await connection.fetchval(HOW))

    assert not asyncio.run(look())
