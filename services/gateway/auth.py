"""Who may come in: passwords, sessions, throttles and the names we answer to. Pure.

Time is an argument, in milliseconds. Every table is bounded and forgets its oldest entry first.
Sessions are random keys of which only digests are kept, so a look-up takes equally long for all
wrong keys, and a copy of the memory lets nobody in. They live in this process alone: a restart logs
everybody out.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

__all__ = [
    "Keys",
    "Names",
    "Password",
    "RateLimit",
    "Throttle",
    "address_key",
]

# What stands in a Host header also goes into our answers, so nothing else may.
_HOST = re.compile(
    r"(?:\[(?P<address>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_PORT_MAX = 65_535
_KEY_BYTES = 32
_KEY_LENGTH_MAX = 128
PASSWORD_LENGTH_MAX = 1024


class Password:
    """One password as its argon2id hash; checking it takes tens of milliseconds on purpose."""

    def __init__(self, *, password: str = "", password_hash: str = "") -> None:
        self._hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._hash = password_hash or self._hasher.hash(password)

    def fits(self, password: str) -> bool:
        """Tell whether it is the password; blocks, so call it in a thread."""
        try:
            return self._hasher.verify(self._hash, password)
        except (VerificationError, InvalidHashError):
            return False


class Keys:
    """Random keys that open something until they expire, or once if they are `take`n."""

    def __init__(self, *, life_ms: int, keys_max: int) -> None:
        self.life_ms = life_ms
        self._keys_max = keys_max
        self._expires_ms: OrderedDict[bytes, int] = OrderedDict()

    def make(self, now_ms: int) -> str:
        """Return a new key; with too many, the oldest is valid no longer."""
        key = secrets.token_urlsafe(_KEY_BYTES)
        self._expires_ms[_digest(key)] = now_ms + self.life_ms
        while len(self._expires_ms) > self._keys_max:
            self._expires_ms.popitem(last=False)
        return key

    def holds(self, key: str, now_ms: int) -> bool:
        """Tell whether a key is valid."""
        return self._expires_ms.get(_digest(key), 0) > now_ms

    def take(self, key: str, now_ms: int) -> bool:
        """Tell whether a key is valid, and make it invalid."""
        return self._expires_ms.pop(_digest(key), 0) > now_ms

    def drop(self, key: str) -> None:
        """Make a key invalid."""
        self._expires_ms.pop(_digest(key), None)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key[:_KEY_LENGTH_MAX].encode(errors="replace")).digest()


@dataclass(slots=True)
class _Failures:
    """How often an address failed, when it may try again, and when that is forgotten."""

    count: int = 0
    next_ms: int = 0
    forgotten_ms: int = 0


class Throttle:
    """Waits between logins that grow with each failure, per address and for all together.

    A try counts as a failure from its begin, so that many at once gain nothing.
    """

    FREE_TRIES = 3
    WAIT_MS_MAX = 300_000
    FREE_TRIES_OF_ALL = 30
    WAIT_MS_MAX_OF_ALL = 10_000
    MEMORY_MS = 900_000
    ADDRESSES_MAX = 4096

    def __init__(self) -> None:
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._of_all = _Failures()

    def begin(self, address: str, now_ms: int) -> int:
        """Count a try and return 0, or return for how many milliseconds there may be none."""
        failures = self._failures.get(address) or _Failures()
        wait_ms = max(_wait_ms(failures, now_ms), _wait_ms(self._of_all, now_ms))
        if wait_ms > 0:
            return wait_ms
        self._failures[address] = failures
        self._failures.move_to_end(address)
        while len(self._failures) > self.ADDRESSES_MAX:
            self._failures.popitem(last=False)
        _count(failures, now_ms, self.FREE_TRIES, self.WAIT_MS_MAX, self.MEMORY_MS)
        _count(
            self._of_all, now_ms, self.FREE_TRIES_OF_ALL, self.WAIT_MS_MAX_OF_ALL, self.MEMORY_MS
        )
        return 0

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address that knew the password, and its last try for all."""
        self._failures.pop(address, None)
        self._of_all.count = max(0, self._of_all.count - 1)


def _wait_ms(failures: _Failures, now_ms: int) -> int:
    if now_ms >= failures.forgotten_ms:
        failures.count = 0
        failures.next_ms = 0
    return max(0, failures.next_ms - now_ms)


def _count(failures: _Failures, now_ms: int, free: int, wait_ms_max: int, memory_ms: int) -> None:
    failures.count += 1
    beyond = min(failures.count - free, 30)
    wait_ms = min(1000 << beyond, wait_ms_max) if beyond >= 0 else 0
    failures.next_ms = now_ms + wait_ms
    failures.forgotten_ms = now_ms + memory_ms


class RateLimit:
    """So many requests a minute and address; a tenth of them may come at once."""

    ADDRESSES_MAX = 10_000

    def __init__(self, per_minute: int) -> None:
        self._every_ms = 60_000 / per_minute
        self._ahead_ms_max = 60_000 / 10
        self._paid_until_ms: OrderedDict[str, float] = OrderedDict()

    def wait_ms(self, address: str, now_ms: int) -> int:
        """Count a request and return 0, or return when the next one may come."""
        paid_ms = max(self._paid_until_ms.get(address, 0.0), float(now_ms))
        # A clock that was set back must not lock anybody out.
        paid_ms = min(paid_ms, now_ms + self._ahead_ms_max + self._every_ms)
        ahead_ms = paid_ms - now_ms
        if ahead_ms > self._ahead_ms_max:
            return int(ahead_ms - self._ahead_ms_max) + 1
        self._paid_until_ms[address] = paid_ms + self._every_ms
        self._paid_until_ms.move_to_end(address)
        while len(self._paid_until_ms) > self.ADDRESSES_MAX:
            self._paid_until_ms.popitem(last=False)
        return 0


def address_key(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return host


class Names:
    """The names that this gateway answers to, and the pages that may call it.

    A page of a stranger can make its own name point to 127.0.0.1 and is then of the same origin as
    we are; so a name that is not ours gets no answer. Numbers as names cannot be pointed elsewhere.
    """

    def __init__(self, host: str, origins: Iterable[str], *, any_address: bool) -> None:
        self._origins = frozenset(origins)
        hosts = {urlsplit(origin).hostname or "" for origin in self._origins}
        self._hosts = {"localhost", host.lower(), *hosts} - {""}
        self._any_address = any_address

    def is_ours(self, host_header: str) -> bool:
        """Tell whether a Host header names us."""
        name = _host_name(host_header)
        if name is None:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return self._any_address or address.is_loopback or name in self._hosts

    def is_local(self, host_header: str) -> bool:
        """Tell whether a Host header means this machine, for which browsers need no TLS."""
        name = _host_name(host_header)
        if name is None or name == "localhost":
            return name is not None
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def is_listed(self, origin: str) -> bool:
        """Tell whether a page of this origin is on the list."""
        return origin in self._origins

    def may_call(self, origin: str, host_header: str) -> bool:
        """Tell whether a page may change things or listen: it is ours or on the list."""
        if origin in self._origins:
            return True
        scheme, _, place = origin.partition("://")
        return scheme in ("http", "https") and place.lower() == host_header.lower()


def _host_name(host_header: str) -> str | None:
    """Return the name in a Host header in lower case, without port and brackets."""
    found = _HOST.fullmatch(host_header)
    if found is None or int(found["port"] or 0) > _PORT_MAX:
        return None
    return (found["address"] or found["name"]).lower()
