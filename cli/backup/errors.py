"""What can go wrong with a backup, and whose fault it is."""

from __future__ import annotations

from libs.common.errors import EXIT_REFUSED, EXIT_SETTINGS, KiteError

__all__ = ["BackupDamaged", "BackupFailed", "NotEmpty", "PlaceUnavailable"]


class BackupFailed(KiteError):
    """It could not be made or restored now; trying again later may work."""


class PlaceUnavailable(BackupFailed):
    """Where backups are kept cannot be reached, or refuses."""


class BackupDamaged(KiteError):
    """Bytes are missing or are not those that were written; final for this backup."""

    exit_code = EXIT_REFUSED


class NotEmpty(KiteError):
    """The operator's: a restore would overwrite something."""

    exit_code = EXIT_SETTINGS
