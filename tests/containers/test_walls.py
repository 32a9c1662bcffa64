"""The walls of the running containers, tried from inside: what an intruder would try first.

Needs a Docker daemon (`make containers`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.containers.definitions import LASTING, OUR_SERVICES
from tests.containers.project import Project, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1_800)]

every_container = pytest.mark.parametrize("name", LASTING)
every_service = pytest.mark.parametrize("name", OUR_SERVICES)

# A public resolver, and the address at which clouds tell secrets to whoever asks.
OUTSIDE = (("1.1.1.1", 443), ("169.254.169.254", 80))
REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
except OSError:
    sys.exit(7)
"""
GAIN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
attempts = {
    "become root": lambda: os.setuid(0),
    "change an owner": lambda: os.chown("/tmp", 0, 0),
    "take a low port": lambda: __import__("socket").socket().bind(("127.0.0.1", 80)),
    "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) and fail(),
    "make a device": lambda: os.mknod("/tmp/device", 0o60600, os.makedev(8, 0)),
}
def fail():
    raise OSError(ctypes.get_errno(), "refused")
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError:
        continue
    print(name)
"""
# What a process of a hardened container may do: nothing.
NO_RIGHTS = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}


@every_container
def test_the_root_is_read_only(demo: Project, name: str) -> None:
    """Nothing can be planted beside the program, in the system, or among the secrets."""
    for place in ("/probe", "/usr/probe", "/etc/probe", "/run/kite/secrets/probe"):
        assert demo.run_in(name, "sh", "-c", f"echo x >{place}").returncode != 0, place


@every_container
def test_no_process_has_or_gets_a_capability(demo: Project, name: str) -> None:
    """The kernel says so of the first process, which all others come from."""
    lines = demo.run_in(name, "cat", "/proc/1/status").stdout.splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    assert {key: int(status[key], 16) for key in NO_RIGHTS} == dict.fromkeys(NO_RIGHTS, 0)
    assert status["NoNewPrivs"] == "1"
    assert int(status["Seccomp"]) == 2
    assert "0" not in status["Uid"].split()


@every_service
def test_what_needs_a_right_is_refused(demo: Project, name: str) -> None:
    """Tried, and not only read: whatever succeeds is named."""
    done = demo.run_in(name, "python", "-c", GAIN)
    allowed = set(done.stdout.split("\n")) - {""}
    # Docker lets everybody bind low ports inside a network namespace of its own.
    assert done.returncode == 0, done.stderr
    assert allowed <= {"take a low port"}


def reaches(project: Project, targets: Iterable[tuple[str, str, int]]) -> list[bool]:
    """Whether a service reaches a host and port, for each of (service, host, port)."""

    def try_one(target: tuple[str, str, int]) -> bool:
        name, host, port = target
        done = project.run_in(name, "python", "-c", REACH, host, str(port))
        assert done.returncode in (0, 7), done.stderr
        return done.returncode == 0

    # All at once, because each takes as long as it waits for an answer that does not come.
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(try_one, targets))


def test_nothing_outside_can_be_reached(demo: Project) -> None:
    """The demo needs nobody: neither the internet nor a cloud's own services."""
    targets = [(name, host, port) for name in OUR_SERVICES for host, port in OUTSIDE]
    assert reaches(demo, targets) == [False] * len(targets)


def test_the_networks_inside_lead_nowhere(demo: Project) -> None:
    """As Docker made them, and not only as the file says."""
    for network in ("bus", "broker", "database"):
        made = json.loads(docker("network", "inspect", f"{demo.name}_{network}"))[0]
        assert made["Internal"] is True


def test_only_who_reads_or_writes_rows_reaches_the_database(demo: Project) -> None:
    """Whoever has no business there does not reach it, though it knows the address."""
    address = demo.address("postgres", "database")
    found = reaches(demo, [(name, address, 5432) for name in OUR_SERVICES])
    assert found == [name in ("writer", "gateway", "backup") for name in OUR_SERVICES]


@every_service
def test_an_image_holds_its_own_code_and_no_tool(demo: Project, name: str) -> None:
    """One service, no installer, no compiler, nothing to fetch more with."""
    listed = demo.run_in(name, "ls", "/app/services").stdout.split()
    # The backup is no service of the flow: it is the command's own, and applies migrations.
    flows = name != "backup"
    assert {entry for entry in listed if not entry.startswith("__")} == ({name} if flows else set())
    beside = {"cli", "deploy"} & set(demo.run_in(name, "ls", "/app").stdout.split())
    assert beside == (set() if flows else {"cli", "deploy"})
    for program in ("pip", "pip3", "cc", "gcc", "make", "curl", "wget", "npm", "node"):
        found = demo.run_in(name, "sh", "-c", f"command -v {program}")
        assert found.returncode != 0, f"{name} has {found.stdout.strip()}"
    assert demo.run_in(name, "python", "-c", "import pip").returncode != 0


@every_service
def test_an_image_holds_no_secret(demo: Project, name: str) -> None:
    """Neither in its layers' history nor in its environment."""
    kept = json.loads(demo.init("cat", "/run/kite/init/credentials.json"))
    image = demo.inspect(name)["Image"]
    told = docker("image", "inspect", image) + docker("history", "--no-trunc", image)
    for password in (*kept["nats"].values(), *kept["postgres"].values()):
        assert password not in told


@every_service
def test_the_limits_are_in_force(demo: Project, name: str) -> None:
    """As Docker applies them; one that the kernel does not know would be dropped in silence."""
    limits = demo.inspect(name)["HostConfig"]
    wanted = demo.definition.services[name]
    assert limits["Memory"] == int(wanted["mem_limit"][:-1]) << 20
    assert limits["PidsLimit"] == wanted["pids_limit"]
    assert limits["ReadonlyRootfs"] is True
