"""Places to keep backups in: a directory, a real S3 server, a real sshd, each with its settings."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.backup.settings import PlaceSettings
from cli.servers.host import LOOPBACK, choose_port
from tests.servers import temporary_home
from tests.waiting import eventually

__all__ = ["PLACES", "Kept", "s3_server", "ssh_server"]

SSHD = Path("/usr/sbin/sshd")
_START_WITHIN_S = 20.0


@dataclass(frozen=True)
class Kept:
    """An address, what opens it, and where its files lie on this machine."""

    address: str
    settings: PlaceSettings
    files: Path


@contextlib.contextmanager
def directory() -> Iterator[Kept]:
    """A directory that is not there yet."""
    with temporary_home() as home:
        yield Kept(f"{home}/kept/here", PlaceSettings(), home / "kept" / "here")


@contextlib.contextmanager
def s3_server() -> Iterator[Kept]:
    """A server that speaks S3, checks signatures, and keeps objects as files."""
    with temporary_home() as home:
        port, secret = choose_port(), secrets.token_hex(16)
        credentials = {"NANIO_ACCESS_KEY": "kite-test", "NANIO_SECRET_KEY": secret}
        arguments = ("serve", "--data-dir", str(home), "--host", LOOPBACK, "--port", str(port))
        with _running([sys.executable, "-m", "nanio", *arguments], home, port, credentials):
            endpoint = f"http://{LOOPBACK}:{port}"
            (home / "bucket").mkdir(exist_ok=True)
            settings = PlaceSettings(
                backup_s3_endpoint_url=endpoint,
                backup_s3_access_key_id="kite-test",
                backup_s3_secret_access_key=secret,
            )
            yield Kept("s3://bucket/kite", settings, home / "bucket" / "kite")


@contextlib.contextmanager
def ssh_server() -> Iterator[Kept]:
    """An OpenSSH server with throw-away keys, for us alone."""
    if not SSHD.exists() or shutil.which("ssh-keygen") is None:
        pytest.skip(f"no OpenSSH server in {SSHD} (Debian: apt install openssh-server)")
    with temporary_home() as home:
        home.chmod(0o700)
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)], check=True
            )
        port = choose_port()
        (home / "sshd_config").write_text(_sshd_config(home, port), encoding="utf-8")
        (home / "kept").mkdir()
        if os.geteuid() == 0:  # where it locks itself up before the login
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [str(SSHD), "-D", "-e", "-f", str(home / "sshd_config")]
        with _running(command, home, port, {}):
            settings = PlaceSettings(
                backup_ssh_key=(home / "user").read_text(encoding="utf-8"),
                backup_ssh_host_key=(home / "host.pub").read_text(encoding="utf-8"),
            )
            address = f"ssh://{getpass.getuser()}@{LOOPBACK}:{port}{home}/kept/here"
            yield Kept(address, settings, home / "kept" / "here")


def _sshd_config(home: Path, port: int) -> str:
    lines = {
        "Port": port,
        "ListenAddress": LOOPBACK,
        "HostKey": home / "host",
        "AuthorizedKeysFile": home / "user.pub",
        "PidFile": home / "sshd.pid",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "StrictModes": "no",
        "UsePAM": "no",
        "Subsystem": "sftp internal-sftp",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


@contextlib.contextmanager
def _running(
    command: list[str], home: Path, port: int, environment: dict[str, str]
) -> Iterator[None]:
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **environment}
        )
    try:
        eventually(lambda: _listens(port), _START_WITHIN_S, f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(_START_WITHIN_S)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
        return True
    return False


PLACES = {"directory": directory, "s3": s3_server, "ssh": ssh_server}
