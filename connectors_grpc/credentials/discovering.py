"""What is found out once there is a token: asked by the definition's discoveries, read by their rules. Sends nothing itself.

A provider's word on a host counts only as far as the definition bounds it: a value that its pattern does not take is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from connectors_grpc.credentials.identity import MAX_REPLY, TIMEOUT
from connectors_grpc.domain.definition import Discovery, Integration
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.inject import FieldRefused, PlaceholderUnresolved, Plan, parse_target, resolve
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.oauth2.token_reply import at_pointer
from connectors_grpc.ports import HttpReply, HttpRequest
from connectors_grpc.rules import patterns
from connectors_grpc.rules.inputs import ANYTHING
from connectors_grpc.secret import Secret

MOST_ITEMS = 1000


def discovery_request(integration: Integration, one: Discovery, fields: Mapping[str, Secret]) -> HttpRequest:
    """The GET that a discovery asks. The rules hold its host to those that are sealed. Raises: AUTHORIZATION_REFUSED."""
    assert integration.api is not None
    parts = urlsplit(one.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    try:
        plan = Plan.of(
            resolve(integration.api.placement, fields),
            base_url=origin,
            allowed_hosts=(parts.netloc,),
            default_headers=integration.api.default_headers,
        )
        target = plan.target(parse_target(one.url.removeprefix(origin).encode()))
    except (PlaceholderUnresolved, FieldRefused):
        raise refused(one, "discovery_template") from None
    return HttpRequest(
        method="GET",
        url=f"{origin}{target.decode()}",
        headers=tuple((name.decode(), value.decode("latin-1")) for name, value in plan.request_headers([])),
        body=b"",
        allow_private_addresses=integration.allow_private_addresses,
        timeout=TIMEOUT,
        max_body=MAX_REPLY,
    )


def read_discovery(reply: HttpReply, one: Discovery, values: Mapping[str, str]) -> str:
    """The value, which the definition's pattern takes; empty where it is optional and not there.

    Bounds: 1,000 items of a list.
    Raises: AUTHORIZATION_REFUSED, whose `problem` says whether none was there, several were, or one that is refused;
    PROVIDER_UNAVAILABLE.
    """
    if not 200 <= reply.status < 300:
        raise ConnectorsError(Reason.PROVIDER_UNAVAILABLE, {"problem": f"discovery_status_{reply.status}"})
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise refused(one, "discovery_missing") from None
    return found_in(document, one, values)


def found_in(document: Any, one: Discovery, values: Mapping[str, str]) -> str:
    """As `read_discovery`, of an answer that was read already."""
    items = document[:MOST_ITEMS] if isinstance(document, list) else [document]
    wanted = _wanted(one, values)
    if wanted is not None:
        items = [item for item in items if at_pointer(item, one.match_pointer) == wanted]
    texts = list(dict.fromkeys(text for item in items if (text := _text(at_pointer(item, one.pointer)))))
    if not texts:
        if one.optional:
            return ""
        raise refused(one, "discovery_missing")
    if len(texts) > 1:
        raise refused(one, "discovery_several")
    return taken(texts[0], one)


def taken(text: str, one: Discovery) -> str:
    """What a discovery's pattern takes of a text. Raises: AUTHORIZATION_REFUSED."""
    value = patterns.taken(one.pattern or ANYTHING, text)
    if value is None:
        raise refused(one, "discovery_refused")
    return value


def _wanted(one: Discovery, values: Mapping[str, str]) -> str | None:
    """What an item must say; None if any will do."""
    named = PLACEHOLDER.findall(one.match)
    if not named or any(name not in values for name in named):
        return None
    return PLACEHOLDER.sub(lambda match: values[match[1]], one.match)


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def refused(one: Discovery, problem: str) -> ConnectorsError:
    """A connection that can't be used without what was to be found. The provider's own words are not repeated."""
    metadata = {"problem": problem, "discovery": one.id}
    choosers = PLACEHOLDER.findall(one.match)
    if choosers and problem == "discovery_several":
        metadata["input"] = choosers[0]
    return ConnectorsError(Reason.AUTHORIZATION_REFUSED, metadata)
