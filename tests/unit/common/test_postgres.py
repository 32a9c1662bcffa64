"""Addresses of databases: which stay on this machine, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libs.common.postgres import DatabaseSettings, secured


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:p@127.0.0.1:5432/kite", "postgres://u:p@localhost/kite?sslmode=disable",
        "postgresql://u:p@[::1]:5432/kite", "postgresql:///kite?host=/var/run/postgresql",
        "postgresql://u:p@%2Fvar%2Frun%2Fpostgresql/kite", "postgresql:///kite",
        "postgresql://u:p@127.0.0.1:5432,localhost:5433/kite",
    ],
)  # fmt: skip
def test_what_stays_here_is_left_alone(dsn: str) -> None:
    """Loopback and sockets need no TLS."""
    assert secured(dsn) == dsn


@pytest.mark.parametrize(
    ("dsn", "wanted"),
    [
        ("postgresql://u:p@db.example/kite", "postgresql://u:p@db.example/kite?sslmode=require"),
        ("postgresql://u:p@10.0.0.5/k?a=b%20c", None),
        ("postgresql://u:p@h/k?sslmode=verify-full", "postgresql://u:p@h/k?sslmode=verify-full"),
        ("postgresql://u:p%40x@H/k", "postgresql://u:p%40x@H/k?sslmode=require"),
        ("postgresql:///k?host=db.example", None),
        ("postgresql://u:p@127.0.0.1,h/k", "postgresql://u:p@127.0.0.1,h/k?sslmode=require"),
        ("postgresql://u:p@localhost.net/k", "postgresql://u:p@localhost.net/k?sslmode=require"),
        ("postgresql://u:p@0.0.0.0/k", "postgresql://u:p@0.0.0.0/k?sslmode=require"),
    ],
)  # fmt: skip
def test_what_leaves_is_encrypted(dsn: str, wanted: str | None) -> None:
    """One host elsewhere among several is enough; the rest of the address stays as it is."""
    found = secured(dsn)
    assert "sslmode=" in found
    if wanted is not None:
        assert found == wanted


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "REQUIRE", "no"])
def test_plain_to_another_machine_is_refused(mode: str) -> None:
    """Whatever may end unencrypted is; the line holds neither password nor host."""
    with pytest.raises(ValueError, match="use require or verify-full") as caught:
        secured(f"postgresql://u:hidden@db.example/kite?sslmode={mode}")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "hidden", "mysql://u:hidden@h/d", "postgresql://u:hidden@h:port/d", "http://h",
        "postgresql://u:hidden@h:0/d", "postgresql://u:hidden@[half/d", "postgresql://h:99999/d",
        "",
    ],
)  # fmt: skip
def test_what_is_no_address(dsn: str) -> None:
    """Refused in words that do not show it."""
    with pytest.raises(ValueError, match="not a Postgres address") as caught:
        secured(dsn)
    assert "hidden" not in str(caught.value)


def test_an_authority_is_used_for_other_machines(tmp_path: Path) -> None:
    """It turns into a full check, unless its file cannot be read, which is said."""
    file = tmp_path / "ca one.pem"
    with pytest.raises(ValueError, match=r"KITE_PG_CA_FILE: .*No such file"):
        secured("postgresql://u:p@h/k", ca_file=str(file))
    file.write_text("-")
    found = secured("postgresql://u:p@h/k?sslmode=require", ca_file=str(file))
    assert "sslmode=verify-full" in found
    assert "sslrootcert=%2F" in found or "ca%20one.pem" in found


def test_the_private_host_is_one_host() -> None:
    """A plain connection is allowed to it, and to nobody else."""
    assert secured("postgresql://u:p@postgres:5432/k", private_host="Postgres").endswith("/k")
    with pytest.raises(ValueError, match="sslmode"):
        secured("postgresql://u:p@h/k?sslmode=disable", private_host="postgres")


@pytest.mark.parametrize(
    ("dsn", "pooler", "wanted"),
    [
        ("postgresql://u:p@aws-0-x.pooler.supabase.com:6543/postgres", "session", True),
        ("postgresql://u:p@aws-0-x.pooler.supabase.com:5432/postgres", "session", False),
        ("postgresql://u:p@127.0.0.1:6432/postgres", "transaction", True),
    ],
)
def test_which_pooler(dsn: str, pooler: str, wanted: bool) -> None:
    """Port 6543 is Supabase's transaction pooler; any other is said."""
    fields: dict[str, Any] = {"nats_url": "", "pg_pooler": pooler}
    settings = DatabaseSettings(**fields)
    assert settings.by_transaction(dsn) is wanted
