"""Whose login `./kite auth` means, where it is kept, and with which key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli import auth
from cli.home import Home
from cli.login_place import token_file, token_settings
from cli.state import StackState
from libs.common.errors import SettingsError
from libs.common.sealing import Key
from libs.common.token_file import TokenFile

ACCOUNT = {"KITE_SCHWAB_APP_KEY": "my-key", "KITE_SCHWAB_APP_SECRET": "my-secret"}
TOKEN = {
    "creation_timestamp": 1,
    "token": {"access_token": "a", "refresh_token": "r", "expires_at": 2},
}


def running(source: str, home: Path) -> StackState:
    """A stack that runs."""
    return StackState(
        nats=None, postgres=None, gateway=None, schwab="http://127.0.0.1:1", services={},
        servers={}, running=True, ready=True, home=str(home), source=source,
        store=str(home / source),
    )  # fmt: skip


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home on which a demo runs."""
    monkeypatch.setattr(auth, "current_state", lambda _: running("demo", tmp_path))
    return Home(tmp_path)


def test_a_key_means_the_account(demo: Home) -> None:
    """Also while a demo runs."""
    desk = auth._desk(demo, {**ACCOUNT, "KITE_SCHWAB_CALLBACK": "https://127.0.0.1:9"})
    assert desk.app.base_url is None
    assert (desk.app.key, desk.app.callback) == ("my-key", "https://127.0.0.1:9")
    assert desk.token_file.path == demo.root / "schwab" / "login" / "schwab-token.json"


def test_without_a_key_a_demo_that_runs_is_meant(demo: Home) -> None:
    """In its own store, whatever file is named for the account."""
    desk = auth._desk(demo, {"KITE_SCHWAB_TOKEN_FILE": "/somewhere/else.json"})
    assert desk.app.base_url == "http://127.0.0.1:1"
    assert desk.token_file.path == demo.root / "demo" / "login" / "schwab-token.json"


def test_with_neither_both_ways_are_told(tmp_path: Path) -> None:
    """Nothing runs, and no key is set."""
    with pytest.raises(SettingsError, match=r"KITE_SCHWAB_APP_KEY.*kite up"):
        auth._desk(Home(tmp_path), {})


def test_a_running_account_without_its_key_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key lives in the environment of `up`, and not in ours: status works without it."""
    monkeypatch.setattr(auth, "current_state", lambda _: running("schwab", tmp_path))
    desk = auth._desk(Home(tmp_path), {})
    assert desk.status().state == "missing"
    with pytest.raises(SettingsError, match="KITE_SCHWAB_APP_KEY"):
        desk.url()


def test_the_key_of_the_file_is_made_once_and_apart(tmp_path: Path) -> None:
    """A copy of the store does not hold it."""
    token = token_file(tmp_path / "schwab", {})
    told = token_settings(tmp_path, token, {})
    place = Path(told["KITE_SCHWAB_TOKEN_KEY_FILE"])
    assert place.parent == tmp_path / "keys"
    assert place.parent.stat().st_mode & 0o777 == 0o700
    made = place.read_text()
    assert token_settings(tmp_path, token, {}) == told
    assert place.read_text() == made


@pytest.mark.parametrize("name", ["KITE_SCHWAB_TOKEN_KEY", "KITE_SCHWAB_TOKEN_KEY_FILE"])
def test_a_key_of_the_callers_is_handed_on(tmp_path: Path, name: str) -> None:
    """And none is made beside it."""
    told = token_settings(tmp_path, tmp_path / "token.json", {name: "given"})
    assert told == {"KITE_SCHWAB_TOKEN_FILE": str(tmp_path / "token.json"), name: "given"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "mode"), [("no key", 0o600), (Key.new().text, 0o644)], ids=["no key", "open to others"]
)
def test_a_key_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str, mode: int) -> None:
    """In one line, and it stays."""
    place = tmp_path / "keys" / "schwab-token.key"
    place.parent.mkdir()
    place.write_text(text)
    place.chmod(mode)
    with pytest.raises(SettingsError, match="the token's key"):
        token_settings(tmp_path, tmp_path / "token.json", {})
    assert place.read_text() == text


def test_a_token_of_an_earlier_version_moves_and_is_taken_up(tmp_path: Path) -> None:
    """In the open as it was, and into a folder of its own; a newer one is never replaced."""
    old = tmp_path / "schwab" / "schwab-token.json"
    old.parent.mkdir()
    old.write_text(json.dumps(TOKEN))
    old.chmod(0o600)
    place = token_file(tmp_path / "schwab", {})
    assert not old.exists()
    assert TokenFile(place).read() == TOKEN
    old.write_text("another")
    assert token_file(tmp_path / "schwab", {}) == place
    assert TokenFile(place).read() == TOKEN


def test_a_browser_is_opened_only_where_the_person_is() -> None:
    """Not at the far end of an ssh, and not inside a terminal."""
    assert auth._has_screen({"DISPLAY": ":0"})
    assert auth._has_screen({"WAYLAND_DISPLAY": "wayland-0"})
    assert not auth._has_screen({"DISPLAY": ":10", "SSH_CONNECTION": "a b"})
