"""Files: whole or not there, and Parquet with the types and digits of the database."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from cli.export import files
from cli.export.files import Digested, ExportFailed, ReaderGone, open_output, whole_file
from cli.export.tables import TABLES, Column

COLUMNS = (
    Column("name"), Column("count", "whole"), Column("price", "price"),
    Column("mean", "average"), Column("at", "time"), Column("day", "date"), Column("late", "flag"),
)  # fmt: skip

prices = st.decimals(0, 99_999_999, places=4)
averages = st.decimals(-99_999_999, 99_999_999, places=6)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
instants = st.integers(86_400_000, 9_000_000_000_000).map(
    lambda ts_ms: dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ts_ms)
)


def line(*values: str | None) -> bytes:
    """One line as Postgres writes it: nothing is null, a quoted nothing is an empty text."""
    cells = []
    for value in values:
        text = "" if value is None else value
        quote = value == "" or any(character in text for character in ',"\r\n') or text == "\\."
        cells.append('"' + text.replace('"', '""') + '"' if quote else text)
    return ",".join(cells).encode() + b"\n"


def parquet_of(lines: list[bytes], columns: tuple[Column, ...] = COLUMNS) -> pa.Table:
    """Write lines, a few at a time, and read the file."""
    held = io.BytesIO()
    output = open_output("parquet", Digested(held, "it"), columns, {"source": "demo"})
    for each in lines:
        output.write(each)
    output.finish()
    return parquet.read_table(io.BytesIO(held.getvalue()))


@given(
    st.lists(
        st.tuples(
            st.none() | texts, st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | prices,
            st.none() | averages, instants, st.dates(dt.date(1970, 1, 1)), st.booleans(),
        ),
        min_size=1,
        max_size=20,
    )
)  # fmt: skip
def test_every_value_comes_back(rows: list[tuple[Any, ...]]) -> None:
    """Text with quotes, commas and line ends, nulls, all digits, instants in UTC."""
    table = parquet_of(
        [
            line(
                name,
                None if count is None else str(count),
                None if price is None else f"{price:.4f}",
                None if mean is None else f"{mean:.6f}",
                f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
                day.isoformat(),
                "true" if late else "false",
            )
            for name, count, price, mean, at, day, late in rows
        ]
    )
    assert [tuple(row.values()) for row in table.to_pylist()] == rows


def test_types_are_those_of_the_columns() -> None:
    """Decimals that are exact, instants that know their zone."""
    schema = parquet_of([line("QQQ", "1", "1.0000", "1.000000", "2026-01-05T14:30:00.000Z",
                              "2026-01-05", "true")]).schema  # fmt: skip
    assert schema.field("price").type == pa.decimal128(12, 4)
    assert schema.field("mean").type == pa.decimal128(18, 6)
    assert schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert schema.metadata[b"kite.source"] == b"demo"


def test_much_is_written_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held in memory does not grow with the rows."""
    monkeypatch.setattr(files, "_TEXT_BYTES_MAX", 1 << 10)
    monkeypatch.setattr(files, "_ROWS_PER_GROUP", 1000)
    held = io.BytesIO()
    output: Any = open_output("parquet", Digested(held, "it"), (Column("n", "whole"),), {})
    for number in range(10_000):
        output.write(b"%d\n" % number)
        assert len(output._lines) <= 1 << 10
        assert output._rows <= 1500
    output.finish()
    file = parquet.ParquetFile(io.BytesIO(held.getvalue()))
    assert file.num_row_groups > 5
    assert file.read().column("n").to_pylist() == list(range(10_000))


def test_csv_has_a_header_and_what_came() -> None:
    """Digits as the database writes them."""
    held = io.BytesIO()
    output = open_output("csv", Digested(held, "it"), TABLES["gaps"].columns, {})
    output.write(line("a", "QQQ", "bars", "t", "t", 'a "cause",\nof two lines', "open"))
    output.finish()
    (row,) = csv.DictReader(io.StringIO(held.getvalue().decode()))
    assert row["cause"] == 'a "cause",\nof two lines'


class TestWholeFile:
    """A name stands for a whole file."""

    def test_it_appears_at_the_end(self, tmp_path: Path) -> None:
        """With the rights that files of this person have."""
        path = tmp_path / "new" / "rows.csv"
        with whole_file(path, force=False) as file:
            file.write(b"rows")
            assert not path.exists()
        assert path.read_bytes() == b"rows"
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_a_failure_leaves_nothing(self, error: type[BaseException], tmp_path: Path) -> None:
        """Nor does it touch what was there."""
        path = tmp_path / "rows.csv"
        path.write_text("old", "utf-8")

        def fail() -> None:
            with whole_file(path, force=True) as file:
                file.write(b"half")
                raise error

        with pytest.raises(error):
            fail()
        assert [each.read_text("utf-8") for each in tmp_path.iterdir()] == ["old"]

    def test_a_name_that_was_taken_meanwhile_is_not_replaced(self, tmp_path: Path) -> None:
        """Somebody else's file stays."""
        path = tmp_path / "rows.csv"

        def write() -> None:
            with whole_file(path, force=False) as new:
                new.write(b"new")
                path.write_text("other", "utf-8")

        with pytest.raises(ExportFailed, match="add --force"):
            write()
        assert [each.read_text("utf-8") for each in tmp_path.iterdir()] == ["other"]

    def test_a_directory_is_never_replaced(self, tmp_path: Path) -> None:
        """Not even by force."""
        (tmp_path / "rows.csv").mkdir()
        with pytest.raises(ExportFailed, match="is no file"):
            files.refuse_taken(tmp_path / "rows.csv", force=True)

    def test_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        """A file where a directory should be."""
        (tmp_path / "file").write_text("", "utf-8")
        with (
            pytest.raises(ExportFailed, match=r"cannot write .*rows\.csv"),
            whole_file(tmp_path / "file" / "rows.csv", force=False),
        ):
            raise AssertionError("it was opened")


class _Broken(io.RawIOBase):
    def __init__(self, error: OSError) -> None:
        self.error = error

    def write(self, data: object) -> int:
        raise self.error


def test_a_full_disk_is_the_file_s_fault_and_not_the_server_s() -> None:
    """Said with the file's name; a reader who left is no error at all."""
    full = Digested(cast(BinaryIO, _Broken(OSError(28, "No space left on device"))), "rows.csv")
    with pytest.raises(ExportFailed, match=r"cannot write rows\.csv: no space left on device"):
        full.write(b"x")
    gone = Digested(cast(BinaryIO, _Broken(BrokenPipeError())), "standard output")
    with pytest.raises(ReaderGone):
        gone.write(b"x")
