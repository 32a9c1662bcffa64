"""The token file is sealed, never torn, never junk, and never readable by others."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libs.common.sealing import Key
from libs.common.token_file import (
    TokenBusy,
    TokenFile,
    TokenInvalid,
    TokenMissing,
    TokenUnsafe,
    private_folder,
)

TOKEN = {
    "access_token": "access-secret",
    "refresh_token": "refresh-secret",
    "expires_at": 1_795_185_000,
    "token_type": "Bearer",
}
KEY, OTHER_KEY = Key(bytes(range(32))).text, Key(bytes(32)).text
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token.json", "token.key"]


def test_nothing_secret_stands_in_the_open(tmp_path: Path) -> None:
    """Neither with a key of its own nor with one that was given."""
    for key in ("", KEY):
        file = TokenFile(tmp_path / f"{len(key)}.json", key)
        file.write(WRAPPED)
        assert file.sealed
        content = file.path.read_bytes()
        assert b"secret" not in content
        assert str(WRAPPED["creation_timestamp"]).encode() not in content
    assert not (tmp_path / f"{len(KEY)}.key").exists()


def test_a_file_of_schwab_py_is_read_and_sealed_by_the_next_write(tmp_path: Path) -> None:
    """So nobody has to log in again because of an update."""
    file = TokenFile(tmp_path / "token.json", KEY)
    file.path.write_text(json.dumps(WRAPPED))
    file.path.chmod(0o600)
    assert file.read() == WRAPPED
    in_the_open = not file.sealed
    file.write(file.read())
    assert in_the_open
    assert file.sealed
    assert file.read() == WRAPPED


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


def torn(path: Path) -> None:
    """Half of it is there."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """One character is another."""
    path.write_bytes(path.read_bytes().replace(b'"content":"', b'"content":"AAAA'))


def foreign(path: Path) -> None:
    """It belongs to another account."""
    os.chown(path, 12_345, -1)


def replaced_by(content: bytes) -> Callable[[Path], None]:
    """Something else stands there."""

    def harm(path: Path) -> None:
        path.write_bytes(content)

    return harm


HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "torn": (torn, "damaged"),
    "changed": (flipped, "damaged"),
    "foreign-owned": (foreign, "another account"),
    "world-readable": (lambda path: path.chmod(0o644), "chmod 600"),
    "in an open folder": (lambda path: path.parent.chmod(0o755), "chmod 700"),
    "empty": (replaced_by(b""), "no token"),
    "half JSON": (replaced_by(b"{"), "no token"),
    "a number": (replaced_by(b"3"), "no token"),
    "without its time": (replaced_by(json.dumps(TOKEN).encode()), "no token"),
    "no text": (replaced_by(b"\xff"), "no token"),
    "sealed otherwise": (replaced_by(b'{"sealed":"rot13","key":"a","content":"b"}'), "rot13"),
}


@pytest.mark.parametrize(("harm", "word"), HARM.values(), ids=HARM)
def test_what_cannot_be_trusted_is_named_and_not_overwritten(
    tmp_path: Path, harm: Callable[[Path], None], word: str
) -> None:
    """A clear error that says what to do, without the content, and the file stays as it is."""
    if harm is foreign and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    folder = tmp_path / "login"
    file = TokenFile(folder / "token.json", KEY)
    file.write(WRAPPED)
    harm(file.path)
    before = file.path.read_bytes()
    for act in (file.read, file.require_replaceable, lambda: file.write(WRAPPED)):
        with pytest.raises(TokenUnsafe, match=word) as caught:
            act()
        assert "secret" not in str(caught.value)
        assert str(folder) in str(caught.value)
    assert file.path.read_bytes() == before
    assert not file.is_newer_than(0)


def test_another_key_opens_nothing_and_overwrites_nothing(tmp_path: Path) -> None:
    """Both keys are named, and how to give the right one; none of them is shown."""
    file = TokenFile(tmp_path / "token.json", KEY)
    file.write(WRAPPED)
    before = file.path.read_bytes()
    wrong = TokenFile(file.path, OTHER_KEY)
    for act in (wrong.read, lambda: wrong.write(WRAPPED)):
        with pytest.raises(TokenUnsafe, match="KITE_SCHWAB_TOKEN_KEY") as caught:
            act()
        assert KEY not in str(caught.value)
        assert OTHER_KEY not in str(caught.value)
    assert file.path.read_bytes() == before


def test_a_lost_key_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    """It can be put back, and then all is well."""
    file = TokenFile(tmp_path / "token.json")
    file.write(WRAPPED)
    aside = file.key_file.rename(tmp_path / "aside")
    for act in (file.read, lambda: file.write(WRAPPED)):
        with pytest.raises(TokenUnsafe, match=r"token\.key.*put it back"):
            act()
    aside.rename(file.key_file)
    assert file.read() == WRAPPED


def test_what_is_no_key_is_told_before_a_login(tmp_path: Path) -> None:
    """Nobody logs in for nothing."""
    with pytest.raises(TokenUnsafe, match="KITE_SCHWAB_TOKEN_KEY"):
        TokenFile(tmp_path / "token.json", "no key").require_replaceable()


def test_a_pipe_in_its_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Opening it returns at once."""
    os.mkfifo(tmp_path / "token.json", 0o600)
    with pytest.raises(TokenUnsafe, match="no file"):
        TokenFile(tmp_path / "token.json", KEY).read()


def test_a_folder_of_ours_is_closed_to_others(tmp_path: Path) -> None:
    """Also one that an earlier version has made."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    private_folder(tmp_path / "c")
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_one_holds_the_lock_and_the_next_one_waits(tmp_path: Path) -> None:
    """In another process; its turn comes when the first one is through, or dies."""
    file = TokenFile(tmp_path / "token.json", KEY)
    code = (
        "import sys; from pathlib import Path; from libs.common.token_file import TokenFile\n"
        f"with TokenFile(Path({str(file.path)!r})).locked():\n"
        "    print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"

        async def main() -> None:
            waiting = asyncio.create_task(hold())
            for _ in range(3):
                await asyncio.sleep(0)
            assert not waiting.done()
            other.kill()
            await waiting

        async def hold() -> None:
            async with file.lock():
                return

        asyncio.run(main())


def test_patience_ends_with_a_clear_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the lock for a minute is stuck."""
    monkeypatch.setattr("libs.common.token_file._LOCK_WAIT_S", 0.0)
    file = TokenFile(tmp_path / "token.json", KEY)
    with file.locked(), pytest.raises(TokenBusy, match="another process"), file.locked():
        pytest.fail("two of them")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Together with the setting that points to it."""
    with pytest.raises(TokenMissing, match="KITE_SCHWAB_TOKEN_FILE"):
        TokenFile(tmp_path / "none.json").read()
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_keeps_the_old_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk is an error, and nothing is left lying about."""
    file = TokenFile(tmp_path / "token.json", KEY)
    file.write(WRAPPED)

    def fail(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        file.write({**WRAPPED, "creation_timestamp": 1})
    monkeypatch.undo()
    assert file.read() == WRAPPED
    assert list(tmp_path.iterdir()) == [tmp_path / "token.json"]
