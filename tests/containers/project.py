"""Drives one Compose project as a person does, on free ports and under a name of its own.

Everything goes through the command line of Docker, because that is what is documented. Needs a
daemon; where none answers, `require_docker` skips the test and says so.
"""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.servers.host import choose_port
from tests.containers.definitions import (
    COMPOSE_FILE,
    JOBS,
    OUR_SERVICES,
    REPOSITORY,
    define,
)
from tests.waiting import eventually

__all__ = [
    "Project",
    "compose_command",
    "compose_program",
    "docker",
    "own_settings",
    "require_docker",
]

BUILD_WAIT_S = 1_500
COMMAND_WAIT_S = 240
HEALTHY_WITHIN_S = 180

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_PORTS = ("GATEWAY", "NATS", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")


def docker(*arguments: str, wait_s: float = 60) -> str:
    """Run one command of Docker and return what it printed; fails with its complaint."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=wait_s, check=False
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-2000:]}"
    return done.stdout


@functools.cache
def _answers() -> bool:
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    return asked.returncode == 0


def require_docker() -> None:
    """Skip the test where no Docker daemon answers."""
    if not _answers():
        pytest.skip("no Docker daemon answers here")


@functools.cache
def compose_command() -> tuple[str, ...]:
    """Return how Compose is called here: as a part of Docker, or as a program of its own."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ("docker", "compose")
    if program := shutil.which("docker-compose"):
        return (program,)
    pytest.skip("there is no Docker Compose here")


@functools.cache
def compose_program() -> str:
    """Return the file that Compose is, which runs by itself as well."""
    command = compose_command()
    if len(command) == 1:
        return str(shutil.which(command[0]))
    template = '{{range .ClientInfo.Plugins}}{{if eq .Name "compose"}}{{.Path}}{{end}}{{end}}'
    return docker("info", "--format", template).strip()


@functools.cache
def own_settings() -> dict[str, str]:
    """Return how this machine builds: without BuildKit where it lacks, and with its mirrors."""
    found = {}
    buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    if buildx.returncode != 0:
        found["DOCKER_BUILDKIT"] = "0"
    index = subprocess.run(
        ["python3", "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if index.returncode == 0:
        found["PIP_INDEX_URL"] = index.stdout.strip()
    return found


class Project:
    """One project; a context manager, so that no container, volume or network is left behind."""

    def __init__(self, **environment: str) -> None:
        """Describe it; `environment` is what a person would have in .env."""
        self.name = f"kite-test-{secrets.token_hex(4)}"
        self.ports = {name.lower(): choose_port() for name in _PORTS}
        self.definition = define(**environment)
        ports = {f"KITE_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        # Nothing of our own environment may decide what runs.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KITE_", "COMPOSE_"))
        }
        self._environment = {**own_settings(), **inherited, **ports, **environment}
        self._folder = Path(tempfile.mkdtemp(prefix="kite-compose-"))
        self._files = [COMPOSE_FILE]
        self.amend(self._builds_on_the_hosts_network())
        (self._folder / "empty.env").touch()

    def amend(self, definition: Mapping[str, Any]) -> None:
        """Let every later command read this definition after those before it."""
        file = self._folder / f"amendment-{len(self._files)}.yml"
        file.write_text(yaml.safe_dump(definition))
        self._files.append(file)

    def _builds_on_the_hosts_network(self) -> dict[str, Any]:
        """Let builds reach a mirror that only the host can reach."""
        everything = define(COMPOSE_PROFILES=",cli,export,restore")  # with those run by hand
        built = [name for name, service in everything.services.items() if "build" in service]
        return {"services": {name: {"build": {"network": "host"}} for name in built}}

    def compose(
        self, *arguments: str, text: str | None = None, wait_s: float = COMMAND_WAIT_S
    ) -> str:
        """Run one command of Compose and return what it printed; fails with its complaint."""
        done = self.attempt(*arguments, text=text, wait_s=wait_s)
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout

    def attempt(
        self, *arguments: str, text: str | None = None, wait_s: float = COMMAND_WAIT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of Compose, however it ends."""
        files = [part for file in self._files for part in ("-f", str(file))]
        env_file = ("--env-file", str(self._folder / "empty.env"))
        return subprocess.run(
            [*compose_command(), "-p", self.name, *files, *env_file, *arguments],
            cwd=REPOSITORY, env=self._environment, input=text,
            capture_output=True, text=True, timeout=wait_s, check=False,
        )  # fmt: skip

    def up(self, services: Iterable[str] = ()) -> None:
        """Start services (none named: all) in the background, and wait until all are healthy."""
        names = list(services)
        self.compose("up", "--detach", "--no-build", *names, wait_s=HEALTHY_WITHIN_S)
        for name in names or self.definition.services:
            self.await_healthy(name)

    def await_healthy(self, service: str) -> None:
        """Return when the service is healthy, and ready if it is ours; a job must have ended well.

        What has no check only has to run.
        """
        if service in JOBS:
            assert self.state(service)["ExitCode"] == 0
            return
        eventually(
            lambda: self._is_well(self.state(service)), HEALTHY_WITHIN_S, f"{service} is healthy"
        )
        self.await_ready(service)

    def await_ready(self, service: str) -> None:
        """Return when a service of ours says that it can do its work; of others it is not asked.

        Sooner than `await_healthy`, because Docker asks every ten seconds only.
        """
        if service in OUR_SERVICES:
            eventually(lambda: self._is_ready(service), HEALTHY_WITHIN_S, f"{service} is ready")

    @staticmethod
    def _is_well(state: Mapping[str, Any]) -> bool:
        health: str = state.get("Health", {}).get("Status", "healthy")
        return bool(state["Running"]) and health == "healthy"

    def _is_ready(self, service: str) -> bool:
        probe = ("python", "-S", "-m", "libs.common.probe", "ready")
        return self.run_in(service, *probe).returncode == 0

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what Docker knows of a service's container."""
        identity = self.compose("ps", "--all", "--quiet", service).strip()
        found: dict[str, Any] = json.loads(docker("inspect", identity))[0]
        return found

    def state(self, service: str) -> dict[str, Any]:
        """Return how a service's container stands."""
        found: dict[str, Any] = self.inspect(service)["State"]
        return found

    def run_in(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's container, however it ends."""
        return self.attempt("exec", "-T", service, *command)

    def address(self, service: str, network: str) -> str:
        """Return a container's address in a network, which this machine is part of as well."""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        found: str = networks[f"{self.name}_{network}"]["IPAddress"]
        return found

    def memory_bytes(self) -> dict[str, int]:
        """Return what each running container uses: the kernel's count less idle page cache."""
        listed = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}")
        found = {}
        for line in listed.splitlines():
            name, used, *_ = line.split()
            if name.startswith(f"{self.name}-"):
                amount = re.fullmatch(r"([\d.]+)([KMG]?i?B)", used)
                assert amount is not None, line
                found[name.split("-")[-2]] = int(float(amount[1]) * _UNITS[amount[2]])
        return found

    def rows(self, query: str) -> list[str]:
        """Return what the database answers to the role that only reads, a line a row."""
        psql = ("psql", "-U", "kite_reader", "-d", "kite", "-At", "-v", "ON_ERROR_STOP=1")
        done = self.run_in("postgres", *psql, "-c", query)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def init(self, *command: str, text: str | None = None) -> str:
        """Run the init job's image once more, with another command."""
        return self.compose("run", "--rm", "--no-deps", "-T", "init", *command, text=text)

    def kill(self, service: str) -> None:
        """Kill a service's process with -9 from outside, and wait until it is ready again.

        Not with `docker kill`: that counts as stopped by a person, who does not want a restart.
        """
        if os.geteuid() != 0:
            pytest.skip("only root may kill the processes of containers")
        before = self.inspect(service)
        os.kill(before["State"]["Pid"], signal.SIGKILL)
        eventually(
            lambda: self.inspect(service)["RestartCount"] > before["RestartCount"],
            HEALTHY_WITHIN_S,
            f"{service} is started again",
        )
        self.await_ready(service)

    def __enter__(self) -> Project:
        require_docker()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.attempt("down", "--volumes", "--remove-orphans", "--timeout", "20")
        finally:
            shutil.rmtree(self._folder)
