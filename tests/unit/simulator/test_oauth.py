"""Codes and tokens live as long as the broker's, and no longer."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from services.simulator.oauth import OAuth, OAuthError, OAuthRules

CALLBACK = "https://127.0.0.1:8182"
WEEK_MS = 7 * 86_400_000
T0 = 1_800_000_000_000


def basic(pair: str = "key:secret") -> str:
    """The header of an application."""
    return "Basic " + base64.b64encode(pair.encode()).decode()


class Login:
    """One user of one application, on clocks of their own."""

    def __init__(self, *, seed: str = "1", speed: float = 1.0, **rules: Any) -> None:
        self.speed = speed
        self.oauth = OAuth(OAuthRules("key", "secret", (CALLBACK,), **rules), seed)

    def code(self, wall_ms: int = T0) -> str:
        """Go through the browser."""
        return self.oauth.authorize("key", CALLBACK, "code", wall_ms, T0)

    def exchange(self, code: str, wall_ms: int = T0, **form: str) -> dict[str, Any]:
        """Redeem a code."""
        body = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, **form,
        }  # fmt: skip
        return self.oauth.token(basic(), body, wall_ms, T0, self.speed)

    def refresh(self, token: str, at_ms: int) -> dict[str, Any]:
        """Use a refresh token."""
        body = {"grant_type": "refresh_token", "refresh_token": token}
        return self.oauth.token(basic(), body, at_ms, at_ms, self.speed)

    def valid(self, token: str, at_ms: int) -> bool:
        """Whether an access token is good."""
        return self.oauth.access_valid(token, at_ms, self.speed)


def refusal(caught: pytest.ExceptionInfo[OAuthError]) -> tuple[int, str]:
    """Status and error of a refusal."""
    return caught.value.status, caught.value.body["error"]


def test_a_code_brings_the_broker_s_tokens() -> None:
    """The code ends in `@`; the reply has the documented members."""
    login = Login()
    code = login.code()
    assert code.startswith("C0.")
    assert code.endswith("@")
    reply = login.exchange(code)
    assert (reply["expires_in"], reply["token_type"], reply["scope"]) == (1800, "Bearer", "api")
    assert reply["access_token"].startswith("I0.")
    assert login.valid(reply["access_token"], T0)


def test_a_code_works_once_and_for_half_a_minute() -> None:
    """The second use, the thirty-first second, an invented code and another callback fail."""
    login = Login()
    code = login.code()
    login.exchange(code, T0 + 30_000)
    late, misdirected = login.code(), login.code()
    for bad, wall_ms, form in (
        (code, T0, {}),
        (late, T0 + 30_001, {}),
        ("C0.invented@", T0, {}),
        (misdirected, T0, {"redirect_uri": CALLBACK + "/"}),
    ):
        with pytest.raises(OAuthError) as caught:
            login.exchange(bad, wall_ms, **form)
        assert refusal(caught) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("client", "callback", "kind", "status"),
    [
        ("other", CALLBACK, "code", 401),
        ("key", CALLBACK + "/", "code", 403),
        ("key", CALLBACK, "token", 401),
    ],
)
def test_the_login_page_is_denied_to_strangers(
    client: str, callback: str, kind: str, status: int
) -> None:
    """Key and callback must match byte for byte."""
    with pytest.raises(OAuthError) as caught:
        Login().oauth.authorize(client, callback, kind, T0, T0)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Bearer x", basic("key:no"), basic("no:secret")]
)
def test_the_application_must_prove_itself(header: str) -> None:
    """A wrong key or secret is an invalid client."""
    with pytest.raises(OAuthError) as caught:
        Login().oauth.token(header, {"grant_type": "refresh_token"}, T0, T0, 1.0)
    assert refusal(caught) == (401, "invalid_client")


def test_an_access_token_lives_half_an_hour() -> None:
    """To the millisecond, on token time."""
    login = Login()
    token = login.exchange(login.code())["access_token"]
    assert login.valid(token, T0 + 1_799_999)
    assert not login.valid(token, T0 + 1_800_000)


def test_a_refresh_token_lives_a_week_from_the_login() -> None:
    """Refreshing does not start the week again."""
    login = Login()
    refresh = login.exchange(login.code())["refresh_token"]
    late = login.refresh(refresh, T0 + WEEK_MS - 1)
    assert login.valid(late["access_token"], T0 + WEEK_MS - 1)
    assert late["refresh_token"] == refresh
    with pytest.raises(OAuthError) as caught:
        login.refresh(late["refresh_token"], T0 + WEEK_MS)
    assert refusal(caught) == (400, "unsupported_token_type")
    assert "refresh_token_authentication_error" in caught.value.body["error_description"]


def test_rotation_brings_a_new_refresh_token_of_the_same_login() -> None:
    """Its week is still that of the login."""
    login = Login(rotate_refresh=True)
    first = login.exchange(login.code())["refresh_token"]
    second = login.refresh(first, T0 + 1_000)["refresh_token"]
    assert second != first
    with pytest.raises(OAuthError):
        login.refresh(second, T0 + WEEK_MS)


def test_beginning_a_login_ends_the_access_tokens_there_are() -> None:
    """Whoever starts a new login and stops half-way has lost the old token."""
    login = Login()
    token = login.exchange(login.code())["access_token"]
    login.oauth.authorize("key", CALLBACK, "code", T0 + 1, T0 + 1)
    assert not login.valid(token, T0 + 2)
    lenient = Login(revoke_on_authorize=False)
    token = lenient.exchange(lenient.code())["access_token"]
    lenient.oauth.authorize("key", CALLBACK, "code", T0 + 1, T0 + 1)
    assert lenient.valid(token, T0 + 2)


def test_a_restart_knows_its_tokens() -> None:
    """They are signed with the seed; another seed does not know them."""
    login = Login()
    reply = login.exchange(login.code())
    assert Login().valid(reply["access_token"], T0)
    assert Login().refresh(reply["refresh_token"], T0)["access_token"]
    assert not Login(seed="2").valid(reply["access_token"], T0)


@pytest.mark.parametrize("token", ["", "I0.@", "I0.e30@", "x" * 5_000, "I0.\udce4@", "ü"])
def test_an_invented_token_is_not_valid(token: str) -> None:
    """Rubbish is refused, not an error."""
    assert not Login().valid(token, T0)


def test_kinds_of_tokens_are_not_exchangeable() -> None:
    """A refresh token opens no API, an access token refreshes nothing."""
    login = Login()
    reply = login.exchange(login.code())
    assert not login.valid(reply["refresh_token"], T0)
    with pytest.raises(OAuthError):
        login.refresh(reply["access_token"], T0)


@pytest.mark.parametrize(("speed", "expires_in"), [(1.0, 1800), (60.0, 30), (100_000.0, 1)])
def test_a_client_counts_wall_seconds(speed: float, expires_in: int) -> None:
    """`expires_in` is the virtual life at the clock's speed, a second at least, and honest."""
    login = Login(speed=speed)
    reply = login.exchange(login.code())
    assert reply["expires_in"] == expires_in
    assert login.valid(reply["access_token"], T0 + int((expires_in - 0.001) * speed * 1000))


def test_a_refresh_token_that_is_good_once() -> None:
    """With rotation the one before ends; each new one goes on from it."""
    login = Login(rotate_refresh=True, refresh_once=True)
    first = login.exchange(login.code())["refresh_token"]
    second = login.refresh(first, T0 + 1_000)["refresh_token"]
    with pytest.raises(OAuthError) as caught:
        login.refresh(first, T0 + 2_000)
    assert refusal(caught) == (400, "unsupported_token_type")
    assert login.refresh(second, T0 + 3_000)["refresh_token"] not in (first, second)


def test_without_rotation_nothing_is_good_once() -> None:
    """There would be no next one."""
    login = Login(refresh_once=True)
    token = login.exchange(login.code())["refresh_token"]
    assert login.refresh(token, T0 + 1_000)["refresh_token"] == token
    assert login.refresh(token, T0 + 2_000)["refresh_token"] == token


@pytest.mark.parametrize("ends", [True, False])
def test_a_later_login_and_the_tokens_of_earlier_ones(ends: bool) -> None:
    """They end, or they do not; the later one is good either way."""
    login = Login(login_ends_older=ends)
    older = login.exchange(login.code())["refresh_token"]
    body = {"grant_type": "authorization_code", "code": login.code(), "redirect_uri": CALLBACK}
    newer = login.oauth.token(basic(), body, T0, T0 + 5_000, 1.0)["refresh_token"]
    assert login.refresh(newer, T0 + 6_000)
    if ends:
        with pytest.raises(OAuthError):
            login.refresh(older, T0 + 6_000)
    else:
        assert login.refresh(older, T0 + 6_000)
