"""Keys for the bus: as NATS writes them, and nothing else is taken for one."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from deploy.nats.config import ServerOptions, server_config
from deploy.nats.policy import PUBLIC, USERS, permissions
from libs.common.bus import nkey
from libs.common.bus.link import Address

# The pair that NATS's own documentation shows.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_a_seed_has_the_public_key_that_nats_gives_it() -> None:
    """Both are written as everybody else's tools write them."""
    assert nkey.is_seed(SEED)
    assert nkey.public_key(SEED) == KEY


def test_new_seeds_are_seeds_and_never_the_same() -> None:
    """They begin with SU, their keys with U."""
    made = {nkey.new_seed() for _ in range(50)}
    assert len(made) == 50
    assert all(nkey.is_seed(seed) and seed.startswith("SU") for seed in made)
    assert all(nkey.public_key(seed).startswith("U") for seed in made)


@given(st.integers(min_value=2, max_value=57), st.sampled_from("ABCXYZ2347"))
def test_a_seed_with_a_slip_in_it_is_none(place: int, character: str) -> None:
    """The checksum tells; so a password is never taken for a key."""
    slipped = SEED[:place] + character + SEED[place + 1 :]
    assert nkey.is_seed(slipped) == (slipped == SEED)


@pytest.mark.parametrize(
    "text", ["", "hunter2", SEED[:-1], SEED + "A", SEED.lower(), KEY, "é" * 58]
)
def test_other_texts_are_passwords(text: str) -> None:
    """Too short, too long, lower case, a public key, no base32 at all."""
    assert not nkey.is_seed(text)
    with pytest.raises(ValueError, match="not a user's seed"):
        nkey.public_key(text)


def test_a_signature_proves_the_seed() -> None:
    """Of this nonce, by this key, and of no other."""
    verify = VerifyKey(base64.b32decode(KEY)[1:33])
    signature = base64.b64decode(nkey.sign(SEED, "made-up"))
    verify.verify(b"made-up", signature)
    with pytest.raises(BadSignatureError):
        verify.verify(b"made-up-too", signature)


def test_an_address_with_a_key_sends_no_secret() -> None:
    """What the client library gets holds no password; with a password it does."""
    address = Address.parse(f"nats://writer:{SEED}@127.0.0.1:4222")
    assert address.has_key
    assert address.inbox_prefix == "_INBOX_writer"
    options = address.options()
    assert SEED not in map(str, options.values())
    assert options["signature_cb"]("made-up") == nkey.sign(SEED, "made-up")
    assert Address.parse("nats://public:word@127.0.0.1:4222").options()["password"] == "word"


def test_the_server_knows_public_keys_alone() -> None:
    """Its configuration holds no seed; only who has a password stands in it by name."""
    secrets = {user: "word" if user == PUBLIC else nkey.new_seed() for user in USERS}
    options = ServerOptions("n", "127.0.0.1:1", "127.0.0.1:2", "store", 1 << 20)
    text = server_config(options, permissions(1), secrets)
    assert not any(secret in text for user, secret in secrets.items() if user != PUBLIC)
    users = json.loads(text)["accounts"]["KITE"]["users"]
    assert {user["nkey"] for user in users if "nkey" in user} == {
        nkey.public_key(secret) for user, secret in secrets.items() if user != PUBLIC
    }
    assert [user["user"] for user in users if "user" in user] == [PUBLIC]
