"""One figure of a process, asked for in the way Prometheus asks, with patience."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping

import httpx

from tests.waiting import eventually_async

__all__ = ["NO_TLS", "TOLD_WITHIN_S", "told"]

TOLD_WITHIN_S = 120.0
# Every client would read all certificates of this machine, for plain HTTP to loopback: a quarter of
# a core, when several stacks are asked a hundred times a second.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def told(url: Callable[[], str | None], name: str, labels: Mapping[str, str]) -> float:
    """Return a metric from where it is told, which may be nowhere yet."""

    async def ask() -> list[float]:
        at = url()
        try:
            return [] if at is None else [await _sample(at, name, labels)]
        except httpx.TransportError:
            return []

    found = await eventually_async(ask, TOLD_WITHIN_S, f"somebody tells {name}")
    assert found is not None
    return found[0]


async def _sample(url: str, name: str, labels: Mapping[str, str]) -> float:
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        answer = await client.get(url)
    answer.raise_for_status()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    samples = (line.rpartition(" ") for line in answer.text.splitlines())
    return sum(
        float(value)
        for key, _, value in samples
        if key.partition("{")[0] == name and all(each in key for each in wanted)
    )
