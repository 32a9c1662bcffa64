"""Failpoints: armed they kill exactly one process, otherwise they cost and do nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.common import failpoints

ROOT = Path(__file__).resolve().parents[3]
POINT = "writer.committed"
REACH = f"from libs.common.failpoints import reach; reach({POINT!r})"
KILLED = -signal.SIGKILL


def start(code: str, file: Path | None) -> subprocess.Popen[str]:
    """Run a few lines in a process of their own, which knows the file or none."""
    variable = {} if file is None else {"KITE_FAILPOINT_FILE": str(file)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | variable,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, file: Path | None) -> tuple[int, str]:
    """Run a few lines to their end; exit code and last line of complaint."""
    process = start(code, file)
    complaint = process.communicate(timeout=30)[1].strip()
    return process.returncode, complaint.rpartition("\n")[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where points are armed."""
    return tmp_path / "failpoint"


class TestReach:
    def test_kills_the_process_at_the_armed_point(self, file: Path) -> None:
        """The process dies by SIGKILL, and the file is gone."""
        file.write_text(f"{POINT}\n")
        assert run(REACH, file) == (KILLED, "")
        assert not file.exists()

    @pytest.mark.parametrize(
        "content", [None, "", "writer.commit", "ingest.publish.before", f"{POINT} pause"]
    )
    def test_goes_on_when_another_point_or_none_is_armed(
        self, file: Path, content: str | None
    ) -> None:
        """A point reacts to its own name only, and leaves the file to others."""
        if content is not None:
            file.write_text(content)
        assert run(REACH, file) == (0, "")
        assert file.exists() == (content is not None)

    def test_looks_at_nothing_without_the_variable(self) -> None:
        """Whoever does not test runs past a point, even past one that nobody knows."""
        code = """
import sys
def audit(event, _):
    assert not (ready and event in ("open", "os.kill")), event
ready = False
sys.addaudithook(audit)
from libs.common import failpoints
ready = True
failpoints.reach("no.such.point")
failpoints.within("no")("such.point")
assert not failpoints.is_armed("writer.committed")
ready = False
"""
        environment = {k: v for k, v in os.environ.items() if k != "KITE_FAILPOINT_FILE"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=False)
        assert done.returncode == 0

    def test_refuses_an_unknown_point(self, file: Path) -> None:
        """With the variable set a misspelt name is found, armed or not."""
        code, complaint = run("from libs.common.failpoints import reach; reach('writer.x')", file)
        assert (code, complaint) == (1, "ValueError: 'writer.x' is not among the failpoints")

    def test_kills_one_of_many(self, file: Path) -> None:
        """Of processes that are at the same point together, one dies."""
        code = f"from pathlib import Path; {REACH.partition(';')[0]}\n"
        code += f"while Path({str(file)!r}).exists(): reach({POINT!r})"
        file.write_text(POINT)
        processes = [start(code, file) for _ in range(4)]
        for process in processes:
            process.communicate(timeout=30)
        assert sorted(process.returncode for process in processes) == [KILLED, 0, 0, 0]

    def test_stops_the_process_and_lets_it_go_on(self, file: Path) -> None:
        """Told so it stops instead of dying, once, and goes on from there when it is woken."""
        file.write_text(f"{POINT} stop")
        process = start(f"{REACH}; {REACH.partition(';')[2]}", file)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert not file.exists()
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
        assert process.returncode == 0

    def test_a_prepared_death_does_not_stop(self, file: Path) -> None:
        """A place that has to prepare its death is not armed for a stop."""
        file.write_text(f"{POINT} stop")
        code = f"from libs.common.failpoints import is_armed; assert not is_armed({POINT!r})"
        assert run(code, file) == (0, "")
        assert file.exists()

    def test_knows_the_process_in_which_it_is(self, file: Path) -> None:
        """`within` puts the process's name before the place."""
        file.write_text("signals.load.middle")
        code = "from libs.common.failpoints import within; within({!r})('load.middle')"
        assert run(code.format("indicators"), file)[0] == 0
        assert run(code.format("signals"), file)[0] == KILLED


WHOLE = re.compile(r'\breach\(\s*"([\w.]+)"')
SECOND = re.compile(r'\b_reach\(\s*"([\w.]+)"')
SENT = re.compile(r'f"\{\w[^}]*\}((?:\.\w+)*\.sent)"')


def places() -> Iterator[str]:
    """Every point that the code names: whole, or from its second word on with a dot before it."""
    for folder in ("services", "libs", "cli", "deploy"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            yield from WHOLE.findall(text)
            yield from (f".{place}" for place in SECOND.findall(text))
            yield from SENT.findall(text)


def test_every_point_is_in_the_code() -> None:
    """No name without its place, and no place without its name."""
    found = set(places())
    dead = {
        name
        for name in failpoints.FAILPOINTS
        if name not in found and f".{name.partition('.')[2]}" not in found
    }
    assert not dead
    unknown = {
        place
        for place in found
        if place not in failpoints.FAILPOINTS
        and not any(name.endswith(place) for name in failpoints.FAILPOINTS if place[0] == ".")
    }
    assert not unknown
    assert len(set(failpoints.FAILPOINTS)) == len(failpoints.FAILPOINTS)
