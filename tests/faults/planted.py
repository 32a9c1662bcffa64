"""A copy of this repository with a patch applied: where defects are planted on purpose."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.evidence import ROOT

__all__ = ["plant", "planted", "touched"]


@contextmanager
def planted(patch: Path | None) -> Iterator[Path]:
    """Yield a repository with that patch applied, this one for None.

    Raises AssertionError when the patch does not fit the code any more.
    """
    if patch is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory(prefix="kite-planted-") as folder:
        _copy_tree(Path(folder))
        plant(patch, Path(folder))
        yield Path(folder)


def plant(patch: Path, folder: Path) -> None:
    """Apply a patch to the files in `folder`; raises AssertionError when it does not fit them."""
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", str(patch)],
        cwd=folder, capture_output=True, text=True,
        # Not a repository, even if it lies within one.
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
    )  # fmt: skip
    assert done.returncode == 0, f"{patch.name} does not fit the code: {done.stderr.strip()}"


def touched(patch: Path) -> list[str]:
    """Return the files that a patch changes, relative to the root."""
    lines = patch.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("--- a/") for line in lines if line.startswith("--- a/")]


def _copy_tree(target: Path) -> None:
    """Copy what is in the working tree and not ignored, as it lies there."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout  # fmt: skip
    for name in listed.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
