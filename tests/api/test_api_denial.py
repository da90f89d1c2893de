"""The denial is the same whether what may not be seen exists or not (attack 29), and lists show one's own only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from connectors_grpc.domain.records import Role
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.rpc.convert import ROLE
from tests.raw_calls import RPCS, Answer, Rpc, ask, bearer
from tests.running import Client, Server, fresh_id, refused

TENANT_ROLES = (Role.ADMIN, Role.OPERATOR, Role.APP, Role.SIDECAR, Role.TOKEN_READER)
NAMING = [rpc for rpc in RPCS if rpc.rule.tenant]


@dataclass(frozen=True)
class Two:
    """Two tenants, each with the credentials `mail` and `wiki`, and a key of each role for the first."""

    server: Server
    a: str
    b: str
    ghost: str
    integration: str
    keys: dict[Role, str]
    key_of_b: str
    operation_of_b: str


def api_key_definition(url: str = "https://api.example.com") -> dict[str, object]:
    """A definition that takes an API key."""
    return {"api": {"base_url": url, "placement": {"headers": {"X-Api-Key": "{api_key}"}}}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(server: Server) -> Two:
    """Made once for this file; nothing here changes the second tenant."""
    a, b, gone, integration = fresh_id("aa"), fresh_id("bb"), fresh_id("gone"), fresh_id("api")
    await server.admin.create_integration(integration, **api_key_definition())
    for tenant in (a, b, gone):
        await server.admin.create_tenant(tenant)
        for name in ("mail", "wiki"):
            await server.admin.store(
                tenant, integration, credential=name, api_key={"api_key": f"sk-{name}-of-{tenant}"}
            )
    keys = {role: await server.admin.create_key([int(ROLE[role])], [a]) for role in TENANT_ROLES}
    key_of_b = fresh_id("key-of-b")
    await server.admin.call(
        "CreateApiKey",
        access.CreateApiKeyRequest(key_id=key_of_b, api_key=access.ApiKey(roles=[access.ROLE_APP], tenants=[b])),
    )
    deleted = await server.admin.call("DeleteTenant", tenants.DeleteTenantRequest(tenant=gone, force=True))
    ghost = "g" * (len(b) - 1) + "0"
    return Two(server, a, b, ghost, integration, keys, key_of_b, deleted.operation.id)


async def told(two: Two, rpc: Rpc, request: Message, key: str) -> Answer:
    """The answer to a probe; it must be a denial that says nothing."""
    answer = await ask(two.server.channel, rpc, request, bearer(key))
    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    assert len(answer.status.details) == 1
    assert b"metadata" not in answer.raw
    return answer


@pytest.mark.parametrize("rpc", NAMING, ids=lambda rpc: rpc.name)
async def test_attack_29_another_tenants_door_looks_the_same_whether_it_exists_or_not(two: Two, rpc: Rpc) -> None:
    """Byte by byte, for every role, with a credential that exists and one that does not, whole request or not."""
    answers = [
        await told(two, rpc, rpc.request(tenant, credential), two.keys[role])
        for role in TENANT_ROLES
        for tenant in (two.b, two.ghost, "Not A Label")
        for credential in ("mail", "none", "")
    ]
    assert len({answer.denial for answer in answers}) == 1


@pytest.mark.parametrize(
    "rpc", [rpc for rpc in RPCS if rpc.rule.credential and rpc.name != "Lease"], ids=lambda rpc: rpc.name
)
async def test_attack_29_a_credential_out_of_scope_looks_the_same_whether_it_exists_or_not(two: Two, rpc: Rpc) -> None:
    """A key for `mail` learns nothing of `wiki`, nor that there is no `none`."""
    roles = [int(ROLE[role]) for role in rpc.rule.roles]
    key = await two.server.admin.create_key(roles, [two.a], credentials=["mail"])
    answers = [await told(two, rpc, rpc.request(two.a, name), key) for name in ("wiki", "none")]
    assert len({answer.denial for answer in answers}) == 1


async def test_attack_29_ids_of_keys_and_operations_are_no_oracle(two: Two) -> None:
    """RevokeApiKey, GetOperation and CreateApiKey answer for another tenant's as for none."""
    by_name = {rpc.name: rpc for rpc in RPCS}
    probes: Sequence[tuple[str, Sequence[Message]]] = (
        ("RevokeApiKey", [access.RevokeApiKeyRequest(key=key) for key in (two.key_of_b, "none", "admin")]),
        ("GetOperation", [tenants.GetOperationRequest(operation=one) for one in (two.operation_of_b, "op-none")]),
        (
            "CreateApiKey",
            [
                access.CreateApiKeyRequest(api_key=access.ApiKey(roles=[access.ROLE_APP], tenants=[tenant]))
                for tenant in (two.b, two.ghost, "*")
            ],
        ),
    )
    for role in (Role.ADMIN, Role.OPERATOR):
        for name, requests in probes:
            answers = [await told(two, by_name[name], request, two.keys[role]) for request in requests]
            assert len({answer.denial for answer in answers}) == 1, name


async def test_attack_29_a_taken_key_id_is_told_only_to_who_may_see_that_key(two: Two) -> None:
    """Key ids are one namespace: whose the id is, is nobody else's business (AIP-133)."""
    operator = two.server.client(two.keys[Role.OPERATOR])

    def wanted(key_id: str) -> access.CreateApiKeyRequest:
        return access.CreateApiKeyRequest(
            key_id=key_id, api_key=access.ApiKey(roles=[access.ROLE_APP], tenants=[two.a])
        )

    with refused("PERMISSION_DENIED"):
        await operator.call("CreateApiKey", wanted(two.key_of_b))
    own = fresh_id("own")
    await operator.call("CreateApiKey", wanted(own))
    with refused("ALREADY_EXISTS", key=own):
        await operator.call("CreateApiKey", wanted(own))


async def test_attack_29_a_lease_within_the_sidecars_scope_is_still_bounded_by_the_app_keys(two: Two) -> None:
    """A sidecar for all, an app key of `a`: `b` and nobody are the same to it."""
    text = await two.server.admin.create_key([access.ROLE_APP], [two.a], credentials=["mail"])
    rpc = next(rpc for rpc in RPCS if rpc.name == "Lease")
    answers = []
    for tenant, name in ((two.b, "mail"), (two.ghost, "mail"), (two.a, "wiki"), (two.a, "none")):
        request = proxy.LeaseRequest(tenant=tenant, credential=name, app_key=proof(text))
        answers.append(await told(two, rpc, request, two.server.sidecar.key))
    assert len({answer.denial for answer in answers}) == 1


def proof(text: str) -> proxy.AppKeyProof:
    """What a sidecar shows of an app's key."""
    return proxy.AppKeyProof(key_id=text.split("_")[1], sha256=hashlib.sha256(text.encode()).digest())


async def test_lists_show_what_lies_in_scope_and_nothing_else(two: Two) -> None:
    """Tenants and keys of `a` only; for a key of `mail`, only `mail`, and no page token that names another."""
    operator = two.server.client(two.keys[Role.OPERATOR])
    found = await operator.call("ListTenants", tenants.ListTenantsRequest())
    assert [tenant.id for tenant in found.tenants] == [two.a]
    assert not found.next_page_token
    keys = await walk_keys(operator)
    assert keys
    assert all(list(key.tenants) == [two.a] for key in keys)
    of_mail = two.server.client(
        await two.server.admin.create_key([access.ROLE_OPERATOR], [two.a], credentials=["mail", "zzz"])
    )
    for size in (1, 2, 50):
        request = credentials.ListCredentialsRequest(tenant=two.a, page_size=size)
        page = await of_mail.call("ListCredentials", request)
        assert [credential.id for credential in page.credentials] == ["mail"]
        assert page.next_page_token in ("", "mail")
    status = await of_mail.call("GetTenantStatus", tenants.GetTenantStatusRequest(tenant=two.a))
    assert dict(status.credentials_by_state) == {"active": 1}


async def walk_keys(client: Client, page_size: int = 2) -> list[access.ApiKey]:
    """All keys that a client sees."""
    keys: list[access.ApiKey] = []
    token = ""
    while True:
        page = await client.call("ListApiKeys", access.ListApiKeysRequest(page_size=page_size, page_token=token))
        keys += page.api_keys
        token = page.next_page_token
        if not token:
            return keys
        assert token in {key.id for key in keys}, "a page token names one of the caller's own"


async def test_a_page_token_opens_nothing(two: Two) -> None:
    """A token is only where to go on: another's, or a made-up one, shows no more than one's own."""
    operator = two.server.client(two.keys[Role.OPERATOR])
    for token in (two.b, "a", "zzzz"):
        found = await operator.call("ListTenants", tenants.ListTenantsRequest(page_token=token))
        assert {tenant.id for tenant in found.tenants} <= {two.a}
    for rpc, request in (
        ("ListTenants", tenants.ListTenantsRequest(page_token="Not a token!")),
        ("ListApiKeys", access.ListApiKeysRequest(page_token="../x")),
        ("ListCredentials", credentials.ListCredentialsRequest(tenant=two.a, page_token="ä")),
    ):
        with refused("INVALID_PAGE_TOKEN"):
            await operator.call(rpc, request)


async def test_an_operator_hands_out_no_more_than_it_has(two: Two) -> None:
    """Only `app` keys, only within its own tenants and credentials; an admin of one tenant no wider either."""
    operator, admin = (two.server.client(two.keys[role]) for role in (Role.OPERATOR, Role.ADMIN))
    of_mail = two.server.client(
        await two.server.admin.create_key([access.ROLE_OPERATOR], [two.a], credentials=["mail"])
    )
    for number in (access.ROLE_ADMIN, access.ROLE_OPERATOR, access.ROLE_SIDECAR, access.ROLE_TOKEN_READER):
        with refused("PERMISSION_DENIED"):
            await operator.create_key([number], [two.a])
    for client, scope, fields in (
        (operator, [two.a, two.b], {}),
        (operator, ["*"], {}),
        (admin, ["*"], {}),
        (admin, [two.b], {}),
        (of_mail, [two.a], {}),
        (of_mail, [two.a], {"credentials": ["*"]}),
        (of_mail, [two.a], {"credentials": ["mail", "wiki"]}),
    ):
        with refused("PERMISSION_DENIED"):
            await client.create_key([access.ROLE_APP], scope, **fields)
    assert await of_mail.create_key([access.ROLE_APP], [two.a], credentials=["mail"])
    mine = fresh_id("readers")
    await two.server.admin.call(
        "CreateApiKey",
        access.CreateApiKeyRequest(
            key_id=mine, api_key=access.ApiKey(roles=[access.ROLE_TOKEN_READER], tenants=[two.a])
        ),
    )
    with refused("PERMISSION_DENIED"):
        await operator.call("RevokeApiKey", access.RevokeApiKeyRequest(key=mine))
