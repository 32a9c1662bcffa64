"""A real PgBouncer in front of a database, as hosted projects have a pooler."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.servers.host import choose_port
from tests.servers import temporary_home
from tests.waiting import eventually

__all__ = ["pgbouncer"]

_PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"
_DEADLINE_S = 10.0
_CONFIG = """
[databases]
{database} = host={host} port={port} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 100
server_round_robin = 1
logfile =
"""


@contextmanager
def pgbouncer(*dsns: str, mode: str, size: int = 3) -> Iterator[list[str]]:
    """Yield the same logins to one database through a pooler; skips where there is none.

    It hands out its server connections in turn, so that nobody keeps one by luck.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if program is None:
        pytest.skip("no pgbouncer (Debian: apt install pgbouncer)")
    parts = [urlsplit(dsn) for dsn in dsns]
    port = choose_port()
    with temporary_home() as home:
        users = home / "users.txt"
        users.write_text("".join(f'"{each.username}" "{each.password}"\n' for each in parts))
        config = home / "pgbouncer.ini"
        config.write_text(
            _CONFIG.format(
                database=parts[0].path.strip("/"), host=parts[0].hostname, port=parts[0].port,
                listen=port, users=users, mode=mode, size=size,
            )
        )  # fmt: skip
        process = subprocess.Popen([program, *_as_nobody(home), str(config)])
        try:
            eventually(lambda: _listens(port), _DEADLINE_S, "pgbouncer listens")
            yield [
                dsn.replace(f":{each.port}/", f":{port}/")
                for dsn, each in zip(dsns, parts, strict=True)
            ]
        finally:
            process.terminate()
            process.wait(_DEADLINE_S)


def _as_nobody(home: Path) -> list[str]:
    """Return the option without which it refuses to run as root."""
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam("nobody")
    for path in (home, *home.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    return ["-u", "nobody"]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
