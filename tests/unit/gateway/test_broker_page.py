"""The page of the login to the broker as HTML: what it says and offers in each state."""

from __future__ import annotations

import html.parser

import pytest

from libs.common.broker_login import BrokerLogin, LoginTry, TryState
from services.gateway.broker_page import LOGIN_FIRST, render

NOW_MS = 1_795_472_400_000  # 2026-11-23 17:20 in New York
URL = "https://api.schwabapi.com/v1/oauth/authorize?redirect_uri=https%3A%2F%2F127.0.0.1%3A8182&a=1"
WORKS = BrokerLogin(
    broker="Schwab", state="ok", made_at="2026-11-23T22:00:00+00:00",
    ends_at="2026-11-30T22:00:00+00:00", due_at="2026-11-29T22:00:00+00:00",
)  # fmt: skip


def attempt(state: TryState, text: str = "", *, age_ms: int = 0) -> LoginTry:
    """The newest login."""
    began_ms = NOW_MS - age_ms
    return LoginTry(
        id="0123456789abcdef", state=state, began_ms=began_ms, expires_ms=began_ms + 600_000,
        url=URL if state == "open" else "", letterbox="", text=text,
    )  # fmt: skip


def shown(
    newest: LoginTry | None = None,
    *,
    state: str = "ok",
    reason: str = "",
    missing: str = "",
    may_change: bool = True,
    notice: str = "",
) -> str:
    """The page of a login that is otherwise well; checks that its tags are balanced."""
    login = BrokerLogin(
        broker=WORKS.broker, state=state, reason=reason, made_at=WORKS.made_at,
        ends_at=WORKS.ends_at, due_at=WORKS.due_at, missing=missing, newest=newest,
    )  # fmt: skip
    text = render(login, NOW_MS, may_change=may_change, notice=notice).decode()
    balanced(text)
    return text


def balanced(text: str) -> None:
    """Fail on a tag that is not closed, or closed twice."""
    opened: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "link", "input"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(text)
    assert opened == []


def test_it_says_when_the_next_login_is_due() -> None:
    """In the market's time, and how far that is."""
    text = shown()
    assert "The login works" in text
    assert "Sun 29 Nov 2026, 17:00 New York <small>in 5 d 23 h</small>" in text
    assert "Mon 23 Nov 2026, 17:00 New York <small>" in text
    assert "Log in again</button>" in text
    assert "<script" not in text
    assert "style=" not in text


@pytest.mark.parametrize(
    ("state", "words"),
    [("ends_soon", "ends soon"), ("ended", "has ended"), ("unusable", "No login works")],
)
def test_it_says_how_the_login_is(state: str, words: str) -> None:
    """And why it does not work, where that is known."""
    text = shown(state=state, reason="<others> may read it")
    assert words in text
    assert ("&lt;others&gt; may read it" in text) == (state != "ends_soon")


def test_an_open_login_has_a_link_and_a_field() -> None:
    """The link leads to the broker in a new tab; the callback is told as it will look."""
    text = shown(attempt("open"))
    assert f'href="{URL.replace("&", "&amp;")}" target="_blank" rel="noopener noreferrer"' in text
    assert "Log in at Schwab" in text
    assert "<code>https://127.0.0.1:8182</code>" in text
    assert 'name="address"' in text
    assert "waits until Mon 23 Nov 2026" in text
    assert "Log in again" not in text


def test_an_open_login_that_is_too_old_is_none() -> None:
    """Also if ingest is away and could not say so."""
    text = shown(attempt("open", age_ms=600_000))
    assert "Log in again" in text
    assert 'name="address"' not in text


def test_while_the_code_is_exchanged_the_page_loads_itself() -> None:
    """There is nothing to press meanwhile."""
    text = shown(attempt("exchanging"))
    assert 'http-equiv="refresh"' in text
    assert "<button" not in text
    assert 'http-equiv="refresh"' not in shown(attempt("done", "logged in"))


@pytest.mark.parametrize("state", ["failed", "expired", "lost"])
def test_what_became_of_a_login_is_news_for_an_hour(state: TryState) -> None:
    """Then it is gone; what somebody just did wrong goes before it."""
    assert "It went wrong; begin again." in shown(attempt(state, "it went wrong; begin again"))
    assert "wrong" not in shown(attempt(state, "it went wrong", age_ms=3_700_000))
    text = shown(attempt(state, "it went wrong"), notice="paste all of it")
    assert "Paste all of it." in text
    assert "went wrong" not in text


def test_what_is_missing_is_said_instead_of_a_button() -> None:
    """Without an app nobody can log in, without a login of the gateway nobody may."""
    text = shown(missing="KITE_SCHWAB_APP_KEY: not set; it is in the app's details")
    assert "Nobody can log in: KITE_SCHWAB_APP_KEY: not set" in text
    assert "<button" not in text
    for newest in (None, attempt("open"), attempt("exchanging")):
        locked = shown(newest, may_change=False)
        assert "KITE_GATEWAY_AUTH=password" in locked
        assert "<button" not in locked
        assert URL.partition("?")[0] not in locked


def test_without_a_word_of_ingest_it_says_so() -> None:
    """Nor does a stranger learn anything."""
    text = render(None, NOW_MS, may_change=True).decode()
    assert "has not said how the login is" in text
    balanced(text)
    balanced(LOGIN_FIRST.decode())
