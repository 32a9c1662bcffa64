"""What `up` accepts, and how it says what is wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.options import (
    DEMO_TICKERS,
    Market,
    UpOptions,
    parse_tickers,
    recording_start,
    resolve,
    warnings,
)
from libs.common.errors import SettingsError
from libs.common.sealing import Key
from libs.common.token_file import TokenFile

KEY = Key(bytes(32)).text
TOKEN = {
    "creation_timestamp": 1,
    "token": {"access_token": "a", "refresh_token": "r", "expires_at": 2},
}
HEADER = "timestamp,open,high,low,close,volume\n"
ROW = "2023-11-24 14:30:00,61.9,61.95,61.9,61.93,1200\n"


def options(**given: Any) -> UpOptions:
    """Return options with what matters to a test."""
    return replace(UpOptions(home=Path("unused")), **given)


def problems(wanted: UpOptions, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    """Return the lines of a refusal."""
    with pytest.raises(SettingsError) as refusal:
        resolve(wanted, environ or {})
    return refusal.value.problems


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """A good file of one bar."""
    path = tmp_path / "FXY-1min-2023-11.csv"
    path.write_text(HEADER + ROW)
    return path


class TestMarket:
    """Which market follows from the options."""

    def test_without_options_it_is_the_demo(self) -> None:
        """A newcomer gets the simulated market with several tickers."""
        assert resolve(options(), {}) == Market("demo", DEMO_TICKERS)

    def test_a_file_is_a_market_of_its_ticker(self, bars: Path) -> None:
        """The ticker is the beginning of the file's name, and the store is the file's own."""
        market = resolve(options(csv=(bars,)), {})
        assert (market.source, market.tickers) == ("csv", ("FXY",))
        assert market.csv == (("FXY", bars.resolve()),)
        assert market.store_name == f"csv/FXY-1min-2023-11-{market.csv_sha256[:8]}"

    def test_a_recording_starts_just_before_its_first_bar(self, bars: Path) -> None:
        """Nobody waits for hours until something happens."""
        market = resolve(options(csv=(bars,)), {})
        assert recording_start(market) == "2023-11-24T14:29:58+00:00"

    @pytest.mark.parametrize("row", ["", "soon,1,1,1,1,1\n", "\n\n", '"'])
    def test_a_first_row_that_makes_no_sense_is_left_to_the_simulator(
        self, bars: Path, row: str
    ) -> None:
        """It reads every row, and says which one is wrong."""
        bars.write_text(HEADER + row)
        assert recording_start(resolve(options(csv=(bars,)), {})) is None

    def test_another_content_is_another_store(self, bars: Path) -> None:
        """Bars that were changed never meet rows of the old ones."""
        before = resolve(options(csv=(bars,)), {})
        bars.write_text(HEADER + ROW + ROW.replace("14:30", "14:31"))
        assert resolve(options(csv=(bars,)), {}).store_name != before.store_name

    def test_the_place_of_a_file_does_not_matter(self, bars: Path, tmp_path: Path) -> None:
        """The same bars from elsewhere continue the same store."""
        other = tmp_path / "elsewhere"
        other.mkdir()
        copied = Path(shutil.copy(bars, other))
        first, second = resolve(options(csv=(bars,)), {}), resolve(options(csv=(copied,)), {})
        assert first.store_name == second.store_name

    def test_a_ticker_may_be_named_for_a_file(self, bars: Path) -> None:
        """For files whose name says nothing."""
        plain = bars.rename(bars.with_name("my-bars.csv"))
        assert resolve(options(csv=(plain,), tickers="ABC"), {}).tickers == ("ABC",)

    def test_a_file_is_not_played_as_another_ticker(self, bars: Path) -> None:
        """Its name says whose bars it holds; rows of another would be wrong for good."""
        assert resolve(options(csv=(bars,), tickers="fxy"), {}).tickers == ("FXY",)
        (line,) = problems(options(csv=(bars,), tickers="ABC"))
        assert "holds FXY as its name says, and no ABC" in line

    def test_the_account_needs_its_keys_and_a_token(self, tmp_path: Path) -> None:
        """All that is missing is said at once, and where it comes from."""
        key, secret, token = problems(options(schwab=True, home=tmp_path))
        assert key.startswith("KITE_SCHWAB_APP_KEY: not set")
        assert secret.startswith("KITE_SCHWAB_APP_SECRET: not set")
        assert f"{tmp_path}/schwab/login/schwab-token.json" in token
        assert "./kite auth login" in token

    def test_the_account_with_all_of_them_is_a_market(self, tmp_path: Path) -> None:
        """The token may lie anywhere."""
        token = tmp_path / "token.json"
        TokenFile(token, KEY).write(TOKEN)
        environ = {
            "KITE_SCHWAB_APP_KEY": "key",
            "KITE_SCHWAB_APP_SECRET": "secret",
            "KITE_SCHWAB_TOKEN_FILE": str(token),
            "KITE_SCHWAB_TOKEN_KEY": KEY,
        }
        assert resolve(options(schwab=True), environ) == Market("schwab", ("QQQ",))

    @pytest.mark.parametrize("harm", [b"", b"{}", b'{"sealed":"'])
    def test_a_token_that_cannot_be_used_is_told_before_anything_starts(
        self, tmp_path: Path, harm: bytes
    ) -> None:
        """And it is left as it is."""
        token = tmp_path / "token.json"
        TokenFile(token, KEY).write(TOKEN)
        token.write_bytes(harm)
        environ = {
            "KITE_SCHWAB_APP_KEY": "key",
            "KITE_SCHWAB_APP_SECRET": "secret",
            "KITE_SCHWAB_TOKEN_FILE": str(token),
            "KITE_SCHWAB_TOKEN_KEY": KEY,
        }
        with pytest.raises(SettingsError) as refusal:
            resolve(options(schwab=True), environ)
        assert "log in again" in str(refusal.value)
        assert token.read_bytes() == harm


class TestMistakes:
    """One line each, all at once."""

    def test_every_mistake_is_named(self) -> None:
        """Nobody has to mend them one by one."""
        lines = problems(options(tickers="QQQ,12$%", speed=-1, partitions=0, exit_after_s=-5))
        assert len(lines) == 4
        for option in ("--tickers", "--speed", "--partitions", "--exit-after"):
            assert any(option in line for line in lines)

    @pytest.mark.parametrize(
        ("given", "word"),
        [
            ({"csv": (Path("nowhere.csv"),)}, "no such file"),
            ({"csv": (Path("/"),), "tickers": "QQQ"}, "is a directory"),
            ({"schwab": True, "csv": (Path("nowhere.csv"),)}, "choose one source"),
            ({"schwab": True, "speed": 2.0}, "cannot be hurried"),
            ({"schwab": True, "fresh": True}, "never deleted"),
            ({"tickers": " , "}, "empty"),
            ({"tickers": ",".join(f"T{n}" for n in range(301))}, "at most 300"),
            ({"nats_port": 70_000}, "--nats-port 70000"),
            ({"speed": float("nan")}, "--speed nan"),
        ],
    )
    def test_each_has_its_own_words(self, given: dict[str, object], word: str) -> None:
        """The line says what is wrong."""
        assert any(word in line for line in problems(options(**given)))

    def test_a_file_without_the_columns_is_refused(self, tmp_path: Path) -> None:
        """The missing ones are named, and what the first line has to be."""
        path = tmp_path / "QQQ.csv"
        path.write_text("time,price\n1,2\n")
        (line,) = problems(options(csv=(path,)))
        assert "lacks timestamp, open, high, low, close, volume" in line

    def test_a_binary_file_is_refused(self, tmp_path: Path) -> None:
        """Somebody picked the wrong file."""
        path = tmp_path / "QQQ.csv"
        path.write_bytes(b"\xff\xfe\x00\x01" * 10)
        (line,) = problems(options(csv=(path,)))
        assert "not a text file" in line

    def test_two_files_of_one_ticker_are_refused(self, bars: Path) -> None:
        """Which of them would count?"""
        other = bars.with_name("FXY-other.csv")
        shutil.copy(bars, other)
        assert any("two files" in line for line in problems(options(csv=(bars, other))))


@pytest.mark.parametrize(("speed", "count"), [(None, 0), (1000, 0), (1001, 1)])
def test_a_speed_that_few_machines_reach_is_warned_of(speed: float | None, count: int) -> None:
    """It is no mistake, but the market arrives late."""
    assert len(list(warnings(options(speed=speed)))) == count


class TestTickers:
    """The list of tickers."""

    def test_spelling_is_mended(self) -> None:
        """Case, blanks and repeats are no mistakes."""
        assert parse_tickers(" qqq,SPY ,qqq, brk.b") == ("QQQ", "SPY", "BRK.B")

    @given(st.text(max_size=40))
    def test_any_text_gives_tickers_or_a_refusal(self, text: str) -> None:
        """Never anything else, and never a ticker with a blank or a wildcard in it."""
        try:
            tickers = parse_tickers(text)
        except SettingsError:
            return
        assert tickers
        assert all(not set(ticker) & set(" ,*>") for ticker in tickers)
