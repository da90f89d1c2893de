"""A stranger's authorization server, the certified `oidc-provider`, from the first click to the last refresh.

Its tokens live for a minute, its secret must be form-urlencoded, it rotates refresh tokens and ends the family on reuse.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any
from urllib.parse import quote_plus

import httpx2
import pytest

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from tests.providers import OidcProvider, browser, running_oidc_provider
from tests.running import Client, Refused, Server, fresh_id, refused
from tests.worlds import Canary, ShiftedClock, State, Timed, until

INTEGRATION = fresh_id("stranger")


@dataclass
class Stranger:
    """The provider, our server, and one integration between them. `tenant` is new in each test."""

    server: Server
    clock: ShiftedClock
    provider: OidcProvider
    tenant: str
    app: Client

    async def pass_time(self, seconds: float) -> None:
        """For both."""
        await self.provider.advance(seconds)
        self.clock.advance(seconds)

    async def connect(self, account: str = "alice") -> httpx2.Response:
        """Log in at the provider, consent, and come back; the last page."""
        request = pb.StartAuthorizationRequest(tenant=self.tenant, integration=INTEGRATION)
        link = (await self.server.admin.call("StartAuthorization", request)).connect_url
        async with browser() as person:
            return await person.consent(link, account=account)

    async def me(self) -> Any:
        """Call /api/me with the tenant's token, whatever it is by now."""
        return await self.app.proxied(self.tenant, INTEGRATION, "/api/me")

    async def credential(self) -> pb.Credential:
        """How it is."""
        request = pb.GetCredentialRequest(tenant=self.tenant, credential=INTEGRATION)
        found: pb.Credential = (await self.server.admin.call("GetCredential", request)).credential
        return found

    async def fetch(self) -> pb.FetchAccessTokenResponse:
        """The token itself, by a token-reader."""
        reader = await self.server.app(self.tenant, role=access.ROLE_TOKEN_READER)
        request = pb.FetchAccessTokenRequest(tenant=self.tenant, credential=INTEGRATION)
        got: pb.FetchAccessTokenResponse = await reader.call("FetchAccessToken", request)
        return got


@pytest.fixture(scope="module")
async def provider(timed: Timed) -> AsyncIterator[OidcProvider]:
    """One provider for the module, and the integration that names it."""
    callback = f"{timed.server.http_url}/oauth/callback/{INTEGRATION}"
    async with running_oidc_provider([callback], access_ttl=60) as found:
        await found.advance(timed.clock.offset)
        await timed.server.admin.create_integration(
            INTEGRATION,
            oauth={
                "authorization_endpoint": found.authorization_endpoint,
                "token_endpoint": found.token_endpoint,
                "revocation_endpoint": found.revocation_endpoint,
                "issuer": found.issuer,
                "iss_required": True,
                "scopes": ["openid", "offline_access"],
                "authorization_parameters": {"prompt": "consent"},
            },
            api={"base_url": found.issuer, "identity_path": "/api/me"},
            oauth_client={"client_id": found.client_id, "client_secret": found.client_secret},
            allow_private_addresses=True,
        )
        yield found


@pytest.fixture
async def stranger(timed: Timed, provider: OidcProvider) -> Stranger:
    """A tenant of this test's own, not connected yet. The two clocks are the same."""
    tenant = (await timed.server.admin.create_tenant()).id
    return Stranger(timed.server, timed.clock, provider, tenant, await timed.server.app(tenant))


async def test_a_person_connects_and_the_app_calls(stranger: Stranger, canary: Canary) -> None:
    """Link, login, consent, success page, status without material, a call that the provider's resource accepts."""
    page = await stranger.connect()
    assert page.status_code == 200, page.text
    assert "Connected" in page.text
    listed = await stranger.server.admin.call("ListCredentials", pb.ListCredentialsRequest(tenant=stranger.tenant))
    (credential,) = listed.credentials
    assert (credential.state, credential.generation, credential.refreshable) == (State.STATE_ACTIVE, 1, True)
    assert list(credential.granted_scopes) == ["openid", "offline_access"]
    answer = await stranger.me()
    assert answer.http_status == 200
    assert b'"sub":"alice"' in answer.body
    token = (await stranger.fetch()).access_token
    for seen in (page.text, listed, credential):
        canary.heard(seen)
    assert canary.find(token, stranger.provider.client_secret, stranger.app.key) == []


async def test_one_minute_tokens_are_refreshed_on_the_way_for_ever(stranger: Stranger) -> None:
    """Fifteen lives of a token: each call gets through, though no token outlives two of them."""
    await stranger.connect()
    for _ in range(15):
        await stranger.pass_time(61)
        assert (await stranger.me()).http_status == 200
    credential = await stranger.credential()
    assert credential.state == State.STATE_ACTIVE
    assert credential.generation >= 16


async def test_what_a_token_reader_gets_is_usable_until_it_says(stranger: Stranger) -> None:
    """The token opens the resource now, and its end is within its minute."""
    await stranger.connect()
    await stranger.pass_time(90)
    got = await stranger.fetch()
    left = got.expire_time.ToDatetime(UTC) - stranger.clock.now()
    assert timedelta(0) < left <= timedelta(seconds=60)
    headers = {"Authorization": f"{got.token_type} {got.access_token}"}
    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.get(stranger.provider.api_url, headers=headers)).status_code == 200
        await stranger.provider.advance(61)
        stranger.clock.advance(61)
        assert (await http.get(stranger.provider.api_url, headers=headers)).status_code == 401


async def test_fifty_calls_at_expiry_do_not_trip_reuse_detection(stranger: Stranger) -> None:
    """Attack 26: a second use of one refresh token would end the family; all fifty get through, and so does the next."""
    await stranger.connect()
    await stranger.pass_time(90)
    before = (await stranger.credential()).generation
    answers = await asyncio.gather(*(stranger.me() for _ in range(50)))
    assert {answer.http_status for answer in answers} == {200}
    assert (await stranger.credential()).generation == before + 1
    await stranger.pass_time(90)
    assert (await stranger.me()).http_status == 200


async def test_callers_that_leave_do_not_lose_the_rotated_token(stranger: Stranger) -> None:
    """Attack 27: calls cut off at any moment of the refresh; the family survives all of them."""
    await stranger.connect()
    for step in range(12):
        await stranger.pass_time(90)
        call = asyncio.create_task(stranger.me())
        # VAULT_UNAVAILABLE: our moving the clock took a lease's time away from the flight that held it.
        with contextlib.suppress(asyncio.CancelledError, TimeoutError, Refused):
            async with asyncio.timeout(0.002 * step):
                await call
    await until(lambda: works(stranger))
    await stranger.pass_time(90)
    assert (await stranger.me()).http_status == 200
    assert (await stranger.credential()).state == State.STATE_ACTIVE


async def works(stranger: Stranger) -> bool:
    """Whether a call gets through now. Raises: Refused, unless it is to be tried again."""
    try:
        return bool((await stranger.me()).http_status == 200)
    except Refused as error:
        if error.reason != "VAULT_UNAVAILABLE":
            raise
        return False


async def test_revoked_at_the_provider_needs_a_person_who_restores_it(stranger: Stranger) -> None:
    """NEEDS_REAUTH says what to call; the reconnect makes the next generation, and calls go on."""
    await stranger.connect()
    await revoke_at_the_provider(stranger)
    await stranger.pass_time(90)
    with refused(
        "NEEDS_REAUTH",
        tenant=stranger.tenant,
        integration=INTEGRATION,
        connect_rpc="connectors.v1.CredentialService/StartAuthorization",
    ):
        await stranger.me()
    assert (await stranger.credential()).state == State.STATE_NEEDS_REAUTH
    assert (await stranger.connect("bob")).status_code == 200
    assert b'"sub":"bob"' in (await stranger.me()).body


async def revoke_at_the_provider(stranger: Stranger) -> None:
    """The person takes the grant back in the provider's own settings: simulated by its revocation endpoint."""
    token = (await stranger.fetch()).access_token
    pair = f"{quote_plus(stranger.provider.client_id)}:{quote_plus(stranger.provider.client_secret)}"
    headers = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    async with httpx2.AsyncClient(trust_env=False) as http:
        data = {"token": token}
        reply = await http.post(stranger.provider.revocation_endpoint, data=data, headers=headers)
    assert reply.status_code == 200


async def test_revoking_here_revokes_there(stranger: Stranger) -> None:
    """RFC 7009: the provider says yes, and the credential is not used again."""
    await stranger.connect()
    request = pb.RevokeCredentialRequest(tenant=stranger.tenant, credential=INTEGRATION)
    answer = await stranger.server.admin.call("RevokeCredential", request)
    assert answer.provider_result == pb.RevokeCredentialResponse.PROVIDER_RESULT_REVOKED
    with refused("CREDENTIAL_REVOKED"):
        await stranger.me()


async def test_two_tenants_of_one_provider_never_meet(stranger: Stranger, timed: Timed) -> None:
    """Fifty calls each at once, with tokens that end meanwhile: everybody gets their own account."""
    tenant = (await timed.server.admin.create_tenant()).id
    other = Stranger(stranger.server, stranger.clock, stranger.provider, tenant, await timed.server.app(tenant))
    await stranger.connect("alice")
    await other.connect("bob")
    await stranger.pass_time(90)
    mine, theirs = await asyncio.gather(
        asyncio.gather(*(stranger.me() for _ in range(50))), asyncio.gather(*(other.me() for _ in range(50)))
    )
    assert {b'"sub":"alice"' in answer.body for answer in mine} == {True}
    assert {b'"sub":"bob"' in answer.body for answer in theirs} == {True}


async def test_a_wrong_client_secret_names_the_client(stranger: Stranger, timed: Timed, canary: Canary) -> None:
    """The page says whom to tell; nothing is stored, and the wrong secret is seen nowhere."""
    wrong = f"wrong-{secrets.token_hex(12)}"
    client = integrations.OAuthClient(client_id=stranger.provider.client_id, client_secret=wrong)
    changed = integrations.Integration(id=INTEGRATION, oauth_client=client)
    request = integrations.UpdateIntegrationRequest(integration=changed, tenant=stranger.tenant)
    await timed.server.admin.call("UpdateIntegration", request)
    page = await stranger.connect()
    assert page.status_code == 502
    assert "registration" in page.text
    assert "OAUTH_CLIENT_REFUSED" in page.text
    canary.heard(page.text)
    assert canary.find(wrong, stranger.provider.client_secret) == []
    with refused("CREDENTIAL_NOT_FOUND"):
        await stranger.credential()
