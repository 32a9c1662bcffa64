"""Keys as Supabase hands them out, and what its gateway makes of them; for the stand-in.

The older kind is a JWT (HS256) that names a role; the newer one is opaque, and the gateway puts the
JWT in its place. Whoever sends no `apikey` is turned away before PostgREST hears of it.
Source: https://supabase.com/docs/guides/api/api-keys
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from libs.common.clock import SystemClock
from tests.rpc_calls import Refused

__all__ = ["PUBLISHABLE_KEY", "SECRET_KEY", "anon_key", "claims_of", "service_key"]

SECRET_KEY = "sb_secret_known-to-this-stand-in-alone"
PUBLISHABLE_KEY = "sb_publishable_known-to-everybody"

_SECRET = b"a secret that only this stand-in and its keys share"
_ROLES = {SECRET_KEY: "service_role", PUBLISHABLE_KEY: "anon"}


def anon_key(role: str = "anon", secret: bytes = _SECRET, **claims: Any) -> str:
    """Return a JWT that names a role."""
    payload = {"role": role, "iss": "supabase"} | claims
    parts = [_coded(json.dumps(each).encode()) for each in ({"alg": "HS256"}, payload)]
    signed = ".".join(parts)
    return f"{signed}.{_coded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def service_key(**claims: Any) -> str:
    """Return a JWT of the service role."""
    return anon_key("service_role", **claims)


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def claims_of(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the claims that a request goes on with; raises Refused."""
    key = headers.get("apikey", "")
    if not key:
        raise Refused(401, "", "No API key found in request")
    bearer = headers.get("Authorization", "").removeprefix("Bearer ") or key
    if bearer in _ROLES:
        return {"role": _ROLES[bearer]}
    if bearer.startswith("sb_"):
        raise Refused(401, "", "Invalid API key")
    signed, _, signature = bearer.rpartition(".")
    wanted = _coded(hmac.digest(_SECRET, signed.encode(), hashlib.sha256))
    if not hmac.compare_digest(signature, wanted):
        raise Refused(401, "PGRST301", "JWSError JWSInvalidSignature")
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "=="))
    if claims.get("exp", float("inf")) * 1000 < SystemClock().now_ms():
        raise Refused(401, "PGRST303", "JWT expired")
    return claims
