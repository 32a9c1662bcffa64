"""What the setup of the environment decides, without an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import make_venv


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            ["ERROR: Could not install packages: [Errno 28] No space left on device"],
            "the disk is full: Could not install packages",
        ),
        (
            ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "rich"],
            "a package does not match its hash",
        ),
        (
            ["WARNING: retrying", "ERROR: No matching distribution found for rich==15", ""],
            "cannot install the Python packages: No matching distribution found for rich==15;",
        ),
        ([], "cannot install the Python packages: no output; check the network"),
    ],
)
def test_a_failed_installation_is_explained_in_one_line(output: list[str], expected: str) -> None:
    """Full disk, wrong hash and missing network lead to different advice."""
    line = make_venv.explain(output)
    assert line.startswith(expected)
    assert "\n" not in line


def test_the_first_place_that_can_be_written_to_is_taken(tmp_path: Path) -> None:
    """Directories that do not exist yet count by the nearest one that does."""
    blocked = tmp_path / "a file"
    blocked.write_text("", encoding="utf-8")
    good = tmp_path / "not" / "there" / "yet" / "venv"
    assert make_venv.choose([blocked / "venv", good, tmp_path / "later"]) == good


def test_no_place_at_all_names_the_setting(tmp_path: Path) -> None:
    """The operator learns which variable gives a place."""
    blocked = tmp_path / "a file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(make_venv.SetupError, match="KITE_HOME"):
        make_venv.choose([blocked / "venv"])


def test_an_unknown_group_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A missing lock file is a line and an exit code, not a traceback."""
    assert make_venv.main(["nothing", str(tmp_path / "venv")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "kite: there is no requirements/nothing.txt; was the checkout complete?\n"
