"""The further grants through the whole server: against the certified provider, and a GitHub that is as its documents say."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from tests.providers import OidcProvider, UpstreamRequest, browser, recording_upstream, running_oidc_provider
from tests.running import Client, Refused, fresh_id, refused
from tests.upstream import RecordingUpstream
from tests.worlds import Canary, State, Timed, World

KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
EC = ec.generate_private_key(ec.SECP256R1())
SCOPES = ["openid", "offline_access"]
DEVICE = {"device_code": "dc", "user_code": "u", "verification_uri": "https://p.example", "expires_in": 300}
"""What a device's authorization endpoint answers."""


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """A key as an admin pastes it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def raw(document: object, status: int = 200) -> bytes:
    """A raw JSON answer."""
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class Setting:
    """A tenant and an integration of a test's own."""

    timed: Timed
    integration: str
    tenant: str
    provider: OidcProvider | None = None

    @property
    def admin(self) -> Client:
        """The admin."""
        return self.timed.server.admin

    async def app(self) -> Client:
        """A client with an app's key."""
        return await self.timed.server.app(self.tenant)

    async def mint(self, **inputs: Any) -> pb.Credential:
        """Store what tokens are minted from."""
        return await self.admin.store(self.tenant, self.integration, grant=pb.GrantMaterial(**inputs))

    async def credential(self) -> pb.Credential:
        """How it is."""
        request = pb.GetCredentialRequest(tenant=self.tenant, credential=self.integration)
        found: pb.Credential = (await self.admin.call("GetCredential", request)).credential
        return found

    async def start(self, **fields: Any) -> pb.StartAuthorizationResponse:
        """StartAuthorization."""
        request = pb.StartAuthorizationRequest(tenant=self.tenant, integration=self.integration, **fields)
        started: pb.StartAuthorizationResponse = await self.admin.call("StartAuthorization", request)
        return started

    async def complete(self, state: str) -> pb.Credential:
        """CompleteAuthorization of a device."""
        request = pb.CompleteAuthorizationRequest(state=state)
        done: pb.Credential = (await self.admin.call("CompleteAuthorization", request)).credential
        return done

    async def me(self) -> dict[str, Any]:
        """The resource, called with the tenant's token."""
        reply = await (await self.app()).proxied(self.tenant, self.integration, "/api/me")
        assert reply.http_status == 200, reply
        found: dict[str, Any] = json.loads(reply.body)
        return found

    async def pass_time(self, seconds: float) -> None:
        """Move everybody's clock."""
        self.timed.clock.advance(seconds)
        if self.provider is not None:
            await self.provider.advance(seconds)


async def made(timed: Timed, provider: OidcProvider | None = None, **definition: Any) -> Setting:
    """An integration as defined, and a tenant."""
    integration = fresh_id("grants")
    await timed.server.admin.create_integration(integration, allow_private_addresses=True, **definition)
    if provider is not None:
        await provider.advance(timed.clock.offset)
    return Setting(timed, integration, (await timed.server.admin.create_tenant()).id, provider)


async def made_for_devices(timed: Timed, provider: RecordingUpstream, **api: Any) -> Setting:
    """An integration for devices, at a provider that says what it is told to."""
    return await made(
        timed,
        oauth={"token_endpoint": f"{provider.url}/t", "device_authorization_endpoint": f"{provider.url}/d"},
        api={"base_url": provider.url, **api},
        oauth_client={"client_id": "me"},
    )


def oauth(provider: OidcProvider, **changes: Any) -> dict[str, Any]:
    """The certified provider's side."""
    return {
        "authorization_endpoint": provider.authorization_endpoint,
        "token_endpoint": provider.token_endpoint,
        "issuer": provider.issuer,
        "iss_required": True,
        "scopes": SCOPES,
        "authorization_parameters": {"prompt": "consent"},
        **changes,
    }


@contextlib.asynccontextmanager
async def certified(**options: Any) -> AsyncIterator[tuple[OidcProvider, RecordingUpstream]]:
    """The certified provider, whose client is sent back to a page of the platform's own."""
    async with (
        recording_upstream() as page,
        running_oidc_provider([f"{page.url}/back"], access_ttl=3600, **options) as provider,
    ):
        yield provider, page


async def connected(setting: Setting, page: RecordingUpstream, **fields: Any) -> pb.Credential:
    """Connect by the platform's own page, as a person does."""
    started = await setting.start(redirect_uri=f"{page.url}/back", **fields)
    async with browser() as person:
        assert (await person.consent(started.connect_url)).text == "ok"
    sent = {name: values[0] for name, values in parse_qs(urlsplit(page.requests[-1].target).query).items()}
    request = pb.CompleteAuthorizationRequest(state=sent["state"], code=sent["code"], iss=sent["iss"])
    done: pb.Credential = (await setting.admin.call("CompleteAuthorization", request)).credential
    return done


async def test_client_credentials_are_minted_on_first_use_and_again_when_due(timed: Timed) -> None:
    """No person, no refresh token; many callers share one provider call; the resource takes the token."""
    async with certified() as (provider, _):
        setting = await made(
            timed,
            provider,
            oauth=oauth(
                provider,
                grant=integrations.GRANT_CLIENT_CREDENTIALS,
                scopes=["api:read"],
                resources=["https://api.example"],
            ),
            api={"base_url": provider.issuer},
            oauth_client={"client_id": provider.client_id, "client_secret": provider.client_secret},
        )
        stored = await setting.mint()
        assert (stored.state, stored.generation, stored.refreshable, stored.minted) == (
            State.STATE_ACTIVE,
            1,
            True,
            True,
        )
        found = await asyncio.gather(*(setting.me() for _ in range(5)))
        assert found[0] == {
            "sub": None,
            "client_id": provider.client_id,
            "scope": "api:read",
            "aud": "https://api.example",
        }
        first = await setting.credential()
        assert (first.generation, list(first.granted_scopes)) == (2, ["api:read"])
        await setting.pass_time(3500)
        await setting.me()
        assert (await setting.credential()).generation == 3
        await setting.pass_time(4000)
        await setting.me()
        assert (await setting.credential()).generation == 4
        revoked = await setting.admin.call(
            "RevokeCredential", pb.RevokeCredentialRequest(tenant=setting.tenant, credential=setting.integration)
        )
        assert revoked.credential.state == State.STATE_REVOKED
        with refused("CREDENTIAL_REVOKED"):
            await setting.me()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (KEYS[0], integrations.SIGNING_ALGORITHM_RS256),
        (KEYS[0], integrations.SIGNING_ALGORITHM_PS256),
        (EC, integrations.SIGNING_ALGORITHM_ES256),
    ],
    ids=["RS256", "PS256", "ES256"],
)
async def test_the_certified_provider_takes_signed_assertions(
    timed: Timed, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, algorithm: int, canary: Canary
) -> None:
    """private_key_jwt for code exchange, refresh and revocation; the key never leaves."""
    public = RSAKey.import_key(key) if isinstance(key, rsa.RSAPrivateKey) else ECKey.import_key(key)
    jwks = {"keys": [{**public.as_dict(private=False), "kid": "k1"}]}
    async with certified(auth_method="private_key_jwt", jwks=jwks) as (provider, page):
        setting = await made(
            timed,
            provider,
            oauth=oauth(
                provider,
                client_authentication=integrations.CLIENT_AUTHENTICATION_PRIVATE_KEY_JWT,
                signing_algorithm=algorithm,
                assertion_audience=provider.issuer,
                revocation_endpoint=provider.revocation_endpoint,
            ),
            api={"base_url": provider.issuer},
            oauth_client={"client_id": provider.client_id, "client_secret": pem(key), "key_id": "k1"},
        )
        await connected(setting, page)
        assert (await setting.me())["sub"] == "alice"
        name = pb.RefreshCredentialRequest(tenant=setting.tenant, credential=setting.integration)
        refreshed = (await setting.admin.call("RefreshCredential", name)).credential
        assert refreshed.generation == 2
        shown = await setting.admin.call(
            "GetIntegration", integrations.GetIntegrationRequest(integration=setting.integration)
        )
        client = shown.integration.oauth_client
        assert (client.client_secret, client.client_secret_set, client.key_id) == ("", True, "k1")
        revoked = await setting.admin.call(
            "RevokeCredential", pb.RevokeCredentialRequest(tenant=setting.tenant, credential=setting.integration)
        )
        assert revoked.provider_result == pb.RevokeCredentialResponse.PROVIDER_RESULT_REVOKED
        canary.heard(shown)
        assert canary.find(*[line for line in pem(key).splitlines() if "-" not in line]) == []


async def test_a_wrong_key_is_an_admin_s_to_correct(timed: Timed) -> None:
    """The credential is not to blame: nothing becomes terminal."""
    jwks = {"keys": [RSAKey.import_key(KEYS[0]).as_dict(private=False)]}
    async with certified(auth_method="private_key_jwt", jwks=jwks) as (provider, _):
        setting = await made(
            timed,
            provider,
            oauth=oauth(
                provider,
                grant=integrations.GRANT_CLIENT_CREDENTIALS,
                client_authentication=integrations.CLIENT_AUTHENTICATION_PRIVATE_KEY_JWT,
                scopes=[],
            ),
            api={"base_url": provider.issuer},
            oauth_client={"client_id": provider.client_id, "client_secret": pem(KEYS[1])},
        )
        await setting.mint()
        with refused("OAUTH_CLIENT_REFUSED", oauth_error="invalid_client"):
            await setting.me()
        assert (await setting.credential()).state == State.STATE_ACTIVE
        right = integrations.OAuthClient(
            client_id=provider.client_id, client_secret=pem(KEYS[1]), client_secrets=[pem(KEYS[0])]
        )
        wanted = integrations.Integration(id=setting.integration, oauth_client=right)
        await setting.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=wanted))
        await setting.pass_time(120)
        assert (await setting.me())["client_id"] == provider.client_id


async def test_a_pushed_request_leaves_the_browser_a_reference_only(timed: Timed) -> None:
    """RFC 9126 and RFC 8707, where the provider insists on both."""
    async with certified(par_required=True) as (provider, page):
        setting = await made(
            timed,
            provider,
            oauth=oauth(
                provider,
                pushed_authorization_request_endpoint=provider.par_endpoint,
                resources=["https://api.example"],
                scopes=[*SCOPES, "api:read"],
            ),
            api={"base_url": provider.issuer},
            oauth_client={"client_id": provider.client_id, "client_secret": provider.client_secret},
        )
        started = await setting.start(redirect_uri=f"{page.url}/back")
        query = parse_qs(urlsplit(started.connect_url).query)
        assert query.keys() == {"client_id", "request_uri"}
        await connected(setting, page)
        found = await setting.me()
        assert (found["sub"], found["aud"], found["scope"]) == ("alice", "https://api.example", "api:read")


async def test_a_refused_push_says_so_and_one_that_failed_can_be_pressed_again(timed: Timed) -> None:
    """On the connect page: the link is not used up by a provider that is away."""
    async with recording_upstream() as provider, httpx2.AsyncClient(trust_env=False, timeout=20) as http:
        setting = await made(
            timed,
            oauth={
                "authorization_endpoint": f"{provider.url}/auth",
                "token_endpoint": f"{provider.url}/token",
                "pushed_authorization_request_endpoint": f"{provider.url}/par",
            },
            api={"base_url": provider.url},
            oauth_client={"client_id": "me", "client_secret": "s3cret"},
        )
        link = (await setting.start()).connect_url
        provider.replies = [raw({}, 503), raw({"request_uri": "urn:x", "expires_in": 60}, 201)]
        assert (await http.post(link)).status_code == 502
        assert (await http.post(link)).headers["location"] == f"{provider.url}/auth?client_id=me&request_uri=urn%3Ax"
        provider.replies = [raw({"error": "invalid_client"}, 401)]
        with refused("OAUTH_CLIENT_REFUSED", oauth_error="invalid_client"):
            await setting.start(redirect_uri="https://us.example/cb")


async def device(timed: Timed, provider: OidcProvider) -> Setting:
    """An integration for devices only."""
    definition = oauth(provider, device_authorization_endpoint=provider.device_endpoint, authorization_endpoint="")
    return await made(
        timed,
        provider,
        oauth=definition,
        api={"base_url": provider.issuer, "identity_path": "/api/me", "account_pointer": "/sub"},
        oauth_client={"client_id": provider.client_id, "client_secret": provider.client_secret},
    )


async def test_a_person_connects_by_a_device(timed: Timed) -> None:
    """RFC 8628: pending with the time to wait, then connected, then used up."""
    async with certified() as (provider, _):
        setting = await device(timed, provider)
        started = await setting.start(device=True)
        assert started.connect_url == started.device.verification_uri_complete
        assert started.device.user_code in started.connect_url
        with pytest.raises(Refused) as early:
            await setting.complete(started.state)
        assert early.value.reason == "AUTHORIZATION_PENDING"
        assert 0 < (early.value.retry_after or 0) <= started.device.poll_interval.seconds
        await setting.pass_time(5)
        with refused("AUTHORIZATION_PENDING"):
            await setting.complete(started.state)
        async with browser() as person:
            await person.consent(started.connect_url)
        await setting.pass_time(5)
        done = await setting.complete(started.state)
        assert (done.state, done.account, done.refreshable) == (State.STATE_ACTIVE, "alice", True)
        assert (await setting.me())["sub"] == "alice"
        with refused("FLOW_NOT_FOUND"):
            await setting.complete(started.state)
        with refused("INTEGRATION_NOT_CONFIGURED", missing="oauth.authorization_endpoint"):
            await setting.start()


async def test_a_device_is_asked_for_by_the_key_that_began_it(timed: Timed) -> None:
    """And by nobody else, for whom there is no such flow; ten minutes at most."""
    async with certified() as (provider, _):
        setting = await device(timed, provider)
        started = await setting.start(device=True)
        other = timed.server.client(await timed.server.admin.create_key([access.ROLE_ADMIN], ["*"], credentials=["*"]))
        with refused("FLOW_NOT_FOUND"):
            await other.call("CompleteAuthorization", pb.CompleteAuthorizationRequest(state=started.state))
        await setting.pass_time(601)
        with refused("FLOW_NOT_FOUND"):
            await setting.complete(started.state)


@pytest.mark.parametrize(
    ("error", "reason"), [("access_denied", "AUTHORIZATION_REFUSED"), ("expired_token", "AUTHORIZATION_REFUSED")]
)
async def test_a_device_that_is_refused_or_slowed_down(timed: Timed, error: str, reason: str) -> None:
    """`slow_down` adds five seconds; a refusal ends it."""
    async with recording_upstream() as provider:
        setting = await made_for_devices(timed, provider)
        provider.replies = [
            raw({**DEVICE, "interval": 2}),
            raw({"error": "slow_down"}, 400),
            raw({"error": error}, 400),
        ]
        started = await setting.start(device=True)
        await setting.pass_time(2)
        with pytest.raises(Refused) as slower:
            await setting.complete(started.state)
        assert (slower.value.reason, slower.value.retry_after) == ("AUTHORIZATION_PENDING", 7)
        await setting.pass_time(3)
        with refused("AUTHORIZATION_PENDING"):
            await setting.complete(started.state)
        assert len(provider.requests) == 2
        await setting.pass_time(4)
        with refused(reason, oauth_error=error):
            await setting.complete(started.state)
        with refused("FLOW_NOT_FOUND"):
            await setting.complete(started.state)


@dataclass
class GitHub:
    """Installation tokens as GitHub documents them, and an API that takes them."""

    keys: list[RSAKey]
    now: Any
    given: list[str] = field(default_factory=list)
    gone: bool = False

    def __call__(self, request: UpstreamRequest) -> bytes:
        """Answer one request."""
        bearer = request.header("Authorization")[0].removeprefix("Bearer ")
        if request.target == "/api/me":
            return raw({"id": 77}) if bearer == self.given[-1] else raw({"message": "Bad credentials"}, 401)
        if not self._is_good(bearer):
            return raw({"message": "A JSON web token could not be decoded"}, 401)
        if request.target != "/app/installations/987/access_tokens" or self.gone:
            return raw({"message": "Not Found"}, 404)
        self.given.append(f"ghs_{len(self.given)}")
        ends = (self.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return raw({"token": self.given[-1], "expires_at": ends, "permissions": {"contents": "read"}}, 201)

    def _is_good(self, bearer: str) -> bool:
        now = self.now().timestamp()
        for key in self.keys:
            with contextlib.suppress(JoseError, ValueError):
                found = jwt.decode(bearer, key, algorithms=["RS256"]).claims
                return bool(found["iss"] == "12345") and found["iat"] <= now < found["exp"] <= found["iat"] + 600
        return False


@contextlib.asynccontextmanager
async def github(timed: Timed, *secrets: str) -> AsyncIterator[tuple[Setting, GitHub, RecordingUpstream]]:
    """A GitHub that knows the first key."""
    app = GitHub([RSAKey.import_key(KEYS[0])], timed.clock.now)
    async with recording_upstream() as upstream:
        upstream.reply = app
        first, *others = secrets or (pem(KEYS[0]),)
        setting = await made(
            timed,
            oauth={
                "grant": integrations.GRANT_GITHUB_APP_INSTALLATION,
                "token_endpoint": f"{upstream.url}/app/installations",
                "client_authentication": integrations.CLIENT_AUTHENTICATION_NONE,
            },
            api={"base_url": upstream.url},
            oauth_client={"client_id": "12345", "client_secret": first, "client_secrets": others},
        )
        yield setting, app, upstream


async def test_installation_tokens_come_and_are_renewed(timed: Timed) -> None:
    """One token for many callers; a new one near the hour's end; a 401 of the API gets a new one, too."""
    async with github(timed) as (setting, app, _):
        await setting.mint(installation_id="987")
        await asyncio.gather(*(setting.me() for _ in range(5)))
        assert len(app.given) == 1
        credential = await setting.credential()
        assert credential.expire_time.ToDatetime(timed.clock.now().tzinfo) <= timed.clock.now() + timedelta(hours=1)
        await setting.pass_time(3500)
        await setting.me()
        assert len(app.given) == 2
        await setting.pass_time(60)
        app.given.append("revoked-there")
        await setting.me()
        assert (await setting.credential()).generation == 4


async def test_an_app_that_was_uninstalled_needs_a_new_installation(timed: Timed) -> None:
    """Terminal, and said so; storing the new installation's number cures it."""
    async with github(timed) as (setting, app, _):
        await setting.mint(installation_id="987")
        app.gone = True
        with refused("NEEDS_REAUTH", connect_rpc="connectors.v1.CredentialService/StoreCredential"):
            await setting.me()
        assert "StoreCredential" in (await setting.credential()).next_step
        app.gone = False
        await setting.mint(installation_id="987")
        assert (await setting.me()) == {"id": 77}


async def test_keys_rotate_without_downtime(timed: Timed) -> None:
    """The second key is tried when the first is refused, and comes first from then on."""
    async with github(timed, pem(KEYS[1]), pem(KEYS[0])) as (setting, app, upstream):
        await setting.mint(installation_id="987")
        await setting.me()
        assert len(upstream.requests) == 3  # refused, taken, the call
        await setting.pass_time(3700)
        await setting.me()
        assert len(upstream.requests) == 5
        app.keys = [RSAKey.import_key(KEYS[1])]
        await setting.pass_time(3700)
        await setting.me()
        assert len(upstream.requests) == 8


async def test_what_is_minted_from_is_checked_against_the_grant(timed: Timed) -> None:
    """Missing, superfluous and malformed inputs, and grants that a person gives."""
    async with github(timed) as (setting, _, _):
        for inputs, field_name in (
            ({}, "grant.installation_id"),
            ({"installation_id": "../1"}, "grant.installation_id"),
            ({"installation_id": "1", "subject": "ann"}, "grant.subject"),
        ):
            with pytest.raises(Refused) as caught:
                await setting.mint(**inputs)
            assert caught.value.fields == [field_name]
        with refused("INTEGRATION_NOT_CONFIGURED", missing="oauth.authorization_endpoint"):
            await setting.start()


async def test_a_minted_grant_needs_a_definition_that_mints(world: World) -> None:
    """An integration that a person grants takes no such material, and no private key."""
    with refused("INVALID_FIELD", field="material"):
        await world.admin.store(world.tenant, world.integration, grant=pb.GrantMaterial(subject="ann"))
    wanted = integrations.Integration(
        id=world.integration, oauth_client=integrations.OAuthClient(client_id="x", client_secret=pem(KEYS[0]))
    )
    with refused("INVALID_FIELD"):
        await world.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=wanted))


async def test_a_client_secret_rotates_without_downtime(world: World) -> None:
    """The provider knows one of two secrets: code exchange and refresh find it, the second time at once."""
    right = world.secrets[0]
    client = integrations.OAuthClient(client_id=world.client_id, client_secret="not-yet", client_secrets=[right])
    wanted = integrations.Integration(id=world.integration, oauth_client=client)
    updated = await world.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=wanted))
    assert updated.integration.oauth_client.client_secret_count == 2
    assert not updated.integration.oauth_client.client_secrets
    await world.connect()
    assert await world.whoami() == 200
    assert (await world.refresh()).generation == 2
    before = len(world.sim.record.on("/token"))
    assert (await world.refresh()).generation == 3
    assert len(world.sim.record.on("/token")) == before + 1


async def test_connecting_again_only_adds_scopes(world: World) -> None:
    """What was granted before is asked for again, besides what is asked for now."""
    await world.connect(scopes=["notes.read", "offline_access"])
    assert (await world.connect(scopes=["notes.write"])).status_code == 200
    credential = await world.credential()
    assert sorted(credential.granted_scopes) == ["notes.read", "notes.write", "offline_access"]
    assert credential.generation == 2


async def test_another_account_does_not_take_a_credential_s_place_unnoticed(world: World) -> None:
    """It is refused, and nothing changes; with `allow_account_change` it may."""
    request = integrations.GetIntegrationRequest(integration=world.integration)
    current = (await world.admin.call("GetIntegration", request)).integration
    current.api.account_pointer = "/account"
    wanted = integrations.Integration(id=world.integration, api=current.api)
    await world.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=wanted))
    await world.connect("alice")
    first = await world.credential()
    assert first.account == "alice"
    page = await world.connect("bob")
    assert page.status_code == 409
    after = await world.credential()
    assert (after.account, after.generation) == ("alice", first.generation)
    assert (await world.connect("alice")).status_code == 200
    assert (await world.connect("bob", allow_account_change=True)).status_code == 200
    assert (await world.credential()).account == "bob"


async def test_a_200_that_says_no_is_no(timed: Timed) -> None:
    """Slack's way: `ok` must be true."""
    async with recording_upstream() as api:
        setting = await made(timed, api={
            "base_url": api.url, "identity_path": "/auth.test", "ok_field": "ok",
            "placement": {"headers": {"Authorization": "Bearer {api_key}"}},
        })  # fmt: skip
        await setting.admin.store(setting.tenant, setting.integration, api_key={"api_key": "xoxb-1"})
        request = pb.VerifyCredentialRequest(tenant=setting.tenant, credential=setting.integration)
        for body, accepted in (({"ok": True}, True), ({"ok": False, "error": "invalid_auth"}, False), ([], False)):
            api.replies = [raw(body)]
            answer = await setting.admin.call("VerifyCredential", request)
            assert (answer.accepted, answer.http_status) == (accepted, 200)
