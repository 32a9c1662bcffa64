"""What is sealed is opened by its key alone, and any change is noticed."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.sealing import (
    Damaged,
    Key,
    KeyInvalid,
    Letterbox,
    WrongKey,
    is_sealed,
    kept_key,
    open_sealed,
    seal,
    seal_for,
)

KEY, OTHER = Key(bytes(range(32))), Key(bytes(32))


@given(content=st.binary(max_size=300))
def test_what_was_sealed_comes_back(content: bytes) -> None:
    """Whatever it was; and it shows neither content nor key."""
    text = seal(KEY, content)
    assert is_sealed(text)
    assert open_sealed(KEY, text) == content
    assert KEY.text.encode() not in text
    assert len(content) < 8 or (content not in text and base64.b64encode(content) not in text)


def test_the_same_content_is_never_sealed_twice_alike() -> None:
    """Who compares two files learns nothing."""
    assert seal(KEY, b"token") != seal(KEY, b"token")


def test_another_key_is_told_from_damage() -> None:
    """Both names are said, so that the right key can be found."""
    with pytest.raises(WrongKey, match=f"{KEY.name}.*{OTHER.name}"):
        open_sealed(OTHER, seal(KEY, b"token"))


@given(data=st.data())
def test_any_change_and_any_cut_is_noticed(data: st.DataObject) -> None:
    """A file that was torn or tampered with opens with an error, and never with other content."""
    content = b"a token of some length, as they are"
    text = seal(KEY, content)
    at = data.draw(st.integers(0, len(text) - 2))
    if data.draw(st.booleans()):
        changed = text[:at]
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        changed = text[:at] + bytes([text[at] ^ bit]) + text[at + 1 :]
    try:
        found = open_sealed(KEY, changed)
    except (Damaged, WrongKey):
        return
    assert found == content  # base64 has bits that mean nothing
    assert len(changed) == len(text)


def test_what_is_in_the_open_is_told_from_what_is_sealed() -> None:
    """A file of schwab-py is no damaged one of ours."""
    assert not is_sealed(b'{"creation_timestamp": 1, "token": {}}')
    assert not is_sealed(b"")


@pytest.mark.parametrize(
    "text", ["", "short", "?" * 44, KEY.text[:-4], KEY.text + "AAAA", "é" * 44]
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    """And it is said how one is made."""
    with pytest.raises(KeyInvalid, match="head -c 32") as refusal:
        Key.parse(text)
    assert not text or text not in str(refusal.value)


def test_a_key_may_be_written_in_either_alphabet() -> None:
    """With or without its end, and with white space around it."""
    raw = bytes([0xFB, 0xFF]) * 16
    for text in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        assert Key.parse(f" {text.decode()}\n") == Key.parse(text.decode().rstrip("=")) == Key(raw)


def test_a_key_does_not_show_itself() -> None:
    """Neither in a log line nor in a traceback."""
    assert KEY.text not in repr(KEY)
    assert str(KEY.raw) not in repr(KEY)


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """For its owner alone; also when several ask at the same moment."""
    path = tmp_path / "keys" / "a.key"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: kept_key(path).raw, range(32)))
    assert len(found) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_key_is_not_made_where_one_is_wanted_that_was(tmp_path: Path) -> None:
    """Reading never makes one: it would not fit."""
    with pytest.raises(FileNotFoundError):
        kept_key(tmp_path / "a.key", make=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "mode"), [("no key", 0o600), (KEY.text, 0o640), ("é", 0o600)])
def test_a_key_file_that_cannot_be_trusted_stays_as_it_is(
    tmp_path: Path, text: str, mode: int
) -> None:
    """A new key would make the token unreadable for ever."""
    path = tmp_path / "a.key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(KeyInvalid, match=r"a\.key"):
        kept_key(path)
    assert path.read_text() == text


def test_a_letterbox_opens_what_was_sealed_for_it() -> None:
    """Each time another letter, of which nothing can be read, and nobody else opens it."""
    box, other = Letterbox(), Letterbox()
    letters = [seal_for(box.address, b"a code") for _ in range(2)]
    assert letters[0] != letters[1]
    assert [box.open(letter) for letter in letters] == [b"a code", b"a code"]
    for letter in (*letters, "", "!", "AAAA", letters[0][:-8]):
        with pytest.raises(Damaged) as caught:
            other.open(letter)
        assert "a code" not in str(caught.value)


@pytest.mark.parametrize("address", ["", "!", "AAAA", "A" * 45])
def test_an_address_that_is_none_takes_no_letter(address: str) -> None:
    """Nothing is ever sealed for nobody."""
    with pytest.raises(KeyInvalid):
        seal_for(address, b"a code")
