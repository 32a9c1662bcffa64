"""The ways in which the broker says no, as everything behind `schwab` knows them."""

from __future__ import annotations

import httpx

__all__ = ["BrokerBehind", "CommandRefused", "Denied", "RequestFailed", "require_ok"]


class Denied(Exception):
    """The broker does not accept the token: refresh it or log in again."""


class RequestFailed(Exception):
    """A REST request failed for now; the budget sees to it that the broker is left alone."""


class CommandRefused(Exception):
    """The broker does not carry out a command, for a reason that no new token mends."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class BrokerBehind(Exception):
    """The broker's time lies before what the store holds; both are in milliseconds."""

    def __init__(self, broker_ms: int, known_ms: int) -> None:
        super().__init__(
            f"broker time {broker_ms} lies before {known_ms}, up to which the store is filled; use "
            "an empty store for another time"
        )


def require_ok(response: httpx.Response, what: str) -> None:
    """Raise RequestFailed, which names what was asked for, unless the status is 200."""
    if response.status_code != httpx.codes.OK:
        raise RequestFailed(f"{what}: HTTP {response.status_code}")
