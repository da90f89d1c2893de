"""Tenants: made, listed, changed, deleted; and what becomes of everything when the name is taken again (attack 38)."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from connectors_grpc.policy import RESERVED_LABELS
from tests.canary import planted
from tests.openbao import OpenBao
from tests.running import Client, Refused, Server, fresh_id, refused

pytestmark = pytest.mark.usefixtures("heard")


async def get(client: Client, tenant: str) -> pb.Tenant:
    """GetTenant."""
    found: pb.Tenant = (await client.call("GetTenant", pb.GetTenantRequest(tenant=tenant))).tenant
    return found


async def update(client: Client, mask: list[str], **fields: Any) -> pb.Tenant:
    """UpdateTenant."""
    request = pb.UpdateTenantRequest(tenant=pb.Tenant(**fields))
    request.update_mask.paths.extend(mask)
    changed: pb.Tenant = (await client.call("UpdateTenant", request)).tenant
    return changed


async def delete(client: Client, tenant: str, **fields: Any) -> pb.Operation:
    """DeleteTenant, to its end."""
    request = pb.DeleteTenantRequest(tenant=tenant, force=True, **fields)
    operation: pb.Operation = (await client.call("DeleteTenant", request)).operation
    async with asyncio.timeout(60):
        while not operation.done:
            asked = pb.GetOperationRequest(operation=operation.id)
            operation = (await client.call("GetOperation", asked)).operation
    return operation


async def definition(server: Server) -> str:
    """An integration that takes an API key."""
    name = fresh_id("api")
    placement = {"headers": {"X-Api-Key": "{api_key}"}}
    await server.admin.create_integration(name, api={"base_url": "https://api.example.com", "placement": placement})
    return name


async def test_a_request_id_makes_a_repeat_the_same_call(server: Server) -> None:
    """With another one, or none, the id is taken; whatever else the repeat says."""
    same = str(uuid.uuid4())
    first = await server.admin.create_tenant(request_id=same, tenant=None)
    again = await server.admin.create_tenant(first.id, request_id=same.upper())
    assert again == first
    for request_id in (str(uuid.uuid4()), ""):
        with refused("ALREADY_EXISTS", tenant=first.id):
            await server.admin.create_tenant(first.id, request_id=request_id)


async def test_of_many_who_create_one_tenant_at_once_one_does(server: Server) -> None:
    """With one request id, all get the same tenant."""
    name, same = fresh_id(), str(uuid.uuid4())
    made = await asyncio.gather(*(server.admin.create_tenant(name, request_id=same) for _ in range(8)))
    assert len({tenant.uid for tenant in made}) == 1
    other = fresh_id()
    tried = await asyncio.gather(*(server.admin.create_tenant(other) for _ in range(8)), return_exceptions=True)
    assert len([one for one in tried if isinstance(one, pb.Tenant)]) == 1
    assert {one.reason for one in tried if isinstance(one, Refused)} == {"ALREADY_EXISTS"}


async def test_validate_only_checks_permission_and_fields_and_changes_nothing(server: Server) -> None:
    """AIP-163."""
    name = fresh_id()
    made = await server.admin.create_tenant(name, validate_only=True)
    assert (made.id, made.etag) == (name, "")
    with refused("TENANT_NOT_FOUND", tenant=name):
        await get(server.admin, name)
    operator = server.client(await server.admin.create_key([access.ROLE_OPERATOR], ["*"]))
    with refused("PERMISSION_DENIED"):
        await operator.create_tenant(name, validate_only=True)
    with pytest.raises(Refused) as caught:
        await server.admin.create_tenant("Not A Label", validate_only=True)
    assert caught.value.fields == ["tenant_id"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tenant": "-a"}, "tenant_id"),
        ({"tenant": "a" * 64}, "tenant_id"),
        ({"tenant": "a.b"}, "tenant_id"),
        ({"tenant": "a/../b"}, "tenant_id"),
        ({"tenant": "\N{CYRILLIC SMALL LETTER A}"}, "tenant_id"),
        ({"request_id": "1"}, "request_id"),
    ],
)
async def test_what_is_wrong_with_a_new_tenant_is_named(server: Server, fields: dict[str, str], named: str) -> None:
    """By its field."""
    with pytest.raises(Refused) as caught:
        await server.admin.create_tenant(**fields)
    assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", [named])


async def test_an_update_follows_its_mask_and_its_etag(server: Server) -> None:
    """Named fields; what is set for no mask; all for `*`; a stale etag is a CONFLICT that changes nothing."""
    first = await server.admin.create_tenant()
    named = await update(server.admin, ["display_name"], id=first.id, display_name="Acme", labels={"a": "b"})
    assert (named.display_name, dict(named.labels), named.uid) == ("Acme", {}, first.uid)
    set_ones = await update(server.admin, [], id=first.id, labels={"a": "b"}, etag=named.etag)
    assert (set_ones.display_name, dict(set_ones.labels)) == ("Acme", {"a": "b"})
    with refused("CONFLICT"):
        await update(server.admin, ["labels"], id=first.id, etag=named.etag)
    every = await update(server.admin, ["*"], id=first.id)
    assert (every.display_name, dict(every.labels)) == (first.id, {})
    for mask in (["uid"], ["display_name", "state"], ["labels.a"], ["*", "labels"]):
        with pytest.raises(Refused) as caught:
            await update(server.admin, mask, id=first.id)
        assert caught.value.fields == ["update_mask"]
    for fields, field in (({"display_name": "x" * 201}, "display_name"), ({"labels": {"a": "\x00"}}, "labels")):
        with pytest.raises(Refused) as caught:
            await update(server.admin, [], id=first.id, **fields)
        assert caught.value.fields == [f"tenant.{field}"]
    assert await get(server.admin, first.id) == every


@pytest.mark.parametrize("label", RESERVED_LABELS)
async def test_labels_of_our_own_are_an_admins_to_change(server: Server, label: str) -> None:
    """An operator neither sets, changes nor removes which file or migration a tenant or credential belongs to."""
    tenant = (await server.admin.create_tenant()).id
    await update(server.admin, ["labels"], id=tenant, labels={label: "ours"})
    operator = await server.app(tenant, role=access.ROLE_OPERATOR)
    for mine in ({label: "theirs", "a": "b"}, {label: ""}):
        with pytest.raises(Refused) as caught:
            await update(operator, ["labels"], id=tenant, labels=mine)
        assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", [f'tenant.labels["{label}"]'])
    for labels in ({"a": "b"}, {"a": "c", label: "ours"}):
        assert dict((await update(operator, ["labels"], id=tenant, labels=labels)).labels) == {**labels, label: "ours"}
    assert dict((await update(operator, ["*"], id=tenant)).labels) == {label: "ours"}
    assert dict((await update(server.admin, ["labels"], id=tenant)).labels) == {}
    with refused("INVALID_FIELD"):
        await update(operator, ["labels"], id=tenant, labels={label: "ours"})


async def test_of_two_that_update_with_one_etag_one_loses(server: Server) -> None:
    """It is told to read again."""
    first = await server.admin.create_tenant()
    both = (update(server.admin, [], id=first.id, display_name=name, etag=first.etag) for name in ("a", "b"))
    done = await asyncio.gather(*both, return_exceptions=True)
    assert [one.reason for one in done if isinstance(one, Refused)] == ["CONFLICT"]


async def test_pages_of_tenants_give_each_once_while_others_are_made(server: Server) -> None:
    """A walk by any page size; an empty token is the end."""
    prefix = fresh_id("page")
    names = [f"{prefix}-{number}" for number in range(7)]
    await asyncio.gather(*(server.admin.create_tenant(name) for name in names))
    for size in (1, 3, 7):
        seen: list[str] = []
        token = prefix
        while token:
            page = await server.admin.call("ListTenants", pb.ListTenantsRequest(page_size=size, page_token=token))
            seen += [tenant.id for tenant in page.tenants if tenant.id.startswith(prefix)]
            token = page.next_page_token
            if token.startswith(prefix):
                await server.admin.create_tenant(f"{prefix}-{len(seen) % 7}-{uuid.uuid4().hex[:8]}")
            else:
                break
            assert len(seen) < 60, "the walk does not end"
        assert len(seen) == len(set(seen))
        assert set(names) <= set(seen)


async def test_a_tenant_with_credentials_is_deleted_by_force_only(server: Server) -> None:
    """And not with a stale etag. The receipt says what was done, and can be asked for again."""
    tenant, integration = await server.admin.create_tenant(), await definition(server)
    await server.admin.store(tenant.id, integration, api_key={"api_key": planted()})
    with refused("NOT_EMPTY", tenant=tenant.id):
        await server.admin.call("DeleteTenant", pb.DeleteTenantRequest(tenant=tenant.id))
    with refused("CONFLICT"):
        await delete(server.admin, tenant.id, etag="99")
    assert (await get(server.admin, tenant.id)).state == pb.Tenant.STATE_ACTIVE
    operation = await delete(server.admin, tenant.id)
    receipt = operation.delete_tenant
    assert (receipt.tenant, receipt.uid, receipt.credentials_purged) == (tenant.id, tenant.uid, 1)
    assert receipt.key_shredded
    again = await server.admin.call("GetOperation", pb.GetOperationRequest(operation=operation.id))
    assert again.operation.delete_tenant == receipt
    with refused("TENANT_NOT_FOUND", tenant=tenant.id):
        await get(server.admin, tenant.id)
    with refused("OPERATION_NOT_FOUND"):
        await server.admin.call("GetOperation", pb.GetOperationRequest(operation="op-none"))


async def test_attacks_30_38_a_deleted_tenants_ciphertext_stays_dead_even_if_it_is_put_back(
    server: Server, openbao: OpenBao
) -> None:
    """Its document, copied before and written back after, does not open: not for nobody, not for the next of that name."""
    tenant, integration = await server.admin.create_tenant(), await definition(server)
    await server.admin.store(tenant.id, integration, api_key={"api_key": planted()})
    token = await openbao.login()
    path = f"secret/data/{tenant.id}/{integration}"
    copied = (await openbao.call("GET", path, token=token)).body["data"]["data"]
    own_client: dict[str, Any] = {
        "integration": {"id": integration, "oauth_client": {"client_id": "c", "client_secret": planted("cs")}}
    }
    await server.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(tenant=tenant.id, **own_client))
    old_app = await server.app(tenant.id)
    operation = await delete(server.admin, tenant.id)
    clients = await openbao.call("GET", f"connectors/data/clients/{tenant.id}.{integration}", token=token)
    assert clients.status == 404, "the tenant's own OAuth client is gone with it"

    await openbao.call("POST", path, {"data": copied}, token=token)
    opened = {"ciphertext": copied["ciphertext"], "context": "eA=="}
    assert (await openbao.call("POST", f"transit/decrypt/{tenant.id}", opened, token=token)).status != 200
    again = await server.admin.create_tenant(tenant.id)
    assert again.uid != tenant.uid
    with refused("CREDENTIAL_NOT_FOUND"):
        await (await server.app(tenant.id)).proxied(tenant.id, integration, "/x")
    forged = copied | {"tenant_uid": again.uid}
    await openbao.call("POST", path, {"data": forged}, token=token)
    with refused("NEEDS_REAUTH"):
        await (await server.app(tenant.id)).proxied(tenant.id, integration, "/x")
    with refused("PERMISSION_DENIED"):
        await old_app.proxied(tenant.id, integration, "/x")
    stored = await server.admin.store(tenant.id, integration, api_key={"api_key": planted()})
    assert stored.state == credentials.Credential.STATE_ACTIVE
    operator = server.client(await server.admin.create_key([access.ROLE_OPERATOR], [tenant.id]))
    with refused("PERMISSION_DENIED"):
        await operator.call("GetOperation", pb.GetOperationRequest(operation=operation.id))


async def test_attack_38_keys_of_a_deleted_tenant_are_worthless_for_the_next_of_its_name(server: Server) -> None:
    """Of every role: not to use it, not to see it, not to make keys for it, not to hear of it."""
    tenant, integration = await server.admin.create_tenant(), await definition(server)
    roles = (access.ROLE_ADMIN, access.ROLE_OPERATOR, access.ROLE_APP, access.ROLE_TOKEN_READER, access.ROLE_SIDECAR)
    old = {role: await server.admin.create_key([role], [tenant.id]) for role in roles}
    await delete(server.admin, tenant.id)
    await server.admin.create_tenant(tenant.id)
    await server.admin.store(tenant.id, integration, api_key={"api_key": planted()})
    named: dict[str, Any] = {"tenant": tenant.id, "credential": integration}
    attempts = [
        (access.ROLE_OPERATOR, "GetTenant", pb.GetTenantRequest(tenant=tenant.id)),
        (access.ROLE_OPERATOR, "SuspendTenant", pb.SuspendTenantRequest(tenant=tenant.id)),
        (access.ROLE_OPERATOR, "GetTenantStatus", pb.GetTenantStatusRequest(tenant=tenant.id)),
        (access.ROLE_OPERATOR, "GetCredential", credentials.GetCredentialRequest(**named)),
        (access.ROLE_OPERATOR, "ListCredentials", credentials.ListCredentialsRequest(tenant=tenant.id)),
        (access.ROLE_OPERATOR, "RevokeCredential", credentials.RevokeCredentialRequest(**named)),
        (access.ROLE_OPERATOR, "RefreshCredential", credentials.RefreshCredentialRequest(**named)),
        (access.ROLE_ADMIN, "DeleteTenant", pb.DeleteTenantRequest(tenant=tenant.id, force=True)),
        (access.ROLE_APP, "Call", proxy.CallRequest(path="/x", **named)),
        (access.ROLE_TOKEN_READER, "FetchAccessToken", credentials.FetchAccessTokenRequest(**named)),
        (access.ROLE_SIDECAR, "Lease", proxy.LeaseRequest(**named)),
        (access.ROLE_ADMIN, "CreateApiKey", key_for(tenant.id)),
        (access.ROLE_OPERATOR, "CreateApiKey", key_for(tenant.id)),
    ]
    for role, rpc, request in attempts:
        with refused("PERMISSION_DENIED"):
            await server.client(old[role]).call(rpc, request)
    listed = await server.client(old[access.ROLE_OPERATOR]).call("ListTenants", pb.ListTenantsRequest())
    assert list(listed.tenants) == []


def key_for(tenant: str) -> access.CreateApiKeyRequest:
    """An app key for a tenant."""
    return access.CreateApiKeyRequest(api_key=access.ApiKey(roles=[access.ROLE_APP], tenants=[tenant]))


async def test_attack_38_a_sidecar_of_a_deleted_tenant_hears_of_its_end_and_not_of_the_next(server: Server) -> None:
    """Events are bound to the uid too."""
    tenant, integration = await server.admin.create_tenant(), await definition(server)
    other = (await server.admin.create_tenant()).id
    watcher = server.client(await server.admin.create_key([access.ROLE_SIDECAR], [tenant.id, other]))
    stub: Any = proxy_service_pb2_grpc.ProxyServiceStub(watcher.channel)
    call = stub.WatchLeases(proxy.WatchLeasesRequest(), metadata=watcher.metadata)
    events = []
    async with asyncio.timeout(60):
        assert (await call.read()).WhichOneof("event") == "resync"
        await delete(server.admin, tenant.id)
        while (event := await call.read()).tenant_changed.tenant != tenant.id:
            pass
        await server.admin.create_tenant(tenant.id)
        await server.admin.store(tenant.id, integration, api_key={"api_key": planted()})
        await server.admin.store(other, integration, api_key={"api_key": planted()})
        while (event := await call.read()).credential_changed.tenant != other:
            events.append(event)
    call.cancel()
    assert [event for event in events if event.HasField("credential_changed")] == []


async def test_a_tenant_of_another_admins_making_is_found_by_its_own_keys_only(server: Server) -> None:
    """An operator of one tenant sees that one, changes it, and freezes it."""
    tenant = await server.admin.create_tenant()
    operator = server.client(await server.admin.create_key([access.ROLE_OPERATOR], [tenant.id]))
    assert (await get(operator, tenant.id)).uid == tenant.uid
    assert (await update(operator, [], id=tenant.id, display_name="Mine")).display_name == "Mine"
    for rpc, state in (("SuspendTenant", pb.Tenant.STATE_SUSPENDED), ("ResumeTenant", pb.Tenant.STATE_ACTIVE)):
        for _ in range(2):
            request = getattr(pb, f"{rpc}Request")(tenant=tenant.id)
            assert (await operator.call(rpc, request)).tenant.state == state
    with refused("PERMISSION_DENIED"):
        await delete(operator, tenant.id)


async def test_what_an_admin_suspended_no_operator_resumes(server: Server) -> None:
    """Nor by suspending it first; an admin's word over an operator's suspension is an admin's; and a batch says it of each."""
    tenant = await server.admin.create_tenant()
    operator = server.client(await server.admin.create_key([access.ROLE_OPERATOR], [tenant.id]))

    async def set_state(client: Client, rpc: str) -> pb.Tenant:
        changed: pb.Tenant = (await client.call(rpc, getattr(pb, f"{rpc}Request")(tenant=tenant.id))).tenant
        return changed

    assert not (await set_state(operator, "SuspendTenant")).admin_suspended
    assert (await set_state(server.admin, "SuspendTenant")).admin_suspended
    assert (await set_state(operator, "SuspendTenant")).admin_suspended
    with refused("PERMISSION_DENIED", denied_by="admin_suspended"):
        await set_state(operator, "ResumeTenant")
    batch = await operator.call("BatchResumeTenants", pb.BatchResumeTenantsRequest(tenants=[tenant.id]))
    assert batch.results[0].error_reason == "PERMISSION_DENIED"
    assert (await get(operator, tenant.id)).state == pb.Tenant.STATE_SUSPENDED
    resumed = await set_state(server.admin, "ResumeTenant")
    assert (resumed.state, resumed.admin_suspended) == (pb.Tenant.STATE_ACTIVE, False)
    await set_state(operator, "SuspendTenant")
    assert (await set_state(operator, "ResumeTenant")).state == pb.Tenant.STATE_ACTIVE


async def test_a_tenants_status_counts_its_credentials(server: Server) -> None:
    """By state, in the words of the contract."""
    tenant, integration = (await server.admin.create_tenant()).id, await definition(server)
    for name in ("a", "b", "c"):
        await server.admin.store(tenant, integration, credential=name, api_key={"api_key": planted()})
    await server.admin.call("RevokeCredential", credentials.RevokeCredentialRequest(tenant=tenant, credential="c"))
    status = await server.admin.call("GetTenantStatus", pb.GetTenantStatusRequest(tenant=tenant))
    assert dict(status.credentials_by_state) == {"active": 2, "revoked": 1}
