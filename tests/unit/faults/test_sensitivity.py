"""Planted defects: every patch fits the code as it is, and names a row that exists."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.faults.evidence import ROOT
from tests.faults.hunts import finding
from tests.faults.planted import plant, touched
from tests.faults.rows import ROWS
from tests.faults.sensitivity import DEFECTS, Defect

TESTED = ("services/", "libs/", "cli/", "deploy/")
each_defect = pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)


@each_defect
def test_a_defect_can_be_planted(defect: Defect, tmp_path: Path) -> None:
    """The patch applies to a copy of the files, changes each of them, and leaves valid Python."""
    names = touched(defect.patch)
    assert names
    assert all(name.startswith(TESTED) for name in names)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    plant(defect.patch, tmp_path)
    for name in names:
        planted = (tmp_path / name).read_text(encoding="utf-8")
        assert planted != (ROOT / name).read_text(encoding="utf-8")
        ast.parse(planted)


def test_a_patch_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """Nobody hunts for a defect that is not there."""
    (name,) = touched(DEFECTS[0].patch)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("something else\n")
    with pytest.raises(AssertionError, match="does not fit the code"):
        plant(DEFECTS[0].patch, tmp_path)


@each_defect
def test_a_defect_names_its_row(defect: Defect) -> None:
    """The row that must find out is in the catalogue."""
    assert defect.row in {row.name for row in ROWS}


def test_each_patch_is_hunted() -> None:
    """Patches and table agree, and there are enough of both."""
    patches = {path.stem for path in DEFECTS[0].patch.parent.iterdir()}
    assert patches == {defect.name for defect in DEFECTS}
    assert len(DEFECTS) >= 12


def test_only_the_right_reason_counts() -> None:
    """A stack that is red because of something else has not found the defect out."""
    defect = Defect("example", "what", "row", "in no gap")
    right = finding(defect, 2, ["not within 3 s: something", "7 ticks are  in no gap: 1, 2"])
    assert (right.found_out, right.trials, right.first) == (True, 2, "7 ticks are in no gap: 1, 2")
    wrong = finding(defect, 1, ["not within 3 s: something"])
    assert (wrong.found_out, wrong.first) == (False, "not within 3 s: something")
    assert finding(defect, 2, []).first == ""
    assert not finding(defect, 2, []).found_out
