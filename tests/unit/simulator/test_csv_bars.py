"""Recorded days are played as they are, and files that cannot be are refused clearly."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path

import pytest

from libs.common.errors import SettingsError
from services.simulator.csv_bars import load, parse_sources, read_bars

DATA = Path(__file__).resolve().parents[2] / "data"
HEADER = "timestamp,open,high,low,close,volume\n"
ROW = "2023-07-10 13:30:00,10,11,9,10.5,100\n"


def read(text: str) -> int:
    """Read a file's text and return how many rows were left out."""
    return read_bars(io.StringIO(text))[1]


def test_the_ticker_comes_from_the_file_name_or_is_given() -> None:
    """`INDA-1min-2023-07.csv` is INDA; `TICKER=FILE` says it outright."""
    assert parse_sources(["/x/INDA-1min-2023-07.csv", "BRK.B=/x/any.csv"]) == {
        "INDA": Path("/x/INDA-1min-2023-07.csv"),
        "BRK.B": Path("/x/any.csv"),
    }


@pytest.mark.parametrize("texts", [["bars.csv"], ["A-1.csv", "A=x.csv"]])
def test_a_source_without_a_clear_ticker_is_refused(texts: list[str]) -> None:
    """A lower-case name is no ticker, and no ticker has two files."""
    with pytest.raises(SettingsError, match="KITE_SIM_CSV"):
        parse_sources(texts)


def test_real_files_are_read_whole_but_for_rows_outside_the_session() -> None:
    """All rows of both months arrive, less 28 and 5 outside 07:00 to 20:00 (17:00) New York."""
    inda, outside_inda = load({"INDA": DATA / "INDA-1min-2023-07.csv"}, "1", 12)
    assert outside_inda == 28
    days = [dt.date(2023, 7, day) for day in range(10, 29)]
    assert sum(len(inda.bars("INDA", day)) for day in days) == 5_822 - 28
    fxy, outside_fxy = load({"FXY": DATA / "FXY-1min-2023-11.csv"}, "1", 12)
    assert outside_fxy == 5
    assert fxy.day_before("FXY", dt.date(2023, 11, 20)) == dt.date(2023, 11, 9)
    assert fxy.bars_before("FXY", dt.date(2023, 11, 2)) == len(
        fxy.bars("FXY", dt.date(2023, 11, 1))
    )


def test_the_clock_goes_from_data_to_data() -> None:
    """The next open is that of the next day with rows; after the last one there is none."""
    market, _ = load({"FXY": DATA / "FXY-1min-2023-11.csv"}, "1", 12)
    first_ms = market.first_open_ms()
    assert first_ms is not None
    opens = [first_ms]
    while (following := market.next_open_ms(opens[-1])) is not None:
        opens.append(following)
    assert len(opens) == 11


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "column timestamp, open, high, low, close, volume is missing"),
        ("timestamp,open,high,low,close\n", "column volume is missing"),
        (HEADER + ROW + ROW, "line 3: timestamp is not later than the row before"),
        (HEADER + ROW.replace("10.5", "ten"), "line 2: close 'ten' is not a number"),
        (HEADER + ROW.replace("10.5", "nan"), "line 2: close 'nan' is not a number"),
        (HEADER + ROW.replace("11,9", "9,11"), "line 2: high 9.0 is below low 11.0"),
        (HEADER + ROW.replace("11,9", "10.2,9"), "line 2: open and close must lie between"),
        (HEADER + ROW.replace("13:30:00", "noon"), "is not a date and time"),
        (HEADER + ROW.replace("13:30:00", "13:30:07"), "is not the start of a minute"),
        (HEADER + ROW.replace("100\n", "1.5\n"), "volume '1.5' is not a number of whole shares"),
        (HEADER + ROW.replace("100\n", "-1\n"), "volume '-1' is not a number of whole shares"),
        (HEADER + ROW.replace(",100", ""), "line 2: volume None is not a number"),
        (HEADER + ROW.replace(",10,", ",-10,").replace(",9,", ",-11,"), "is not a price"),
    ],
)
def test_a_row_that_cannot_be_played_is_named(text: str, complaint: str) -> None:
    """The message says which line, which column and what is wrong."""
    with pytest.raises(ValueError, match=complaint):
        read(text)


def test_every_unusable_file_is_reported_at_once(tmp_path: Path) -> None:
    """One line for each, with the path."""
    empty = tmp_path / "EMPTY-1.csv"
    empty.write_text(HEADER)
    binary = tmp_path / "BINARY-1.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError) as caught:
        load({"EMPTY": empty, "BINARY": binary, "GONE": tmp_path / "gone.csv"}, "1", 12)
    assert len(caught.value.problems) == 3


def test_columns_may_come_in_any_order_with_others_beside() -> None:
    """Only the names in the first line count; a byte order mark and other zones are fine."""
    text = "x,volume,close,low,high,open,timestamp\n,5.0,1,1,1,1,2023-07-10T09:30:00-04:00\n"
    days, outside = read_bars(io.StringIO(text))
    assert outside == 0
    assert days[dt.date(2023, 7, 10)][0].ts_ms == 1_688_995_800_000
