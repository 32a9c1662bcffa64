"""What the writer needs to know, from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from libs.common.postgres import DatabaseSettings
from libs.common.settings import Positive
from services.writer.project import key_fault, url_fault

__all__ = ["REST_INPUT_BYTES_MAX", "REST_ROWS_MAX", "Settings"]


class Settings(DatabaseSettings, frozen=True, kw_only=True):
    """The database, and how rows are batched.

    `writer_sink` says how rows get into it. `copy`: over a connection to Postgres, for which
    `pg_dsn` is a connection string of the tables' owner. `rest`: through the REST interface of a
    Supabase project, whose address is `supabase_url` and whose secret or service_role key is
    `supabase_service_key`; a batch is then one request, of bounded size. A batch is written
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

    writer_sink: Literal["copy", "rest"] = "copy"
    pg_dsn: str = ""
    supabase_url: str = ""
    supabase_service_key: str = ""
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
        """Refuse what cannot work, without repeating addresses and keys: they hold secrets."""
        problems = self._rest_problems() if self.writer_sink == "rest" else self._copy_problems()
        if problems:
            raise ValueError("; ".join(problems))

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Name what the chosen sink cannot do without."""
        if values.get("writer_sink") == "rest":
            return ("supabase_url", "supabase_service_key")
        return ("pg_dsn",)

    def _copy_problems(self) -> list[str]:
        fault = self.pg_fault(self.pg_dsn)
        return [fault] if fault else []

    def _rest_problems(self) -> list[str]:
        problems = []
        for name, value, fault in (
            ("KITE_SUPABASE_URL", self.supabase_url, url_fault),
            ("KITE_SUPABASE_SERVICE_KEY", self.supabase_service_key, key_fault),
        ):
            if (wrong := fault(value)) is not None:
                problems.append(f"{name}: its value {wrong}")
        for name, found, most in (
            ("KITE_WRITER_ROWS_MAX", self.writer_rows_max, REST_ROWS_MAX),
            ("KITE_WRITER_INPUT_BYTES_MAX", self.writer_input_bytes_max, REST_INPUT_BYTES_MAX),
        ):
            if found > most:
                problems.append(f"{name}: {found} is too much for one request: at most {most}")
        return problems


# What stays within the 16 MiB that `kite_commit` takes, with a frame more than the limit.
REST_ROWS_MAX = 20_000
REST_INPUT_BYTES_MAX = 4 * 1024 * 1024
