"""The simulated provider as an ASGI app: its routes, behind one door that checks Host and keeps the record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from connectors_grpc.simulator.api_routes import ApiRoutes
from connectors_grpc.simulator.oauth_routes import OAuthRoutes
from connectors_grpc.simulator.record import SeenRequest
from connectors_grpc.simulator.settings import SimulatorSettings, is_loopback
from connectors_grpc.simulator.simulator import Simulator

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


def create_app(settings: SimulatorSettings, clock: Callable[[], float] = time.time) -> Starlette:
    """The app of a new simulator, which is `app.state.simulator`. Raises: StateFileInvalid, OSError."""
    simulator = Simulator(settings, clock)

    async def show_record(request: Request) -> Response:
        """What was seen; DELETE forgets it."""
        if request.method == "DELETE":
            simulator.record.clear()
            return Response(status_code=204)
        requests = [seen.public() for seen in simulator.record]
        return JSONResponse({"count": simulator.record.count, "requests": requests})

    record = Route("/-/record", show_record, methods=["GET", "DELETE"])
    app = Starlette(
        routes=[*OAuthRoutes(simulator).routes(), *ApiRoutes(simulator).routes(), record],
        middleware=[Middleware(Door, simulator=simulator)],
    )
    app.state.simulator = simulator
    return app


class Door:
    """Refuses a Host that is not this machine (DNS rebinding), and notes every request but the admin's."""

    def __init__(self, app: ASGIApp, simulator: Simulator) -> None:
        self._app = app
        self._record = simulator.record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = SeenRequest(scope["method"], scope["path"], scope["query_string"], tuple(scope["headers"]))
        scope["seen"] = seen
        if not scope["path"].startswith("/-/"):
            self._record.add(seen)

        async def noting_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                seen.add_body(message.get("body", b""))
            return message

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
            await send(message)

        inner = self._app if _is_ours(seen.header("host")) else PlainTextResponse("wrong Host", 421)
        await inner(scope, noting_receive, noting_send)


def _is_ours(hosts: list[str]) -> bool:
    """Whether the one Host names this machine, with or without a port."""
    if len(hosts) != 1:
        return False
    name, _, port = hosts[0].rpartition(":") if not hosts[0].endswith("]") else (hosts[0], "", "")
    if not name:
        name, port = port, ""
    if port and not (port.isascii() and port.isdigit()):
        return False
    bare = name.removeprefix("[").removesuffix("]").lower()
    return is_loopback(bare) or bare.endswith(".localhost")
