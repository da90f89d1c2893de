"""Whose credential it is, as the provider says: the integration's identity call, built and read. Sends nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connectors_grpc.domain.definition import Api, Integration
from connectors_grpc.hosts import sealed_hosts
from connectors_grpc.inject import FieldRefused, PathNotAllowed, PlaceholderUnresolved, Plan, parse_target, resolve
from connectors_grpc.oauth2.token_reply import at_pointer
from connectors_grpc.ports import HttpReply, HttpRequest
from connectors_grpc.secret import Secret

TIMEOUT = 10.0
MAX_REPLY = 256 * 1024
LONGEST_ACCOUNT = 200


@dataclass(frozen=True, slots=True)
class Identity:
    """What the identity call said. `account` is empty where the definition has no pointer, or nothing was there."""

    status: int
    accepted: bool
    account: str


def identity_request(integration: Integration, fields: Mapping[str, Secret]) -> HttpRequest | None:
    """The identity call with these fields; None if the definition has none, or they can't fill its templates."""
    api = integration.api
    if api is None or not api.identity_path:
        return None
    try:
        plan = Plan.of(
            resolve(api.placement, fields),
            base_url=api.base_url,
            allowed_hosts=sealed_hosts(api),
            default_headers=api.default_headers,
            refused_urls=integration.oauth.endpoints() if integration.oauth else (),
        )
        target = plan.target(parse_target(api.identity_path.encode()))
    except (PlaceholderUnresolved, FieldRefused, PathNotAllowed):
        return None
    lines = plan.request_headers(identity_headers(api))
    return HttpRequest(
        method=identity_method(api),
        url=f"{plan.scheme}://{plan.authority.decode()}{target.decode()}",
        headers=tuple((name.decode(), value.decode("latin-1")) for name, value in lines),
        body=api.identity_body.encode("ascii"),
        allow_private_addresses=integration.allow_private_addresses,
        timeout=TIMEOUT,
        max_body=MAX_REPLY,
    )


def identity_method(api: Api) -> str:
    """A GET, unless the definition has a body for it."""
    return "POST" if api.identity_body else "GET"


def identity_headers(api: Api) -> list[tuple[bytes, bytes]]:
    """What the body is, if there is one."""
    return [(b"Content-Type", b"application/json")] if api.identity_body else []


def read_identity(reply: HttpReply, api: Api) -> Identity:
    """Whether the provider accepted the credential, and whose it is; whatever the bytes.

    `api.ok_field` must be true where there is one: some providers answer 200 with `ok: false`.
    """
    accepted = 200 <= reply.status < 300
    document = _document(reply) if accepted and (api.ok_field or api.account_pointer) else None
    if api.ok_field:
        accepted = accepted and isinstance(document, dict) and document.get(api.ok_field) is True
    return Identity(reply.status, accepted, _account(document, api.account_pointer) if accepted else "")


def _document(reply: HttpReply) -> Any:
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return None


def _account(document: Any, pointer: str) -> str:
    """A text or a whole number at a JSON pointer; empty if there is none."""
    if not pointer:
        return ""
    at = at_pointer(document, pointer)
    if isinstance(at, bool) or not isinstance(at, str | int):
        return ""
    text = str(at) if isinstance(at, str) or abs(at) < 10**40 else ""
    return text if len(text) <= LONGEST_ACCOUNT and text.isprintable() else ""
