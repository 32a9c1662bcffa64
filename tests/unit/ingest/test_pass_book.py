"""The budget's memory: no sequence of lives makes more requests in a minute than one may."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import ManualClock
from services.ingest.budget import RequestBudget
from services.ingest.pass_book import PassBook
from tests.unit.ingest.test_budget import now_s, passed_by, play

BASE_MS = 1_795_185_000_000
_PLACE_BYTES = 8


class LoopClock:
    """A wall clock that goes as the loop's does, in whole milliseconds."""

    def now_ms(self) -> int:
        """Return the time."""
        return BASE_MS + int(now_s() * 1000)


LIVES = st.lists(
    st.tuples(
        st.floats(0, 70),  # how long it lives
        st.lists(st.tuples(st.sampled_from(["history", "token"]), st.floats(0, 30)), max_size=40),
        st.integers(1, 20),  # what it may ask for in a minute
    ),
    min_size=1, max_size=12,
)  # fmt: skip


class TestLives:
    @given(LIVES)
    def test_no_sixty_seconds_of_any_lives_hold_more(
        self, lives: list[tuple[float, list[tuple[str, float]], int]]
    ) -> None:
        """However often it dies: a window that ends in a life holds at most what that one may."""

        async def live(path: Path) -> list[tuple[float, int]]:
            passed: list[tuple[float, int]] = []
            for life_s, wanted, most in lives:
                book = PassBook(path, LoopClock(), most)
                budget = RequestBudget(most, LoopClock(), book=book)

                async def one(
                    kind: str, after_s: float, budget: RequestBudget = budget, most: int = most
                ) -> None:
                    await passed_by(after_s)
                    await budget.take(kind)
                    passed.append((now_s(), most))

                tasks = [asyncio.create_task(one(*each)) for each in wanted]
                await passed_by(life_s)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                book.close()
            return passed

        with tempfile.TemporaryDirectory() as home:
            passed = play(live(Path(home) / "requests"))
        for end_s, most in passed:
            assert sum(end_s - 59.999 <= at_s <= end_s for at_s, _ in passed) <= most

    def test_a_life_without_haste_is_not_slowed(self, tmp_path: Path) -> None:
        """After a restart in a quiet minute the login and its requests pass at once."""

        async def scenario() -> None:
            for _ in range(5):
                book = PassBook(tmp_path / "requests", LoopClock(), 110)
                budget = RequestBudget(110, LoopClock(), book=book)
                begun_s = now_s()
                for kind in ("token", "login", "other", *["history"] * 10):
                    await budget.take(kind)
                assert now_s() == begun_s
                book.close()

        play(scenario())


class TestFile:
    def test_what_is_a_minute_old_is_forgotten(self, tmp_path: Path) -> None:
        """And what is not has its age."""
        clock = ManualClock(BASE_MS)
        book = PassBook(tmp_path / "requests", clock, 3)
        for _ in range(3):
            book.note()
            clock.advance(25_000)
        book.close()
        assert PassBook(tmp_path / "requests", clock, 3).ages_s() == [49.999, 24.999]

    def test_times_of_a_clock_that_was_set_back_count_as_now(self, tmp_path: Path) -> None:
        """Nobody knows how old they are."""
        book = PassBook(tmp_path / "requests", ManualClock(BASE_MS), 3)
        book.note()
        book.close()
        earlier = PassBook(tmp_path / "requests", ManualClock(BASE_MS - 3_600_000), 3)
        assert earlier.ages_s() == [0.0]

    def test_a_limit_that_was_lowered_forgets_nothing(self, tmp_path: Path) -> None:
        """More times count than the new limit has places."""
        book = PassBook(tmp_path / "requests", ManualClock(BASE_MS), 9)
        for _ in range(9):
            book.note()
        book.close()
        fewer = PassBook(tmp_path / "requests", ManualClock(BASE_MS), 2)
        assert len(fewer.ages_s()) == 9

    def test_it_does_not_grow(self, tmp_path: Path) -> None:
        """A ring of as many places as a minute has requests, for its owner's eyes only."""
        clock = ManualClock(BASE_MS)
        book = PassBook(tmp_path / "requests", clock, 4)
        for _ in range(50):
            clock.advance(20_000)
            book.note()
        found = (tmp_path / "requests").stat()
        assert (found.st_size, found.st_mode & 0o777) == (4 * _PLACE_BYTES, 0o600)

    @pytest.mark.parametrize("text", [b"", b"half", b"\xff" * 21, b"x" * 4096])
    def test_rubbish_is_survived(self, tmp_path: Path, text: bytes) -> None:
        """Whatever it says, a start waits a minute at most."""
        (tmp_path / "requests").write_bytes(text)
        book = PassBook(tmp_path / "requests", ManualClock(BASE_MS), 4)
        assert set(book.ages_s()) <= {0.0}
        book.note()

    def test_a_disk_that_refuses_is_said_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Requests go on; within this life the budget holds anyway."""
        said: list[OSError] = []
        book = PassBook(tmp_path / "requests", ManualClock(BASE_MS), 4, said.append)

        def refuse(*_: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "pwrite", refuse)
        book.note()
        book.note()
        assert [error.errno for error in said] == [errno.EIO]
