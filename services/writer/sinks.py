"""Which way rows go, by the settings: over a connection to Postgres, or through a REST interface.

What only the latter needs is imported only for it: an HTTP client takes time and memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.writer.settings import Settings
from services.writer.store import PostgresStore
from services.writer.stored import PostgresRows

if TYPE_CHECKING:
    from services.writer.rest import RestStore
    from services.writer.rest_stored import RestRows

__all__ = ["open_rows", "open_store"]


def open_store(settings: Settings) -> PostgresStore | RestStore:
    """Return the store that the lanes write to."""
    connections_max = settings.writer_connections_max
    timeout_s = settings.writer_statement_timeout_s
    if settings.writer_sink == "rest":
        from services.writer.rest import RestStore

        return RestStore(
            settings.supabase_url,
            settings.supabase_service_key,
            connections_max=connections_max,
            statement_timeout_s=timeout_s,
        )
    return PostgresStore(
        settings.secured(settings.pg_dsn),
        connections_max=connections_max,
        statement_timeout_s=timeout_s,
        by_transaction=settings.by_transaction(settings.pg_dsn),
    )


def open_rows(settings: Settings) -> PostgresRows | RestRows:
    """Return what the reconciler reads with, on a connection of its own."""
    timeout_s = settings.writer_statement_timeout_s
    if settings.writer_sink == "rest":
        from services.writer.rest_stored import RestRows

        return RestRows(
            settings.supabase_url, settings.supabase_service_key, statement_timeout_s=timeout_s
        )
    return PostgresRows(
        settings.secured(settings.pg_dsn),
        statement_timeout_s=timeout_s,
        by_transaction=settings.by_transaction(settings.pg_dsn),
    )
