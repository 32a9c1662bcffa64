"""What the writer needs to know, from the environment."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from libs.common.settings import Positive, ServiceSettings

__all__ = ["Settings"]


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """The database, and how rows are batched.

    `pg_dsn` is a Postgres connection string of the tables' owner. A batch is written
    `writer_flush_ms` after its first frame, or as soon as it holds `writer_rows_max` rows or
    `writer_input_bytes_max` of encoded frames. `writer_connections_max` bounds what all lanes
    together use of the database. A statement that takes longer than `writer_statement_timeout_s`
    is given up and tried again. `writer_report_s` is how often `streaming_metrics` gets a row; on a
    fast market it gets one more often. `writer_database_bytes_max` is what the database's plan has
    room for, such as 500000000 on a free one; 0 means that only the disk bounds it. It stops
    nothing: at 80 % there is an alarm.

    `store` says what is kept: with `ticks` everything, with `minutes` no ticks and no averages of
    ticks, which are nearly all of the rows: for a small plan. Live messages carry them as ever.

    Every `writer_reconcile_interval_s` the streams are compared with the rows made of them, 0 turns
    that off. Below 15 the server would be kept from reading its disk again, and faults of the disk
    would be found late. The comparison reads at most `writer_reconcile_bytes_per_s_max` of frames
    and takes one more connection to the database. `writer_stream_files_dir` is where the
    nats-server keeps its streams, if that is on this machine: it holds new messages in memory, and
    only who reads the newest file sees that it was damaged before the server starts again.
    """

    pg_dsn: str
    store: Literal["ticks", "minutes"] = "ticks"
    writer_flush_ms: Annotated[int, Meta(ge=1, le=60_000)] = 200
    writer_rows_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    writer_input_bytes_max: Annotated[int, Meta(ge=1, le=64 * 1024 * 1024)] = 4 * 1024 * 1024
    writer_connections_max: Annotated[int, Meta(ge=1, le=64)] = 4
    writer_statement_timeout_s: Positive = 30
    writer_report_s: Annotated[int, Meta(ge=1, le=3600)] = 15
    writer_database_bytes_max: Annotated[int, Meta(ge=0)] = 0
    writer_reconcile_interval_s: Annotated[int, Meta(ge=0, le=3600)] = 20
    writer_reconcile_bytes_per_s_max: Annotated[int, Meta(ge=1024, le=1 << 30)] = 1 << 20
    writer_stream_files_dir: str = ""

    def __post_init__(self) -> None:
        """Refuse an address that no driver can take, without repeating it: it holds a password."""
        try:
            address = urlsplit(self.pg_dsn)
            usable = address.scheme in ("postgres", "postgresql") and (address.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                "KITE_PG_DSN: its value is not a Postgres address: expected "
                "postgresql://user:password@host:port/database"
            )
