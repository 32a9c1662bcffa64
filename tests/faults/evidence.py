"""Where fault runs leave what they found, and which code it was found in."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

__all__ = ["EVIDENCE", "ROOT", "code_digest"]

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / ".faults"
_TESTED = ("services", "libs", "cli", "deploy")


@cache
def code_digest() -> str:
    """Return a digest of the code under test as it lies in the working tree."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard",
         "--", *_TESTED],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout  # fmt: skip
    found = hashlib.sha256()
    for name in sorted(listed.split(b"\0")):
        path = ROOT / name.decode()
        if path.is_file():
            found.update(name + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]
