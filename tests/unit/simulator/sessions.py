"""A streamer session without a socket: drive it with text and virtual time, read frames back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from services.simulator.chart_feed import ChartFeed
from services.simulator.level_one_feed import LevelOneFeed
from services.simulator.market import Market
from services.simulator.streamer import (
    Close,
    Identity,
    Output,
    Rules,
    Send,
    Service,
    StreamSession,
)

__all__ = ["CUSTOMER", "Driver", "frames"]

CUSTOMER, CORREL = "customer", "correl"


def frames(outputs: Iterable[object]) -> list[dict[str, Any]]:
    """The JSON of what is sent, in order."""
    return [json.loads(output.text) for output in outputs if isinstance(output, Send)]


class Driver:
    """One logged-in session on a market; `limit` is the symbol cap of both services."""

    def __init__(
        self, market: Market, at_ms: int, *, rules: Rules | None = None, limit: int = 100
    ) -> None:
        self.speed = 1.0
        self.session = StreamSession(
            {
                "LEVELONE_EQUITIES": Service(limit, lambda: LevelOneFeed(market)),
                "CHART_EQUITY": Service(limit, lambda: ChartFeed(market)),
            },
            Identity(CUSTOMER, CORREL),
            lambda token: token == "good",
            rules or Rules(),
            position_ms=at_ms,
            wall_ms=0,
            speed=lambda: self.speed,
        )
        self._requests = 0

    def request(self, service: str, command: str, **parameters: Any) -> dict[str, Any]:
        """A well-formed request with the next id."""
        self._requests += 1
        return {
            "service": service,
            "command": command,
            "requestid": str(self._requests),
            "SchwabClientCustomerId": CUSTOMER,
            "SchwabClientCorrelId": CORREL,
            "parameters": parameters,
        }

    def outputs(self, *requests: object, wall_ms: int = 0) -> list[Output]:
        """Send requests in one frame; return all outputs."""
        return list(self.session.on_text(json.dumps({"requests": requests}), wall_ms))

    def ask(self, service: str, command: str, **parameters: Any) -> list[dict[str, Any]]:
        """Send one request; return the frames that answer it."""
        return frames(self.outputs(self.request(service, command, **parameters)))

    def code(self, service: str, command: str, **parameters: Any) -> int:
        """Send one request; return the code of the first answer."""
        answer = self.ask(service, command, **parameters)[0]["response"][0]
        code: int = answer["content"]["code"]
        return code

    def login(self) -> int:
        """Log in; return the code."""
        return self.code(
            "ADMIN",
            "LOGIN",
            Authorization="good",
            SchwabClientChannel="N9",
            SchwabClientFunctionId="APIAPP",
        )

    def subscribe(self, service: str, *keys: str, command: str = "SUBS") -> list[dict[str, Any]]:
        """Subscribe to all fields; return the frames."""
        fields = ",".join(map(str, range(52)))
        return self.ask(service, command, keys=",".join(keys), fields=fields)

    def run(self, to_ms: int, wall_ms: int = 0) -> list[dict[str, Any]]:
        """Advance virtual time; return the frames."""
        return frames(self.session.advance(to_ms, wall_ms))

    def is_closed(self, outputs: Iterable[Output]) -> bool:
        """Whether the outputs end with the socket's end."""
        return self.session.closed and any(isinstance(output, Close) for output in outputs)
