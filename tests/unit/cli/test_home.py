"""The data home: one `up` at a time, one source a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.home import Home, Store, StoreIdentity, default_home
from libs.common.errors import ServerError, SettingsError
from tests.servers import temporary_home


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the servers' account may enter, too."""
    with temporary_home() as directory:
        yield directory


@pytest.fixture
def home(place: Path) -> Home:
    """A prepared home."""
    made = Home(place / "home")
    made.prepare()
    return made


class TestLock:
    """Only one `up` may use a home."""

    def test_it_is_taken_once(self, home: Home) -> None:
        """The second one gets nothing, and learns who has it."""
        held = home.lock()
        assert held is not None
        assert home.lock() is None
        assert home.is_locked()
        assert home.lock_holder() == os.getpid()
        os.close(held)

    def test_it_is_free_again_when_its_holder_is_gone(self, home: Home) -> None:
        """Closing the file is what the system does for a process that dies."""
        held = home.lock()
        assert held is not None
        os.close(held)
        assert not home.is_locked()
        again = home.lock()
        assert again is not None
        os.close(again)

    def test_a_home_that_is_not_there_is_not_locked(self, tmp_path: Path) -> None:
        """Looking makes nothing."""
        assert not Home(tmp_path / "none").is_locked()
        assert not (tmp_path / "none").exists()


class TestPaths:
    """Where things are."""

    def test_a_long_path_does_not_break_the_socket(self, tmp_path: Path) -> None:
        """Socket paths are short by law; a deep home gets one elsewhere, always the same."""
        deep = Home(tmp_path / ("d" * 60) / ("e" * 60))
        assert len(os.fsencode(deep.socket_file)) < 104
        assert deep.socket_file == Home(deep.root).socket_file
        assert deep.socket_file != Home(tmp_path / ("d" * 60) / ("f" * 60)).socket_file

    def test_only_the_owner_may_look_inside_run_and_logs(self, home: Home) -> None:
        """They hold addresses with passwords."""
        assert home.run.stat().st_mode & 0o077 == 0
        assert home.logs.stat().st_mode & 0o077 == 0

    def test_the_environment_names_the_home(self, tmp_path: Path) -> None:
        """KITE_HOME wins over every default."""
        assert default_home({"KITE_HOME": str(tmp_path)}) == tmp_path

    def test_an_unusable_place_is_refused_in_words(self) -> None:
        """The line says where, and what to set."""
        with pytest.raises(ServerError, match="KITE_HOME"):
            Home(Path("/dev/null/home")).prepare()

    def test_a_file_in_the_way_is_refused_in_words(self, tmp_path: Path) -> None:
        """Somebody named a file."""
        (tmp_path / "file").write_text("")
        with pytest.raises(ServerError, match="file"):
            Home(tmp_path / "file").prepare()


class TestStore:
    """A store serves one source."""

    DEMO = StoreIdentity("demo", 1)

    def test_it_remembers_what_it_was_made_for(self, place: Path) -> None:
        """The second claim for the same finds the first."""
        store = Store(place / "demo")
        assert store.identity() is None
        store.claim(self.DEMO)
        store.claim(self.DEMO)
        assert store.identity() == self.DEMO

    @pytest.mark.parametrize(
        ("wanted", "words"),
        [
            (StoreIdentity("csv", 1, "abc"), "holds data of source demo, not csv"),
            (StoreIdentity("demo", 4), "made with 1 partition"),
            (StoreIdentity("demo", 1, "", 99), "is a store of version 1"),
        ],
    )
    def test_another_use_is_refused(self, place: Path, wanted: StoreIdentity, words: str) -> None:
        """Each difference has its own line."""
        store = Store(place / "demo")
        store.claim(self.DEMO)
        with pytest.raises(SettingsError, match=words):
            store.claim(wanted)

    def test_a_broken_description_is_refused(self, place: Path) -> None:
        """It is not taken for an empty store."""
        store = Store(place / "demo")
        store.claim(self.DEMO)
        store.identity_file.write_text("{")
        with pytest.raises(SettingsError, match=r"store\.json"):
            store.claim(self.DEMO)

    def test_clearing_makes_room_for_another_source(self, place: Path) -> None:
        """Everything in it goes."""
        store = Store(place / "demo")
        store.claim(self.DEMO)
        store.clear()
        store.clear()
        store.claim(StoreIdentity("demo", 4))
