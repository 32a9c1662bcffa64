"""What the processes of a stack may take at most, looked at whenever something happens to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import psutil

from cli.state import StackState

__all__ = ["QUEUES", "Bounds"]

# A service holds caches and queues whose limits are in the code; this is their sum with a margin.
RSS_BYTES_MAX = 192 << 20
SERVER_RSS_BYTES_MAX = 512 << 20
FDS_MAX = 256
# By metric of ingest: the limit in the code and, for items, a frame's worth that may pass it.
QUEUES = {"kite_ingest_inbox_items": 1_100, "kite_ingest_spool_bytes": 64 << 20}
_SERVERS = frozenset({"nats", "postgres"})


@dataclass
class Bounds:
    """The most that was seen of each process."""

    rss_bytes: dict[str, int] = field(default_factory=dict)
    fds: dict[str, int] = field(default_factory=dict)
    queues: dict[str, float] = field(default_factory=dict)

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

    def queued(self, metric: str, value: float) -> None:
        """Note how much waits in one of `QUEUES`."""
        self.queues[metric] = max(self.queues.get(metric, 0.0), value)

    def violations(self) -> list[str]:
        """Say which process took more than it may."""
        said = []
        for name, rss_bytes in self.rss_bytes.items():
            limit = SERVER_RSS_BYTES_MAX if name in _SERVERS else RSS_BYTES_MAX
            if rss_bytes > limit:
                said.append(f"{name} held {rss_bytes >> 20} MiB, more than {limit >> 20}")
        said += [
            f"{metric} was {value:.0f}, more than {QUEUES[metric]}"
            for metric, value in self.queues.items()
            if value > QUEUES[metric]
        ]
        said += [f"{name} had {n} files open" for name, n in self.fds.items() if n > FDS_MAX]
        return said
