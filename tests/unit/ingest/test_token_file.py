"""The token file is never torn, never junk, and never readable by others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.ingest.token_file import TokenFile, TokenInvalid

TOKEN = {
    "access_token": "access-secret",
    "refresh_token": "refresh-secret",
    "expires_at": 1_795_185_000,
    "token_type": "Bearer",
}
WRAPPED = {"creation_timestamp": 1_795_000_000, "token": TOKEN}


def without(name: str) -> dict[str, Any]:
    """A token that lacks something."""
    return {**WRAPPED, "token": {key: value for key, value in TOKEN.items() if key != name}}


def test_reads_what_it_wrote(tmp_path: Path) -> None:
    """And accepts the arguments that the library adds."""
    file = TokenFile(tmp_path / "token.json")
    file.write(WRAPPED, refresh_token="old")
    assert file.read() == WRAPPED
    assert (tmp_path / "token.json").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "token.json"]


@pytest.mark.parametrize(
    "junk",
    [
        {"message": "too many requests"},
        {**WRAPPED, "token": {"fault": "rate limit", "refresh_token": "kept"}},
        without("access_token"),
        without("expires_at"),
        without("refresh_token"),
        {"token": TOKEN},
        None,
        [],
    ],
)
def test_junk_never_replaces_a_token(tmp_path: Path, junk: object) -> None:
    """A refused refresh that looks like an answer leaves the last good token alone."""
    file = TokenFile(tmp_path / "token.json")
    file.write(WRAPPED)
    with pytest.raises(TokenInvalid) as caught:
        file.write(junk)
    assert file.read() == WRAPPED
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"3", json.dumps(TOKEN).encode(), b"\xff"])
def test_a_broken_file_is_named_without_its_content(tmp_path: Path, content: bytes) -> None:
    """The error says which file, and that a login mends it."""
    path = tmp_path / "token.json"
    path.write_bytes(content)
    with pytest.raises(TokenInvalid, match=r"token\.json.*log in") as caught:
        TokenFile(path).read()
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Together with the setting that points to it."""
    with pytest.raises(TokenInvalid, match="KITE_SCHWAB_TOKEN_FILE"):
        TokenFile(tmp_path / "none.json").read()


def test_an_unwritable_place_keeps_the_old_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk is an error, and nothing is left lying about."""
    file = TokenFile(tmp_path / "token.json")
    file.write(WRAPPED)

    def fail(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        file.write({**WRAPPED, "creation_timestamp": 1})
    monkeypatch.undo()
    assert file.read() == WRAPPED
    assert list(tmp_path.iterdir()) == [tmp_path / "token.json"]
