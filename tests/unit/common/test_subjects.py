"""Names on the bus: what is built can be taken apart, and partitions are the server's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import subjects

SYMBOLS = st.text(min_size=1, max_size=12)


class TestPartitions:
    """FNV-1a of 32 bits, modulo the number of partitions."""

    @pytest.mark.parametrize(
        ("text", "digest"),
        [("", 0x811C9DC5), ("a", 0xE40C292C), ("b", 0xE70C2DE5), ("foobar", 0xBF9CF968)],
    )
    def test_known_digests(self, text: str, digest: int) -> None:
        """The vectors that the authors of FNV published."""
        assert subjects.partition_of(text, 1 << 32) == digest

    @given(SYMBOLS, st.integers(1, 64))
    def test_every_ticker_has_one(self, ticker: str, partitions: int) -> None:
        """Always the same one, within bounds."""
        partition = subjects.partition_of(ticker, partitions)
        assert 0 <= partition < partitions
        assert partition == subjects.partition_of(ticker, partitions)

    def test_tickers_spread(self) -> None:
        """Sixteen partitions share the two-letter tickers about evenly."""
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        counts = [0] * 16
        for first in letters:
            for second in letters:
                counts[subjects.partition_of(first + second, 16)] += 1
        assert min(counts) > 20
        assert max(counts) < 65


class TestEscaping:
    """A symbol is one token of a subject, and can be read back."""

    @given(SYMBOLS)
    def test_can_be_undone(self, symbol: str) -> None:
        """Whatever the symbol holds."""
        assert subjects.unescape(subjects.escape(symbol)) == symbol

    @given(st.text("ABZ019./%*> $^-", min_size=1))
    def test_gives_one_token(self, symbol: str) -> None:
        """Nothing is left that means something in a subject."""
        assert not set(subjects.escape(symbol)) & set(".*> \t")

    @given(SYMBOLS, SYMBOLS)
    def test_keeps_symbols_apart(self, one: str, other: str) -> None:
        """Two symbols never share a subject."""
        assert (one == other) == (subjects.escape(one) == subjects.escape(other))

    @pytest.mark.parametrize(
        ("symbol", "token"),
        [
            ("QQQ", "QQQ"),
            ("BRK.B", "BRK%2EB"),
            ("QQQ   240119C00410000", "QQQ%20%20%20240119C00410000"),
            ("50%", "50%25"),
            ("$SPX", "$SPX"),
        ],
    )
    def test_examples(self, symbol: str, token: str) -> None:
        """What a subscriber writes for these symbols."""
        assert subjects.escape(symbol) == token


class TestNames:
    """The names that the outside and the permissions rely on."""

    def test_durable_subjects(self) -> None:
        """Streams are numbered by partition."""
        assert subjects.frame_subject(subjects.MARKET, 0) == "market.0"
        assert subjects.frame_subject(subjects.INDICATORS, 3) == "indicators.3"
        assert subjects.checkpoint_subject("signals", 2) == "state.signals.2"
        assert subjects.dead_letter_subject("ingest") == "deadletter.ingest"
        assert subjects.consumer_name("writer", 7) == "writer-7"

    def test_live_subjects(self) -> None:
        """Live messages are named by ticker."""
        assert subjects.live_tick("BRK.B") == "live.tick.BRK%2EB"
        assert subjects.live_candle("5m", "QQQ") == "live.candle.5m.QQQ"
        assert subjects.live_signal("QQQ") == "live.signal.QQQ"
        assert subjects.live_status("ingest") == "live.status.ingest"
