"""`python -m deploy.release [VERSION]`: builds the images of this commit and what goes with them.

Writes dist/VERSION: the compose file with this version's images, the configurations that
containers read, which migrations it knows, a list of what is in each image, notes and checksums.
deploy.sh sends it. Is there a release of that version already, or does the checkout hold what is
not committed, it refuses. Killed half way it leaves nothing that could be taken for a release.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from deploy.release import sbom
from deploy.release.images import TAG, Image, build, fingerprint, mounted, of_others, ours
from deploy.release.state import ReleaseError, State, git, migrations, read_state
from libs.common.errors import KiteError

__all__ = ["main", "make"]

_ROOT = Path(__file__).resolve().parents[2]


def make(root: Path, wanted: str = "", network: str = "") -> Path:
    """Make the release and return its folder; raises ReleaseError."""
    state = read_state(root, wanted)
    place = root / "dist" / state.version
    if place.exists():
        raise ReleaseError(
            f"{place} is there already: what was released stays as it is; take a new version, or "
            "remove the folder if nobody has it"
        )
    part = place.with_name(f".{state.version}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _write_files(root, part, state)
    _write_images(root, part, state, network)
    _write_checksums(part)
    part.rename(place)
    return place


def _write_files(root: Path, part: Path, state: State) -> None:
    text = (root / "docker-compose.yml").read_text(encoding="utf-8")
    (part / "docker-compose.yml").write_text(text.replace(TAG, state.version), encoding="utf-8")
    (part / "VERSION").write_text(f"{state.version}\n", encoding="utf-8")
    (part / "REVISION").write_text(f"{state.revision}\n", encoding="utf-8")
    (part / "NOTES.md").write_text(state.notes, encoding="utf-8")
    known = migrations(root / "deploy" / "supabase" / "migrations")
    _write_table(part / "migrations.tsv", known)
    # What git knows, and nothing that lies beside it.
    listed = git(root, "ls-files", "-z", "--", "LICENSE", *mounted(yaml.safe_load(text)))
    for name in filter(None, listed.split("\0")):
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, part / name)


def _write_images(root: Path, part: Path, state: State, network: str) -> None:
    compose = yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))
    images = ours(compose)
    # Those of others have a version in their name, and deploy.sh fetches them.
    noted = dict.fromkeys(of_others(compose), "-")
    (part / "sbom").mkdir()
    for number, image in enumerate(images, 1):
        print(f"{number} of {len(images)}: {image.name}:{state.version}", flush=True)
        tagged = build(root, image, state, network)
        noted[tagged] = fingerprint(tagged)
        _write_sbom(root, part, image, tagged, state)
    _write_table(part / "images.tsv", noted)


def _write_sbom(root: Path, part: Path, image: Image, tagged: str, state: State) -> None:
    packages = sbom.contents(tagged)
    if image.target == "gateway":
        packages += sbom.of_page(root / "dashboard" / "package-lock.json")
    text = sbom.describe(tagged, packages, state)
    (part / "sbom" / f"{image.short}.cdx.json").write_text(text, encoding="utf-8")


def _write_table(path: Path, rows: dict[str, str]) -> None:
    text = "".join(f"{key}\t{value}\n" for key, value in rows.items())
    path.write_text(text, encoding="utf-8")


def _write_checksums(part: Path) -> None:
    """Write SHA256SUMS in the form of `sha256sum`."""
    files = sorted(path for path in part.rglob("*") if path.is_file())
    sums = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(part).as_posix()}\n"
        for path in files
    )
    (part / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def main(arguments: Sequence[str] | None = None, root: Path = _ROOT) -> int:
    """Make a release of this checkout; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", nargs="?", default="", help="must be the one in pyproject.toml")
    parser.add_argument("--network", default="", help="of the builds, as `docker build` takes it")
    wanted = parser.parse_args(arguments)
    try:
        place = make(root, wanted.version, wanted.network)
    except KiteError as error:
        print(f"release: {error}", file=sys.stderr)
        return error.exit_code
    version = place.name
    print(f"{place.relative_to(root)} is complete; mark the commit: git tag -a v{version}")
    print("put it on a host: deploy/lightsail/deploy.sh install|update HOST")
    return 0


if __name__ == "__main__":
    sys.exit(main())
