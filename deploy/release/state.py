"""What is released: the checkout's version, commit and notes, or why there can be no release.

A release stands for exactly one commit, so nothing that git does not know may be in it. The version
has one source, pyproject.toml, and a section of the changelog under its number.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deploy.supabase.migrate import read
from libs.common.errors import KiteError

__all__ = ["ReleaseError", "State", "git", "migrations", "notes", "public_address", "read_state"]

_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9a-z.]+)?")
# In a migration that takes something away: the first release that does without it.
_CONTRACT = re.compile(r"^-- contract: needs (?P<version>\d+\.\d+\.\d+)$", re.MULTILINE)


class ReleaseError(KiteError):
    """There can be no release; says what to mend."""

    exit_code = 2


@dataclass(frozen=True)
class State:
    """The commit that is released; `created` is its time (ISO 8601), `source` empty if unknown."""

    version: str
    revision: str
    created: str
    source: str
    notes: str


def read_state(root: Path, wanted: str = "") -> State:
    """Return what would be released from `root`; raises ReleaseError if it cannot be."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version: str = project["version"]
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"version {version!r} in pyproject.toml is not of the form 1.2.3")
    if wanted and wanted != version:
        raise ReleaseError(
            f"pyproject.toml says {version}, not {wanted}: the version is set there, and committed"
        )
    section = notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if changed := git(root, "status", "--porcelain"):
        raise ReleaseError(
            f"{len(changed.splitlines())} files are not committed, among them "
            f"{changed.splitlines()[0].split(maxsplit=1)[1]}: a release is exactly one commit"
        )
    return State(
        version=version,
        revision=git(root, "rev-parse", "HEAD"),
        created=git(root, "show", "--no-patch", "--format=%cI"),
        source=public_address(git(root, "remote", "get-url", "origin", missing="")),
        notes=section,
    )


def git(root: Path, *arguments: str, missing: str | None = None) -> str:
    """Return what git says without the last line end; raises ReleaseError, or returns `missing`."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return done.stdout.rstrip("\n")
    if missing is not None:
        return missing
    raise ReleaseError(f"git {arguments[0]}: {done.stderr.strip() or 'failed'}")


def notes(changelog: str, version: str) -> str:
    """Return the version's section of the changelog; raises ReleaseError if there is nothing."""
    heading = rf"^## \[{re.escape(version)}\].*\n(?P<body>(?:(?!^## ).*\n?)*)"
    found = re.search(heading, changelog, re.MULTILINE)
    if found is None or not found["body"].strip():
        raise ReleaseError(
            f"CHANGELOG.md says nothing about {version}: give what is under [Unreleased] the "
            f"heading `## [{version}] - DATE`"
        )
    return found[0].strip() + "\n"


def public_address(remote: str) -> str:
    """Return where people find the source, without a login; empty for a place on one machine."""
    if found := re.fullmatch(r"(?:ssh://)?[\w.-]+@(?P<host>[\w.-]+)[:/](?P<path>.+)", remote):
        remote = f"https://{found['host']}/{found['path']}"
    parts = urlsplit(remote)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.hostname}{parts.path}".removesuffix(".git")


def migrations(directory: Path) -> dict[str, str]:
    """Return each migration and since which version a release can live with it; "-" for any.

    A migration that only adds says nothing. One that takes something away opens with
    `-- contract: needs 1.2.3`, the first release that does without.
    """
    found = {}
    for migration in read(directory):
        mark = _CONTRACT.search(migration.sql)
        found[migration.label] = mark["version"] if mark else "-"
    return found
