"""The streamer's protocol: every rule and code, without a socket."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.simulator.market import session_of
from services.simulator.streamer import Close, Rules
from services.simulator.synthetic import SyntheticMarket
from tests.unit.simulator.sessions import Driver, frames

MARKET = SyntheticMarket("1")
FRIDAY = session_of(dt.date(2026, 11, 20))
AT_MS = FRIDAY.open_ms + 3_600_000
QUOTES, BARS = "LEVELONE_EQUITIES", "CHART_EQUITY"


def driver(**options: Any) -> Driver:
    """A session that is not logged in."""
    return Driver(MARKET, AT_MS, **options)


def logged_in(**options: Any) -> Driver:
    """A session that is."""
    made = driver(**options)
    assert made.login() == 0
    return made


def test_login_comes_first() -> None:
    """Any other command before it finds no connection: 20, and the socket stays."""
    session = driver()
    assert session.code(QUOTES, "SUBS", keys="QQQ", fields="0,1") == 20
    assert session.login() == 0
    assert session.code(QUOTES, "SUBS", keys="QQQ", fields="0,1") == 0


def test_a_bad_token_is_denied_and_the_socket_closed() -> None:
    """Code 3 with the broker's words, then the end."""
    session = driver()
    outputs = session.outputs(session.request("ADMIN", "LOGIN", Authorization="bad"))
    content = frames(outputs)[0]["response"][0]["content"]
    assert content == {"code": 3, "msg": "Login Denied.: token is invalid or has expired."}
    assert session.is_closed(outputs)


@pytest.mark.parametrize("name", ["SchwabClientCustomerId", "SchwabClientCorrelId"])
def test_a_request_with_other_ids_is_not_ours(name: str) -> None:
    """Ids that changed since the login are answered with 20."""
    session = logged_in()
    request = {**session.request(QUOTES, "SUBS", keys="QQQ", fields="1"), name: "somebody"}
    assert frames(session.outputs(request))[0]["response"][0]["content"]["code"] == 20


@pytest.mark.parametrize("requestid", ["7", 7, "abc"])
def test_the_request_id_comes_back_as_it_was_sent(requestid: object) -> None:
    """A number stays a number, a text a text."""
    session = logged_in()
    request = {**session.request(QUOTES, "SUBS", keys="QQQ", fields="1"), "requestid": requestid}
    assert frames(session.outputs(request))[0]["response"][0]["requestid"] == requestid


def test_requests_of_one_frame_are_answered_in_order() -> None:
    """Also a bare object without `requests` is understood."""
    session = logged_in()
    both = [session.request(QUOTES, "SUBS", keys=key, fields="1") for key in ("QQQ", "SPY")]
    answers = [frame for frame in frames(session.outputs(*both)) if "response" in frame]
    ids = [answer["response"][0]["requestid"] for answer in answers]
    assert ids == [request["requestid"] for request in both]
    bare = json.dumps(session.request(QUOTES, "UNSUBS", keys="SPY"))
    assert frames(session.session.on_text(bare, 0))[0]["response"][0]["content"]["code"] == 0


def test_the_image_follows_the_answer() -> None:
    """First the acknowledgement, then the full image of each new symbol in one frame."""
    answer, image = logged_in().subscribe(QUOTES, "QQQ", "SPY")
    assert answer["response"][0]["content"] == {"code": 0, "msg": "SUBS command succeeded"}
    assert [item["key"] for item in image["data"][0]["content"]] == ["QQQ", "SPY"]
    assert len(image["data"][0]["content"][0]) > 50


def test_all_changed_symbols_of_a_service_share_a_frame() -> None:
    """At most one frame a cycle and service."""
    session = logged_in()
    session.subscribe(QUOTES, "QQQ", "SPY", "IWM", "NVDA")
    sent = [frame["data"][0] for frame in session.run(AT_MS + 60_000) if "data" in frame]
    stamps = [data["timestamp"] for data in sent]
    assert stamps == sorted(set(stamps))
    assert max(len(data["content"]) for data in sent) == 4


def test_subs_replaces_add_appends_unsubs_removes() -> None:
    """The set of symbols is what the commands say."""
    session = logged_in()
    session.subscribe(QUOTES, "QQQ", "SPY")
    session.subscribe(QUOTES, "IWM", command="ADD")
    assert session.session.subscriptions == {QUOTES: 3, BARS: 0}
    session.ask(QUOTES, "UNSUBS", keys="SPY,NEVER")
    assert session.session.subscriptions[QUOTES] == 2
    session.subscribe(QUOTES, "DIA")
    keys = {
        item["key"]
        for frame in session.run(AT_MS + 30_000)
        if "data" in frame
        for item in frame["data"][0]["content"]
    }
    assert keys == {"DIA"}


def test_view_changes_the_fields_of_the_whole_service() -> None:
    """From then on only these come."""
    session = logged_in()
    session.subscribe(QUOTES, "QQQ")
    assert session.code(QUOTES, "VIEW", fields="0,8") == 0
    items = [
        item
        for frame in session.run(AT_MS + 30_000)
        if "data" in frame
        for item in frame["data"][0]["content"]
    ]
    assert items
    assert all(set(item) == {"key", "8"} for item in items)


def test_the_documented_success_codes_can_be_switched_on() -> None:
    """26 to 29 instead of 0."""
    session = logged_in(rules=Rules(success_codes=True))
    assert session.code(QUOTES, "SUBS", keys="QQQ", fields="1") == 26
    assert session.code(QUOTES, "ADD", keys="SPY", fields="1") == 28
    assert session.code(QUOTES, "VIEW", fields="1,2") == 29
    assert session.code(QUOTES, "UNSUBS", keys="SPY") == 27


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("command", "failed"), [("SUBS", 22), ("ADD", 24)])
def test_too_many_symbols_are_cut_and_said_so_twice(
    together: bool, command: str, failed: int
) -> None:
    """Code 19 names limit and loss, then the command fails; the first symbols are kept."""
    session = logged_in(rules=Rules(limit_in_one_frame=together), limit=2)
    sent = session.subscribe(QUOTES, "QQQ", "SPY", "IWM", "DIA", command=command)
    answers = [answer for frame in sent for answer in frame.get("response", [])]
    assert [answer["content"]["code"] for answer in answers] == [19, failed]
    assert answers[0]["content"]["msg"] == (
        "You've reached the maximum number of symbols allowed.  (LEVELONE_EQUITIES=2, DISCARDED=2)"
    )
    assert len([frame for frame in sent if "response" in frame]) == (1 if together else 2)
    assert session.session.subscriptions[QUOTES] == 2


def test_an_unknown_service_is_not_available() -> None:
    """Code 11, and the socket stays."""
    session = logged_in()
    assert session.code("TIMESALE_EQUITY", "SUBS", keys="QQQ", fields="1") == 11
    assert session.login() == 0


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "5",
        "{}",
        '{"requests": 5}',
        '{"requests": [5]}',
        '{"requests": [{"service": 1, "command": "SUBS", "requestid": "1"}]}',
        '{"requests": [{"service": "ADMIN", "command": "LOGIN", "requestid": {}}]}',
        '{"requests": [{"service": "A", "command": "B", "requestid": "1", "parameters": []}]}',
        "[" * 30_000,
    ],
)
def test_a_frame_of_the_wrong_shape_is_answered_and_survived(text: str) -> None:
    """Code 21; the connection goes on."""
    session = logged_in()
    answer = frames(session.session.on_text(text, 0))[0]["response"][0]
    assert answer["content"]["code"] == 21
    assert session.code(QUOTES, "SUBS", keys="QQQ", fields="1") == 0


@pytest.mark.parametrize(
    ("command", "parameters"),
    [
        ("SUBS", {"keys": "", "fields": "1"}),
        ("SUBS", {"keys": "QQQ"}),
        ("SUBS", {"keys": "QQQ", "fields": "x"}),
        ("SUBS", {"keys": "QQQ", "fields": 3}),
        ("SUBS", {"keys": ["QQQ"], "fields": "1"}),
        ("UNSUBS", {}),
        ("VIEW", {"fields": ""}),
        ("DANCE", {"keys": "QQQ", "fields": "1"}),
    ],
)
def test_a_command_without_sound_parameters_is_malformed(
    command: str, parameters: dict[str, object]
) -> None:
    """Code 21 for each."""
    assert logged_in().code(QUOTES, command, **parameters) == 21


@given(text=st.text())
def test_no_text_breaks_a_session(text: str) -> None:
    """Whatever comes in, something goes out and the session lives."""
    session = logged_in()
    assert list(session.session.on_text(text, 0))
    assert session.code(QUOTES, "SUBS", keys="QQQ", fields="1") == 0


def test_a_request_beyond_the_limit_closes_the_socket() -> None:
    """65,535 bytes are fine, one more is not."""
    session = logged_in()
    request = session.request(QUOTES, "SUBS", keys="QQQ", fields="1", padding="")
    free = 65_535 - len(json.dumps({"requests": [request]}))
    request["parameters"]["padding"] = "x" * free
    assert not session.is_closed(session.outputs(request))
    request["parameters"]["padding"] = "x" * (free + 1)
    assert session.outputs(request) == [Close(1009, "request too long")]


def test_logout_is_answered_and_ends_the_connection() -> None:
    """Then nothing more is sent."""
    session = logged_in()
    session.subscribe(QUOTES, "QQQ")
    outputs = session.outputs(session.request("ADMIN", "LOGOUT"))
    assert frames(outputs)[0]["response"][0]["content"]["code"] == 0
    assert session.is_closed(outputs)
    assert session.run(AT_MS + 60_000) == []


def test_heartbeats_come_every_ten_seconds_and_tell_the_time() -> None:
    """From the login on, with or without subscriptions."""
    beats = [int(frame["notify"][0]["heartbeat"]) for frame in logged_in().run(AT_MS + 60_000)]
    assert beats == [AT_MS + 10_000 * number for number in range(1, 7)]


def test_heartbeats_keep_a_distance_of_50_ms_and_follow_the_speed() -> None:
    """At 3,600 virtual seconds a second they are three minutes apart; at speed 1 again ten s."""
    session = logged_in()
    session.speed = 3_600.0
    session.session.skip_to(AT_MS)
    beats = [int(frame["notify"][0]["heartbeat"]) for frame in session.run(AT_MS + 400_000)]
    assert beats == [AT_MS, AT_MS + 180_000, AT_MS + 360_000]
    session.speed = 1.0
    session.session.skip_to(AT_MS + 400_000)
    beats = [int(frame["notify"][0]["heartbeat"]) for frame in session.run(AT_MS + 415_000)]
    assert beats == [AT_MS + 400_000, AT_MS + 410_000]


def test_a_connection_without_symbols_is_stopped() -> None:
    """Code 30 and the end after 30 s of wall time, counted from when the last symbol left."""
    session = logged_in()
    session.subscribe(QUOTES, "QQQ")
    assert session.run(AT_MS + 1_000, wall_ms=99_000)
    session.outputs(session.request(QUOTES, "UNSUBS", keys="QQQ"), wall_ms=100_000)
    assert session.run(AT_MS + 2_000, wall_ms=129_999) == []
    (notice,) = session.run(AT_MS + 3_000, wall_ms=130_000)
    assert notice["notify"][0]["content"]["code"] == 30
    assert session.session.closed


def test_an_evicted_connection_is_told_why() -> None:
    """Code 12, then the end."""
    session = logged_in()
    outputs = list(session.session.evict())
    assert frames(outputs)[0]["notify"][0]["content"]["code"] == 12
    assert session.is_closed(outputs)


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 180_000), max_size=8))
def test_a_late_reader_gets_the_same_frames_in_the_same_order(cuts: list[int]) -> None:
    """However time is sliced, the frames and their stamps are the same: late, never skipped."""
    together, sliced = logged_in(), logged_in()
    for session in (together, sliced):
        session.subscribe(QUOTES, "QQQ", "FXY")
        session.subscribe(BARS, "QQQ", "FXY")
    expected = together.run(AT_MS + 180_000)
    got = [frame for cut_ms in [*sorted(cuts), 180_000] for frame in sliced.run(AT_MS + cut_ms)]
    assert got == expected
    stamps = [frame["data"][0]["timestamp"] for frame in expected if "data" in frame]
    assert stamps == sorted(stamps)


def test_a_jump_over_the_night_is_announced_and_brings_the_new_day() -> None:
    """A heartbeat tells the time at once; level one then holds the new day's values."""
    session = Driver(MARKET, FRIDAY.post_close_ms - 1_000)
    session.login()
    (_, image) = session.subscribe(QUOTES, "QQQ")
    session.run(FRIDAY.post_close_ms + 20_000)
    monday = session_of(dt.date(2026, 11, 23))
    session.session.skip_to(monday.pre_open_ms)
    sent = session.run(monday.pre_open_ms + 1_000)
    deltas = [frame["data"][0]["content"][0] for frame in sent if "data" in frame]
    assert deltas[0]["17"] == 0
    assert image["data"][0]["content"][0]["17"] > 0
    assert any(
        frame.get("notify", [{}])[0].get("heartbeat") == str(monday.pre_open_ms) for frame in sent
    )
