"""What running containers use of memory, held against the machines that they shall fit on."""

from __future__ import annotations

from tests.containers.definitions import (
    CORE,
    CORE_MEMORY_BYTES_MAX,
    LASTING,
    NANO,
    NANO_MEMORY_BYTES_MAX,
)
from tests.containers.project import Project

__all__ = ["too_heavy"]

_WAYS = {
    "core": (CORE, CORE_MEMORY_BYTES_MAX),
    "core, notifier and backup": ((*CORE, "notifier", "backup"), CORE_MEMORY_BYTES_MAX),
    "nano with its notifier": ((*NANO, "notifier"), NANO_MEMORY_BYTES_MAX),
}


def too_heavy(project: Project, when: str, report: list[str]) -> list[str]:
    """Return which ways to run use too much, and tell in the report what each uses."""
    used = project.memory_bytes()
    found = []
    for way, (names, bytes_max) in _WAYS.items():
        total = sum(used[name] for name in names)
        line = f"memory {when}, {way}: {total >> 20} of {bytes_max >> 20} MiB"
        report.append(line)
        if total > bytes_max:
            found.append(line)
    each = ", ".join(f"{name} {used[name] >> 20}" for name in LASTING)
    report.append(f"memory {when}, MiB: {each}")
    return found
