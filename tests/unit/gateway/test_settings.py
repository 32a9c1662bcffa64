"""The gateway's settings: it does not open itself to strangers by mistake."""

from __future__ import annotations

import pytest

from libs.common.addresses import is_loopback
from libs.common.errors import SettingsError
from libs.common.settings import load
from services.gateway.settings import Settings

NEEDED = {"KITE_NATS_URL": "nats://127.0.0.1:4222", "KITE_PG_DSN": "postgresql://kite@localhost/k"}
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA"


def loaded(**environ: str) -> Settings:
    """Load with what is needed and `environ`, whose names lack the prefix."""
    return load(Settings, NEEDED | {f"KITE_{name}": value for name, value in environ.items()})


def problems(**environ: str) -> str:
    """Return what is refused."""
    with pytest.raises(SettingsError) as caught:
        loaded(**environ)
    return "\n".join(caught.value.problems)


def test_by_default_it_listens_to_this_machine_alone() -> None:
    """No login is needed then."""
    settings = loaded()
    assert (settings.gateway_host, settings.gateway_port) == ("127.0.0.1", 8080)
    assert (settings.gateway_auth, settings.public_market) == ("none", False)


@pytest.mark.parametrize("host", ["10.0.0.1", "::", "192.168.1.5", "example.com"])
def test_it_refuses_to_be_open_to_all(host: str) -> None:
    """An address that others reach needs a login, or the word of who set it up."""
    assert "KITE_GATEWAY_HOST" in problems(GATEWAY_HOST=host)
    assert loaded(GATEWAY_HOST=host, GATEWAY_ALLOW_REMOTE="1").gateway_host == host
    loaded(GATEWAY_HOST=host, GATEWAY_AUTH="password", GATEWAY_PASSWORD_HASH=HASH)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "::1", "localhost"])
def test_this_machine_has_many_names(host: str) -> None:
    """All of them are loopback."""
    assert is_loopback(host)
    assert loaded(GATEWAY_HOST=host).gateway_host == host


def test_a_login_needs_exactly_one_password() -> None:
    """Neither none, nor two that may differ."""
    assert "exactly one" in problems(GATEWAY_AUTH="password")
    both = problems(
        GATEWAY_AUTH="password", GATEWAY_PASSWORD="long enough", GATEWAY_PASSWORD_HASH=HASH
    )
    assert "exactly one" in both
    loaded(GATEWAY_AUTH="password", GATEWAY_PASSWORD="long enough")


def test_no_secret_is_repeated() -> None:
    """Whatever is wrong with them, passwords, hashes and addresses stay unsaid."""
    text = problems(
        GATEWAY_AUTH="password", GATEWAY_PASSWORD="hush", PG_DSN="mysql://me:swordfish@db",
    )  # fmt: skip
    assert "hush" not in text
    assert "swordfish" not in text
    assert "argon2id" in problems(GATEWAY_AUTH="password", GATEWAY_PASSWORD_HASH="swordfish")


def test_all_mistakes_are_told_at_once() -> None:
    """One start tells everything that is wrong."""
    text = problems(
        GATEWAY_HOST="10.0.0.1", GATEWAY_PORT="99999", GATEWAY_ORIGINS="https://a.example/path",
        PG_DSN="nonsense",
    )  # fmt: skip
    for name in ("GATEWAY_HOST", "GATEWAY_PORT", "GATEWAY_ORIGINS", "PG_DSN"):
        assert f"KITE_{name}" in text


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        ("https://kite.example.com", True),
        ("http://127.0.0.1:5173", True),
        ("https://[::1]:8443", True),
        ("https://kite.example.com/", False),
        ("kite.example.com", False),
        ("https://", False),
        ("ftp://kite.example.com", False),
        ("https://me@kite.example.com", False),
        ("null", False),
        ("*", False),
        ("https://a.example:99999", False),
    ],
)
def test_origins_are_exact(origin: str, good: bool) -> None:
    """Scheme, host and port, as browsers send them; nothing looser."""
    if good:
        assert loaded(GATEWAY_ORIGINS=origin).gateway_origins == (origin,)
    else:
        assert "KITE_GATEWAY_ORIGINS" in problems(GATEWAY_ORIGINS=origin)
