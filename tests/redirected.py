"""Real HTTP to a place on this machine, whatever host a request is for: that goes along in a header."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from connectors_grpc.outbound import HttpOutbound
from connectors_grpc.ports import HttpReply, HttpRequest

MEANT_FOR = "X-Meant-For"
"""Scheme and authority of the URL as it was asked for."""


class Redirected:
    """`ports.Outbound` to `place`, an http URL on loopback. Requests go out as they are but for where to. Close it."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._http = HttpOutbound()

    async def send(self, request: HttpRequest) -> HttpReply:
        """See ports.Outbound."""
        parts = urlsplit(request.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        return await self._http.send(
            replace(
                request,
                url=self._place + (request.url.removeprefix(origin) or "/"),
                headers=(*request.headers, (MEANT_FOR, origin)),
                allow_private_addresses=True,
            )
        )

    async def aclose(self) -> None:
        """End every connection."""
        await self._http.aclose()
