"""Another origin for the broker's API: how ingest reaches a simulator without knowing one."""

from __future__ import annotations

import httpx

__all__ = ["RewriteTransport"]


class RewriteTransport(httpx.AsyncBaseTransport):
    """Sends each request to another scheme, host and port; path, query and headers stay."""

    def __init__(self, origin: httpx.URL) -> None:
        self._origin = origin
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on."""
        request.url = request.url.copy_with(
            scheme=self._origin.scheme, host=self._origin.host, port=self._origin.port
        )
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
