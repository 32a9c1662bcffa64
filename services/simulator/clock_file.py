"""Where the virtual clock survives a restart: one small JSON file, replaced atomically."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from libs.common.errors import SettingsError
from services.simulator.virtual_clock import Anchor

__all__ = ["load", "save"]


def load(path: Path, market: str) -> Anchor | None:
    """Return what was stored, or None when there is no file.

    Raises SettingsError when the file cannot be read or belongs to another market: its time line
    would make no sense there.
    """
    try:
        anchor = msgspec.json.decode(path.read_bytes(), type=Anchor)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(
            [f"KITE_SIM_CLOCK_FILE: cannot use {path}: {error}; remove it to start anew"]
        ) from error
    if anchor.market != market:
        raise SettingsError(
            [
                f"KITE_SIM_CLOCK_FILE: {path} is the clock of {anchor.market}, not of {market}; "
                "use another file, or remove it to start anew"
            ]
        )
    return anchor


def save(path: Path, anchor: Anchor) -> None:
    """Replace the file; after a power cut there is the old one or the new one."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(anchor))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
