"""Material that lies in the Vault already: read from the tenant's own folder, stored like any other, and no way to another's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.gen.connectors.v1.access_service_pb2 import ROLE_OPERATOR
from tests.canary import planted
from tests.openbao import OpenBao
from tests.running import Refused, Server, fresh_id, refused
from tests.worlds import Canary

pytestmark = pytest.mark.usefixtures("heard")


async def lay(openbao: OpenBao, path: str, **texts: Any) -> None:
    """Write a document, as an operator does with `bao kv put`."""
    reply = await openbao.call("PUT", f"secret/data/{path}", {"data": texts}, await openbao.login())
    assert reply.status == 200


async def home(server: Server, template: str = "{api_key}") -> tuple[str, str]:
    """A tenant, and an integration whose header that template fills."""
    api = {"base_url": "https://api.notes.example", "placement": {"headers": {"X-Any": template}}}
    made = await server.admin.create_integration(fresh_id("any"), api=api)
    return (await server.admin.create_tenant()).id, made.id


async def header(server: Server, tenant: str, credential: str) -> str:
    """What a sidecar would put in."""
    from connectors_grpc.gen.connectors.v1.proxy_service_pb2 import LeaseRequest

    lease = (await server.sidecar.call("Lease", LeaseRequest(tenant=tenant, credential=credential))).lease
    return str(lease.headers[0].value)


@pytest.mark.parametrize(
    ("template", "texts", "filled", "kind"),
    [
        ("{api_key} {region}", {"api_key": "KEY", "region": "eu"}, "KEY eu", pb.Credential.KIND_API_KEY),
        ("{username}/{password}", {"username": "ada", "password": "KEY"}, "ada/KEY", pb.Credential.KIND_BASIC),
        (
            "{access_token}",
            {"access_token": "KEY", "scopes": ["read", "write"], "expire_time": "2999-01-01T00:00:00Z"},
            "KEY",
            pb.Credential.KIND_OAUTH,
        ),
    ],
)
async def test_a_document_of_the_tenants_own_is_stored_from_by_its_fields_names(
    server: Server, openbao: OpenBao, template: str, texts: dict[str, Any], filled: str, kind: int
) -> None:
    """An API key with what else templates name, a user name and password, a token: sealed like any other, the document stays."""
    secret = planted()
    texts = {name: secret if text == "KEY" else text for name, text in texts.items()}
    tenant, notes = await home(server, template)
    await lay(openbao, f"{tenant}/notes.seed", **texts)
    stored = await server.admin.store(tenant, notes, vault=pb.VaultMaterial(path=f"secret/data/{tenant}/notes.seed"))
    assert stored.kind == kind
    assert await header(server, tenant, notes) == filled.replace("KEY", secret)
    if kind == pb.Credential.KIND_OAUTH:
        assert (list(stored.granted_scopes), stored.expire_time.seconds > 0) == (["read", "write"], True)


async def test_another_tenants_path_is_refused_unread(server: Server, openbao: OpenBao, canary: Canary) -> None:
    """Whatever it is spelled like: not by an operator of the one, not by an admin, and with no word on what is there."""
    secret = planted()
    (tenant, notes), (other, _) = await home(server), await home(server)
    await lay(openbao, f"{other}/notes.seed", api_key=secret)
    operator = await server.app(tenant, role=ROLE_OPERATOR)
    for path in (
        f"secret/data/{other}/notes.seed",
        f"secret/data/{other}/there-is-none",
        f"secret/data/{tenant}/../{other}/notes.seed",
        f"secret/data/{tenant}/%2e%2e/{other}/notes.seed",
        f"secret/data/{tenant}/",
        f"secret/data/{tenant}/.",
        f"secret/data/{tenant}/a/b",
        f"connectors/data/tenants/{tenant}",
        f"/secret/data/{tenant}/notes.seed",
        f"{tenant}/notes.seed",
        "",
    ):
        for client in (operator, server.admin):
            with pytest.raises(Refused) as caught:
                await client.store(tenant, notes, vault=pb.VaultMaterial(path=path))
            assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", ["vault.path"]), path
            canary.heard(f"{caught.value.text} {caught.value}")
    assert canary.find(secret) == []


@pytest.mark.parametrize(
    "texts",
    [
        {"api_key": 7},
        {"api_key": {"nested": "x"}},
        {"api_key": "with\nline"},
        {"password": "without its name"},
        {"access_token": "t", "api-key": "x"},
        {"access_token": "t", "expire_time": "yesterday"},
        {"client_secret": "nobody asked for it"},
    ],
)
async def test_a_document_that_is_no_material_is_refused_without_a_word_of_it(
    server: Server, openbao: OpenBao, texts: dict[str, Any]
) -> None:
    """Numbers, lines, unknown names, half a pair."""
    tenant, notes = await home(server)
    await lay(openbao, f"{tenant}/notes.seed", **texts)
    with pytest.raises(Refused) as caught:
        await server.admin.store(tenant, notes, vault=pb.VaultMaterial(path=f"secret/data/{tenant}/notes.seed"))
    assert (caught.value.reason, caught.value.fields[0].partition(".")[0]) in (
        ("INVALID_FIELD", "vault"),
        ("INVALID_FIELD", "material"),
    )


async def test_a_credential_is_no_document_to_store_from(server: Server, openbao: OpenBao) -> None:
    """Neither another one nor itself; and where nothing lies, that is said."""
    tenant, notes = await home(server)
    await server.admin.store(tenant, notes, api_key={"api_key": planted()})
    await lay(openbao, f"{tenant}/second", api_key=planted())
    for name, credential in ((notes, "second"), ("second", "second"), ("none", notes)):
        with refused("INVALID_FIELD", field="vault.path"):
            path = f"secret/data/{tenant}/{name}"
            await server.admin.store(tenant, notes, credential=credential, vault=pb.VaultMaterial(path=path))


async def test_documents_beside_credentials_are_in_nobodys_way_and_go_with_the_tenant(
    server: Server, openbao: OpenBao
) -> None:
    """Lists and counts do not show them; an import from one says unchanged until it changes; deletion purges them too."""
    tenant, notes = await home(server)
    path = f"secret/data/{tenant}/notes.seed"
    await lay(openbao, f"{tenant}/notes.seed", api_key=planted())
    await server.admin.store(tenant, notes, vault=pb.VaultMaterial(path=path))
    listed = (await server.admin.call("ListCredentials", pb.ListCredentialsRequest(tenant=tenant))).credentials
    assert [credential.id for credential in listed] == [notes]
    status = await server.admin.call("GetTenantStatus", tenants.GetTenantStatusRequest(tenant=tenant))
    assert dict(status.credentials_by_state) == {"active": 1}
    begun = await server.admin.call("DeleteTenant", tenants.DeleteTenantRequest(tenant=tenant, force=True))
    async with asyncio.timeout(60):
        while not begun.operation.done:
            begun = await server.admin.call("GetOperation", tenants.GetOperationRequest(operation=begun.operation.id))
    assert (await openbao.call("GET", path, token=await openbao.login())).status == 404


async def test_an_oauth_client_that_is_there_is_not_written_again(server: Server) -> None:
    """Of the platform as of a tenant: the etag stays, and the answer says so; any other part of it is a change."""
    name = fresh_id("api")
    oauth = {"authorization_endpoint": "https://notes.example/a", "token_endpoint": "https://notes.example/t"}
    client = integrations.OAuthClient(client_id="c", client_secret=planted("cs"), client_secrets=[planted("cs")])
    api = {"base_url": "https://api.notes.example"}
    made = await server.admin.create_integration(name, oauth=oauth, api=api, oauth_client=client)
    tenant = (await server.admin.create_tenant()).id

    async def update(wanted: integrations.OAuthClient, **fields: Any) -> integrations.UpdateIntegrationResponse:
        request = integrations.UpdateIntegrationRequest(
            integration=integrations.Integration(id=name, oauth_client=wanted), **fields
        )
        answer: integrations.UpdateIntegrationResponse = await server.admin.call("UpdateIntegration", request)
        return answer

    same = await update(client)
    assert (same.unchanged, same.integration.etag) == (True, made.etag)
    assert not (await update(client, tenant=tenant, validate_only=True)).unchanged
    assert not (await update(client, tenant=tenant)).unchanged
    for asked in (True, False):
        assert (await update(client, tenant=tenant, validate_only=asked)).unchanged
    changed = [
        integrations.OAuthClient(client_id="c", client_secret=client.client_secret),
        integrations.OAuthClient(client_id="c", client_secret=planted("cs"), client_secrets=client.client_secrets),
        integrations.OAuthClient(
            client_id="d", client_secret=client.client_secret, client_secrets=client.client_secrets
        ),
    ]
    for other in changed:
        for fields in ({"tenant": tenant}, {}):
            answer = await update(other, validate_only=True, **fields)
            assert not answer.unchanged
            assert (await update(client, validate_only=True, **fields)).unchanged, "nothing was changed by asking"


async def test_only_an_admin_is_told_whether_a_client_secret_is_the_stored_one(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each answer is a line of the audit log, without the secret."""
    name, secret = fresh_id("api"), planted("cs")
    api = {"base_url": "https://api.notes.example"}
    oauth = {"authorization_endpoint": "https://notes.example/a", "token_endpoint": "https://notes.example/t"}
    await server.admin.create_integration(name, oauth=oauth, api=api)
    tenant = (await server.admin.create_tenant()).id
    client = integrations.OAuthClient(client_id="c", client_secret=secret)
    request = integrations.UpdateIntegrationRequest(
        integration=integrations.Integration(id=name, oauth_client=client), tenant=tenant
    )
    operator = await server.app(tenant, role=ROLE_OPERATOR)
    await operator.call("UpdateIntegration", request)
    request.validate_only = True
    with refused("PERMISSION_DENIED"):
        await operator.call("UpdateIntegration", request)
    capfd.readouterr()
    await server.admin.call("UpdateIntegration", request)
    told = capfd.readouterr().out
    (line,) = [each for each in told.splitlines() if "CompareIntegration" in each]
    assert "equal" in line
    assert secret not in told
