"""By REST as by gRPC, the denial is the same whether what may not be seen exists or not (attack 29), to pages too (2)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from connectors_grpc import policy
from connectors_grpc.http.transcoding import PARAMETER, Binding, bindings
from connectors_grpc.rpc.convert import ROLE
from connectors_grpc.rpc.server import DESCRIPTORS
from tests.api.test_api_denial import TENANT_ROLES, Two
from tests.api.test_api_denial import two as two

ALL = tuple(bindings(DESCRIPTORS))
NAMING = [each for each in ALL if policy.RULES[each.rpc].tenant]
ORIGIN = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


def name_of(binding: Binding) -> str:
    """How a test calls a route."""
    return f"{binding.verb} {binding.template}"


async def ask(client: httpx2.AsyncClient, binding: Binding, key: str, tenant: str, credential: str) -> httpx2.Response:
    """A request that names a tenant and a credential wherever the route takes them."""
    rule = policy.RULES[binding.rpc]
    named = {rule.tenant: tenant} | ({rule.credential[0]: credential} if rule.credential else {})
    url = PARAMETER.sub(lambda match: quote(named.get(match[1], credential) or "none", safe=""), binding.template)
    query: dict[str, str] = {}
    body: dict[str, Any] = {}
    for path, value in named.items():
        if path and value and path not in binding.parameters:
            (body if binding.body == "*" else query)[path] = value
    content = json.dumps(body).encode() if binding.body else None
    kind = {"Content-Type": "application/json"} if binding.body else {}
    headers = {"Authorization": f"Bearer {key}", **ORIGIN, **kind}
    return await client.request(binding.verb, url, params=query, content=content, headers=headers)


def told(answer: httpx2.Response) -> tuple[object, ...]:
    """All that a caller can tell two denials apart by; it must say nothing."""
    assert (answer.status_code, answer.json()["reason"]) == (403, "PERMISSION_DENIED"), answer.text
    assert set(answer.json()) == {"type", "title", "status", "detail", "reason"}
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert "evil" not in str(answer.headers)
    return answer.status_code, answer.content, tuple(sorted(answer.headers.items()))


@pytest.mark.parametrize("binding", NAMING, ids=name_of)
async def test_attack_29_another_tenants_route_looks_the_same_whether_it_exists_or_not(
    two: Two,
    binding: Binding,
) -> None:
    """Byte by byte and header by header, for every role, with ids that are none too."""
    async with httpx2.AsyncClient(base_url=two.server.http_url) as client:
        answers = {
            told(await ask(client, binding, two.keys[role], tenant, credential))
            for role in TENANT_ROLES
            for tenant in (two.b, two.ghost, "Not A Label", "a/b")
            for credential in ("mail", "none")
        }
    assert len(answers) == 1


SCOPED = [each for each in NAMING if policy.RULES[each.rpc].credential]


@pytest.mark.parametrize("binding", SCOPED, ids=name_of)
async def test_attack_29_a_credential_out_of_scope_looks_the_same_whether_it_exists_or_not(
    two: Two,
    binding: Binding,
) -> None:
    """A key for `mail` learns nothing of `wiki`, nor that there is no `none`."""
    roles = [int(ROLE[role]) for role in policy.RULES[binding.rpc].roles]
    key = await two.server.admin.create_key(roles, [two.a], credentials=["mail"])
    async with httpx2.AsyncClient(base_url=two.server.http_url) as client:
        answers = {told(await ask(client, binding, key, two.a, name)) for name in ("wiki", "none")}
    assert len(answers) == 1


@pytest.mark.parametrize("binding", ALL, ids=name_of)
async def test_no_route_is_open(two: Two, binding: Binding) -> None:
    """Without a key, and with one that is none, every route says the same, of whatever it is asked."""
    async with httpx2.AsyncClient(base_url=two.server.http_url) as client:
        for key in ("-", "cnk_nope", "cnk_admin_nope"):
            answer = await ask(client, binding, key, two.a, "mail")
            assert (answer.status_code, answer.json()["reason"]) == (401, "API_KEY_INVALID")
        bare = await client.request(binding.verb, PARAMETER.sub(two.a, binding.template), headers=ORIGIN)
        assert (bare.status_code, bare.json()["reason"]) == (401, "API_KEY_MISSING")
        assert not [name for name in bare.headers if name.startswith("access-control-")]


async def test_attack_29_platform_routes_are_for_keys_of_all_tenants(two: Two) -> None:
    """An admin of one tenant is denied there, whatever it sends."""
    async with httpx2.AsyncClient(base_url=two.server.http_url) as client:
        for binding in (each for each in ALL if policy.RULES[each.rpc].platform):
            for role in TENANT_ROLES:
                told(await ask(client, binding, two.keys[role], two.a, "mail"))
