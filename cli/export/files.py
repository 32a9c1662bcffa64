"""Where rows go: CSV as it comes, or Parquet made of it, into a file that is whole or not there.

The database writes CSV text itself, so a number in a file has the digits that are stored. Parquet
is parsed from the same text, a bounded piece at a time; pyarrow is imported when it is needed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from cli.export.tables import Column, Kind
from libs.common import durable
from libs.common.errors import KiteError

if TYPE_CHECKING:
    import pyarrow as pa

    from cli.export.asked import Format

__all__ = ["ExportFailed", "Output", "ReaderGone", "open_output", "whole_file"]

_TEXT_BYTES_MAX = 4 << 20
_ROWS_PER_GROUP = 128 * 1024
_NAME_LENGTH_MAX = 64
# The precision of the columns in the database, and what one of nine digits before the point needs.
_PRICE, _AVERAGE = (12, 4), (18, 6)


class ExportFailed(KiteError):
    """The rows could not be written, or there are none."""


class ReaderGone(Exception):
    """Whoever read our output has seen enough. An OSError would be taken for the server's."""


class Output(Protocol):
    """Takes whole lines of CSV, without a header."""

    def write(self, lines: bytes) -> None:
        """Take more lines; raises ExportFailed, or ReaderGone."""
        ...

    def finish(self) -> None:
        """Write what is still held back."""
        ...


class Digested:
    """A file that counts and digests what is written, and says what is wrong in words of ours."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._digest = hashlib.sha256()
        self.count_bytes = 0
        self.closed = False

    @property
    def sha256(self) -> str:
        """The digest of everything so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Write all of it; raises ExportFailed, or ReaderGone."""
        view = bytes(data)
        try:
            self._file.write(view)
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise ExportFailed(f"cannot write {self._name}: {_reason(error)}") from error
        self._digest.update(view)
        self.count_bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """Hand over what a buffer holds; raises as `write` does."""
        try:
            self._file.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise ExportFailed(f"cannot write {self._name}: {_reason(error)}") from error

    def tell(self) -> int:
        """Return how far it is."""
        return self.count_bytes

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""


@contextmanager
def whole_file(path: Path, *, force: bool) -> Iterator[Digested]:
    """Yield a file that gets its name when the context ends well, and leaves nothing otherwise.

    Raises ExportFailed when it cannot be written, or, without `force`, when the name is taken.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name[:_NAME_LENGTH_MAX]}.", suffix=".part", dir=path.parent
        )
    except OSError as error:
        raise ExportFailed(f"cannot write {path}: {_reason(error)}") from error
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            digested = Digested(file, str(path))
            yield digested
            digested.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        refuse_taken(path, force=force)
        part.replace(path)
        durable.sync(path.parent)
    except OSError as error:
        raise ExportFailed(f"cannot write {path}: {_reason(error)}") from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def refuse_taken(path: Path, *, force: bool) -> None:
    """Raise ExportFailed when there is such a file already and it shall not be replaced."""
    if path.exists() and not (force and path.is_file()):
        what = "there is such a file already; add --force to replace it, or name another"
        raise ExportFailed(f"{path}: {what if path.is_file() else 'is no file'}")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# -- formats ---------------------------------------------------------------------------------------


def open_output(
    chosen: Format, file: Digested, columns: Sequence[Column], facts: Mapping[str, str]
) -> Output:
    """Begin a file; Parquet keeps `facts` in its head."""
    if chosen == "csv":
        return _Csv(file, columns)
    return _Parquet(file, columns, facts)


class _Csv:
    def __init__(self, file: Digested, columns: Sequence[Column]) -> None:
        self._file = file
        self._file.write(",".join(column.name for column in columns).encode() + b"\n")

    def write(self, lines: bytes) -> None:
        self._file.write(lines)

    def finish(self) -> None:
        self._file.flush()


class _Parquet:
    """Parses lines when there are some megabytes of them, writes them in groups of many rows."""

    def __init__(self, file: Digested, columns: Sequence[Column], facts: Mapping[str, str]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._schema = pa.schema(
            [pa.field(column.name, _type(column.kind)) for column in columns],
            metadata={f"kite.{name}": text for name, text in facts.items()},
        )
        self._lines = bytearray()
        self._tables: list[pa.Table] = []
        self._rows = 0
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, lines: bytes) -> None:
        self._lines += lines
        if len(self._lines) >= _TEXT_BYTES_MAX:
            self._parse()

    def finish(self) -> None:
        self._parse()
        self._write_group()
        self._writer.close()

    def _parse(self) -> None:
        if not self._lines:
            return
        table = _parsed(bytes(self._lines), self._schema)
        self._lines.clear()
        self._tables.append(table)
        self._rows += table.num_rows
        if self._rows >= _ROWS_PER_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.concat_tables(self._tables), row_group_size=self._rows)
        self._tables, self._rows = [], 0


def _type(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    types: dict[Kind, pa.DataType] = {
        "text": pa.string(),
        "whole": pa.int64(),
        "price": pa.decimal128(*_PRICE),
        "average": pa.decimal128(*_AVERAGE),
        "time": pa.timestamp("us", tz="UTC"),
        "wall_time": pa.timestamp("us", tz="UTC"),
        "date": pa.date32(),
        "flag": pa.bool_(),
    }
    return types[kind]


def _parsed(lines: bytes, schema: pa.Schema) -> pa.Table:
    """Parse lines of Postgres: null is empty, an empty text is quoted."""
    import pyarrow as pa
    from pyarrow import csv

    options: dict[str, Any] = {
        "read_options": csv.ReadOptions(
            column_names=schema.names, use_threads=False, block_size=len(lines) + 1
        ),
        "parse_options": csv.ParseOptions(newlines_in_values=True),
        "convert_options": csv.ConvertOptions(
            column_types=schema, null_values=[""], strings_can_be_null=True,
            quoted_strings_can_be_null=False, true_values=["true"], false_values=["false"],
            timestamp_parsers=[csv.ISO8601],
        ),
    }  # fmt: skip
    return csv.read_csv(pa.BufferReader(lines), **options).cast(schema)
