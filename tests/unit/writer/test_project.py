"""Addresses and keys of a Supabase project: what can be right, and what is said of the others."""

from __future__ import annotations

import pytest

from libs.common.errors import SettingsError
from libs.common.settings import load
from services.writer.project import key_fault, url_fault
from services.writer.settings import Settings
from tests.api_keys import PUBLISHABLE_KEY, SECRET_KEY, anon_key, service_key

REST = {
    "KITE_NATS_URL": "nats://writer:x@127.0.0.1:4222",
    "KITE_WRITER_SINK": "rest",
    "KITE_SUPABASE_URL": "https://abcdefgh.supabase.co",
    "KITE_SUPABASE_SERVICE_KEY": service_key(),
}


@pytest.mark.parametrize(
    "url",
    [
        "https://abcdefgh.supabase.co", "https://abcdefgh.supabase.co/", "https://db.example:8443",
        "http://127.0.0.1:54321", "http://localhost:54321", "http://[::1]:54321",
    ],
)  # fmt: skip
def test_an_address_of_a_project(url: str) -> None:
    """Of the cloud, of one's own server, or of a local one without TLS."""
    assert url_fault(url) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("abcdefgh.supabase.co", "no address of a web server"),
        ("postgresql://postgres:x@db.abcdefgh.supabase.co:5432/postgres", "no address of a web"),
        ("https://abcdefgh.supabase.co/rest/v1", "goes on behind"),
        ("https://supabase.com/dashboard/project/abcdefgh", "goes on behind"),
        ("https://user:pass@abcdefgh.supabase.co", "more than an address"),
        ("https://abcdefgh.supabase.co?apikey=x", "more than an address"),
        ("http://abcdefgh.supabase.co", "use https"),
        ("http://192.168.1.5:8000", "use https"),
        ("https://abc:port", "no address"),
        ("https://[half", "no address"),
        ("https://", "no address"),
    ],
)
def test_an_address_that_cannot_be_right(url: str, said: str) -> None:
    """What people paste instead is told in words."""
    assert said in (url_fault(url) or "")


@pytest.mark.parametrize("key", [service_key(), SECRET_KEY])
def test_a_key_that_may_be_right(key: str) -> None:
    """Both kinds of keys are taken; whether they are genuine, the project says."""
    assert key_fault(key) is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (anon_key(), "is the anon key"),
        (anon_key("authenticated"), "is the authenticated key"),
        (anon_key("hidden"), "is of another role"),
        (PUBLISHABLE_KEY, "is the publishable key"),
        ("hidden", "is no key"),
        ("hidden.hidden.hidden", "is no key"),
        ("a.bnVsbA.c", "is no key"),
        ("a.\udcff.c", "is no key"),
    ],
)
def test_a_key_that_cannot_be_right(key: str, said: str) -> None:
    """It says which key this is and which is wanted, and repeats none of it."""
    fault = key_fault(key) or ""
    assert said in fault
    assert "secret key" in fault
    assert "hidden" not in fault


def test_settings_of_the_rest_sink() -> None:
    """An address and a key are enough; no connection to Postgres is needed."""
    settings = load(Settings, REST)
    assert (settings.writer_sink, settings.pg_dsn) == ("rest", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"KITE_SUPABASE_URL": ""}, "KITE_SUPABASE_URL: required, but not set"),
        ({"KITE_SUPABASE_SERVICE_KEY": ""}, "KITE_SUPABASE_SERVICE_KEY: required, but not set"),
        ({"KITE_SUPABASE_SERVICE_KEY": anon_key()}, "KITE_SUPABASE_SERVICE_KEY: its value is the"),
        ({"KITE_SUPABASE_URL": "http://far.example"}, "KITE_SUPABASE_URL: its value begins with"),
        ({"KITE_WRITER_ROWS_MAX": "20001"}, "KITE_WRITER_ROWS_MAX: 20001 is too much for one"),
        ({"KITE_WRITER_INPUT_BYTES_MAX": "5000000"}, "KITE_WRITER_INPUT_BYTES_MAX: 5000000 is too"),
        ({"KITE_WRITER_SINK": "both"}, "KITE_WRITER_SINK"),
    ],
)
def test_settings_that_cannot_work(change: dict[str, str], said: str) -> None:
    """Each is one line that names the variable, and shows no key."""
    with pytest.raises(SettingsError, match=said) as caught:
        load(Settings, REST | change)
    assert anon_key().rpartition(".")[2] not in str(caught.value)
