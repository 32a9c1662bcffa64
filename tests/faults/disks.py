"""Disks that can lose their power or run full: a file system of our own in an image file.

A `LoopDisk` is ext4 on a sparse file, mounted where the stack keeps its data. The image file holds
exactly what the kernel has handed to the disk, so a copy of it is what a machine finds after its
power was cut: what was synced is there, what only lay in the kernel's memory is not.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import eventually

__all__ = ["MIB", "Disk", "LoopDisk", "directory", "loop_disk", "loop_unusable"]

MIB = 1 << 20
COPIES_MAX = 20
_GONE_WITHIN_S = 60.0
_BALLAST = "ballast"
_WITNESS = "never-synced"
# Which of the kernel's figures about a block device tell of a write that is done or on its way.
_WRITES, _SECTORS_WRITTEN, _IN_FLIGHT = 4, 6, 8
_SECTOR_BYTES = 512  # in those figures, whatever the device has
_UNIT_BYTES = 4096


@dataclass
class Disk:
    """Where a stack keeps its data: an ordinary directory."""

    home: Path


@dataclass
class LoopDisk(Disk):
    """An image file that is mounted at `home`.

    Its methods block, and raise AssertionError when something does not work.
    """

    image: Path

    # -- power --

    def copy(self) -> Path:
        """Copy the image as a power cut now would leave the disk; nobody may be writing to it.

        The kernel writes of its own accord, too, now and then. A copy during which it did would mix
        two instants, so it is thrown away and made again.
        """
        target = self.image.with_suffix(".copy")
        for _ in range(COPIES_MAX):
            before = self._written()
            _run("cp", "--sparse=always", "--reflink=never", str(self.image), str(target))
            if self._written() == before and before[_IN_FLIGHT] == 0:
                return target
        raise AssertionError(f"the kernel wrote to {self.image} during each of {COPIES_MAX} copies")

    def leave_witness(self) -> None:
        """Write a file and do not sync it: no power cut can let it survive."""
        (self.home / _WITNESS).write_bytes(b"x" * _UNIT_BYTES)

    def swap(self, copy: Path, *, keep: Iterable[Path]) -> None:
        """Put the copy in the place of the disk; nobody may be using it.

        The files `keep` belong to the outside world and stay as they are.
        """
        kept = {path: path.read_bytes() for path in keep}
        self.unmount()
        copy.replace(self.image)
        self.mount()
        for path, content in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        witness = self.home / _WITNESS
        survived = witness.exists() and witness.stat().st_size > 0
        assert not survived, "what was never synced is in the copy: this was no power cut"
        witness.unlink(missing_ok=True)

    @property
    def written_bytes(self) -> int:
        """How much the kernel has written to the disk since it was mounted."""
        return self._written()[_SECTORS_WRITTEN] * _SECTOR_BYTES

    def _written(self) -> dict[int, int]:
        """Return how much was written so far, and what is on its way."""
        device = _run("findmnt", "-n", "-o", "SOURCE", str(self.home)).strip()
        figures = Path("/sys/block", Path(device).name, "stat").read_text(encoding="ascii").split()
        return {index: int(figures[index]) for index in (_WRITES, _SECTORS_WRITTEN, _IN_FLIGHT)}

    # -- room --

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all room but so much of it."""
        self.free()
        free_bytes = self.free_bytes - leave_bytes
        with (self.home / _BALLAST).open("wb") as ballast:
            for unit_bytes in (MIB, _UNIT_BYTES):
                with contextlib.suppress(OSError):
                    while free_bytes >= unit_bytes:
                        os.posix_fallocate(ballast.fileno(), ballast.tell(), unit_bytes)
                        ballast.seek(unit_bytes, os.SEEK_CUR)
                        free_bytes -= unit_bytes

    def free(self) -> None:
        """Give the room back."""
        (self.home / _BALLAST).unlink(missing_ok=True)

    @property
    def free_bytes(self) -> int:
        """How much room there is."""
        return shutil.disk_usage(self.home).free

    # -- mounting --

    def mount(self) -> None:
        """Mount the image; what a power cut left half done is put right by the file system."""
        _run("mount", "-t", "ext4", "-o", "loop,noatime", str(self.image), str(self.home))

    def unmount(self) -> None:
        """Unmount and free the loop device; waits until the last process that died has let go."""
        eventually(self._is_unmounted, _GONE_WITHIN_S, f"{self.home} is unmounted")

    def _is_unmounted(self) -> bool:
        if not self.home.is_mount():
            return True
        return subprocess.run(["umount", str(self.home)], capture_output=True).returncode == 0


@contextmanager
def directory(home: Path) -> Iterator[Disk]:
    """Keep the data in an ordinary directory."""
    yield Disk(home)


@contextmanager
def loop_disk(size_bytes: int, home: Path) -> Iterator[LoopDisk]:
    """Make a disk of that size and mount it at `home`; nothing stays mounted."""
    disk = LoopDisk(home, home.with_name(f"{home.name}.img"))
    with disk.image.open("wb") as image:
        image.truncate(size_bytes)
    # No room kept back for root, and nothing left for the kernel to prepare in the background.
    _run(
        "mkfs.ext4", "-q", "-m", "0",
        "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", str(disk.image),
    )  # fmt: skip
    try:
        disk.mount()
        yield disk
    finally:
        try:
            disk.unmount()
        except AssertionError:
            # Out of sight at least, and freed as soon as its last user ends.
            subprocess.run(["umount", "--lazy", str(home)], capture_output=True)
            raise


@functools.cache
def loop_unusable() -> str | None:
    """Return why no image can be mounted here, None if it can."""
    if os.geteuid() != 0:
        return "only root may mount an image file"
    missing = [name for name in ("mkfs.ext4", "mount", "findmnt", "cp") if not shutil.which(name)]
    if missing:
        return f"there is no {' and no '.join(missing)} here"
    with tempfile.TemporaryDirectory(prefix="kite-probe-") as folder:
        home = Path(folder, "home")
        home.mkdir()
        try:
            with loop_disk(8 * MIB, home):
                return None
        except AssertionError as error:
            return str(error)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    words = done.stderr.strip() or f"exit code {done.returncode}"
    assert done.returncode == 0, f"{' '.join(command)}: {words}"
    return done.stdout
