"""docker-compose.yml and the Dockerfile as data, filled in as Compose would for a way to run.

Only what our file uses: `${NAME:-default}`, `${NAME:+other}`, and profiles, where "" is active as
long as none is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "COMPOSE_FILE",
    "CORE",
    "CORE_MEMORY_BYTES_MAX",
    "DOCKERFILE",
    "HOSTED",
    "JOBS",
    "LASTING",
    "MONITORING",
    "NANO",
    "NANO_MEMORY_BYTES_MAX",
    "OUR_SERVICES",
    "REPOSITORY",
    "Definition",
    "define",
    "variables",
]

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE_FILE = REPOSITORY / "docker-compose.yml"
DOCKERFILE = REPOSITORY / "deploy" / "docker" / "Dockerfile"

# In the order in which the data flows.
JOBS = ("secrets", "init")
OUR_SERVICES = (
    "simulator", "ingest", "indicators", "signals", "writer", "gateway", "notifier", "backup",
)  # fmt: skip
LASTING = ("nats", "postgres", *OUR_SERVICES)
MONITORING = ("prometheus", "alertmanager", "grafana")
# What an account needs, with a database beside it and without.
CORE = ("nats", "postgres", "ingest", "indicators", "signals", "writer", "gateway")
NANO = tuple(name for name in CORE if name != "postgres")
CORE_MEMORY_BYTES_MAX = 512 << 20
NANO_MEMORY_BYTES_MAX = 300 << 20
# What the way `nano` needs to be told.
HOSTED = "postgresql://owner@db.example.com/postgres"

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+):(?P<kind>[-+])(?P<text>[^{}]*)\}")


@dataclass(frozen=True)
class Definition:
    """One way to run: the name of the project, the services that take part, and the networks."""

    name: str
    services: Mapping[str, Mapping[str, Any]]
    networks: Mapping[str, Mapping[str, Any]]

    def networks_of(self, service: str) -> set[str]:
        """Return which networks a service is in."""
        return set(self.services[service].get("networks", ()))

    def outside(self) -> set[str]:
        """Return the networks that lead outside."""
        return {
            name
            for name, network in self.networks.items()
            if not network.get("internal") and not _unmasked(network)
        }


def _unmasked(network: Mapping[str, Any]) -> bool:
    options = network.get("driver_opts", {})
    return bool(options.get("com.docker.network.bridge.enable_ip_masquerade") == "false")


def define(compose_file: Path = COMPOSE_FILE, /, **environment: str) -> Definition:
    """Return what `docker compose up` would run in this environment, without any .env."""
    filled = _fill(yaml.safe_load(compose_file.read_text(encoding="utf-8")), environment)
    active = set(environment.get("COMPOSE_PROFILES", "").split(","))
    services = {
        name: service
        for name, service in filled["services"].items()
        if not service.get("profiles") or active & set(service["profiles"])
    }
    return Definition(filled["name"], services, filled["networks"])


def variables() -> set[str]:
    """Return the names of all variables that the compose file asks for."""
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    found = {match["name"] for match in _VARIABLE.finditer(text)}
    assert text.count("${") == len(_VARIABLE.findall(text)), "a variable of another form"
    return found


def _fill(value: Any, environment: Mapping[str, str]) -> Any:
    """Replace variables in every text of a document."""
    if isinstance(value, dict):
        return {key: _fill(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, environment) for inner in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        given = environment.get(match["name"], "")
        if match["kind"] == "+":
            return match["text"] if given else ""
        return given or match["text"]

    return _VARIABLE.sub(replacement, value)
