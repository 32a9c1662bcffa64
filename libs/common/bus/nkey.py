"""Keys instead of passwords on the bus: the server knows public keys alone and nobody's secret.

These are NATS's nkeys: Ed25519 keys, a seed written as base32 of two bytes that say what it is, 32
bytes, and a checksum (https://docs.nats.io, "NKeys"). Who connects signs what the server makes up
for this connection, so no secret travels. A seed stands in an address where a password would.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nacl.signing import SigningKey

__all__ = ["is_seed", "new_seed", "public_key", "sign"]

# "SU", the seed of a user, and "U", a user's public key, as base32 shows them.
_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_KEY_BYTES = 32
_SEED_CHARACTERS = 58


def new_seed() -> str:
    """Return a new user's seed, which is its secret."""
    prefix = bytes((_SEED | _USER >> 5, (_USER & 31) << 3))
    return _encoded(prefix + os.urandom(_KEY_BYTES))


def is_seed(secret: str) -> bool:
    """Whether a secret is a user's seed, with a checksum that fits, and not a password."""
    return _key_bytes(secret) is not None


def public_key(seed: str) -> str:
    """Return what the server may know of it: the public key, beginning with U."""
    return _encoded(bytes((_USER,)) + bytes(_signing_key(seed).verify_key))


def sign(seed: str, nonce: str) -> bytes:
    """Return the signature of what the server made up, in base64."""
    return base64.b64encode(_signing_key(seed).sign(nonce.encode()).signature)


def _signing_key(seed: str) -> SigningKey:
    # Not above: whoever has a password needs no cryptography in memory.
    from nacl.signing import SigningKey

    key = _key_bytes(seed)
    if key is None:
        raise ValueError("not a user's seed")  # and nothing of it is told
    return SigningKey(key)


def _encoded(content: bytes) -> str:
    checksum = binascii.crc_hqx(content, 0).to_bytes(2, "little")
    return base64.b32encode(content + checksum).decode().rstrip("=")


def _key_bytes(secret: str) -> bytes | None:
    if len(secret) != _SEED_CHARACTERS or not secret.startswith("SU"):
        return None
    try:
        content = base64.b32decode(secret + "=" * (-len(secret) % 8))
    except (binascii.Error, ValueError):
        return None
    if _encoded(content[:-2]) != secret:
        return None
    return content[2:-2]
