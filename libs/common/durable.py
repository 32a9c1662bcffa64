"""What must outlive a power cut: bring files, and the names in directories, to the disk.

A file that was written and renamed exists after a power cut only if its directory was synced too
(fsync(2)). Every call blocks until the disk has answered.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["sync", "sync_tree"]


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Bring a directory with all that is in it to the disk; raises OSError."""
    for path in (*root.rglob("*"), root):
        if not path.is_symlink():
            sync(path)
