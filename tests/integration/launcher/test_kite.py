"""The launcher on a checkout of its own: a real interpreter and environment, nothing to fetch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
REPORT = """
import json, os, sys, services
print(json.dumps({
    "arguments": sys.argv[1:], "directory": os.getcwd(), "environment": sys.prefix,
    "services": services.__file__,
}))
"""
# An address where nothing listens: fetching a package fails at once.
NOWHERE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/",
    "PIP_RETRIES": "0",
    "PIP_CONFIG_FILE": os.devnull,
}
MISSING_PACKAGE = f"kite-no-such-package==1.0 --hash=sha256:{'0' * 64}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the real launcher, a command that reports, and no package to install."""
    root = tmp_path / "check out"
    for name in ("kite", "deploy/venv.sh", "deploy/make_venv.py"):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    for name, text in {
        "cli/__main__.py": REPORT,
        "cli/__init__.py": "",
        "services/__init__.py": "",
        "requirements/kite.txt": "# nothing\n",
        "requirements/dev.txt": "# nothing either\n",
    }.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The surroundings of a user whose only tool is this interpreter (and uv, which is quick)."""
    tools = tmp_path / "tools"
    tools.mkdir()
    uv = Path(sys.executable).with_name("uv")
    (tools / "uv").symlink_to(uv)
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{tools}:/usr/bin:/bin",
        "KITE_PYTHON": sys.executable,
    }


def run(
    command: list[str | Path], environment: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run to the end, however it ends."""
    return subprocess.run(
        command, env=environment, cwd=cwd, check=False, capture_output=True, text=True, timeout=120
    )


def test_it_runs_from_anywhere_through_links(
    checkout: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Relative arguments stay the caller's, and imports are those of the checkout."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "services").mkdir(parents=True)
    (elsewhere / "services" / "__init__.py").write_text("", encoding="utf-8")
    (elsewhere / "inner").symlink_to(checkout / "kite")
    (elsewhere / "outer").symlink_to("inner")
    done = run(["./outer", "up", "--csv", "bars of mine.csv"], environment, elsewhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "arguments": ["up", "--csv", "bars of mine.csv"],
        "directory": str(elsewhere),
        "environment": str(checkout / ".venv"),
        "services": str(checkout / "services" / "__init__.py"),
    }


def test_it_also_runs_as_an_argument_of_the_shell(
    checkout: Path, environment: dict[str, str]
) -> None:
    """A checkout that lost its executable bits still works: `sh kite`."""
    (checkout / "kite").chmod(0o644)
    (checkout / "deploy" / "venv.sh").chmod(0o644)
    done = run(["sh", "kite", "status"], environment, checkout)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["arguments"] == ["status"]


def test_it_installs_once_and_again_after_a_change(
    checkout: Path, environment: dict[str, str]
) -> None:
    """The first run says what it does, the second is silent, a new lock file installs again."""
    first = run(["./kite"], environment, checkout)
    second = run(["./kite"], environment, checkout)
    (checkout / "requirements" / "kite.txt").write_text("# changed\n", encoding="utf-8")
    third = run(["./kite"], environment, checkout)
    assert "installing" in first.stderr
    assert second.stderr == ""
    assert "installing" in third.stderr
    assert {first.returncode, second.returncode, third.returncode} == {0}


def test_the_development_set_serves_the_command_too(
    checkout: Path, environment: dict[str, str]
) -> None:
    """After `make` has set up everything, `./kite` has nothing left to install."""
    run(["sh", "deploy/venv.sh", "dev", "-c", ""], environment, checkout)
    assert run(["./kite"], environment, checkout).stderr == ""


def test_two_first_runs_at_once_install_once(checkout: Path, environment: dict[str, str]) -> None:
    """The second waits for the first and then finds the work done."""
    both = [
        subprocess.Popen(
            ["./kite"], env=environment, cwd=checkout, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = "".join(process.communicate(timeout=120)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said.count("installing") == 1


def test_an_interrupted_setup_is_finished_by_the_next_run(
    checkout: Path, environment: dict[str, str]
) -> None:
    """An environment without its mark of completion does not count."""
    run(["./kite"], environment, checkout)
    (checkout / ".venv" / ".installed-kite.txt").unlink()
    (checkout / ".venv" / "bin" / "python").unlink()
    done = run(["./kite"], environment, checkout)
    assert done.returncode == 0
    assert "installing" in done.stderr


def test_pip_does_it_where_there_is_no_uv(checkout: Path, environment: dict[str, str]) -> None:
    """Python alone is enough."""
    done = run(["./kite"], environment | {"PATH": "/usr/bin:/bin"}, checkout)
    assert done.returncode == 0, done.stderr
    assert (checkout / ".venv" / "bin" / "pip").exists()


def test_a_place_that_cannot_be_written_to_moves_the_environment(
    checkout: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The environment goes to KITE_HOME then, and is found there by the next run."""
    (checkout / ".venv").write_text("a file, where not even root can make a directory")
    home = tmp_path / "kite home"
    first = run(["./kite"], environment | {"KITE_HOME": str(home)}, checkout)
    second = run(["./kite"], environment | {"KITE_HOME": str(home)}, checkout)
    assert json.loads(first.stdout)["environment"] == str(home / "venv")
    assert second.stderr == ""


def _without_python(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    del environment["KITE_PYTHON"]
    empty = tmp_path / "no python"
    empty.mkdir()
    for tool in ("cmp", "dirname", "readlink"):
        found = shutil.which(tool)
        assert found is not None
        (empty / tool).symlink_to(found)
    return environment | {"PATH": str(empty)}


def _wrong_python(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    return environment | {"KITE_PYTHON": str(old)}


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (_without_python, "found no Python 3.11 or newer; install it"),
        (_wrong_python, "python2 is not a Python 3.11 or newer"),
    ],
)
def test_without_a_python_it_says_so_in_one_line(
    spoil: Callable[[dict[str, str], Path], dict[str, str]],
    line: str,
    checkout: Path,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """What to install stands in the line."""
    done = run(["/bin/sh", "kite"], spoil(environment, tmp_path), checkout)
    assert done.returncode == 1
    assert done.stderr.startswith("kite: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


def test_without_a_network_it_says_so_in_one_line(
    checkout: Path, environment: dict[str, str]
) -> None:
    """The failure names the package, hints at the network, and leaves nothing half-done behind."""
    (checkout / "requirements" / "kite.txt").write_text(MISSING_PACKAGE, encoding="utf-8")
    alone = environment | NOWHERE | {"PATH": "/usr/bin:/bin"}
    done = run(["./kite"], alone, checkout)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("kite: cannot install the Python packages: ")
    assert "kite-no-such-package" in last
    assert "network" in last
    assert not (checkout / ".venv" / ".installed-kite.txt").exists()
