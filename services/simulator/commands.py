"""Reading what a streamer client sends, without trusting any of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

__all__ = ["Request", "field_numbers", "read_requests", "split_keys"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; `well_formed` says whether its members have the right types."""

    service: str
    command: str
    requestid: Any
    customer_id: str
    correl_id: str
    parameters: dict[str, Any]
    well_formed: bool


def read_requests(raw: bytes) -> list[Request]:
    """Read one frame: `{"requests": [...]}` or one bare request."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        body = None
    if isinstance(body, dict) and isinstance(body.get("requests"), list) and body["requests"]:
        return [_request(item) for item in body["requests"]]
    return [_request(body)]


def _request(item: Any) -> Request:
    body: dict[str, Any] = item if isinstance(item, dict) else {}
    parameters = body.get("parameters")
    service, command = body.get("service"), body.get("command")
    requestid = body.get("requestid")
    well_formed = (
        isinstance(service, str)
        and isinstance(command, str)
        and isinstance(requestid, str | int)
        and isinstance(parameters, dict | None)
    )
    return Request(
        _text(service),
        _text(command),
        requestid if isinstance(requestid, str | int) else "",
        _text(body.get("SchwabClientCustomerId")),
        _text(body.get("SchwabClientCorrelId")),
        parameters if isinstance(parameters, dict) else {},
        well_formed,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def split_keys(value: Any) -> list[str]:
    """Return the symbols of a comma list, each once, in order."""
    if not isinstance(value, str):
        return []
    return list(dict.fromkeys(part.strip().upper() for part in value.split(",") if part.strip()))


def field_numbers(value: Any, highest: int) -> tuple[int, ...]:
    """Return ascending field numbers that the service knows; nothing when the list is malformed."""
    parts = split_keys(value)
    if not all(part.isdecimal() and len(part) <= 4 for part in parts):
        return ()
    return tuple(sorted({number for part in parts if (number := int(part)) <= highest}))
