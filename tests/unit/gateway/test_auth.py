"""Passwords, keys, throttles and names, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.auth import Keys, Names, Password, RateLimit, Throttle, address_key


def test_a_password_fits_itself_only() -> None:
    """The same text, not a similar one; and a hash that is none fits nothing."""
    password = Password(password="correct horse")
    assert password.fits("correct horse")
    assert not password.fits("correct horse ")
    assert not Password(password_hash="$argon2id$nonsense").fits("")


def test_a_key_expires() -> None:
    """It is valid up to its end, not at it."""
    keys = Keys(life_ms=1000, keys_max=10)
    key = keys.make(5000)
    assert keys.holds(key, 5999)
    assert not keys.holds(key, 6000)
    assert not keys.holds("another", 5000)
    assert not keys.holds("", 5000)


def test_a_taken_key_is_gone() -> None:
    """What is valid once is not valid twice."""
    keys = Keys(life_ms=1000, keys_max=10)
    key = keys.make(0)
    assert keys.take(key, 1)
    assert not keys.take(key, 1)


def test_a_dropped_key_is_gone() -> None:
    """Logging out ends the session, and ending it twice harms nobody."""
    keys = Keys(life_ms=1000, keys_max=10)
    key = keys.make(0)
    keys.drop(key)
    keys.drop(key)
    assert not keys.holds(key, 1)


def test_keys_are_bounded() -> None:
    """With too many, the oldest is forgotten."""
    keys = Keys(life_ms=1000, keys_max=2)
    first, second, third = (keys.make(0) for _ in range(3))
    assert [keys.holds(key, 1) for key in (first, second, third)] == [False, True, True]


def test_waits_grow_with_failures() -> None:
    """Three tries are free; then each waits longer than the one before, up to five minutes."""
    throttle, now_ms, waits = Throttle(), 0, []
    for _ in range(14):
        assert throttle.begin("a", now_ms) == 0
        wait_ms = throttle.begin("a", now_ms)
        waits.append(wait_ms)
        now_ms += wait_ms
    assert waits[:2] == [0, 1000] or waits[:1] == [0]
    assert waits == sorted(waits)
    assert waits[-1] == Throttle.WAIT_MS_MAX


def test_a_success_forgives() -> None:
    """Who knows the password begins anew."""
    throttle = Throttle()
    for _ in range(2):
        assert throttle.begin("a", 0) == 0
    throttle.succeeded("a")
    assert [throttle.begin("a", 0) for _ in range(3)] == [0, 0, 0]


def test_tries_at_once_gain_nothing() -> None:
    """A try counts from its begin, before anybody knows how it ends."""
    throttle = Throttle()
    waits = [throttle.begin("a", 0) for _ in range(50)]
    assert waits.count(0) == Throttle.FREE_TRIES


def test_many_addresses_together_are_slowed_down() -> None:
    """A botnet waits for all its members, but an owner never longer than ten seconds."""
    throttle = Throttle()
    waits = [throttle.begin(f"address {n}", 0) for n in range(200)]
    assert waits.count(0) == Throttle.FREE_TRIES_OF_ALL
    now_ms = 0
    for n in range(100):
        now_ms += throttle.begin(f"later {n}", now_ms)
        throttle.begin(f"later {n}", now_ms)
    assert throttle.begin("owner", now_ms) <= Throttle.WAIT_MS_MAX_OF_ALL


def test_failures_are_forgotten() -> None:
    """After a quarter of an hour an address begins anew."""
    throttle = Throttle()
    for _ in range(5):
        throttle.begin("a", 0)
    later_ms = Throttle.MEMORY_MS + 1
    assert [throttle.begin("a", later_ms) for _ in range(3)] == [0, 0, 0]


@given(per_minute=st.integers(1, 5000), pace_ms=st.integers(1, 2000))
def test_no_minute_has_more_requests_than_allowed(per_minute: int, pace_ms: int) -> None:
    """However fast somebody asks, a minute holds the allowed number and one burst."""
    rates, begin_ms = RateLimit(per_minute), 1_700_000_000_000
    allowed = sum(
        rates.wait_ms("a", begin_ms + now_ms) == 0 for now_ms in range(0, 60_000, pace_ms)
    )
    assert allowed <= per_minute * 1.1 + 2
    assert allowed >= min(per_minute, 60_000 // pace_ms) * 0.9


def test_one_address_does_not_slow_down_another() -> None:
    """Limits are per address, and the wait that is told is long enough."""
    rates = RateLimit(60)
    waits = [rates.wait_ms("a", 0) for _ in range(100)]
    assert rates.wait_ms("b", 0) == 0
    assert rates.wait_ms("a", waits[-1]) == 0


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    """What was counted in the future does not count."""
    rates = RateLimit(60)
    for _ in range(10):
        rates.wait_ms("a", 1_000_000_000)
    assert rates.wait_ms("a", 0) < 60_000


def test_what_counts_as_one_client() -> None:
    """A network of IPv6 is one client, as is an IPv4 address however it is written."""
    assert address_key("2001:db8::1") == address_key("2001:db8::2")
    assert address_key("2001:db8:0:1::1") != address_key("2001:db8::1")
    assert address_key("::ffff:10.0.0.1") == address_key("10.0.0.1") == "10.0.0.1"
    assert address_key("unknown") == "unknown"


NAMES = Names("127.0.0.1", ["https://kite.example.com"], any_address=False)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "LocalHost:1", "127.0.0.1:8080", "[::1]:8080", "[::1]",
             "kite.example.com", "kite.example.com:443"],
)  # fmt: skip
def test_our_names(host: str) -> None:
    """This machine and the hosts of listed origins are ours, on any port."""
    assert NAMES.is_ours(host)


@pytest.mark.parametrize(
    "host", ["", "evil.com", "localhost.evil.com", "evil.com:8080", "192.168.1.5", "localhost:x",
             "localhost/", "me@localhost", "localhost?", "localhost#", "127.0.0.1.evil.com", "[::1",
             "localhost:99999", "localhost evil.com", "xkite.example.com"],
)  # fmt: skip
def test_names_of_strangers(host: str) -> None:
    """A name that somebody could point at us is not ours, nor is anything that is no name."""
    assert not NAMES.is_ours(host)


def test_numbers_are_ours_where_others_may_come() -> None:
    """Nobody can point a number elsewhere, so it is fine where the gateway is meant to be found."""
    names = Names("192.168.1.4", [], any_address=True)
    assert names.is_ours("192.168.1.5:8080")
    assert not names.is_ours("evil.com")


def test_who_may_call() -> None:
    """Our own page on the very port, and pages on the list; no other scheme, no other port."""
    assert NAMES.may_call("http://localhost:8080", "localhost:8080")
    assert NAMES.may_call("https://kite.example.com", "localhost:8080")
    for origin in ("http://localhost:9090", "null", "", "file://localhost:8080", "http://evil.com",
                   "https://kite.example.com.evil.com"):  # fmt: skip
        assert not NAMES.may_call(origin, "localhost:8080")
    assert not NAMES.is_listed("http://localhost:8080")


@given(st.text(max_size=40))
def test_no_header_makes_it_fail(text: str) -> None:
    """Whatever is sent as Host or Origin gets a yes or a no."""
    assert NAMES.is_ours(text) in (True, False)
    assert NAMES.is_local(text) in (True, False)
    assert NAMES.may_call(text, "localhost:8080") in (True, False)
