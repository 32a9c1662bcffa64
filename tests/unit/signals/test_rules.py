"""One suite for every rule, and the cross in particular."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.events import Direction
from services.signals import rules
from services.signals.rules import Rule, Sample

NAMES = rules.known()


def feed(rule: Rule, pairs: list[tuple[float, float]]) -> list[Direction | None]:
    """Return what the rule says to each pair of sma9 and vwap."""
    return [rule.update(Sample(n, sma9, sma9, vwap)) for n, (sma9, vwap) in enumerate(pairs)]


def random_pairs(count: int) -> list[tuple[float, float]]:
    """Return averages that meet often."""
    chance = random.Random(5)
    return [(chance.randrange(4) / 10, chance.randrange(4) / 10) for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_a_memory_taken_up_anywhere_changes_nothing(name: str) -> None:
    """After snapshot and restore, at any sample, a rule goes on as if nothing had been."""
    pairs = random_pairs(80)
    straight = feed(rules.make(name), pairs)
    assert any(straight)
    for cut in range(len(pairs)):
        before, after = rules.make(name), rules.make(name)
        feed(before, pairs[:cut])
        after.restore(before.snapshot())
        assert feed(after, pairs[cut:]) == straight[cut:]


@pytest.mark.parametrize("name", NAMES)
def test_no_memory_is_a_new_session(name: str) -> None:
    """Restoring None begins anew."""
    rule = rules.make(name)
    feed(rule, random_pairs(30))
    rule.restore(None)
    assert feed(rule, random_pairs(30)) == feed(rules.make(name), random_pairs(30))


def test_an_unknown_rule_lists_the_known_ones() -> None:
    """The error says what would be right."""
    with pytest.raises(ValueError, match="'golden' is not a rule; known are cross"):
        rules.make("golden")


ABOVE, EQUAL, BELOW = (2.0, 1.0), (1.0, 1.0), (1.0, 2.0)


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([ABOVE, BELOW, ABOVE], [None, "down", "up"]),
        ([BELOW, BELOW, ABOVE], [None, None, "up"]),
        ([EQUAL, ABOVE, ABOVE], [None, None, None]),
        ([ABOVE, EQUAL, ABOVE], [None, None, None]),
        ([ABOVE, EQUAL, EQUAL, BELOW], [None, None, None, "down"]),
    ],
)
def test_a_cross_is_a_change_of_relation(
    pairs: list[tuple[float, float]], found: list[Direction | None]
) -> None:
    """The first relation is the baseline, equal values keep the last, a change is the signal."""
    assert feed(rules.make("cross"), pairs) == found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_directions_alternate(pairs: list[tuple[int, int]]) -> None:
    """Two crosses in a row never have one direction."""
    found = [d for d in feed(rules.make("cross"), [(a / 8, b / 8) for a, b in pairs]) if d]
    assert all(first != second for first, second in pairwise(found))
