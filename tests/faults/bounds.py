"""What the processes of a stack may take at most, looked at whenever something happens to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import psutil

from cli.state import StackState

__all__ = ["FDS_MAX", "RSS_BYTES_MAX", "Bounds"]

# A service holds caches and queues whose limits are in the code; this is their sum with a margin.
RSS_BYTES_MAX = 192 << 20
SERVER_RSS_BYTES_MAX = 512 << 20
FDS_MAX = 256
_SERVERS = frozenset({"nats", "postgres"})


@dataclass
class Bounds:
    """The most that was seen of each process."""

    rss_bytes: dict[str, int] = field(default_factory=dict)
    fds: dict[str, int] = field(default_factory=dict)

    def see(self, state: StackState) -> None:
        """Look at every process that runs now."""
        for name, entry in {**state.services, **state.servers}.items():
            if entry.pid is None:
                continue
            try:
                process = psutil.Process(entry.pid)
                rss_bytes, fds = process.memory_info().rss, process.num_fds()
            except psutil.Error:  # it ended meanwhile
                continue
            self.rss_bytes[name] = max(self.rss_bytes.get(name, 0), rss_bytes)
            self.fds[name] = max(self.fds.get(name, 0), fds)

    def violations(self) -> list[str]:
        """Say which process took more than it may."""
        said = []
        for name, rss_bytes in self.rss_bytes.items():
            limit = SERVER_RSS_BYTES_MAX if name in _SERVERS else RSS_BYTES_MAX
            if rss_bytes > limit:
                said.append(f"{name} held {rss_bytes >> 20} MiB, more than {limit >> 20}")
        said += [f"{name} had {n} files open" for name, n in self.fds.items() if n > FDS_MAX]
        return said
