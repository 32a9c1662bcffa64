"""What `./kite export` understands: days, instants, names of files; and what it refuses."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.export.asked import Asked, Request, moment, resolve
from cli.export.tables import TABLES
from cli.options import UpOptions
from cli.options import resolve as resolve_up
from libs.common import calendar
from libs.common.errors import SettingsError


def request(*what: str, **given: Any) -> Request:
    """Resolve options of which only some were given."""
    return resolve(Asked(what=what or ("candles",), **given))


def refusals(*what: str, **given: Any) -> str:
    """All lines of a refusal."""
    with pytest.raises(SettingsError) as caught:
        request(*what, **given)
    return "\n".join(caught.value.problems)


class TestWhen:
    """Days are New York's and whole; everything else says its zone."""

    @given(st.dates(dt.date(1991, 1, 1), dt.date(2034, 12, 31)))
    def test_a_day_is_meant_whole(self, day: dt.date) -> None:
        """From midnight to midnight, be it 23, 24 or 25 hours."""
        text = day.isoformat()
        bounds = (moment("--from", text, end=False), moment("--to", text, end=True))
        assert bounds == calendar.day_bounds_ms(day)

    @given(st.integers(700_000_000, 2_000_000_000), st.integers(-12, 12))
    def test_an_instant_is_itself(self, epoch_s: int, hours: int) -> None:
        """In whatever zone it is written, at both ends."""
        stamp = dt.datetime.fromtimestamp(epoch_s, dt.timezone(dt.timedelta(hours=hours)))
        for end in (False, True):
            assert moment("--to", stamp.isoformat(), end=end) == stamp.timestamp() * 1000

    def test_nothing_is_no_bound(self) -> None:
        """All that is stored."""
        assert (request().from_ms, request().to_ms) == (None, None)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("2026-01-05T09:30", "in which zone?"),
            ("yesterday", "no day such as"),
            ("2026-02-30", "no day such as"),
            ("1812-06-18", "outside the calendar"),
        ],
    )
    def test_what_could_be_meant_otherwise_is_refused(self, text: str, said: str) -> None:
        """Nobody guesses a zone."""
        assert said in refusals(since=text)

    def test_an_end_before_the_beginning(self) -> None:
        """A day may be both, an instant not."""
        assert request(since="2026-01-05", until="2026-01-05").from_ms
        assert "is not after" in refusals(since="2026-01-06", until="2026-01-05")
        assert "is not after" in refusals(since="2026-01-06T00:00Z", until="2026-01-06T00:00Z")


class TestWhere:
    """The format follows from the name, and a name from the ticker."""

    @pytest.mark.parametrize(
        ("output", "chosen"),
        [("", "csv"), ("-", "csv"), ("a.csv", "csv"), ("a.parquet", "parquet"), ("a.PQ", "parquet"),
         ("new/", "csv")],
    )  # fmt: skip
    def test_the_ending_says_the_format(self, output: str, chosen: str) -> None:
        """Without one it is CSV."""
        assert request(output=output).format == chosen

    def test_an_option_says_it_as_well(self, tmp_path: Path) -> None:
        """For standard output, a directory, a name without an ending."""
        for output in ("", str(tmp_path), "rows"):
            assert request(output=output, format="parquet").format == "parquet"

    def test_contradictions(self) -> None:
        """A name that says something else, a name that says nothing."""
        assert "says csv" in refusals(output="a.csv", format="parquet")
        assert "which format?" in refusals(output="rows.txt")
        assert "need a directory" in refusals("candles", "ticks", output="a.csv")
        assert "add -o FILE" in refusals(as_json=True)

    @pytest.mark.parametrize("ticker", ["QQQ", "BRK.B", "BRK/B", "$SPX"])
    def test_a_file_of_candles_is_called_as_up_wants_it(self, ticker: str, tmp_path: Path) -> None:
        """`./kite up --csv` finds the ticker in it, or takes it from --tickers."""
        asked = request(output=f"{tmp_path}/", since="2023-11-01", until="2023-11-02")
        path = asked.file(TABLES["candles"], ticker, "1m")
        assert path.parent == tmp_path
        path.write_text("timestamp,open,high,low,close,volume\n", "utf-8")
        options = UpOptions(home=tmp_path, csv=(path,), tickers=ticker)
        assert resolve_up(options, {}).tickers == (ticker,)

    def test_names_say_what_is_in_them(self, tmp_path: Path) -> None:
        """Two exports of different days do not meet."""
        asked = request("ticks", "candles", output=str(tmp_path), since="2023-11-01")
        assert asked.file(TABLES["ticks"], "QQQ", None).name == "QQQ-ticks-2023-11-01.csv"
        assert asked.file(TABLES["candles"], "QQQ", "5m").name == "QQQ-5m-2023-11-01.csv"


class TestWhat:
    """Kinds of rows, tickers and time frames."""

    def test_candles_are_minutes_unless_said_otherwise(self) -> None:
        """Signals are all of them."""
        assert request().timeframes_of(TABLES["candles"]) == ("1m",)
        assert request("signals").timeframes_of(TABLES["signals"]) == ()
        assert request(timeframes="all").timeframes_of(TABLES["candles"]) == ()
        assert request(timeframes="5m, 1h").timeframes_of(TABLES["candles"]) == ("5m", "1h")

    def test_mistakes_are_told_together(self) -> None:
        """One line each."""
        said = refusals("trades", tickers="Q Q", since="x", timeframes="soon")
        assert len(said.splitlines()) == 4
        assert "trades: unknown; name what to export: candles, ticks" in said

    def test_ticks_have_no_time_frame(self) -> None:
        """An option that would be ignored is refused."""
        assert "ticks have none" in refusals("ticks", timeframes="1m")
        assert request("ticks", "candles", timeframes="1m", output="x/").timeframes == ("1m",)
