"""Integrations: made, listed, changed, given back to the catalogue, deleted; and OAuth clients, the platform's and a tenant's."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from tests.canary import planted
from tests.running import Client, Refused, Server, fresh_id, refused

pytestmark = pytest.mark.usefixtures("heard")
OAUTH: dict[str, Any] = {
    "authorization_endpoint": "https://id.example.com/authorize",
    "token_endpoint": "https://id.example.com/token",
}
API: dict[str, Any] = {"base_url": "https://api.example.com"}
SECRET_FIELD = "integration.oauth_client.client_secret"
UNUSED = "figma"
"""An entry of the catalogue that no other test touches."""


async def get(client: Client, integration: str, tenant: str = "") -> pb.Integration:
    """GetIntegration."""
    request = pb.GetIntegrationRequest(integration=integration, tenant=tenant)
    found: pb.Integration = (await client.call("GetIntegration", request)).integration
    return found


async def update(
    client: Client, integration: str, mask: tuple[str, ...] = (), tenant: str = "", **fields: Any
) -> pb.Integration:
    """UpdateIntegration."""
    request = pb.UpdateIntegrationRequest(integration=pb.Integration(id=integration, **fields), tenant=tenant)
    request.update_mask.paths.extend(mask)
    changed: pb.Integration = (await client.call("UpdateIntegration", request)).integration
    return changed


async def delete(client: Client, integration: str, **fields: Any) -> None:
    """DeleteIntegration."""
    await client.call("DeleteIntegration", pb.DeleteIntegrationRequest(integration=integration, **fields))


async def names(client: Client, page_size: int = 0) -> list[str]:
    """ListIntegrations, to its end."""
    found: list[str] = []
    token = ""
    while True:
        page = await client.call("ListIntegrations", pb.ListIntegrationsRequest(page_size=page_size, page_token=token))
        found += [integration.id for integration in page.integrations]
        token = page.next_page_token
        if not token:
            return found


async def made(server: Server, **fields: Any) -> pb.Integration:
    """One of the test's own, with a client."""
    client = {"client_id": "ours", "client_secret": planted("cs")}
    given = {"oauth": OAUTH, "api": API, "oauth_client": client} | fields
    return await server.admin.create_integration(fresh_id("wiki"), **given)


async def test_what_was_created_is_read_back_without_its_secret(server: Server) -> None:
    """By id and in the list; the secret is only said to be there."""
    created = await made(server, display_name="Wiki")
    assert await get(server.admin, created.id) == created
    assert (created.display_name, created.source) == ("Wiki", pb.Integration.SOURCE_CREATED)
    assert created.oauth_client.client_id == "ours"
    assert created.oauth_client.client_secret_set
    assert created.oauth_client.client_secret == ""
    assert created.HasField("create_time")
    assert created.etag


async def test_a_page_walk_gives_each_integration_once(server: Server) -> None:
    """Catalogue and created, by id, whatever the page's size."""
    own = {(await made(server)).id for _ in range(3)}
    walked = await names(server.admin, 2)
    assert walked == sorted(set(walked))
    assert own | {UNUSED, "notion"} <= set(walked)
    assert walked == await names(server.admin)
    with refused("INVALID_PAGE_TOKEN"):
        await server.admin.call("ListIntegrations", pb.ListIntegrationsRequest(page_token="No Label"))
    with refused("INVALID_FIELD"):
        await server.admin.call("ListIntegrations", pb.ListIntegrationsRequest(page_size=-1))


async def test_a_request_id_makes_a_repeat_the_same_call(server: Server) -> None:
    """With another one, or none, the id is taken."""
    name, same = fresh_id("wiki"), str(uuid.uuid4())

    async def create(request_id: str) -> pb.Integration:
        wanted = pb.CreateIntegrationRequest(
            integration_id=name, integration=pb.Integration(api=pb.Api(**API)), request_id=request_id
        )
        created: pb.Integration = (await server.admin.call("CreateIntegration", wanted)).integration
        return created

    first = await create(same)
    assert await create(same.upper()) == first
    for other in (str(uuid.uuid4()), ""):
        with refused("ALREADY_EXISTS", integration=name):
            await create(other)


async def test_validate_only_checks_and_changes_nothing(server: Server) -> None:
    """The answer is what would be; afterwards there is nothing."""
    name = fresh_id("wiki")
    for api, reason in ((API, None), (API | {"base_url": "http://api.example.com"}, "INVALID_FIELD")):
        wanted = pb.CreateIntegrationRequest(
            integration_id=name, integration=pb.Integration(api=pb.Api(**api)), validate_only=True
        )
        if reason is None:
            answer = await server.admin.call("CreateIntegration", wanted)
            assert answer.integration.api.base_url == API["base_url"]
        else:
            with refused(reason):
                await server.admin.call("CreateIntegration", wanted)
        with refused("INTEGRATION_NOT_FOUND", integration=name):
            await get(server.admin, name)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "integration.api"),
        ({"api": {"base_url": "http://api.example.com"}}, "integration.api.base_url"),
        ({"api": API, "oauth": OAUTH | {"token_endpoint": "id.example.com"}}, "integration.oauth.token_endpoint"),
        ({"api": API, "display_name": "a\nb"}, "integration.display_name"),
        ({"api": API, "oauth": OAUTH, "oauth_client": {"client_secret": "s"}}, "integration.oauth_client.client_id"),
    ],
    ids=["nothing", "plain http", "no URL", "a line break", "a client without id"],
)
async def test_what_is_wrong_is_named(server: Server, fields: dict[str, Any], named: str) -> None:
    """And nothing is stored."""
    name = fresh_id("wiki")
    with pytest.raises(Refused) as caught:
        await server.admin.create_integration(name, **fields)
    assert caught.value.reason == "INVALID_FIELD"
    assert named in caught.value.fields
    with refused("INTEGRATION_NOT_FOUND"):
        await get(server.admin, name)


async def test_a_stale_etag_changes_and_deletes_nothing(server: Server) -> None:
    """The current one does both; what is no etag is a stale one."""
    first = await made(server)
    second = await update(server.admin, first.id, display_name="Two", etag=first.etag)
    assert second.etag != first.etag
    for etag in (first.etag, "nonsense", "0"):
        with refused("CONFLICT"):
            await update(server.admin, first.id, display_name="Three", etag=etag)
        with refused("CONFLICT"):
            await delete(server.admin, first.id, etag=etag)
    assert await get(server.admin, first.id) == second
    await delete(server.admin, first.id, etag=second.etag)
    with refused("INTEGRATION_NOT_FOUND", integration=first.id):
        await get(server.admin, first.id)
    with refused("INTEGRATION_NOT_FOUND", integration=first.id):
        await delete(server.admin, first.id)
    with refused("INTEGRATION_NOT_FOUND", integration=first.id):
        await update(server.admin, first.id, display_name="Four")


async def test_a_mask_names_what_changes(server: Server) -> None:
    """Without one, what is set; what is named and unset is cleared; what is not known is refused."""
    first = await made(server, display_name="Wiki")
    renamed = await update(server.admin, first.id, display_name="Other")
    assert (renamed.display_name, renamed.oauth, renamed.api) == ("Other", first.oauth, first.api)
    assert renamed.oauth_client == first.oauth_client
    cleared = await update(server.admin, first.id, ("display_name", "oauth_client"))
    assert cleared.display_name == first.id
    assert not cleared.HasField("oauth_client")
    moved = await update(server.admin, first.id, ("api",), api={"base_url": "https://b.example.com"}, display_name="No")
    assert (moved.api.base_url, moved.display_name) == ("https://b.example.com", first.id)
    for unknown in ("verified", "create_time", "nope", "api.base_url"):
        with pytest.raises(Refused) as caught:
            await update(server.admin, first.id, (unknown,))
        assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", ["update_mask"])
    all_of_it = await update(server.admin, first.id, ("*",), api=API)
    assert not all_of_it.HasField("oauth")


async def test_of_two_who_change_different_fields_at_once_none_is_undone(server: Server) -> None:
    """Either both changes are there, or the second is told to read again."""
    first = await made(server)
    answers = await asyncio.gather(
        update(server.admin, first.id, display_name="Named"),
        update(server.admin, first.id, api={"base_url": "https://b.example.com"}),
        return_exceptions=True,
    )
    assert {one.reason for one in answers if isinstance(one, Refused)} <= {"CONFLICT"}
    now = await get(server.admin, first.id)
    assert (now.display_name == "Named") == isinstance(answers[0], pb.Integration)
    assert (now.api.base_url == "https://b.example.com") == isinstance(answers[1], pb.Integration)


async def test_a_client_of_the_same_id_keeps_its_secret(server: Server) -> None:
    """What GetIntegration gave can be sent back; for another id the old secret is never used."""
    first = await made(server)
    kept = await update(server.admin, first.id, oauth_client={"client_id": "ours"})
    assert kept.oauth_client.client_secret_set
    with pytest.raises(Refused) as caught:
        await update(server.admin, first.id, oauth_client={"client_id": "another"})
    assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", [SECRET_FIELD])
    assert await get(server.admin, first.id) == kept
    changed = await update(
        server.admin, first.id, oauth_client={"client_id": "another", "client_secret": planted("cs")}
    )
    assert changed.oauth_client.client_id == "another"


async def test_a_public_client_needs_no_secret(server: Server) -> None:
    """`client_authentication` NONE: the id may change, and no secret is taken along."""
    public = OAUTH | {"client_authentication": pb.CLIENT_AUTHENTICATION_NONE}
    first = await made(server, oauth=public)
    changed = await update(server.admin, first.id, oauth_client={"client_id": "another"})
    assert changed.oauth_client.client_id == "another"
    assert not changed.oauth_client.client_secret_set


async def test_the_catalogue_is_overridden_and_given_back(server: Server) -> None:
    """A client takes an entry into use, a definition of one's own stands in front of it, and deletion gives the entry back."""
    entry = await get(server.admin, UNUSED)
    assert (entry.source, entry.etag) == (pb.Integration.SOURCE_CATALOGUE, "")
    assert not entry.HasField("create_time")
    with refused("INTEGRATION_NOT_FOUND"):
        await delete(server.admin, UNUSED)
    client = {"client_id": "ours", "client_secret": planted("cs")}
    used = await server.admin.create_integration(UNUSED, oauth_client=client)
    try:
        assert used.source == pb.Integration.SOURCE_CATALOGUE
        assert (used.oauth, used.api) == (entry.oauth, entry.api)
        assert used.oauth_client.client_secret_set
        with refused("ALREADY_EXISTS", integration=UNUSED):
            await server.admin.create_integration(UNUSED, oauth_client=client)
        own = await update(server.admin, UNUSED, api=API)
        assert (own.source, own.api.base_url) == (pb.Integration.SOURCE_CREATED, API["base_url"])
        assert own.oauth == entry.oauth
        assert not own.verified
        assert own.oauth_client == used.oauth_client
        back = await update(server.admin, UNUSED, ("oauth", "api"))
        assert (back.source, back.oauth, back.api) == (pb.Integration.SOURCE_CATALOGUE, entry.oauth, entry.api)
        assert back.oauth_client == used.oauth_client
    finally:
        await delete(server.admin, UNUSED)
    assert await get(server.admin, UNUSED) == entry


async def test_an_entry_of_the_catalogue_is_taken_into_use_by_an_update_too(server: Server) -> None:
    """Nothing is stored before; the update makes it."""
    client = {"client_id": "ours", "client_secret": planted("cs")}
    try:
        used = await update(server.admin, UNUSED, oauth_client=client)
        assert used.oauth_client.client_id == "ours"
        assert used.etag
    finally:
        await delete(server.admin, UNUSED)


async def test_attack_37_a_tenants_own_client_changes_id_and_secret_only(server: Server) -> None:
    """Its operator may bring a client, and can point nothing elsewhere; the platform's stays, for everybody else."""
    platform = await made(server)
    tenant = (await server.admin.create_tenant()).id
    operator = await server.app(tenant, access.ROLE_OPERATOR)
    client = {"client_id": "theirs", "client_secret": planted("cs")}
    own = await update(operator, platform.id, tenant=tenant, oauth_client=client)
    assert own.oauth_client.client_id == "theirs"
    assert (own.oauth, own.api) == (platform.oauth, platform.api)
    assert await get(server.admin, platform.id) == platform
    elsewhere = OAUTH | {"token_endpoint": "https://evil.example.com/token"}
    for fields in (
        {"oauth": elsewhere},
        {"oauth": elsewhere, "oauth_client": client},
        {"api": {"base_url": "https://evil.example.com"}},
        {"allow_private_addresses": True},
        {"display_name": "Mine"},
        {},
    ):
        with pytest.raises(Refused) as caught:
            await update(operator, platform.id, tenant=tenant, **fields)
        assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", ["update_mask"])
    with refused("PERMISSION_DENIED"):
        await update(operator, platform.id, oauth_client=client)
    other = (await server.admin.create_tenant()).id
    with refused("PERMISSION_DENIED"):
        await update(operator, platform.id, tenant=other, oauth_client=client)
    assert not (await get(server.admin, platform.id, other)).HasField("oauth_client")


async def test_a_tenants_client_of_the_same_id_keeps_its_secret(server: Server) -> None:
    """The platform's secret is never its: without one of its own, a tenant's client has none to keep."""
    platform = await made(server)
    tenant = (await server.admin.create_tenant()).id
    with pytest.raises(Refused) as caught:
        await update(server.admin, platform.id, tenant=tenant, oauth_client={"client_id": "ours"})
    assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", [SECRET_FIELD])
    client = {"client_id": "theirs", "client_secret": planted("cs")}
    await update(server.admin, platform.id, tenant=tenant, oauth_client=client)
    kept = await update(server.admin, platform.id, tenant=tenant, oauth_client={"client_id": "theirs"})
    assert kept.oauth_client.client_secret_set
    with pytest.raises(Refused) as caught:
        await update(server.admin, platform.id, tenant=tenant, oauth_client={"client_id": "another"})
    assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", [SECRET_FIELD])


async def test_a_tenant_without_a_client_of_its_own_has_none_to_delete(server: Server) -> None:
    """INTEGRATION_NOT_FOUND, before and after; the integration itself stays."""
    platform = await made(server)
    tenant = (await server.admin.create_tenant()).id
    with refused("INTEGRATION_NOT_FOUND", integration=platform.id, tenant=tenant):
        await delete(server.admin, platform.id, tenant=tenant)
    client = {"client_id": "theirs", "client_secret": planted("cs")}
    await update(server.admin, platform.id, tenant=tenant, oauth_client=client)
    await delete(server.admin, platform.id, tenant=tenant)
    with refused("INTEGRATION_NOT_FOUND", integration=platform.id, tenant=tenant):
        await delete(server.admin, platform.id, tenant=tenant)
    assert await get(server.admin, platform.id) == platform


async def test_a_deleted_integrations_credentials_stop_working_and_stay(server: Server) -> None:
    """They are listed, can't be used, and work again when the integration is back."""
    name = fresh_id("api")
    placement = {"headers": {"X-Api-Key": "{api_key}"}}
    tenant = (await server.admin.create_tenant()).id
    api = {"base_url": "https://api.example.com", "placement": placement}
    await server.admin.create_integration(name, api=api)
    await server.admin.store(tenant, name, api_key={"api_key": planted("k")})
    await delete(server.admin, name)
    wanted = proxy.LeaseRequest(tenant=tenant, credential=name)
    with refused("INTEGRATION_NOT_FOUND"):
        await server.sidecar.call("Lease", wanted)
    listed = await server.admin.call("ListCredentials", credentials.ListCredentialsRequest(tenant=tenant))
    assert [one.id for one in listed.credentials] == [name]
    await server.admin.create_integration(name, api=api)
    assert (await server.sidecar.call("Lease", wanted)).lease.generation == 1
