"""Inputs and discoveries over the API, as a platform and a tenant's person meet them: the server, its Vault, a provider."""

from __future__ import annotations

import pytest
import pytest_asyncio

from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.http import pages
from tests.browser import browser
from tests.running import refused
from tests.worlds import World

VERSION = integrations.Input(id="version", title="API version", pattern="v[0-9]", example="v1")


@pytest_asyncio.fixture(loop_scope="session")
async def asking(world: World) -> World:
    """A world whose integration asks for a part of its URLs, and looks up who consented."""
    wanted = integrations.Integration(
        id=world.integration,
        inputs=[VERSION],
        api=integrations.Api(
            base_url=f"{world.sim.url}/{{version}}", identity_path="/whoami", account_pointer="/account"
        ),
    )
    wanted.oauth.CopyFrom((await integration(world)).oauth)
    wanted.oauth.revocation_endpoint = ""
    wanted.oauth.revocation.url = f"{world.sim.url}/revoke"
    for name, text in (("token", "{access_token}"), ("client_id", "{client_id}"), ("client_secret", "{client_secret}")):
        wanted.oauth.revocation.parameters[name] = text
    wanted.oauth.discovery.add(id="person", url=f"{world.sim.url}/v1/whoami", pointer="/account", example="alice")
    await world.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=wanted))
    return world


async def integration(world: World) -> integrations.Integration:
    """The definition as an admin reads it."""
    request = integrations.GetIntegrationRequest(integration=world.integration)
    found: integrations.Integration = (await world.admin.call("GetIntegration", request)).integration
    return found


async def test_what_is_given_and_found_leads_every_call(asking: World) -> None:
    """From the link to the page, consent, a call, a lease and the end: the tenant's values are in every URL and on the record."""
    assert (await integration(asking)).inputs[0] == VERSION
    with refused("INVALID_FIELD"):
        await asking.link()
    link = await asking.link(inputs={"version": "v1"})
    async with browser() as person:
        page = await person.client.get(link)
        assert "API version: v1" in page.text
        await person.consent(link, account="alice")
    credential = await asking.credential()
    assert dict(credential.values) == {"version": "v1", "person": "alice"}
    assert credential.account == "alice"
    reply = await asking.app.proxied(asking.tenant, asking.integration, "/whoami")
    assert reply.http_status == 200
    await asking.refresh()
    assert (await asking.app.proxied(asking.tenant, asking.integration, "/whoami")).http_status == 200
    request = pb.RevokeCredentialRequest(tenant=asking.tenant, integration=asking.integration)
    result = (await asking.admin.call("RevokeCredential", request)).provider_result
    assert result == pb.RevokeCredentialResponse.PROVIDER_RESULT_REVOKED


async def test_a_lease_has_the_tenants_own_address(asking: World) -> None:
    """The sidecar never sees a placeholder."""
    await asking.connect(inputs={"version": "v1"})
    request = proxy.LeaseRequest(tenant=asking.tenant, credential=asking.integration)
    lease = (await asking.server.sidecar.call("Lease", request)).lease
    assert lease.base_url == f"{asking.sim.url}/v1"


@pytest.mark.parametrize(
    ("metadata", "advice"),
    [
        ({"problem": "discovery_several", "input": "site"}, "several sites"),
        ({"problem": "discovery_refused"}, "does not take"),
        ({"problem": "code_missing"}, "The access was not granted"),
        ({}, "The access was not granted"),
    ],
    ids=str,
)
def test_a_person_is_told_what_to_do_when_nothing_usable_was_found(metadata: dict[str, str], advice: str) -> None:
    """Consent was given, so that consenting again would not help by itself."""
    assert advice in pages.problem(ConnectorsError(Reason.AUTHORIZATION_REFUSED, metadata))


async def test_stored_tokens_bring_their_values(asking: World) -> None:
    """An import says what consent would have found; what it says wrong is refused by name, and nothing is stored."""
    material = pb.OAuthMaterial(access_token="imported-token")
    with refused("INVALID_FIELD"):
        await asking.admin.store(asking.tenant, asking.integration, oauth=material, inputs={"version": "2"})
    stored = await asking.admin.store(
        asking.tenant, asking.integration, oauth=material, inputs={"version": "v1", "person": "alice"}
    )
    assert dict(stored.values) == {"version": "v1", "person": "alice"}
