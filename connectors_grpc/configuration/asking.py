"""Asks a server how things are: only what the file names, and what pruning needs. Changes nothing.

Whether a secret is the stored one, the server answers (`compare`, `validate_only`): none is ever read back, and no digest of
one is kept anywhere. It is an admin's to ask, and a line of the audit log each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import grpc

from connectors_grpc.configuration.api import LONGEST, PAGE, Api, Reason, each
from connectors_grpc.configuration.model import Configuration, Credential
from connectors_grpc.configuration.plan import is_frozen
from connectors_grpc.configuration.steps import Match, Seen, Stored
from connectors_grpc.configuration.wanted import client_message, fields_of, integration_message, material_request
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.gen.connectors.v1.error_reason_pb2 import ErrorReason

FEW = 50
"""Tenants that are asked for one by one; of more, all are listed."""
Pair = tuple[str, str]
Wanted = dict[Pair, tuple[str, Credential]]
"""Credentials by tenant and id, with their integration."""


def ask(api: Api, wanted: Configuration, reason: Reason, *, prune: bool = False) -> Seen:
    """What the server says. Raises: grpc.RpcError."""
    there = _tenants(api, wanted, reason, all_of_them=prune)
    usable = {
        name: part
        for name, part in wanted.tenants.items()
        if name in there and there[name].state != tenants.Tenant.STATE_DELETING and not is_frozen(part, there[name])
    }
    found: Wanted = {}
    clients: dict[Pair, integrations.OAuthClient] = {}
    for tenant, part in usable.items():
        for integration, inside in (part.integrations or {}).items():
            if not inside.enabled:
                continue
            if inside.oauth_client is not None:
                clients[tenant, integration] = client_message(inside.oauth_client)
            found |= {(tenant, name): (integration, one) for name, one in inside.credentials.items()}
    return Seen(
        there,
        _integrations(api, wanted, reason),
        _clients(api, clients, reason),
        _credentials(api, found, wanted.owner, reason),
        tuple(_others(api, [name for name in wanted.tenants if name in there])) if prune else (),
    )


def _tenants(api: Api, wanted: Configuration, reason: Reason, *, all_of_them: bool) -> dict[str, tenants.Tenant]:
    if all_of_them or len(wanted.tenants) > FEW:
        listed = {tenant.id: tenant for tenant in _list_tenants(api)}
        return listed if all_of_them else {name: one for name, one in listed.items() if name in wanted.tenants}

    def get(name: str) -> tenants.Tenant | None:
        try:
            return api.tenants.GetTenant(tenants.GetTenantRequest(tenant=name)).tenant
        except grpc.RpcError as error:
            if reason(error) != "TENANT_NOT_FOUND":
                raise
            return None

    return {name: tenant for name, tenant in each(get, wanted.tenants) if tenant is not None}


def _list_tenants(api: Api) -> Iterator[tenants.Tenant]:
    token = ""
    while True:
        page = api.tenants.ListTenants(tenants.ListTenantsRequest(page_size=PAGE, page_token=token))
        yield from page.tenants
        if not page.next_page_token or page.next_page_token == token:
            return
        token = page.next_page_token


def _integrations(api: Api, wanted: Configuration, reason: Reason) -> dict[str, Match]:
    def compare(name: str) -> Match:
        part = wanted.integrations[name]
        request = integrations.UpdateIntegrationRequest(integration=integration_message(name, part), validate_only=True)
        request.update_mask.paths.extend(fields_of(part))
        return _compared(api, request, reason)

    return dict(each(compare, wanted.integrations))


def _clients(api: Api, clients: Mapping[Pair, integrations.OAuthClient], reason: Reason) -> dict[Pair, Match]:
    def compare(pair: Pair) -> Match:
        message = integrations.Integration(id=pair[1], oauth_client=clients[pair])
        request = integrations.UpdateIntegrationRequest(integration=message, tenant=pair[0], validate_only=True)
        request.update_mask.paths.append("oauth_client")
        return _compared(api, request, reason)

    return dict(each(compare, clients))


def _compared(api: Api, request: integrations.UpdateIntegrationRequest, reason: Reason) -> Match:
    try:
        answer = api.integrations.UpdateIntegration(request)
    except grpc.RpcError as error:
        if reason(error) != "INTEGRATION_NOT_FOUND":
            raise
        return Match.UNKNOWN if request.tenant else Match.ABSENT
    if answer.unchanged:
        return Match.EQUAL
    return Match.DIFFERENT if answer.integration.HasField("oauth_client") or not request.tenant else Match.ABSENT


def _credentials(api: Api, found: Wanted, owner: str, reason: Reason) -> dict[Pair, Stored]:
    by_person, requests = [], {}
    for pair, (integration, part) in found.items():
        request = material_request(pair[0], integration, pair[1], part, owner)
        if request is None:
            by_person.append(pair)
        else:
            requests[pair] = request

    def get(pair: Pair) -> Stored:
        try:
            request = pb.GetCredentialRequest(tenant=pair[0], credential=pair[1])
            return Stored(Match.UNKNOWN, api.credentials.GetCredential(request).credential)
        except grpc.RpcError as error:
            if reason(error) != "CREDENTIAL_NOT_FOUND":
                raise
            return Stored(Match.ABSENT)

    return dict(each(get, by_person)) | dict(_material(api, requests))


def _material(api: Api, requests: Mapping[Pair, pb.StoreCredentialRequest]) -> Iterator[tuple[Pair, Stored]]:
    """How each credential's material matches what is stored."""
    pairs = list(requests)
    stream = (
        pb.ImportCredentialsRequest(item=str(number), compare=requests[pair]) for number, pair in enumerate(pairs)
    )
    for answer in api.credentials.ImportCredentials(stream, timeout=LONGEST) if pairs else ():
        yield pairs[int(answer.item)], _stored(answer)


def _stored(answer: pb.ImportCredentialsResponse) -> Stored:
    if answer.HasField("credential"):
        ended = Match.ENDED if answer.ended else Match.DIFFERENT
        return Stored(Match.EQUAL if answer.unchanged else ended, answer.credential)
    name = ErrorReason.Name(answer.refusal.reason).removeprefix("ERROR_REASON_")
    if name == "CREDENTIAL_NOT_FOUND":
        return Stored(Match.ABSENT)
    if name in ("INTEGRATION_NOT_ENABLED", "INTEGRATION_NOT_FOUND", "TENANT_SUSPENDED"):
        return Stored(Match.UNKNOWN)  # the plan's first steps may mend that; else storing says it again
    return Stored(Match.UNKNOWN, refused=refusal_text(name, answer.refusal))


def refusal_text(name: str, refusal: pb.ImportRefusal) -> str:
    """Why an item was refused, for people."""
    fields = "".join(f" {each.field}: {each.description}." for each in refusal.field_violations)
    return f"{name}: {refusal.message}{fields}"


def _others(api: Api, names: list[str]) -> Iterator[pb.Credential]:
    """All credentials of the file's tenants."""

    def all_of(tenant: str) -> list[pb.Credential]:
        found: list[pb.Credential] = []
        token = ""
        while True:
            request = pb.ListCredentialsRequest(tenant=tenant, page_size=PAGE, page_token=token)
            page = api.credentials.ListCredentials(request)
            found += page.credentials
            if not page.next_page_token or page.next_page_token == token:
                return found
            token = page.next_page_token

    for _, found in each(all_of, names):
        yield from found
