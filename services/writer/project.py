"""A Supabase project's address and its keys: whether what was given can be what is needed. Pure.

Keys are looked at, never checked: whether one is genuine, the project says. A key is either opaque
and says by its beginning what it is, or a JWT that names a role.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from urllib.parse import urlsplit

import msgspec

from libs.common.addresses import is_loopback

__all__ = ["WHERE_KEYS_ARE", "key_fault", "url_fault"]

WHERE_KEYS_ARE = "in the project's settings, API keys"

_SERVICE_ROLE = "service_role"
_OPAQUE_SECRET, _OPAQUE_PUBLIC = "sb_secret_", "sb_publishable_"


class _Claims(msgspec.Struct):
    role: str = ""


def url_fault(url: str) -> str | None:
    """Return what is wrong with a project's address, None if nothing is."""
    expected = "expected https://<project>.supabase.co"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port
    except ValueError:
        return f"is no address: {expected}"
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return f"is no address of a web server: {expected}"
    if parts.username or parts.password or parts.query or parts.fragment:
        return f"holds more than an address: {expected}"
    if parts.path.strip("/"):
        return f"goes on behind the host's name: {expected}"
    if parts.scheme == "http" and not is_loopback(host):
        return "begins with http, and the key would cross the network readable: use https"
    return None


def key_fault(key: str) -> str | None:
    """Return why a key cannot be the service key, None if it may be; never repeats any of it."""
    wanted = f"copy the secret key, or the older service_role key, {WHERE_KEYS_ARE}"
    if key.startswith(_OPAQUE_SECRET):
        return None
    if key.startswith(_OPAQUE_PUBLIC):
        return f"is the publishable key, which may not write: {wanted}"
    parts = key.split(".")
    if len(parts) != 3:
        return f"is no key of a Supabase project: {wanted}"
    try:
        payload = urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        role = msgspec.json.decode(payload, type=_Claims).role
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return f"is no key of a Supabase project: {wanted}"
    if role != _SERVICE_ROLE:
        which = f"is the {role} key" if role in ("anon", "authenticated") else "is of another role"
        return f"{which}, which may not write: {wanted}"
    return None
