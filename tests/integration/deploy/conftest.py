"""Releases of a scratch checkout, made as `make release` makes them, and a host to put them on.

Releases, and a host on which the first one was installed, are made once a session and copied.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.release.__main__ import make
from tests.integration.deploy.host import REPOSITORY, Daemon, Host
from tests.servers import temporary_home

OLDER, NEWER, NEWEST = "1.0.0", "1.1.0", "1.2.0"
SECRET = "hunter2-and-more"
SHIPPED = (
    "docker-compose.yml",
    "LICENSE",
    "pyproject.toml",
    "dashboard/package-lock.json",
    "deploy/docker/notify.toml",
)
ADDS = "create table public.more (id bigint primary key);\n"
REMOVES = "alter table public.more drop column id;\n"


@dataclass
class Shop:
    """The operator's side: a checkout, its releases, and the Docker that holds their images."""

    checkout: Path
    docker: Daemon

    @property
    def settings(self) -> Path:
        """What becomes the host's .env."""
        return self.checkout.parent / "settings"

    def made(self, version: str) -> Path:
        """A release that was made."""
        return self.checkout / "dist" / version

    def release(self, version: str, migration: str = "") -> Path:
        """Commit the next version, with a migration if given, and make its release."""
        project = self.checkout / "pyproject.toml"
        text = re.sub(r'^version = ".*"', f'version = "{version}"', project.read_text(), flags=re.M)
        project.write_text(text)
        changelog = self.checkout / "CHANGELOG.md"
        older = changelog.read_text() if changelog.exists() else "# Changelog\n"
        changelog.write_text(f"{older}\n## [{version}] - 2027-01-04\n\n- What is new.\n")
        if migration:
            folder = self.checkout / "deploy" / "supabase" / "migrations"
            number = len(list(folder.iterdir())) + 1
            (folder / f"202701010000{number:02}_step.sql").write_text(migration)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", version)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{self.docker.programs}:{os.environ['PATH']}")
            return make(self.checkout)

    def git(self, *arguments: str) -> None:
        """Run git in the checkout."""
        who = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=self.checkout, check=True)

    def copy(self, folder: Path, docker: Daemon) -> Shop:
        """The same elsewhere, with the same images in another Docker."""
        shutil.copytree(self.checkout, folder)
        shutil.copy(self.settings, folder.parent)
        docker.learn(self.docker)
        return Shop(folder, docker)


@pytest.fixture(scope="session")
def first_shop() -> Iterator[Shop]:
    """A checkout of ours, cut down to what a release needs, and three releases of it."""
    with temporary_home() as scratch:
        checkout = scratch / "checkout"
        for name in SHIPPED:
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, checkout / name)
        for name in ("prometheus/rules", "alertmanager", "supabase/migrations"):
            shutil.copytree(REPOSITORY / "deploy" / name, checkout / "deploy" / name)
        (checkout / ".gitignore").write_text("/dist/\n")
        (scratch / "bin").mkdir()
        shop = Shop(checkout, Daemon(scratch / "docker", scratch / "bin"))
        shop.settings.write_text(f"COMPOSE_PROFILES=nano\nKITE_SCHWAB_APP_SECRET={SECRET}\n")
        shop.git("init", "--quiet")
        shop.release(OLDER)
        shop.release(NEWER, ADDS)
        # The first one that does without what 1.1.0 still has, and no longer 1.0.0.
        shop.release(NEWEST, f"-- contract: needs {NEWER}\n{REMOVES}")
        yield shop


@pytest.fixture(scope="session")
def first_host(first_shop: Shop) -> Iterator[Host]:
    """A host with the first release on it; it is copied, and never used."""
    with temporary_home() as scratch:
        with Host(scratch) as host:
            shop = first_shop.copy(scratch / "checkout", host.own_docker)
            done = host.deploy(
                "install", "--release", str(shop.made(OLDER)), "--env", str(shop.settings)
            )
            assert done.returncode == 0, done.stdout
        yield host


@pytest.fixture
def host() -> Iterator[Host]:
    """A fresh machine, on which nothing is installed."""
    with temporary_home() as scratch, Host(scratch) as ready:
        yield ready


@pytest.fixture
def shop(host: Host, first_shop: Shop) -> Shop:
    """The operator's side, for this test alone."""
    return first_shop.copy(host.scratch / "checkout", host.own_docker)


@pytest.fixture
def older(shop: Shop) -> Path:
    """The first release."""
    return shop.made(OLDER)


@pytest.fixture
def newer(shop: Shop) -> Path:
    """The second release, with a new table."""
    return shop.made(NEWER)


@pytest.fixture
def installed(host: Host, first_host: Host, older: Path) -> Path:
    """The first release, running on the host; its journal is empty."""
    host.become(first_host)
    return older
