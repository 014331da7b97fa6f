"""Ask a provider of log-ins by the one way out: checked addresses, bounded answers, and no redirect.

What a provider publishes of itself says where else to ask. An answer of it must not lead the console, with a code or a
client's secret, to something inside of the network.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Collection
from typing import Final

import httpx2

from pdp.foundation.egress import Egress, EgressError, Roots, read_whole

MOST_BYTES: Final = 256 * 1024
_SECONDS: Final = 10.0
# What belongs to a connection, of which each request has its own here; and answers are read as they are.
_OF_THE_CONNECTION: Final = frozenset({"connection", "accept-encoding", "content-length", "transfer-encoding"})


class OutwardTransport(httpx2.AsyncBaseTransport):
    """Sends requests, each over a connection of its own. `private_hosts` may be at an address which is not public."""

    def __init__(self, *, ca_file: str, private_hosts: Collection[str]) -> None:
        self._roots, self._private_hosts = Roots(ca_file), frozenset(private_hosts)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Raise `httpx2.TransportError`."""
        return await asyncio.to_thread(self._answered, request, await request.aread())

    def _answered(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        egress = Egress(
            str(request.url),
            roots=self._roots,
            private_hosts=self._private_hosts,
            step_seconds=_SECONDS,
            whole_seconds=_SECONDS,
        )
        headers = {name: value for name, value in request.headers.items() if name not in _OF_THE_CONNECTION}

        def taken(answer: http.client.HTTPResponse) -> httpx2.Response:
            # What is not read of it would keep its socket.
            with answer:
                content = read_whole(answer, MOST_BYTES)
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION]
            return httpx2.Response(answer.status, headers=kept, content=content, request=request)

        try:
            return egress.ask(request.method, {**headers, "accept-encoding": "identity"}, taken, body=body or None)
        except EgressError as error:
            raise httpx2.ConnectError(str(error), request=request) from None
