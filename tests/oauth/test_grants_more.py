"""Minted credentials beyond the happy path: exchanges that end, keys of a tenant's own, rotations of what seals them."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from tests.oauth.test_grants_flows import DEVICE, KEYS, Setting, github, made, made_for_devices, pem, raw
from tests.providers import UpstreamRequest, recording_upstream
from tests.running import Refused, refused
from tests.worlds import Canary, State, Timed

ME = raw({"ok": True})


def sent(request: UpstreamRequest) -> dict[str, str]:
    """The form of a token request."""
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


async def call(setting: Setting) -> int:
    """Call the API; its status."""
    reply = await (await setting.app()).proxied(setting.tenant, setting.integration, "/api")
    return int(reply.http_status)


async def test_a_service_account_signs_for_its_subject(timed: Timed) -> None:
    """RFC 7523 as Google takes it; a refusal is the client's, told with its code, and cured by a good answer."""
    async with recording_upstream() as google:
        setting = await made(
            timed,
            oauth={
                "grant": integrations.GRANT_JWT_BEARER,
                "token_endpoint": f"{google.url}/token",
                "client_authentication": integrations.CLIENT_AUTHENTICATION_NONE,
                "scopes": ["drive"],
                "assertion_claims": {"iss": "{client_id}", "sub": "{subject}", "scope": "{scope}"},
            },
            api={"base_url": google.url},
            oauth_client={"client_id": "robot", "client_secret": pem(KEYS[0]), "key_id": "k"},
        )
        await setting.mint(subject="ann@corp.example", scopes=["mail"])
        google.replies = [raw({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)]
        with refused("OAUTH_CLIENT_REFUSED", oauth_error="invalid_grant"):
            await call(setting)
        assert (await setting.credential()).state == State.STATE_ACTIVE
        await setting.pass_time(120)
        google.replies = [raw({"access_token": "ya29", "expires_in": 3599}), ME]
        assert await call(setting) == 200
        asked = sent(google.requests[-2])
        found = jwt.decode(asked["assertion"], RSAKey.import_key(KEYS[0]), algorithms=["RS256"])
        assert found.header["kid"] == "k"
        assert found.claims.items() >= {"iss": "robot", "sub": "ann@corp.example", "scope": "mail"}.items()
        assert google.requests[-1].header("Authorization") == ["Bearer ya29"]
        assert list((await setting.credential()).granted_scopes) == ["mail"]


async def exchange(timed: Timed, url: str) -> Setting:
    """An integration whose tokens are exchanged."""
    return await made(
        timed,
        oauth={"grant": integrations.GRANT_TOKEN_EXCHANGE, "token_endpoint": f"{url}/token"},
        api={"base_url": url},
        oauth_client={"client_id": "me", "client_secret": "s3cret"},
    )


async def test_after_an_exchange_a_refresh_token_goes_first(timed: Timed) -> None:
    """The subject token may have ended by then."""
    async with recording_upstream() as provider:
        setting = await exchange(timed, provider.url)
        await setting.mint(subject_token="theirs")
        provider.replies = [raw({"access_token": "a1", "refresh_token": "r1", "expires_in": 600}), ME]
        assert await call(setting) == 200
        await setting.pass_time(601)
        provider.replies = [raw({"access_token": "a2", "expires_in": 600}), ME]
        assert await call(setting) == 200
        first, second = sent(provider.requests[0]), sent(provider.requests[2])
        assert (first["subject_token"], second["grant_type"], second["refresh_token"]) == (
            "theirs",
            "refresh_token",
            "r1",
        )


async def test_a_subject_token_that_ended_needs_another_and_is_told_to_nobody(timed: Timed, canary: Canary) -> None:
    """Terminal: one request, then none until another is stored."""
    async with recording_upstream() as provider:
        setting = await exchange(timed, provider.url)
        await setting.mint(subject_token="subject-token-canary")
        provider.reply = raw({"error": "invalid_grant", "error_description": "subject-token-canary"}, 400)
        for _ in range(3):
            with pytest.raises(Refused) as caught:
                await call(setting)
            assert caught.value.reason == "NEEDS_REAUTH"
            canary.heard(caught.value)
        assert len(provider.requests) == 1
        canary.heard(await setting.credential())
        assert canary.find("subject-token-canary") == []


async def test_two_who_ask_for_one_device_at_once_get_one_credential(timed: Timed) -> None:
    """They share the one question to the provider."""
    async with recording_upstream() as provider:
        setting = await made_for_devices(timed, provider)
        gate = asyncio.Event()

        async def slow(_: UpstreamRequest) -> bytes:
            await gate.wait()
            return raw({"access_token": "at"})

        provider.replies = [raw(DEVICE), slow]
        started = await setting.start(device=True)
        await setting.pass_time(5)
        both = [asyncio.create_task(setting.complete(started.state)) for _ in range(2)]
        await provider.seen(2)
        gate.set()
        first, second = await asyncio.gather(*both)
        assert first == second
        assert len(provider.requests) == 2


async def test_an_answer_that_breaks_off_leaves_the_device_to_be_asked_for_again(timed: Timed) -> None:
    """UNAVAILABLE, and the flow is still there."""
    async with recording_upstream() as provider:
        setting = await made_for_devices(timed, provider)
        provider.replies = [raw(DEVICE), b"", raw({}, 503), raw({"access_token": "at"})]
        started = await setting.start(device=True)
        for _ in range(2):
            await setting.pass_time(5)
            with refused("PROVIDER_UNAVAILABLE"):
                await setting.complete(started.state)
        await setting.pass_time(5)
        assert (await setting.complete(started.state)).state == State.STATE_ACTIVE


async def test_a_tenant_brings_an_app_of_its_own(timed: Timed) -> None:
    """Its key is held to the definition, and signs for that tenant only."""
    async with github(timed, pem(KEYS[1])) as (setting, app, _):

        async def own(**client: Any) -> None:
            wanted = integrations.Integration(
                id=setting.integration, oauth_client=integrations.OAuthClient(client_id="12345", **client)
            )
            request = integrations.UpdateIntegrationRequest(integration=wanted, tenant=setting.tenant)
            await setting.admin.call("UpdateIntegration", request)

        with refused("INVALID_FIELD"):
            await own(client_secret="no-key")
        await own(client_secret=pem(KEYS[0]))
        await setting.mint(installation_id="987")
        assert await setting.me() == {"id": 77}
        assert app.given == ["ghs_0"]


async def test_a_tenant_s_operator_can_t_have_the_platform_s_app_mint(timed: Timed) -> None:
    """An installation's number is no secret, another tenant's would do. With an app of its own it may, and only that mints."""
    async with github(timed) as (setting, app, _):
        operator = await timed.server.app(setting.tenant, role=access.ROLE_OPERATOR)
        material = pb.GrantMaterial(installation_id="987")
        with refused("PERMISSION_DENIED"):
            await operator.store(setting.tenant, setting.integration, grant=material)
        client = integrations.OAuthClient(client_id="12345", client_secret=pem(KEYS[0]))
        wanted = integrations.Integration(id=setting.integration, oauth_client=client)
        request = integrations.UpdateIntegrationRequest(integration=wanted, tenant=setting.tenant)
        await operator.call("UpdateIntegration", request)
        await operator.store(setting.tenant, setting.integration, grant=material)
        back = integrations.DeleteIntegrationRequest(integration=setting.integration, tenant=setting.tenant)
        await operator.call("DeleteIntegration", back)
        with refused("INTEGRATION_NOT_CONFIGURED", missing="oauth_client of the tenant"):
            await setting.me()
        assert app.given == []
        await operator.call("UpdateIntegration", request)
        assert await setting.me() == {"id": 77}


async def test_an_operator_may_have_a_token_exchanged(timed: Timed) -> None:
    """The subject token proves itself."""
    async with recording_upstream() as provider:
        setting = await exchange(timed, provider.url)
        operator = await timed.server.app(setting.tenant, role=access.ROLE_OPERATOR)
        await operator.store(setting.tenant, setting.integration, grant=pb.GrantMaterial(subject_token="theirs"))
        provider.replies = [raw({"access_token": "a1", "expires_in": 600}), ME]
        assert await call(setting) == 200


async def test_several_secrets_outlive_a_rotation_of_the_platform_s_key(timed: Timed) -> None:
    """They are sealed together, and rewrapped together."""
    async with github(timed, pem(KEYS[1]), pem(KEYS[0])) as (setting, _, _):
        await setting.mint(installation_id="987")
        await setting.admin.call("RotatePlatformKey", integrations.RotatePlatformKeyRequest())
        assert await setting.me() == {"id": 77}


async def test_a_definition_that_no_longer_mints_says_so(timed: Timed) -> None:
    """Nothing is sent anywhere by the old way."""
    async with recording_upstream() as provider:
        setting = await exchange(timed, provider.url)
        await setting.mint(subject_token="theirs")
        changed = integrations.OAuth(authorization_endpoint=f"{provider.url}/a", token_endpoint=f"{provider.url}/t")
        wanted = integrations.Integration(id=setting.integration, oauth=changed)
        await setting.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=wanted))
        await setting.pass_time(5)
        with refused("INTEGRATION_NOT_CONFIGURED", missing="oauth.grant"):
            await call(setting)
        assert provider.requests == []


async def test_an_unknown_account_does_not_take_a_known_one_s_place(timed: Timed) -> None:
    """Where the identity call fails on a reconnect, nothing changes; on a first connection it loses nothing."""
    async with recording_upstream() as provider:
        setting = await made_for_devices(timed, provider, identity_path="/me", account_pointer="/user/id")

        async def connect(*identities: bytes) -> pb.Credential:
            provider.replies = [raw(DEVICE), raw({"access_token": "at"}), *identities]
            started = await setting.start(device=True)
            await setting.pass_time(5)
            return await setting.complete(started.state)

        assert (await connect(raw({}, 500), raw({}, 500))).account == ""
        assert (await connect(raw({}, 500), raw({"user": {"id": 7}}))).account == "7"
        with refused("ACCOUNT_MISMATCH", problem="account_unknown"):
            await connect(raw({}, 500), raw({}, 500))
        assert (await setting.credential()).account == "7"
