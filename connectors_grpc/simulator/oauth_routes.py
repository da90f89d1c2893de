"""The authorization server's endpoints: authorize, token, revoke, metadata, over the pure decisions of `protocol`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from connectors_grpc.simulator import pages, protocol
from connectors_grpc.simulator.book import Code
from connectors_grpc.simulator.misbehaviour import Endpoint, Misbehaviour
from connectors_grpc.simulator.parameters import (
    MOST_BODY,
    AuthorizationRequest,
    Parameters,
    RefusedByRedirect,
    authenticate,
    parse_authorization,
    parse_body,
    parse_form,
)
from connectors_grpc.simulator.protocol import Chance, Issued, Refusal
from connectors_grpc.simulator.record import SeenRequest
from connectors_grpc.simulator.replies import NO_STORE, instead, refusal_reply, spoiled, token_reply
from connectors_grpc.simulator.settings import Client
from connectors_grpc.simulator.simulator import Simulator

MOST_DRAINED = 16 * 1024 * 1024
BODY_DEADLINE = 30.0
FORM_ONLY = ("account", "decision")


class OAuthRoutes:
    """The handlers of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._sim = simulator

    def routes(self) -> list[Route]:
        """Every route of the authorization server."""
        return [
            Route("/", self.front),
            Route("/authorize", self.authorize, methods=["GET"]),
            Route("/authorize", self.decide, methods=["POST"]),
            Route("/token", self.token, methods=["POST"]),
            Route("/revoke", self.revoke, methods=["POST"]),
            Route("/.well-known/oauth-authorization-server", self.metadata),
        ]

    async def front(self, _request: Request) -> Response:
        """What this is."""
        return HTMLResponse(pages.front(self._sim.url), headers=pages.HEADERS)

    async def metadata(self, _request: Request) -> Response:
        """Authorization server metadata. Source: RFC 8414 section 2, RFC 9207 section 3."""
        url = self._sim.url
        methods = ["client_secret_basic", "client_secret_post", "none"]
        return JSONResponse(
            {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "token_endpoint_auth_methods_supported": methods,
                "revocation_endpoint": f"{url}/revoke",
                "revocation_endpoint_auth_methods_supported": methods,
                "userinfo_endpoint": f"{url}/userinfo",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
                "code_challenge_methods_supported": ["S256"],
                "scopes_supported": sorted({s for c in self._sim.clients.values() for s in c.scopes}),
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def authorize(self, request: Request) -> Response:
        """The login and consent page, or at once the code where `auto_consent` is set."""
        understood = self._understood(parse_form(request.url.query.encode("latin-1", "replace")))
        if isinstance(understood, Response):
            return understood
        sent, wanted = understood
        if self._sim.settings.auto_consent:
            hint = sent.get("login_hint", "")
            return self._grant(wanted, hint if hint in self._sim.accounts else next(iter(self._sim.accounts)))
        hidden = {name: value for name, value in sent.items() if name not in FORM_ONLY}
        page = pages.consent(hidden, tuple(self._sim.accounts), wanted.client.client_id, wanted.scope)
        return HTMLResponse(page, headers=pages.HEADERS)

    def _understood(self, sent: Parameters | Refusal) -> tuple[Parameters, AuthorizationRequest] | Response:
        """What was sent, and what is asked for by it; or the answer that it can't be had."""
        wanted = sent if isinstance(sent, Refusal) else parse_authorization(self._sim.clients, sent)
        if isinstance(wanted, Refusal):
            return HTMLResponse(pages.refusal(wanted.description), 400, pages.HEADERS)
        assert not isinstance(sent, Refusal)
        return self._tell_client(wanted) if isinstance(wanted, RefusedByRedirect) else (sent, wanted)

    async def decide(self, request: Request) -> Response:
        """What somebody answered on the consent page."""
        understood = self._understood(parse_body(request.headers.get("content-type", ""), await _body(request)))
        if isinstance(understood, Response):
            return understood
        sent, wanted = understood
        if sent.get("decision") != "allow":
            denied = RefusedByRedirect(wanted.redirect_uri, wanted.state, "access_denied", "the person said no")
            return self._tell_client(denied)
        account = sent.get("account", "")
        if account not in self._sim.accounts:
            return HTMLResponse(pages.refusal("There is no such account."), 400, pages.HEADERS)
        return self._grant(wanted, account)

    async def token(self, request: Request) -> Response:
        """Tokens for a code, a refresh token, or the client itself."""
        client = await self._client(request)
        if isinstance(client, Refusal):
            return refusal_reply(client)
        sent = _seen(request).fields
        wrong = self._sim.misbehaviour(Endpoint.TOKEN, client.client_id)
        if wrong is not None and (reply := self._instead(wrong, client)) is not None:
            return reply
        if wrong is Misbehaviour.REFRESH_TOKEN_OMITTED:
            client = replace(client, issue_refresh_token=False, omit_refresh_token_on_refresh=True)
        decision = self._decide_token(client, sent)
        self._sim.changed()
        if isinstance(decision, Refusal):
            return refusal_reply(decision)
        _seen(request).account, _seen(request).token_id = decision.account, decision.token_id
        good = JSONResponse(token_reply(decision, client.extra_reply), 200, NO_STORE)
        return good if wrong is None else spoiled(wrong, good, self._sim.closing)

    async def revoke(self, request: Request) -> Response:
        """End a token. Source: RFC 7009 section 2."""
        client = await self._client(request)
        if isinstance(client, Refusal):
            return refusal_reply(client)
        wrong = self._sim.misbehaviour(Endpoint.REVOKE, client.client_id)
        if wrong is not None and (reply := self._instead(wrong, client)) is not None:
            return reply
        token = _seen(request).fields.get("token")
        refused = (
            Refusal("invalid_request", "token is missing")
            if not token
            else protocol.revoke(self._sim.book, client, token)
        )
        self._sim.changed()
        return refusal_reply(refused) if refused else Response(status_code=200, headers=NO_STORE)

    async def _client(self, request: Request) -> Client | Refusal:
        """Read the parameters into the record, and find whom they come from."""
        sent = parse_body(request.headers.get("content-type", ""), await _body(request))
        if isinstance(sent, Refusal):
            return sent
        _seen(request).fields = dict(sent)
        headers = request.headers.getlist("authorization")
        if len(headers) > 1:
            return Refusal("invalid_request", "more than one Authorization")
        client = authenticate(self._sim.clients, headers[0] if headers else None, sent)
        if isinstance(client, Client):
            _seen(request).client_id = client.client_id
        return client

    def _decide_token(self, client: Client, sent: Parameters) -> Issued | Refusal:
        book, by = self._sim.book, Chance(self._sim.clock(), self._sim.mint)
        match sent.get("grant_type"):
            case "authorization_code":
                return protocol.exchange_code(
                    book,
                    client,
                    sent.get("code", ""),
                    redirect_uri=sent.get("redirect_uri", ""),
                    verifier=sent.get("code_verifier"),
                    by=by,
                )
            case "refresh_token":
                token = sent.get("refresh_token", "")
                return protocol.refresh(book, client, token, scope=sent.get("scope"), by=by)
            case "client_credentials":
                return protocol.client_credentials(book, client, scope=sent.get("scope"), by=by)
            case None:
                return Refusal("invalid_request", "grant_type is missing")
            case _:
                return Refusal("unsupported_grant_type", "grant_type is not supported")

    def _instead(self, wrong: Misbehaviour, client: Client) -> Response | None:
        secret = client.client_secret or ""
        return instead(wrong, url=self._sim.url, secret=secret, closing=self._sim.closing)

    def _grant(self, wanted: AuthorizationRequest, account: str) -> Response:
        code = Code(
            wanted.client.client_id,
            wanted.redirect_uri,
            wanted.challenge,
            account,
            wanted.scope,
            self._sim.clock() + protocol.CODE_LIFETIME,
        )
        value = protocol.new_code(self._sim.book, code, self._sim.mint)
        self._sim.changed()
        return self._back(wanted.redirect_uri, wanted.state, {"code": value})

    def _tell_client(self, refused: RefusedByRedirect) -> Response:
        answer = {"error": refused.error, "error_description": refused.description}
        return self._back(refused.redirect_uri, refused.state, answer)

    def _back(self, redirect_uri: str, state: str | None, answer: Mapping[str, str]) -> Response:
        """Send the browser back to the client. Source: RFC 6749 section 4.1.2, RFC 9207 section 2."""
        query = {**answer, **({} if state is None else {"state": state}), "iss": self._sim.url}
        joint = "&" if "?" in redirect_uri else "?"
        # 303, so that a browser which posted the form does not post to the client.
        return RedirectResponse(f"{redirect_uri}{joint}{urlencode(query)}", 303, pages.HEADERS)


def _seen(request: Request) -> SeenRequest:
    seen = request.scope["seen"]
    assert isinstance(seen, SeenRequest)
    return seen


async def _body(request: Request) -> bytes:
    """The body, or so much of it that parsing refuses it as too large; the rest is read and dropped.

    Bounds: MOST_DRAINED bytes and BODY_DEADLINE seconds; nothing where the client was slower, or left.
    """
    kept, length = b"", 0
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            async for chunk in request.stream():
                length += len(chunk)
                kept += chunk[: 1 + MOST_BODY - len(kept)]
                if length > MOST_DRAINED:
                    break
    except (ClientDisconnect, TimeoutError):
        return b""
    return kept
