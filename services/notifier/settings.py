"""Settings of the notifier, `KITE_*` in the environment."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from libs.common.settings import Port, ServiceSettings

__all__ = ["Settings"]


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """Who is told stands in the TOML file `notify_file` (docs/guides/notifications.md).

    Without one the notifier runs and tells nobody. `notifier_data_dir` holds its journal: what
    was told, and what is still to be. Alertmanager posts to `/alerts` at `notifier_host` and
    `notifier_port` (0 takes any free port), at most `notifier_body_bytes_max` at once. What was
    told is remembered for `notifier_keep_days`, longer than the stream keeps signals.
    """

    notify_file: str = ""
    notifier_data_dir: str
    notifier_host: str = "127.0.0.1"
    notifier_port: Port = 8000
    notifier_body_bytes_max: Annotated[int, Meta(ge=1024, le=16 << 20)] = 1 << 20
    notifier_keep_days: Annotated[int, Meta(ge=8)] = 30
