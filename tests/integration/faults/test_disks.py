"""Disks in image files: what a power cut takes, what a full one refuses, what is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import MIB, LoopDisk, loop_disk, loop_unusable
from tests.servers import temporary_home


@pytest.fixture
def disk() -> Iterator[LoopDisk]:
    """A small disk of its own."""
    if reason := loop_unusable():
        pytest.skip(reason)
    with temporary_home() as base:
        home = base / "home"
        home.mkdir()
        with loop_disk(64 * MIB, home) as made:
            yield made


def write(path: Path, content: bytes, *, synced: bool) -> None:
    """Write a file, and bring it to the disk or not."""
    with path.open("wb") as file:
        file.write(content)
        if synced:
            file.flush()
            os.fsync(file.fileno())


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(disk: LoopDisk) -> None:
    """A file that was synced is whole, growth that was not is gone."""
    write(disk.home / "synced", b"a" * MIB, synced=True)
    write(disk.home / "unsynced", b"b" * MIB, synced=False)
    with (disk.home / "synced").open("ab") as file:
        file.write(b"c" * MIB)
    disk.swap(disk.copy(), keep=())
    assert (disk.home / "synced").read_bytes() == b"a" * MIB
    unsynced = disk.home / "unsynced"
    assert not unsynced.exists() or unsynced.stat().st_size == 0


def test_what_belongs_to_the_outside_world_outlives_a_power_cut(disk: LoopDisk) -> None:
    """It is not part of the machine, wherever it lies, even if its directory is gone."""
    clock = disk.home / "store" / "clock"
    clock.parent.mkdir()
    write(clock, b"noon", synced=False)
    disk.swap(disk.copy(), keep=[clock])
    assert clock.read_bytes() == b"noon"


def test_a_witness_that_survives_is_no_power_cut(disk: LoopDisk) -> None:
    """A copy that holds what was never synced would let every test pass."""
    disk.leave_witness()
    os.sync()
    with pytest.raises(AssertionError, match="no power cut"):
        disk.swap(disk.copy(), keep=())


def test_a_full_disk_refuses_until_it_is_freed(disk: LoopDisk) -> None:
    """Not one block is left, or as much as was asked for."""
    disk.fill(leave_bytes=MIB)
    assert abs(disk.free_bytes - MIB) <= 4096
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        write(disk.home / "more", b"d" * MIB, synced=True)
    disk.free()
    write(disk.home / "more", b"d" * MIB, synced=True)


def test_nothing_stays_mounted_after_a_failure() -> None:
    """The disk is taken away however its use ends, and its loop device with it."""
    if reason := loop_unusable():
        pytest.skip(reason)
    with temporary_home() as base:
        home = base / "home"
        home.mkdir()
        with pytest.raises(RuntimeError), loop_disk(8 * MIB, home) as disk:
            raise RuntimeError("a row failed")
        assert not home.is_mount()
        backed = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
        assert not any(str(disk.image) in file for file in backed)
