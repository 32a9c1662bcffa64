"""A secret key, and bytes that only its holder can read or make: XChaCha20-Poly1305.

What is sealed is one line of JSON that says how it was sealed and by which key, so that a wrong key
is told from a damaged file. Bytes that were changed never open as anything else. The key is 32
random bytes, written in base64. No error holds a key, or anything of what was sealed.

For one who cannot share a key there is the `Letterbox`: whoever knows its address can put something
in, and only the box itself gets it out. It lives as long as its process remembers it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import nacl.exceptions
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.secret import Aead

from libs.common.durable import sync

__all__ = [
    "Damaged",
    "Key",
    "KeyInvalid",
    "Letterbox",
    "WrongKey",
    "is_sealed",
    "kept_key",
    "open_sealed",
    "seal",
    "seal_for",
]

_METHOD: Final = "xchacha20-poly1305"
_KEY_BYTES: Final = Aead.KEY_SIZE
_NAME_CHARS: Final = 8


class KeyInvalid(ValueError):
    """The text is no key."""


class WrongKey(ValueError):
    """Another key has sealed them."""


class Damaged(ValueError):
    """They are not what was sealed."""


@dataclass(frozen=True)
class Key:
    """A key; `name` tells it from others and may be shown."""

    raw: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Key:
        """Return the key that is written so; raises KeyInvalid."""
        plain = text.strip().replace("-", "+").replace("_", "/").rstrip("=")
        try:
            raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != _KEY_BYTES:
            raise KeyInvalid(
                f"no key: {_KEY_BYTES} random bytes in base64, as `head -c 32 /dev/urandom | "
                "base64` makes them"
            )
        return cls(raw)

    @classmethod
    def new(cls) -> Key:
        """Make one."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    @property
    def text(self) -> str:
        """How it is written."""
        return base64.b64encode(self.raw).decode()

    @property
    def name(self) -> str:
        """A few characters that say nothing about the key but which one it is."""
        return hashlib.blake2b(self.raw, person=b"kite-key-name").hexdigest()[:_NAME_CHARS]


class _Sealed(msgspec.Struct):
    sealed: str
    key: str
    content: str


def seal(key: Key, content: bytes) -> bytes:
    """Return `content` such that only `key` opens it."""
    box = Aead(key.raw).encrypt(content, _about(key.name))
    text = base64.b64encode(bytes(box)).decode()
    return msgspec.json.encode(_Sealed(_METHOD, key.name, text)) + b"\n"


def is_sealed(text: bytes) -> bool:
    """Tell whether these bytes are, or were once, sealed ones."""
    return text.lstrip().startswith(b'{"sealed":')


def open_sealed(key: Key, text: bytes) -> bytes:
    """Return what was sealed; raises WrongKey or Damaged."""
    try:
        found = msgspec.json.decode(text, type=_Sealed)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Damaged("it is not whole") from None
    if found.sealed != _METHOD:
        raise Damaged(f"sealed by a method that is not known here: {found.sealed[:40]!r}")
    if found.key != key.name:
        raise WrongKey(f"key {found.key[:40]!r} has sealed it, and ours is {key.name!r}")
    try:
        box = base64.b64decode(found.content, validate=True)
        return Aead(key.raw).decrypt(box, _about(found.key))
    except (binascii.Error, ValueError, nacl.exceptions.CryptoError):
        raise Damaged("it is not what was written") from None


class Letterbox:
    """Opens what was sealed for its `address`, which may be shown to anybody."""

    def __init__(self) -> None:
        self._key = PrivateKey.generate()

    @property
    def address(self) -> str:
        """What `seal_for` takes."""
        return base64.b64encode(bytes(self._key.public_key)).decode()

    def open(self, letter: str) -> bytes:
        """Return what was sealed; raises Damaged."""
        try:
            box = base64.b64decode(letter, validate=True)
            return bytes(SealedBox(self._key).decrypt(box))
        except (binascii.Error, ValueError, nacl.exceptions.CryptoError):
            raise Damaged("it was not sealed for this box") from None


def seal_for(address: str, content: bytes) -> str:
    """Return `content` such that only the letterbox of that address opens it; raises KeyInvalid."""
    try:
        key = PublicKey(base64.b64decode(address, validate=True))
    except (binascii.Error, ValueError, nacl.exceptions.CryptoError):
        raise KeyInvalid("that is no letterbox's address") from None
    return base64.b64encode(bytes(SealedBox(key).encrypt(content))).decode()


def kept_key(path: Path, *, make: bool = True) -> Key:
    """Return the key in `path`, made on first use; raises KeyInvalid or OSError.

    Whoever makes it at the same moment gets the same one.
    """
    if not make or path.exists():
        return _read(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    staged = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:  # mkstemp gives mode 0600
            file.write(f"{Key.new().text}\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link replaces nothing: the first one wins.
        try:
            path.hardlink_to(staged)
        except FileExistsError:
            return _read(path)
    finally:
        staged.unlink(missing_ok=True)
    sync(path.parent)
    return _read(path)


def _read(path: Path) -> Key:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        text = file.read(1 << 10)
    if status.st_mode & 0o077:
        raise KeyInvalid(f"{path} can be read by others: chmod 600 {path}")
    if status.st_uid != os.geteuid():
        raise KeyInvalid(f"{path} belongs to another account (uid {status.st_uid})")
    try:
        return Key.parse(text.decode("ascii"))
    except (KeyInvalid, UnicodeDecodeError):
        raise KeyInvalid(f"{path} holds no key; put the right one back") from None


def _about(name: str) -> bytes:
    """What is not secret and yet may not be changed."""
    return f"kite/{_METHOD}/{name}".encode()
