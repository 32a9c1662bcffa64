"""The nats-server's configuration, made of the policy: a pure function that returns its text.

JSON is valid nats-server configuration and quotes every text rightly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.nats.policy import ADMIN, Permissions
from libs.common.bus import nkey

__all__ = [
    "ACCOUNT",
    "MAX_FILE_STORE_BYTES",
    "ServerOptions",
    "server_config",
    "stream_files_directory",
]

ACCOUNT = "KITE"
MAX_FILE_STORE_BYTES = 8 << 30

_MAX_PAYLOAD_BYTES = 1 << 20
_MAX_MEMORY_STORE_BYTES = 64 << 20
# What a slow reader may have pending before the server lets it go; more than one pull asks for.
_MAX_PENDING_BYTES = 32 << 20
_MAX_CONNECTIONS = 256


@dataclass(frozen=True)
class ServerOptions:
    """Where one server listens and stores; addresses are `host:port`."""

    name: str
    listen: str
    monitor: str
    store_dir: str
    max_file_store_bytes: int


def server_config(
    options: ServerOptions, granted: Mapping[str, Permissions], secrets: Mapping[str, str]
) -> str:
    """Return the configuration text; every user in `granted` needs a secret.

    Of a key it holds the public half; only passwords stand in it as they are.
    """
    users = [
        {**_login(user, secrets[user]), "permissions": _rules(user, rules)}
        for user, rules in sorted(granted.items())
    ]
    config: dict[str, Any] = {
        "server_name": options.name,
        "listen": options.listen,
        "http": options.monitor,
        "max_payload": _MAX_PAYLOAD_BYTES,
        "max_pending": _MAX_PENDING_BYTES,
        "max_connections": _MAX_CONNECTIONS,
        # A slow reader outside must lose its connection, not slow the publishers inside.
        "no_fast_producer_stall": True,
        "jetstream": {
            "store_dir": options.store_dir,
            # An acknowledged message is on the disk, not only in the page cache.
            "sync_interval": "always",
            "max_file_store": options.max_file_store_bytes,
            "max_memory_store": _MAX_MEMORY_STORE_BYTES,
        },
        "accounts": {ACCOUNT: {"jetstream": "enabled", "users": users}},
    }
    return json.dumps(config, indent=2) + "\n"


def stream_files_directory(store_dir: Path) -> Path:
    """Return where a server with this `store_dir` keeps the files of each stream."""
    return store_dir / "jetstream" / ACCOUNT / "streams"


def _login(user: str, secret: str) -> dict[str, str]:
    if nkey.is_seed(secret):
        return {"nkey": nkey.public_key(secret)}
    return {"user": user, "password": secret}


def _rules(user: str, rules: Permissions) -> dict[str, Any]:
    """Write one user's rules; an empty list would allow everything, so it becomes a denial."""
    if user == ADMIN:
        return {"publish": ">", "subscribe": ">"}
    return {"publish": _rule(rules.publish), "subscribe": _rule(rules.subscribe)}


def _rule(subjects: tuple[str, ...]) -> dict[str, list[str]]:
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}
