"""What the library is shown: the answer it waits for, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.answers import admin_code, awaited_answer


def entry(request_id: Any = "3", code: Any = 0, **changes: Any) -> dict[str, Any]:
    """An entry of a response frame."""
    return {
        "service": "CHART_EQUITY", "command": "SUBS", "requestid": request_id,
        "timestamp": 1_795_188_600_000, "content": {"code": code, "msg": "done"}, **changes,
    }  # fmt: skip


def code_of(*entries: object) -> int | None:
    """The code that the library sees, or None."""
    answer = awaited_answer(list(entries), "3")
    return None if answer is None else int(answer.message["response"][0]["content"]["code"])


@pytest.mark.parametrize(("sent", "shown"), [(0, 0), (26, 0), (29, 0), (19, 19), (22, 22)])
def test_documented_success_is_success(sent: int, shown: int) -> None:
    """The codes 26 to 29 mean success, whatever the library thinks of them."""
    assert code_of(entry(code=sent)) == shown


def test_numbers_as_request_ids_are_understood() -> None:
    """Some answers carry the number that was sent as text."""
    assert code_of(entry(request_id=3)) == 0


def test_answers_to_other_requests_are_passed_over() -> None:
    """A stray answer before ours, even in the same frame, does no harm."""
    assert code_of(entry("2", 24), entry("3", 0)) == 0
    assert code_of(entry("2", 24)) is None


def test_broker_time_comes_along() -> None:
    """The answer to the login is the first that is heard of it."""
    answer = awaited_answer([entry()], "3")
    assert answer is not None
    assert answer.sent_ms == 1_795_188_600_000
    silent = awaited_answer([entry(timestamp="noon")], "3")
    assert silent is not None
    assert silent.sent_ms == 0


@pytest.mark.parametrize(
    "broken",
    [None, 3, [], {}, {"requestid": "3"}, entry(content=None), entry(code="x"), entry(code=1e400)],
)
def test_broken_entries_are_no_answers(broken: object) -> None:
    """The command then times out, and the connection is replaced."""
    assert code_of(broken) is None


@given(st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s, max_size=3)))
def test_nothing_raises(value: object) -> None:
    """Neither as entries nor as notices."""
    awaited_answer(value, "3")
    admin_code(value)


def test_notices_tell_why_a_socket_is_closed() -> None:
    """Code 12 is another session of the same user."""
    notice = {"service": "ADMIN", "timestamp": 1, "content": {"code": 12, "msg": "evicted"}}
    assert admin_code([{"heartbeat": "1"}, notice]) == 12
    assert admin_code([{"heartbeat": "1"}]) == 0
