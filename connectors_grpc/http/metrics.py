"""`GET /metrics`: the server's metrics, for keys that may look at its channels too."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from connectors_grpc.boundary import Boundary, translate
from connectors_grpc.http.rest import HEADERS, key_of, refusal

PATH = "/metrics"
MEASURED = "/grpc.channelz.v1.Channelz/GetServers"
"""What gRPC's channelz is there, this is here: the same rule lets callers in."""


def routes(boundary: Boundary, page: Callable[[], bytes], content_type: str) -> list[Route]:
    """The one."""

    async def asked() -> bytes:
        return page()

    async def endpoint(request: Request) -> Response:
        try:
            content = await boundary.run(MEASURED, key_of(request), Empty(), None, asked)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            return refusal(translate(error, MEASURED))
        return Response(content, 200, headers=HEADERS, media_type=content_type)

    return [Route(PATH, endpoint, methods=["GET"])]
