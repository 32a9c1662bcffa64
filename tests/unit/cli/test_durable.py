"""What must be on the disk before its name is: copies of programs, passwords, settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.servers.binaries import nats_program, postgres_programs
from deploy.private_files import write_private

Inode = tuple[int, int]


def inode(path: Path) -> Inode:
    """Tell a file or directory from every other one, whatever it is called."""
    found = path.stat()
    return found.st_dev, found.st_ino


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[Inode]:
    """What was brought to the disk; nothing is, so that the test takes no time."""
    seen: set[Inode] = set()

    def note(descriptor: int) -> None:
        found = os.fstat(descriptor)
        seen.add((found.st_dev, found.st_ino))

    monkeypatch.setattr("os.fsync", note)
    return seen


def test_copied_programs_outlive_a_power_cut(tmp_path: Path, synced: set[Inode]) -> None:
    """Every file and directory of a copy is synced: one cut short would never run again."""
    nats_program(tmp_path, copy=True)
    postgres_programs(tmp_path, copy=True)
    copied = [path for path in tmp_path.rglob("*") if not path.is_symlink()]
    assert len(copied) > 100
    assert [path for path in (*copied, tmp_path) if inode(path) not in synced] == []


def test_a_private_file_outlives_a_power_cut(tmp_path: Path, synced: set[Inode]) -> None:
    """Its content is synced, and so is its name."""
    path = tmp_path / "credentials.json"
    write_private(path, "{}")
    assert {inode(path), inode(tmp_path)} <= synced
