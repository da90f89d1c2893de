"""A provider in the shape that a definition describes: the simulator, behind what differs from a standard one.

The definition's own words decide where each request is taken in and how it is answered, so that this shows whether a definition
hangs together and works end to end, not whether it is true of the vendor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from connectors_grpc.domain.definition import Discovery, Integration
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.oauth2.token_request import MAX_REPLY
from connectors_grpc.ports import HttpReply, HttpRequest, Outbound
from connectors_grpc.simulator import Client

JSON = (("Content-Type", "application/json"),)
NOT_THERE = HttpReply(404, JSON, b'{"error": "not_found"}')


@dataclass(slots=True)
class Seen:
    """What came, by the endpoint that took it in."""

    requests: list[tuple[str, HttpRequest]] = field(default_factory=list)

    def last(self, role: str) -> HttpRequest | None:
        """The newest of a role."""
        return next((request for found, request in reversed(self.requests) if found == role), None)


class Vendor:
    """`ports.Outbound` to the simulator at `place`. `definition` has no placeholders left; `values` are what filled them."""

    def __init__(
        self, outbound: Outbound, place: str, definition: Integration, client: Client, values: Mapping[str, str]
    ) -> None:
        self._outbound = outbound
        self._place = place
        self._definition = definition
        self._client = client
        self._values = values
        self.seen = Seen()
        self.tokens: list[str] = []
        """Access tokens as they were given, the newest last."""

    async def send(self, request: HttpRequest) -> HttpReply:
        """See ports.Outbound."""
        role = self._role(request)
        self.seen.requests.append((role, request))
        match role:
            case "token":
                return await self._token(request)
            case "revocation":
                return await self._forward(request, "/revoke")
            case "own revocation":
                return await self._own_revocation(request)
            case "discovery":
                return self._discovered(request)
            case "api":
                return await self._api(request)
            case _:
                return NOT_THERE

    async def consent(self, authorization_url: str) -> str:
        """Somebody consents: the code.  Raises: ValueError, saying what the authorization request lacks."""
        oauth = self._definition.oauth
        assert oauth is not None
        sent = dict(parse_qsl(urlsplit(authorization_url).query, keep_blank_values=True))
        scopes = sent.pop(oauth.scope_parameter, "").replace(oauth.scope_separator, " ")
        query = urlencode({**sent, **({"scope": scopes} if scopes else {})})
        reply = await self._get(f"/authorize?{query}")
        found = dict(parse_qsl(urlsplit(reply.header("Location")).query))
        if "code" not in found:
            raise ValueError(found.get("error", f"status {reply.status}"))
        return found["code"]

    def _role(self, request: HttpRequest) -> str:
        url, _, _ = request.url.partition("?")
        oauth, api = self._definition.oauth, self._definition.api
        if oauth is not None:
            if url in (oauth.token_endpoint, oauth.refresh_endpoint) and request.method == "POST":
                return "token"
            if url == oauth.revocation_endpoint:
                return "revocation"
            own = oauth.revocation
            if (
                own is not None
                and url == own.url.replace("{client_id}", self._client.client_id)
                and request.method == own.method
            ):
                return "own revocation"
            if any(url == one.url.partition("?")[0] for one in oauth.discovery):
                return "discovery"
        return "api" if api is not None and request.url.startswith(f"{api.base_url}/") else ""

    async def _forward(self, request: HttpRequest, path: str) -> HttpReply:
        return await self._outbound.send(replace(request, url=self._place + path, allow_private_addresses=True))

    async def _get(self, path: str, *headers: tuple[str, str]) -> HttpReply:
        return await self._outbound.send(HttpRequest("GET", self._place + path, headers, b"", True, 10.0, MAX_REPLY))

    async def _token(self, request: HttpRequest) -> HttpReply:
        """What the simulator says, its tokens where the definition looks for them, and what it wants to find."""
        oauth = self._definition.oauth
        assert oauth is not None
        reply = await self._forward(request, "/token")
        if reply.status != 200:
            return reply
        tokens = json.loads(reply.body)
        if isinstance(tokens.get("access_token"), str):
            self.tokens.append(tokens["access_token"])
        document: dict[str, Any] = {}
        if oauth.token_pointer:
            put(document, oauth.token_pointer, tokens)
        else:
            document = tokens
        for one in oauth.discovery:
            if not one.url:
                put(document, one.pointer, one.example)
        return HttpReply(200, JSON, json.dumps(document).encode())

    async def _own_revocation(self, request: HttpRequest) -> HttpReply:
        """The simulator ends the newest token, if the request shows it, or that it is the client's."""
        shown = request.body.decode("latin-1") + request.url + str(request.headers)
        proof = (self.tokens[-1] if self.tokens else "", self._client.client_secret or "")
        if not any(text and text in shown for text in proof) and not any("Basic" in v for _, v in request.headers):
            return HttpReply(401, JSON, b'{"error": "invalid_client"}')
        form = {
            "client_id": self._client.client_id,
            "client_secret": self._client.client_secret,
            "token": self.tokens[-1],
        }
        headers = (("Content-Type", "application/x-www-form-urlencoded"),)
        wanted = HttpRequest("POST", request.url, headers, urlencode(form).encode(), True, 10.0, MAX_REPLY)
        reply = await self._forward(wanted, "/revoke")
        return HttpReply(reply.status, JSON, b'{"ok": true}' if reply.status == 200 else reply.body)

    def _discovered(self, request: HttpRequest) -> HttpReply:
        oauth = self._definition.oauth
        assert oauth is not None
        item: dict[str, Any] = {}
        for one in oauth.discovery:
            if one.url.partition("?")[0] == request.url.partition("?")[0]:
                put(item, one.pointer, one.example)
                if one.match:
                    put(item, one.match_pointer, self._matched(one))
        return HttpReply(200, JSON, json.dumps([item]).encode())

    def _matched(self, one: Discovery) -> str:
        return PLACEHOLDER.sub(lambda match: self._values.get(match[1], "any"), one.match)

    async def _api(self, request: HttpRequest) -> HttpReply:
        """Who the newest token speaks for, if the request shows that token; in the words that the identity call is read in."""
        api = self._definition.api
        assert api is not None
        status, account = 200, "alice"
        if self.tokens:
            if self.tokens[-1] not in str(request.headers) + request.url:
                return HttpReply(401, JSON, b"{}")
            reply = await self._get("/v1/whoami", ("Authorization", f"Bearer {self.tokens[-1]}"))
            status = reply.status
        document: dict[str, Any] = {}
        if status == 200 and api.account_pointer:
            put(document, api.account_pointer, account)
        if api.ok_field:
            document[api.ok_field] = status == 200
        return HttpReply(status, JSON, json.dumps(document).encode())


def put(document: dict[str, Any], pointer: str, value: object) -> None:
    """Put a value at a JSON pointer, making what leads there: objects, and lists for numbers.  Source: RFC 6901."""
    names = [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]
    at: Any = document
    for name, following in zip(names, [*names[1:], ""], strict=True):
        step: Any = value if following == "" and name is names[-1] else [] if following == "0" else {}
        if isinstance(at, list):
            at.append(step)
            at = at[-1]
        else:
            at[name] = step if step is value else at.get(name, step)
            at = at[name]
