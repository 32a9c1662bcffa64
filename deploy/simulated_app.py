"""The application that the simulated broker knows; none of it means anything to Schwab."""

from __future__ import annotations

from typing import Final

__all__ = ["APP_KEY", "APP_SECRET", "CALLBACK"]

APP_KEY: Final = "SimulatorAppKey0SimulatorAppKey0"
APP_SECRET: Final = "SimulatorSecret0"  # noqa: S105 - it opens a simulator
# Where the simulated broker sends the browser after a login; nothing listens there.
CALLBACK: Final = "https://127.0.0.1:8182"
