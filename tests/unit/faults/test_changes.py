"""Which trials still count after a mend."""

from __future__ import annotations

from tests.faults.changes import CHANGES, Change, counts
from tests.faults.rows import ROWS

STEPS = (
    Change("a", "b", "a mend", frozenset({"small disk"})),
    Change("b", "c", "another", frozenset({"twins", "power"})),
)


def test_trials_of_the_same_code_count() -> None:
    """Whatever the scene."""
    assert counts("c", "twins", "c", STEPS)


def test_trials_before_a_mend_count_where_none_since_can_be_felt() -> None:
    """Not for a scene that feels one of them, and not for code that no step leads to."""
    assert counts("a", "plain", "c", STEPS)
    assert not counts("a", "small disk", "c", STEPS)
    assert not counts("a", "twins", "c", STEPS)
    assert counts("b", "small disk", "c", STEPS)
    assert not counts("c", "plain", "b", STEPS)
    assert not counts("x", "plain", "c", STEPS)


def test_changes_name_scenes_that_there_are() -> None:
    """A misspelt scene would be felt by none."""
    assert {name for each in CHANGES for name in each.scenes} <= {row.scene.name for row in ROWS}
