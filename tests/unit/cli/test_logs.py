"""Log files: bounded, whole lines, readable."""

from __future__ import annotations

import json
import tempfile
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.logs import LogFile, last_lines, read_log, render, show
from libs.common.errors import SettingsError
from tests.waiting import eventually


class TestWriting:
    """What the supervisor writes."""

    def test_lines_are_told_when_they_are_whole(self, tmp_path: Path) -> None:
        """A line may come in any number of pieces."""
        log = LogFile(tmp_path / "a.log")
        assert log.write(b"one\ntw") == ["one"]
        assert log.write(b"o") == []
        assert log.write(b"\nthree") == ["two"]
        assert log.close() == ["three"]
        assert last_lines(tmp_path / "a.log", 10) == ["one", "two", "three"]

    def test_files_stay_below_their_bound(self, tmp_path: Path) -> None:
        """Old files are dropped, the newest lines are kept."""
        log = LogFile(tmp_path / "a.log", bytes_max=1000, old_max=2)
        for number in range(1000):
            log.write(f"line {number:05}\n".encode())
        log.close()
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == ["a.log", "a.log.1", "a.log.2"]
        assert all(file.stat().st_size <= 1000 for file in files)
        assert last_lines(tmp_path / "a.log", 100) == [f"line {n:05}" for n in range(900, 1000)]

    def test_an_endless_line_is_cut(self, tmp_path: Path) -> None:
        """Memory stays bounded whatever a process writes."""
        log = LogFile(tmp_path / "a.log")
        for _ in range(10):
            log.write(b"x" * 20_000)
        log.close()
        assert (tmp_path / "a.log").stat().st_size >= 200_000

    def test_what_cannot_be_written_is_counted(self, tmp_path: Path) -> None:
        """A full disk (here: no directory) costs log lines, not the process."""
        log = LogFile(tmp_path / "missing" / "a.log")
        assert log.write(b"one\n") == ["one"]
        assert log.dropped_bytes == 4

    def test_a_second_run_continues_the_file(self, tmp_path: Path) -> None:
        """What was said before a restart is still there."""
        for word in (b"first\n", b"second\n"):
            log = LogFile(tmp_path / "a.log")
            log.write(word)
            log.close()
        assert last_lines(tmp_path / "a.log", 5) == ["first", "second"]

    @given(st.lists(st.binary(max_size=50), max_size=20))
    def test_any_split_writes_the_same_bytes(self, pieces: list[bytes]) -> None:
        """Pieces in, bytes out, nothing lost; only a last line end is added."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "a.log"
            log = LogFile(path)
            for piece in pieces:
                log.write(piece)
            log.close()
            whole = b"".join(pieces)
            written = path.read_bytes() if path.exists() else b""
        assert written in (whole, whole + b"\n")


class TestReading:
    """What `./kite logs` shows."""

    def test_new_lines_are_followed_across_rotations(self, tmp_path: Path) -> None:
        """No line is missed or doubled: neither at the seam of old and new nor at a rotation."""
        path = tmp_path / "a.log"
        log = LogFile(path, bytes_max=100)
        log.write(b"line 0\nline 1\n")
        seen: list[str] = []

        def read() -> None:
            with closing(read_log(path, 10, following=True)) as lines:
                while not seen or seen[-1] != "line 49":
                    seen.append(next(lines))

        def seen_up_to(number: int) -> bool:
            return len(seen) >= number

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        for number in range(2, 50):
            eventually(partial(seen_up_to, number - 8), 20, "the reader keeps up")
            log.write(f"line {number}\n".encode())
        reader.join(20)
        assert seen == [f"line {number}" for number in range(50)]

    def test_a_json_line_is_made_readable(self) -> None:
        """Level, event and facts are there; the braces are not."""
        line = json.dumps(
            {"event": "bus.connected", "level": "info", "timestamp": "2026-01-02T03:04:05.678Z"}
            | {"service": "writer", "partition": 0}
        )
        text = render(line).plain
        assert "info" in text
        assert "bus.connected  partition=0" in text
        assert "{" not in text

    def test_a_traceback_keeps_its_lines(self) -> None:
        """It is what one looks for."""
        line = json.dumps({"event": "x", "level": "error", "exception": "Traceback\n  File"})
        assert render(line).plain.endswith("\nTraceback\n  File")

    @given(st.text())
    def test_any_line_can_be_shown(self, line: str) -> None:
        """Servers write what they like."""
        render(line)

    def test_an_unknown_name_is_refused_with_those_that_exist(self, tmp_path: Path) -> None:
        """A typo is mended by reading the answer."""
        (tmp_path / "writer.log").write_text("")
        with pytest.raises(SettingsError, match="there are: writer"):
            show(tmp_path, "wirter", count=1, following=False, as_json=False)
