"""A host to deploy to: a real sshd on loopback, with a scratch directory as its root.

What would change this machine (apt-get, mkswap, systemctl, …) is replaced by programs that only
write down that they were called; they come first on the PATH of every login, and the host is not
handed out before that was seen. Docker is played on both sides by pretended_docker.py.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.servers.host import choose_port
from tests.waiting import eventually

__all__ = ["DEPLOY", "Daemon", "Host"]

REPOSITORY = Path(__file__).resolve().parents[3]
DEPLOY = REPOSITORY / "deploy" / "lightsail" / "deploy.sh"
PRETENDED = Path(__file__).with_name("pretended_docker.py")
WITHIN_S = 60
COMMAND_WAIT_S = 120

MEMORY = "MemTotal: 480000 kB\nMemAvailable: 300000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
# What each of them answers; all of them note how they were called.
MACHINERY = {
    "apt-get": 'case "$*" in *install*) for each; do echo "$each"; done >>"$installed" ;; esac',
    "apt-cache": '[ "$2" != docker-compose ] || echo "  Candidate: 1.29.2-3"',
    "dpkg-query": 'shift 3; grep -qx "$1" "$installed" && echo install ok installed',
    "systemctl": "",
    "timedatectl": 'case "$*" in *Synchronized*) echo yes;; esac',
    "fallocate": 'touch "$3"',
    "mkswap": "",
    "swapon": 'sed -i "s/^SwapTotal: 0/SwapTotal: 1048576/" "$KITE_HOST_ROOT/proc/meminfo"',
    "sysctl": "",
    "ss": "echo LISTEN 0 128 0.0.0.0:22 0.0.0.0:* ; echo LISTEN 0 9 127.0.0.1:8080 0.0.0.0:*",
    "sudo": 'shift; exec "$@"',
}


class Daemon:
    """One pretended Docker: what it was asked, what it knows, and what shall go wrong."""

    def __init__(self, folder: Path, programs: Path) -> None:
        """Put it into `programs`, with its memory in `folder`."""
        self.folder = folder
        folder.mkdir(parents=True)
        program = programs / "docker"
        program.write_text(
            f"#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -P {PRETENDED} {folder}"
            ' "$@"\n'
        )
        program.chmod(0o755)
        self._program = program
        self.programs = programs

    @property
    def state(self) -> dict[str, Any]:
        """What it knows."""
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    @property
    def journal(self) -> list[str]:
        """What it did that changes something, in order."""
        path = self.folder / "journal"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def calls(self) -> list[list[str]]:
        """How it was called, every time."""
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def order(self, **orders: Any) -> None:
        """Let things go wrong from now on; without any: let everything go well."""
        (self.folder / "orders.json").write_text(json.dumps(orders))

    def call(self, *arguments: str) -> None:
        """Ask it as a person would."""
        subprocess.run([self._program, *arguments], check=True)

    def forget(self) -> None:
        """Begin a new journal."""
        (self.folder / "journal").unlink(missing_ok=True)

    def learn(self, other: Daemon) -> None:
        """Know what another one knows."""
        shutil.copy(other.folder / "state.json", self.folder)

    def images(self) -> set[str]:
        """Which containers' images run, jobs among them."""
        return {each["image"] for each in self.state["containers"].values()}


class Host:
    """The machine; a context manager, so that its sshd ends."""

    def __init__(
        self, scratch: Path, wait_s: int = 3, command_wait_s: int = COMMAND_WAIT_S
    ) -> None:
        """Lay out its root, its programs and the operator's.

        It waits `wait_s` for health, and whoever deploys `command_wait_s` for the whole.
        """
        self._wait_s = wait_s
        self._command_wait_s = command_wait_s
        self.scratch = scratch
        self.root = scratch / "root"
        self.home = self.root / "opt" / "alpha-kite"
        programs, own_programs = scratch / "host-bin", scratch / "own-bin"
        for each in (self.root / "etc", self.root / "proc", programs, own_programs):
            each.mkdir(parents=True)
        (self.root / "etc" / "os-release").write_text('ID=debian\nVERSION_ID="12"\n')
        (self.root / "etc" / "fstab").touch()
        (self.root / "proc" / "meminfo").write_text(MEMORY)
        self._lay_out_machinery(programs)
        self.docker = Daemon(scratch / "host-docker", programs)
        self.own_docker = Daemon(scratch / "own-docker", own_programs)
        self._programs = programs
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KITE_")},
            "PATH": f"{own_programs}:{os.environ['PATH']}",
            "KITE_SSH": f"ssh -F {scratch}/ssh_config",
        }

    def _lay_out_machinery(self, programs: Path) -> None:
        self._called = self.scratch / "machinery"
        self._called.touch()
        installed = self.scratch / "installed"
        installed.touch()
        for name, answer in MACHINERY.items():
            quiet = "" if name == "sudo" else f'echo "{name} $*" >>{self._called}\n'
            program = programs / name
            program.write_text(f"#!/bin/sh\ninstalled={installed}\n{quiet}{answer}\n")
            program.chmod(0o755)

    def become(self, other: Host) -> None:
        """Be as another host was in the end."""
        shutil.copytree(other.root, self.root, symlinks=True, dirs_exist_ok=True)
        shutil.copy(other.scratch / "installed", self.scratch)
        self.docker.learn(other.docker)

    @property
    def machinery(self) -> list[str]:
        """How the machine was changed, in order."""
        return self._called.read_text().splitlines()

    @property
    def environment(self) -> Mapping[str, str]:
        """What the operator's commands run with."""
        return self._environment

    def release(self, name: str) -> str:
        """Where a link of the host leads: current, previous; empty if it is absent."""
        link = self.home / name
        return link.readlink().name if link.is_symlink() else ""

    def command(self, *words: str) -> list[str]:
        """The command line of a deployment to this host."""
        verb, *options = words
        return ["sh", str(DEPLOY), verb, "host", *options]

    def deploy(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run deploy.sh to its end, whatever that is; both outputs are one."""
        return subprocess.run(
            self.command(*words), env=self._environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=self._command_wait_s,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a deployment."""
        return subprocess.Popen(
            self.command(*words), env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def cut_connections(self) -> None:
        """Kill what serves the connections, as if the line had broken; what they started lives."""
        for child in psutil.Process(self._sshd.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.name().startswith("sshd"):
                    child.kill()

    def kill_switch(self) -> None:
        """Kill what replaces containers, as a power cut would: everything that it started, too."""
        for process in psutil.process_iter(["cmdline", "environ"]):
            words = process.info["cmdline"] or []
            theirs = (process.info["environ"] or {}).get("KITE_HOST_ROOT") == str(self.root)
            if theirs and words[:1] != ["sshd"]:
                process.kill()

    def stop(self) -> None:
        """Let nobody in any more."""
        self.cut_connections()
        self._sshd.terminate()
        self._sshd.wait(WITHIN_S)

    # -- sshd --------------------------------------------------------------------------------------

    def __enter__(self) -> Host:
        if shutil.which("ssh") is None:
            pytest.skip("there is no OpenSSH here (Debian: openssh-client)")
        command = self.sshd_command()
        port = choose_port()
        for key in ("host_key", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.scratch / key],
                check=True,
            )
        self._write_configurations(port)
        self._log = (self.scratch / "sshd.log").open("w")
        self._sshd = subprocess.Popen(
            [*command, "-D", "-e", "-f", str(self.scratch / "sshd_config")], stderr=self._log
        )
        eventually(self._answers, WITHIN_S, "sshd lets us in, to the pretended machinery")
        return self

    def sshd_command(self) -> list[str]:
        """Return how sshd is called, without its options; skips where there is none."""
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("there is no sshd here (Debian: openssh-server)")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks itself in
        return [program]

    def _write_configurations(self, port: int) -> None:
        (self.scratch / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {self.scratch}/host_key\n"
            f"AuthorizedKeysFile {self.scratch}/key.pub\nPasswordAuthentication no\nUsePAM no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nStrictModes no\n"
            f"PidFile none\nSetEnv PATH={self._programs}:/usr/bin:/bin KITE_HOST_ROOT={self.root}"
            f" KITE_DEPLOY_WAIT_S={self._wait_s}\n"
        )
        (self.scratch / "ssh_config").write_text(
            f"Host host\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self.scratch}/key\n  IdentitiesOnly yes\n  BatchMode yes\n"
            f"  UserKnownHostsFile {self.scratch}/known_hosts\n"
            "  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n"
        )

    def _answers(self) -> bool:
        assert self._sshd.poll() is None, (self.scratch / "sshd.log").read_text()
        asked = ["ssh", "-F", str(self.scratch / "ssh_config"), "host"]
        asked += ["command -v mkswap apt-get docker; echo $KITE_HOST_ROOT"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return False
        ours = [str(self._programs / name) for name in ("mkswap", "apt-get", "docker")]
        assert done.stdout.split() == [*ours, str(self.root)], "the machine itself would be changed"
        return True

    def __exit__(self, *_: object) -> None:
        if self._sshd.poll() is None:
            self.stop()
        self._log.close()
