"""What is said about a login, in words and numbers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.token_file import LOGIN_LIFE_S
from services.ingest.login_status import LoginStatus, describe, lines, unusable

LOGIN_S = 1_795_000_000


def status(age_s: float, *, refreshed_s: float = 0, **token: Any) -> LoginStatus:
    """The status of a login of this age, refreshed so long ago."""
    now_s = LOGIN_S + age_s
    wrapped = {
        "creation_timestamp": LOGIN_S,
        "token": {
            "access_token": "a-secret", "refresh_token": "r-secret", "expires_in": 1800,
            "expires_at": now_s - refreshed_s + 1800, **token,
        },
    }  # fmt: skip
    return describe("Schwab", "token.json", wrapped, int(now_s * 1000), encrypted=True)


@pytest.mark.parametrize(
    ("age_s", "state", "works"),
    [
        (0, "ok", True),
        (5 * 86_400 - 1, "ok", True),
        (5 * 86_400 + 1, "ends_soon", True),
        (LOGIN_LIFE_S - 1, "ends_soon", True),
        (LOGIN_LIFE_S, "ended", False),
        (30 * 86_400, "ended", False),
    ],
)
def test_seven_days_and_a_warning_before(age_s: int, state: str, works: bool) -> None:
    """From the login on, whatever was renewed since."""
    found = status(age_s)
    assert (found.state, found.works) == (state, works)
    assert found.login_left_s == LOGIN_LIFE_S - age_s


@given(age_s=st.integers(0, 10**7), refreshed_s=st.integers(0, 10**6))
def test_the_times_fit_each_other(age_s: int, refreshed_s: int) -> None:
    """Made + 7 days = ends; the next login is due before; refreshed + 30 minutes = access ends."""
    found = status(age_s, refreshed_s=refreshed_s)
    at = {name: datetime.fromisoformat(getattr(found, name)).timestamp() for name in TIMES}
    assert at["login_ends_at"] - at["logged_in_at"] == LOGIN_LIFE_S
    assert at["logged_in_at"] < at["next_login_due_at"] < at["login_ends_at"]
    assert at["access_token_ends_at"] - at["refreshed_at"] == 1800
    assert (found.access_token_age_s or 0) + (found.access_token_left_s or 0) == 1800
    text = "\n".join(lines(found))
    assert "secret" not in text


TIMES = (
    "logged_in_at", "login_ends_at", "next_login_due_at", "refreshed_at", "access_token_ends_at",
)  # fmt: skip


def test_a_token_without_its_life_has_no_age() -> None:
    """A file of another program may lack it; the rest is told all the same."""
    found = status(10, expires_in=None)
    assert (found.access_token_age_s, found.refreshed_at) == (None, None)
    assert found.works
    assert not [line for line in lines(found) if line.startswith("refreshed")]


def test_what_cannot_be_read_says_why() -> None:
    """And nothing that it does not know."""
    found = unusable("Schwab", "token.json", "unusable", "others may read it")
    assert not found.works
    assert list(lines(found)) == [
        "login      others may read it",
        "broker     Schwab",
        "file       token.json",
    ]


def test_the_end_is_told_in_words() -> None:
    """How long ago, and what to do."""
    text = "\n".join(lines(status(8 * 86_400, refreshed_s=7200)))
    assert "has ended: Schwab keeps a login for 7 days; log in again" in text
    assert "(1 d ago)" in text
    assert "token ended" in text
