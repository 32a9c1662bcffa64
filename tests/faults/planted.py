"""Defects planted on purpose: a copy of this repository with a patch applied.

A test that has never failed proves little. Each patch in `defects/` breaks one promise of the code,
and the row that watches over this promise must then find something.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.evidence import ROOT

__all__ = ["DEFECTS", "Defect", "planted"]

_PATCHES = Path(__file__).resolve().parent / "defects"


@dataclass(frozen=True)
class Defect:
    """A patch, what it breaks, and the name of the row that must find out."""

    name: str
    what: str
    row: str

    @property
    def patch(self) -> Path:
        """The file that plants it."""
        return _PATCHES / f"{self.name}.patch"


DEFECTS = (
    Defect(
        "no-fsync",
        "nats-server acknowledges what is not on the disk yet, as it does by default",
        "power cut",
    ),
)


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
        command = ["git", "apply", "--whitespace=nowarn", str(patch)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{patch.name} does not fit the code: {done.stderr.strip()}"
        yield Path(folder)


def _copy_tree(target: Path) -> None:
    """Copy what is in the working tree and not ignored, as it lies there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout  # fmt: skip
    for name in listed.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
