"""Deployment with a real Docker: install, update under load, back from what does not run.

The host is a container of its own: Debian with sshd and Docker's client, whose files lie in a
scratch directory. What would change a machine is pretended; the daemon is this machine's. So that
images really travel, they lie on a shelf after they were made, and the daemon forgets them. Needs a
Docker daemon (`make containers`), and root.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.servers.host import choose_port
from deploy.release.__main__ import make
from tests.containers import standins
from tests.containers.project import compose_command, compose_program, docker, own_settings
from tests.integration.deploy.host import REPOSITORY, Host
from tests.servers import temporary_home
from tests.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3_600)]

VERSIONS = ("901.0.0", "901.1.0", "901.2.0")
ADDS = "create table public.kite_test_more (id bigint primary key);\n"
BROKEN = "raise SystemExit('broken on purpose')\n"
PORTS = ("GATEWAY", "NATS", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")
# Services that no switch of releases waits for; without them a release is half as large.
LEFT_OUT = ("notifier", "backup", "restore", "export", "cli")
WITHIN_S = 120
HEALTHY_WITHIN_S = 60
# Most of it is packing and unpacking images, two gigabytes for a release.
DEPLOYED_WITHIN_S = 900
SAVE_WAIT_S = 600
ASKED = (
    "{{json .RootFS.Layers}}{{json .Config.Labels}}",
    "{{.Architecture}}",
    "{{.Size}}",
)
# The operator's Docker: it has the images that lie on the shelf, and can hand them out.
SHELF = """
import json, pathlib, shutil, sys
folder, *words = sys.argv[1:]
known = json.loads((pathlib.Path(folder) / "known.json").read_text())
match words:
    case ["image", "inspect", "--format", template, name] if name in known:
        print(known[name]["answers"][template])
    case ["image", "inspect", name] if name in known:
        print("[]")
    case ["save", name]:
        with open(known[name]["file"], "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    case _:
        sys.exit("the shelf does not know: " + " ".join(words))
"""


class Operator:
    """A clone of this checkout, its releases, and the shelf with their images."""

    def __init__(self, host: Host) -> None:
        """Clone, and put the shelf in the place of the operator's Docker."""
        self.host = host
        self.clone = host.scratch / "clone"
        self.shelf = host.scratch / "shelf"
        self.shelf.mkdir()
        self._known: dict[str, object] = {}
        self.git("clone", "--quiet", str(REPOSITORY), str(self.clone), where=host.scratch)
        self._leave_out()
        (self.shelf / "shelf.py").write_text(SHELF)
        program = host.own_docker.programs / "docker"
        program.write_text(
            f'#!/bin/sh\nexec {sys.executable} {self.shelf}/shelf.py {self.shelf} "$@"\n'
        )

    def _leave_out(self) -> None:
        compose = self.clone / "docker-compose.yml"
        names = "|".join(LEFT_OUT)
        text, count = re.subn(
            rf"^  ({names}):\n(    .*\n|\n)+", "", compose.read_text(), flags=re.MULTILINE
        )
        assert count == len(LEFT_OUT)
        compose.write_text(text)

    def git(self, *arguments: str, where: Path | None = None) -> None:
        """Run git in the clone."""
        who = ("-c", "safe.directory=*", "-c", "user.name=A", "-c", "user.email=a@example.com")
        subprocess.run(["git", *who, *arguments], cwd=where or self.clone, check=True)

    def release(self, version: str, **files: str) -> Path:
        """Commit `files` under a version, make the release, and lay its images on the shelf."""
        for name, text in files.items():
            (self.clone / name).write_text(text)
        project = self.clone / "pyproject.toml"
        text = re.sub(r'^version = ".*"', f'version = "{version}"', project.read_text(), flags=re.M)
        project.write_text(text)
        changelog = self.clone / "CHANGELOG.md"
        changelog.write_text(f"{changelog.read_text()}\n## [{version}]\n\n- A test.\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", version)
        made = make(self.clone, network="host")
        for line in (made / "images.tsv").read_text().splitlines():
            name, noted = line.split("\t")
            self._lay_down(name, forget=noted != "-")
        return made

    def _lay_down(self, name: str, forget: bool) -> None:
        if name in self._known:
            return
        file = self.shelf / f"{len(self._known)}.tar"
        docker("save", "--output", str(file), name, wait_s=SAVE_WAIT_S)
        answers = {
            each: docker("image", "inspect", "--format", each, name).rstrip("\n") for each in ASKED
        }
        self._known[name] = {"file": str(file), "answers": answers}
        (self.shelf / "known.json").write_text(json.dumps(self._known))
        if forget:
            docker("image", "rm", name)


class Stack:
    """What runs on the host, as a person sees it there."""

    def __init__(self, host: Host, name: str) -> None:
        """Of one Compose project."""
        self.host = host
        self.name = name

    def compose(self, *arguments: str) -> str:
        """What Compose says in the folder of the current release."""
        place = (self.host.home / "current").resolve()
        command = [*compose_command(), "-p", self.name, "--project-directory", str(place)]
        files = ["--file", f"{place}/docker-compose.yml", "--env-file", f"{self.host.home}/.env"]
        return subprocess.run(
            [*command, *files, *arguments], capture_output=True, text=True, check=True, timeout=120
        ).stdout

    def number(self, query: str) -> int:
        """What the database answers."""
        psql = ("psql", "-U", "kite_reader", "-d", "kite", "-At", "-c", query)
        return int(self.compose("exec", "-T", "postgres", *psql))

    def rows(self) -> int:
        """How many trades are stored."""
        return self.number("SELECT count(*) FROM equity_data")

    def versions(self) -> set[str]:
        """Which releases our containers run, jobs left aside."""
        names = ("simulator", "ingest", "indicators", "signals", "writer", "gateway")
        listed = (self.compose("ps", "--quiet", each).strip() for each in names)
        images = (docker("inspect", "--format", "{{.Config.Image}}", each) for each in listed)
        return {image.strip().rpartition(":")[2] for image in images}

    def remove(self) -> None:
        """Leave nothing behind, volumes included: the project's name is ours alone."""
        if (self.host.home / "current").exists():
            self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        for version in VERSIONS:
            mine = docker("image", "ls", "--quiet", "--filter", f"reference=alpha-kite/*:{version}")
            if mine.split():
                docker("image", "rm", "--force", *sorted(set(mine.split())))


class ContainerHost(Host):
    """A host that is a container: it sees its scratch directory, and this machine's daemon."""

    def __init__(self, scratch: Path) -> None:
        """Give it Docker and Compose in the place of the pretended ones."""
        super().__init__(scratch, wait_s=HEALTHY_WITHIN_S, command_wait_s=DEPLOYED_WITHIN_S)
        self._name = f"kite-test-host-{secrets.token_hex(4)}"
        self._daemon = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        compose = (scratch / "docker-compose").resolve()
        shutil.copy(compose_program(), compose)
        # A login over ssh brings nothing of sshd's environment along.
        (self.docker.programs / "docker").write_text(
            f"#!/bin/sh\nexport DOCKER_HOST={shlex.quote(self._daemon)}\n"
            f'[ "$1" != compose ] || {{ shift; exec {compose} "$@"; }}\n'
            'exec /usr/bin/docker "$@"\n'
        )

    def sshd_command(self) -> list[str]:
        """In the container, at the same address and with the same files as outside."""
        if os.geteuid() != 0 or not self._daemon.startswith("unix://"):
            pytest.skip("only root makes the image of a host, and only for a daemon that is here")
        socket = self._daemon.removeprefix("unix://")
        mounts = (f"--volume={place}:{place}" for place in (self.scratch, socket))
        image = standins.host_image()
        return ["docker", "run", "--rm", f"--name={self._name}", "--network=host",
                "--tmpfs=/run/sshd:mode=0755", *mounts, image, "/usr/sbin/sshd"]  # fmt: skip

    def stop(self) -> None:
        """Let nobody in any more."""
        docker("rm", "--force", self._name)
        super().stop()


@pytest.fixture
def host(images: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A machine whose Docker is this one's."""
    for name, value in own_settings().items():
        monkeypatch.setenv(name, value)
    with temporary_home() as scratch, ContainerHost(scratch) as prepared:
        yield prepared


@pytest.fixture
def stack(host: Host) -> Iterator[Stack]:
    """The demo under a name and on ports of its own."""
    name = f"kite-test-{secrets.token_hex(4)}"
    ports = "".join(f"KITE_{each}_PORT={choose_port()}\n" for each in PORTS)
    (host.scratch / "settings").write_text(f"COMPOSE_PROJECT_NAME={name}\n{ports}")
    stack = Stack(host, name)
    try:
        yield stack
    finally:
        stack.remove()


def test_install_update_under_load_and_back(host: Host, stack: Stack) -> None:
    """Rows keep arriving through every switch, and none that was there is gone."""
    operator = Operator(host)
    first, second, broken = VERSIONS
    release = operator.release(first)
    done = host.deploy("install", "--release", str(release), "--env", f"{host.scratch}/settings")
    assert done.returncode == 0, done.stdout
    assert stack.versions() == {first}
    before = eventually(stack.rows, WITHIN_S, "rows arrive")

    migration = "deploy/supabase/migrations/20990101000000_more.sql"
    release = operator.release(second, **{migration: ADDS})
    done = host.deploy("update", "--release", str(release))
    assert done.returncode == 0, done.stdout
    assert stack.versions() == {second}
    eventually(lambda: stack.rows() > before, WITHIN_S, "rows go on")
    # Trades of the restart are gone at the broker too; each is said, and each minute comes back.
    missing = (
        "SELECT count(*) FROM gaps WHERE state = 'open' OR series = 'bars' AND state <> 'filled'"
    )
    eventually(lambda: stack.number(missing) == 0, WITHIN_S, "what was missed is filled")

    before = stack.rows()
    release = operator.release(broken, **{"services/writer/__main__.py": f'"""Ends."""\n{BROKEN}'})
    done = host.deploy("update", "--release", str(release))
    assert done.returncode == 1
    assert f"{second} runs as before" in done.stdout
    assert stack.versions() == {second}

    done = host.deploy("rollback")
    assert done.returncode == 0, done.stdout
    assert stack.versions() == {first}
    eventually(lambda: stack.rows() > before, WITHIN_S, "rows go on")
    assert host.deploy("status").returncode == 0
