"""The error tree: every failure the stack names itself, with whose fault it is and whether it is
final.

    KiteError
    ├── SettingsError  the operator's: wrong or missing settings; final, exit code 2
    ├── StoreMismatch  the operator's: store made for other settings; final, exit code 2
    ├── PositionError  a position does not fit its stream; final, exit code 3
    ├── SchemaError    a durable frame this version cannot read; final, exit code 3
    ├── CalendarError  a date outside the generated calendar; final
    ├── RowsRefused    the database will never take these rows; final, exit code 3
    ├── ServerError    a local server cannot start (port, disk, version)
    ├── BusError             the bus could not do it now
    │   ├── BusUnavailable  nobody answered: connect, wait and try again
    │   ├── Doubt           it may or may not have happened: reload from the streams, then decide
    │   ├── Fenced          another writer was faster: drop the state and reload
    │   ├── StreamFull      the stream refuses rather than drops: wait for room
    │   └── LeaseLost       another instance owns the partition now: stand by
    └── StoreError           the database could not do it now
        ├── StoreUnavailable  away, restarting, out of disk, or it may have happened: read the
        │                     position again
        └── StoreFenced       another writer moved the position: drop the batch, read it again

A final error stops a service with the exit code above; every `BusError` and `StoreError` is retried
with a back-off.
"""

from __future__ import annotations

__all__ = [
    "EXIT_REFUSED",
    "EXIT_SETTINGS",
    "BusError",
    "BusUnavailable",
    "CalendarError",
    "Doubt",
    "Fenced",
    "KiteError",
    "LeaseLost",
    "PositionError",
    "RowsRefused",
    "SchemaError",
    "ServerError",
    "SettingsError",
    "StoreError",
    "StoreFenced",
    "StoreMismatch",
    "StoreUnavailable",
    "StreamFull",
]

EXIT_SETTINGS = 2
EXIT_REFUSED = 3


class KiteError(Exception):
    """Root of everything the stack raises on purpose; `exit_code` is what a process ends with."""

    exit_code = 1


class SettingsError(KiteError):
    """Settings are wrong; `problems` holds one line for each of them."""

    exit_code = EXIT_SETTINGS

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


class StoreMismatch(KiteError):
    """Streams or database were made for another source, partition count or result settings."""

    exit_code = EXIT_SETTINGS


class PositionError(KiteError):
    """A position ahead of its stream, before its first message, or of a stream made anew."""

    exit_code = EXIT_REFUSED


class SchemaError(KiteError):
    """A durable frame carries a schema version (or bytes) that this program does not understand."""

    exit_code = EXIT_REFUSED


class RowsRefused(KiteError):
    """Rows that contradict what the database holds (a key twice) or what its types can hold."""

    exit_code = EXIT_REFUSED


class CalendarError(KiteError):
    """A date that the generated calendar does not cover."""


class ServerError(KiteError):
    """A local nats-server or Postgres cannot be started; the message says how to mend it."""


class BusError(KiteError):
    """The bus could not do what was asked; trying again later may work."""


class BusUnavailable(BusError):
    """No server, no stream or no answer before anything was sent."""


class Doubt(BusError):
    """The request was sent and no answer came: it may have been carried out."""


class Fenced(BusError):
    """The subject's last sequence is not the expected one: somebody else wrote to it."""


class StreamFull(BusError):
    """The stream has reached its bound in bytes and refuses new messages."""


class LeaseLost(BusError):
    """The consumer's pin was lost: another instance owns the partition now."""


class StoreError(KiteError):
    """The database could not do what was asked; trying again later may work."""


class StoreUnavailable(StoreError):
    """No database, no answer, or a transaction of which nobody knows whether it was committed."""


class StoreFenced(StoreError):
    """The position is not the one that this writer left: another writer committed since."""
