"""The HTTP application: `/health`, `/connect/{handle}` and `/oauth/callback/{integration}`. All else is 404."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from connectors_grpc.boundary import translate
from connectors_grpc.credentials.connecting import Connecting
from connectors_grpc.domain.ids import IntegrationId, is_label
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.http import pages

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer. No `form-action`: browsers apply it to the redirects that follow, and those are the provider's."""

Health = Callable[[], Awaitable[bool]]


class HttpFace:
    """The routes. `secure` says that browsers come by https, where cookies get the `__Host-` prefix."""

    def __init__(self, connecting: Connecting, healthy: Health, *, secure: bool) -> None:
        self._connecting = connecting
        self._healthy = healthy
        self._secure = secure
        self._cookie = "__Host-connectors-" if secure else "connectors-"

    def application(self) -> Starlette:
        """What uvicorn serves."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/connect/{handle}", self.invite, methods=["GET"]),
            Route("/connect/{handle}", self.begin, methods=["POST"]),
            Route("/oauth/callback/{integration}", self.callback, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers={404: not_found, 405: not_found})

    async def health(self, _request: Request) -> Response:
        """Whether this replica can work: 200 or 503, without a key and without detail."""
        fine = await self._healthy()
        body = json.dumps({"status": "ok" if fine else "unavailable"})
        return Response(body, 200 if fine else 503, headers=HEADERS, media_type="application/json")

    async def invite(self, request: Request) -> Response:
        """Show what the link is for."""
        try:
            return _html(pages.invitation(await self._connecting.show(request.path_params["handle"])))
        except Exception as error:
            return _failed(error)

    async def begin(self, request: Request) -> Response:
        """Bind the flow to this browser and send it to the provider."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _failed(ConnectorsError(Reason.BROWSER_REFUSED))
        try:
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

    async def callback(self, request: Request) -> Response:
        """Where the provider sends the browser back to."""
        integration = request.path_params["integration"]
        parameters: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in request.query_params.multi_items():
            parameters[name].append(value)
        try:
            if not is_label(integration):
                raise ConnectorsError(Reason.FLOW_NOT_FOUND)
            credential = await self._connecting.finish(IntegrationId(integration), parameters, self._cookies(request))
        except Exception as error:
            return _failed(error)
        return _html(pages.connected(credential.integration))

    def _cookies(self, request: Request) -> dict[str, str]:
        """Our flows' cookies, by what follows the prefix. Two of one name are none."""
        found: dict[str, str] = {}
        try:
            for line in request.headers.getlist("cookie")[:1]:
                for name, morsel in SimpleCookie(line[:16384]).items():
                    if name.startswith(self._cookie):
                        found[name.removeprefix(self._cookie)] = morsel.value
        except CookieError:
            return {}
        return found


def _html(body: str, status: int = 200) -> Response:
    return HTMLResponse(body, status, headers=HEADERS)


def _failed(error: Exception) -> Response:
    refusal = translate(error, "connect")
    return _html(pages.problem(refusal), refusal.meaning.http)


async def not_found(_request: Request, _error: Exception) -> Response:
    """Nothing here."""
    body = {"type": "about:blank", "title": "Not Found", "status": 404, "reason": "MALFORMED_REQUEST"}
    return Response(json.dumps(body), 404, headers=HEADERS, media_type="application/problem+json")
