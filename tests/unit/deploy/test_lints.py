"""What is neither Python nor TypeScript has linters, too; they come inside Python packages.

Each is shown something that it must find, so that one that finds nothing is known to be able to.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(sys.executable).parent
SHELL = ("kite", ".ci/run")
SOUND = "FROM python:3.13.9-slim-bookworm\n"


def lint(name: str, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a linter of the development environment."""
    return subprocess.run(
        [PROGRAMS / name, *arguments],
        cwd=ROOT, input=text, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def committed(*patterns: str) -> list[str]:
    """Files that git knows or is about to."""
    listed = ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"]
    done = subprocess.run(
        [*listed, "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return sorted(name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


def test_shell_scripts_are_sound() -> None:
    """Quoting, exit codes, and what only one shell knows."""
    scripts = [*SHELL, *committed("*.sh")]
    assert "deploy/lightsail/deploy.sh" in scripts
    done = lint("shellcheck", *scripts)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_is_sound() -> None:
    """As Docker's own recommendations have it; an exception stands where it is made."""
    done = lint("hadolint", "deploy/docker/Dockerfile")
    assert done.returncode == 0, done.stdout


def test_yaml_is_sound() -> None:
    """No key twice, no indentation that only looks right."""
    files = committed("*.yml", "*.yaml")
    assert "docker-compose.yml" in files
    done = lint("yamllint", "--strict", *files)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "broken"),
    [
        ("shellcheck", ["-s", "sh", "-"], "rm $1\n"),
        ("hadolint", ["-"], SOUND + "RUN cd /tmp\n"),
        ("yamllint", ["-"], "a: 1\na: 2\n"),
    ],
)
def test_a_linter_finds_what_is_broken(name: str, arguments: list[str], broken: str) -> None:
    """An unquoted word, a directory that is forgotten, a key that hides another."""
    assert lint(name, *arguments, text=broken).returncode != 0
