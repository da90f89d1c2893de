"""The HTTP application: `/health`, `/connect/{handle}`, `/oauth/callback/{integration}`, and REST. All else is 404."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors_grpc.boundary import translate
from connectors_grpc.credentials.connecting import Connecting
from connectors_grpc.domain.ids import IntegrationId, is_label
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.http import pages
from connectors_grpc.http.rest import refusal

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer. No `form-action`: browsers apply it to the redirects that follow, and those are the provider's."""

DEADLINE = 45.0
"""Seconds for one answer. What a provider gave is stored all the same: that is a flight of its own."""

Health = Callable[[], Awaitable[bool]]


class HttpFace:
    """The routes for people, and `routes` besides. `base_url` is where browsers come: by https, cookies are `__Host-`."""

    def __init__(
        self, connecting: Connecting, healthy: Health, *, base_url: str, routes: Sequence[BaseRoute] = ()
    ) -> None:
        self._routes = routes
        self._connecting = connecting
        self._healthy = healthy
        self._origin = "{0.scheme}://{0.netloc}".format(urlsplit(base_url))
        self._secure = base_url.startswith("https:")
        self._cookie = "__Host-connectors-" if self._secure else "connectors-"

    def application(self) -> Starlette:
        """What uvicorn serves."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/connect/{handle}", self.invite, methods=["GET"]),
            Route("/connect/{handle}", self.begin, methods=["POST"]),
            Route("/oauth/callback/{integration}", self.callback, methods=["GET"]),
            *self._routes,
        ]
        application = Starlette(
            routes=routes, exception_handlers={404: not_found, 405: wrong_method}, middleware=[Middleware(AsSent)]
        )
        # Or a slash too many would be answered by a redirect to whatever Host says.
        application.router.redirect_slashes = False
        return application

    async def health(self, _request: Request) -> Response:
        """Whether this replica can work: 200 or 503, without a key and without detail."""
        fine = await self._healthy()
        body = json.dumps({"status": "ok" if fine else "unavailable"})
        return Response(body, 200 if fine else 503, headers=HEADERS, media_type="application/json")

    async def invite(self, request: Request) -> Response:
        """Show what the link is for."""
        try:
            async with asyncio.timeout(DEADLINE):
                return _html(pages.invitation(await self._connecting.show(request.path_params["handle"])))
        except Exception as error:
            return _failed(error)

    async def begin(self, request: Request) -> Response:
        """Bind the flow to this browser and send it to the provider."""
        try:
            self._check_origin(request)
            async with asyncio.timeout(DEADLINE):
                begun = await self._connecting.begin(request.path_params["handle"])
        except Exception as error:
            return _failed(error)
        response = RedirectResponse(begun.authorization_url, 303, headers=HEADERS)
        response.set_cookie(
            self._cookie + begun.flow,
            begun.cookie.reveal(),
            max_age=begun.max_age,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )
        return response

    def _check_origin(self, request: Request) -> None:
        """Only our own page's button may begin: what it shows was seen then (attack 32). Raises: BROWSER_REFUSED.

        Our page has no referrer, so that its own posts come with `Origin: null` and are told by Fetch Metadata. Browsers
        without that send at least the origin of a page that is not ours.
        """
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin", "null")
        if site not in ("same-origin", "none") if site is not None else origin not in ("null", self._origin):
            raise ConnectorsError(Reason.BROWSER_REFUSED)

    async def callback(self, request: Request) -> Response:
        """Where the provider sends the browser back to. HEAD is safe by definition, so it finds nothing."""
        if request.method != "GET":
            return await not_found(request, None)
        integration = request.path_params["integration"]
        parameters: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in request.query_params.multi_items():
            parameters[name].append(value)
        try:
            if not is_label(integration):
                raise ConnectorsError(Reason.FLOW_NOT_FOUND)
            async with asyncio.timeout(DEADLINE):
                credential = await self._connecting.finish(
                    IntegrationId(integration), parameters, self._cookies(request)
                )
        except Exception as error:
            return _failed(error)
        return _html(pages.connected(credential.integration))

    def _cookies(self, request: Request) -> dict[str, str]:
        """Our flows' cookies, by what follows the prefix. Two of one name are none: one of them was planted.

        Read leniently, as others on this host set cookies of any shape.  Source: RFC 6265 section 5.4.
        """
        found: dict[str, str] = {}
        planted: set[str] = set()
        for line in request.headers.getlist("cookie"):
            for pair in line.split(";"):
                name, equals, value = pair.strip().partition("=")
                if equals and name.startswith(self._cookie):
                    flow = name.removeprefix(self._cookie)
                    planted |= {flow} & found.keys()
                    found[flow] = value
        return {flow: value for flow, value in found.items() if flow not in planted}


def _html(body: str, status: int = 200) -> Response:
    return HTMLResponse(body, status, headers=HEADERS)


def _failed(error: Exception) -> Response:
    refusal = translate(error, "connect")
    return _html(pages.problem(refusal), refusal.meaning.http)


async def not_found(_request: Request, _error: Exception | None) -> Response:
    """Nothing here."""
    return refusal(ConnectorsError(Reason.ROUTE_NOT_FOUND), HEADERS)


async def wrong_method(request: Request, _error: Exception | None) -> Response:
    """The path is there, but not for this method: `Allow` names those that it takes.  Source: RFC 9110 section 15.5.6."""
    router = request.scope["app"].router
    found = [route for route in router.routes if route.matches(request.scope)[0] is not Match.NONE]
    allowed = sorted(set[str]().union(*(route.methods or () for route in found)))
    return refusal(ConnectorsError(Reason.METHOD_NOT_ALLOWED), {**HEADERS, "Allow": ", ".join(allowed)})


class AsSent:
    """Routes by the path as it was sent: `%2F` within an identifier is no separator. Endpoints decode what they use."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            scope["path"] = scope["raw_path"].decode("ascii", "replace")
        await self._application(scope, receive, send)
