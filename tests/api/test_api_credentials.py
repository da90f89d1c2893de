"""Credentials that are stored: every kind, what is refused at the door, and how they end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from tests.api.test_import import imported
from tests.canary import planted
from tests.openbao import OpenBao
from tests.providers import RecordingUpstream, recording_upstream
from tests.running import Client, Refused, Server, fresh_id, refused
from tests.upstream import UpstreamRequest

pytestmark = pytest.mark.usefixtures("heard")
HEADER: Mapping[str, Any] = {"headers": {"X-Api-Key": "{api_key}"}}
State = pb.Credential


@dataclass
class Home:
    """A tenant, an upstream, and how integrations of it are made."""

    server: Server
    upstream: RecordingUpstream
    tenant: str
    app: Client

    @property
    def admin(self) -> Client:
        """The admin."""
        return self.server.admin

    async def integration(self, placement: Mapping[str, Any] = HEADER, **api: Any) -> str:
        """An integration at the upstream."""
        name = fresh_id("api")
        definition = {"base_url": self.upstream.url, "placement": placement} | api
        await self.admin.create_integration(name, api=definition, allow_private_addresses=True)
        return name

    async def sent(self, credential: str, path: str = "/v1/x", **fields: Any) -> UpstreamRequest:
        """What the upstream is sent when the app calls."""
        await self.app.proxied(self.tenant, credential, path, **fields)
        return self.upstream.requests[-1]

    async def get(self, credential: str) -> pb.Credential:
        """How it is."""
        request = pb.GetCredentialRequest(tenant=self.tenant, credential=credential)
        found: pb.Credential = (await self.admin.call("GetCredential", request)).credential
        return found

    async def update(self, credential: str, mask: list[str], etag: str = "", **fields: Any) -> pb.Credential:
        """UpdateCredential."""
        wanted = pb.Credential(tenant=self.tenant, id=credential, etag=etag, **fields)
        request = pb.UpdateCredentialRequest(credential=wanted)
        request.update_mask.paths.extend(mask)
        changed: pb.Credential = (await self.admin.call("UpdateCredential", request)).credential
        return changed

    async def revoke(self, credential: str, **fields: Any) -> pb.RevokeCredentialResponse:
        """RevokeCredential."""
        request = pb.RevokeCredentialRequest(tenant=self.tenant, credential=credential, **fields)
        done: pb.RevokeCredentialResponse = await self.admin.call("RevokeCredential", request)
        return done


@pytest_asyncio.fixture(loop_scope="session")
async def home(server: Server) -> AsyncIterator[Home]:
    """One of this test's own."""
    tenant = (await server.admin.create_tenant()).id
    async with recording_upstream() as upstream:
        yield Home(server, upstream, tenant, await server.app(tenant))


async def test_an_api_key_stands_where_the_definition_says(home: Home) -> None:
    """Header and query, with constants around it; the app's own of either name is replaced."""
    placement = {"headers": {"X-Api-Key": "key={api_key}"}, "query": {"token": "{api_key}", "app": "{application_key}"}}
    integration = await home.integration(placement)
    key, other = planted(), planted()
    await home.admin.store(home.tenant, integration, api_key={"api_key": key, "fields": {"application_key": other}})
    headers = [proxy.Header(name="x_api_key", value="mine"), proxy.Header(name="X-API-KEY", value="mine")]
    seen = await home.sent(integration, "/v1/x?token=mine&a=1", headers=headers)
    assert [line for line in seen.headers if line[0].lower().replace("_", "-") == "x-api-key"] == [
        ("X-Api-Key", f"key={key}")
    ]
    path, _, query = seen.target.partition("?")
    assert (path, sorted(query.split("&"))) == ("/v1/x", ["a=1", f"app={other}", f"token={key}"])


async def test_user_name_and_password_go_out_as_basic(home: Home) -> None:
    """RFC 7617; an empty password is one too."""
    integration = await home.integration({"basic": {"username": "{username}", "password": "{password}"}})
    for password in (planted("pw"), ""):
        user = planted("user")
        await home.admin.store(home.tenant, integration, basic={"username": user, "password": password})
        seen = await home.sent(integration)
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        assert seen.header("authorization") == [f"Basic {pair}"]


async def test_tokens_obtained_elsewhere_work_until_they_end(home: Home) -> None:
    """An import says when it ends; once it has, and nothing can renew it, it is EXPIRED in words that say what to do."""
    integration = await home.integration({})
    token, ends = planted("at"), datetime.now(UTC) + timedelta(hours=1)
    stored = await home.admin.store(
        home.tenant, integration, oauth={"access_token": token, "expire_time": ends, "scopes": ["read", "write"]}
    )
    assert (stored.kind, stored.state, stored.refreshable) == (State.KIND_OAUTH, State.STATE_ACTIVE, False)
    assert list(stored.granted_scopes) == ["read", "write"]
    assert stored.expire_time.ToDatetime(tzinfo=UTC) == ends
    assert (await home.sent(integration)).header("authorization") == [f"Bearer {token}"]
    past = datetime.now(UTC) - timedelta(seconds=1)
    await home.admin.store(home.tenant, integration, oauth={"access_token": planted("at"), "expire_time": past})
    with refused("CREDENTIAL_EXPIRED", tenant=home.tenant, credential=integration):
        await home.app.proxied(home.tenant, integration, "/v1/x")


async def test_an_imported_token_of_unsaid_length_lives_as_long_as_the_definition_says(home: Home) -> None:
    """`expire_time` unset: the definition's default."""
    integration = fresh_id("oauth")
    oauth = {
        "authorization_endpoint": f"{home.upstream.url}/authorize",
        "token_endpoint": f"{home.upstream.url}/token",
        "default_access_token_ttl": timedelta(hours=2),
    }
    await home.admin.create_integration(
        integration, api={"base_url": home.upstream.url}, oauth=oauth, allow_private_addresses=True
    )
    stored = await home.admin.store(home.tenant, integration, oauth={"access_token": planted("at")})
    left = stored.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(minutes=119) < left <= timedelta(hours=2)


@pytest.mark.parametrize(
    "bad", ["a\rb", "a\nb", "a\r\nX-Evil: 1", "a\0b", "\x7f", "ä", " lead", "trail ", "", "x" * 16385]
)
@pytest.mark.parametrize(
    "field",
    [
        "api_key.api_key",
        "api_key.fields",
        "basic.username",
        "basic.password",
        "oauth.access_token",
        "oauth.refresh_token",
    ],
)
async def test_attack_19_what_can_not_stand_in_a_header_is_refused_when_it_is_stored(
    home: Home, field: str, bad: str
) -> None:
    """Named by its field, and never shown."""
    if bad == "" and field in ("basic.password", "oauth.refresh_token"):
        return
    kind, name = field.split(".")
    whole: dict[str, Any] = {
        "api_key": {"api_key": "k"},
        "basic": {"username": "u"},
        "oauth": {"access_token": "a"},
    }[kind]
    given = {kind: whole | {name: {"more": bad} if name == "fields" else bad}}
    with pytest.raises(Refused) as caught:
        await home.admin.store(home.tenant, "notion", **given)
    assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", [field])


async def test_a_colon_in_a_basic_user_name_is_refused(home: Home) -> None:
    """It would move the border between name and password."""
    with pytest.raises(Refused) as caught:
        await home.admin.store(home.tenant, "notion", basic={"username": "a:b"})
    assert caught.value.fields == ["basic.username"]
    integration = await home.integration({"basic": {"username": "{api_key}/token", "password": ""}})
    with pytest.raises(Refused) as caught:
        await home.admin.store(home.tenant, integration, api_key={"api_key": "a:b"})
    assert caught.value.fields == ["material"]


async def test_attack_23_material_that_leaves_a_placeholder_open_is_refused(home: Home) -> None:
    """When it is stored; and when the definition comes to need a field that what is stored lacks, at each use."""
    integration = await home.integration({"headers": {"X-Api-Key": "{api_key}", "X-Account": "{account}"}})
    for given in ({"api_key": {"api_key": "k"}}, {"oauth": {"access_token": "t"}}):
        with pytest.raises(Refused) as caught:
            await home.admin.store(home.tenant, integration, **given)
        assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", ["material"])
    await home.admin.store(home.tenant, integration, api_key={"api_key": planted(), "fields": {"account": "7"}})
    await set_api(home, integration, placement={"headers": {"X-Api-Key": "{api_key}", "X-Team": "{team}"}})
    with refused("PLACEHOLDER_UNRESOLVED", field="team"):
        await home.app.proxied(home.tenant, integration, "/v1/x")
    with refused("PLACEHOLDER_UNRESOLVED", field="team"):
        await home.server.sidecar.call("Lease", proxy.LeaseRequest(tenant=home.tenant, credential=integration))
    assert home.upstream.requests == []


async def set_api(home: Home, integration: str, **api: Any) -> None:
    """Change a definition's API side."""
    wanted = integrations.Integration(id=integration, api={"base_url": home.upstream.url} | api)  # type: ignore[arg-type]
    request = integrations.UpdateIntegrationRequest(integration=wanted)
    request.update_mask.paths.append("api")
    await home.admin.call("UpdateIntegration", request)


async def lease(home: Home, credential: str) -> proxy.Lease:
    """A lease for the sidecar."""
    reply = await home.server.sidecar.call("Lease", proxy.LeaseRequest(tenant=home.tenant, credential=credential))
    leased: proxy.Lease = reply.lease
    return leased


async def test_attacks_10_14_37_a_definition_narrows_at_once_and_widens_by_reconnecting_only(home: Home) -> None:
    """The hosts were sealed with the material; what an editor adds is not sent anything until it is stored again."""
    integration = await home.integration(allowed_hosts=["uploads.example.com"])
    here = home.upstream.url.removeprefix("http://")
    key = planted()
    stored = await home.admin.store(home.tenant, integration, api_key={"api_key": key})
    assert list(stored.allowed_hosts) == [here, "uploads.example.com"]
    assert list((await lease(home, integration)).allowed_hosts) == [here, "uploads.example.com"]
    await set_api(home, integration, placement=HEADER, allowed_hosts=["api.example.com.evil.com"])
    assert list((await lease(home, integration)).allowed_hosts) == [here]
    assert (await home.get(integration)).allowed_hosts == ["" + here, "uploads.example.com"]
    async with recording_upstream() as evil:
        await set_api(home, integration, placement=HEADER, base_url=evil.url, allowed_hosts=[here])
        with refused("HOST_NOT_ALLOWED", host=evil.url.removeprefix("http://")):
            await home.app.proxied(home.tenant, integration, "/v1/x")
        assert evil.url.removeprefix("http://") not in (await lease(home, integration)).allowed_hosts
        assert evil.requests == []
        await home.admin.store(home.tenant, integration, api_key={"api_key": key})
        await home.app.proxied(home.tenant, integration, "/v1/x")
        assert len(evil.requests) == 1


async def test_attack_22_what_is_not_known_is_refused_and_nothing_goes_out(home: Home) -> None:
    """An integration that is not there, a credential that nobody stored, an integration deleted since."""
    with refused("INTEGRATION_NOT_FOUND", integration="notoin"):
        await home.admin.store(home.tenant, "notoin", api_key={"api_key": "k"})
    with refused("CREDENTIAL_NOT_FOUND", tenant=home.tenant, credential="none"):
        await home.app.proxied(home.tenant, "none", "/v1/x")
    integration = await home.integration()
    await home.admin.store(home.tenant, integration, api_key={"api_key": planted()})
    await home.admin.call("DeleteIntegration", integrations.DeleteIntegrationRequest(integration=integration))
    with refused("INTEGRATION_NOT_FOUND"):
        await home.app.proxied(home.tenant, integration, "/v1/x")
    assert home.upstream.requests == []


async def test_what_is_stored_again_counts_on_and_an_etag_guards_it(home: Home) -> None:
    """Generations count, labels stay unless given, a stale etag is a CONFLICT and changes nothing."""
    integration = await home.integration()
    first = await home.admin.store(home.tenant, integration, api_key={"api_key": planted()}, labels={"team": "a"})
    second = await home.admin.store(home.tenant, integration, api_key={"api_key": planted()}, etag=first.etag)
    assert (second.generation, dict(second.labels), second.create_time) == (2, {"team": "a"}, first.create_time)
    for etag in (first.etag, "999", "not an etag", "0"):
        with refused("CONFLICT"):
            await home.admin.store(home.tenant, integration, api_key={"api_key": planted()}, etag=etag)
    assert (await home.get(integration)).generation == 2
    with refused("CONFLICT"):
        await home.admin.store(home.tenant, integration, credential="new", api_key={"api_key": planted()}, etag="1")


async def test_a_credential_of_another_integration_is_not_replaced(home: Home) -> None:
    """Its id is taken, until it is revoked."""
    one, other = await home.integration(), await home.integration()
    await home.admin.store(home.tenant, one, credential="shared", api_key={"api_key": planted()})
    with refused("ALREADY_EXISTS", credential="shared", integration=one):
        await home.admin.store(home.tenant, other, credential="shared", api_key={"api_key": planted()})
    await home.revoke("shared")
    moved = await home.admin.store(home.tenant, other, credential="shared", api_key={"api_key": planted()})
    assert (moved.integration, moved.state) == (other, State.STATE_ACTIVE)


async def test_one_tenant_holds_several_accounts_of_one_integration(home: Home) -> None:
    """Each under its own id, each with its own material."""
    integration = await home.integration()
    keys = {name: planted() for name in ("work", "private")}
    for name, key in keys.items():
        await home.admin.store(home.tenant, integration, credential=name, api_key={"api_key": key})
    for name, key in keys.items():
        assert (await home.sent(name)).header("x-api-key") == [key]


async def test_switched_off_it_is_never_used_and_switched_on_it_is_as_before(home: Home) -> None:
    """A mask is needed to say `enabled: false`; labels are changed by the same RPC."""
    integration = await home.integration()
    await home.admin.store(home.tenant, integration, api_key={"api_key": planted()})
    off = await home.update(integration, ["enabled"], enabled=False)
    assert (off.enabled, off.state) == (False, State.STATE_ACTIVE)
    assert "UpdateCredential" in off.next_step
    with refused("CREDENTIAL_DISABLED", credential=integration):
        await home.app.proxied(home.tenant, integration, "/v1/x")
    with refused("CREDENTIAL_DISABLED"):
        await lease(home, integration)
    await home.admin.store(home.tenant, integration, api_key={"api_key": planted()})
    assert not (await home.get(integration)).enabled, "storing again does not switch it on"
    on = await home.update(integration, [], enabled=True, labels={"a": "b"})
    assert (on.enabled, dict(on.labels)) == (True, {"a": "b"})
    await home.app.proxied(home.tenant, integration, "/v1/x")


async def test_a_credentials_labels_of_our_own_are_an_admins_to_change(home: Home) -> None:
    """By whatever way: a new credential, one stored again, an import, an update. Left out, they stay."""
    integration, ours = await home.integration(), {"config-owner": "ours"}
    operator = await home.server.app(home.tenant, role=access.ROLE_OPERATOR)
    key = {"api_key": planted()}
    with pytest.raises(Refused) as caught:
        await operator.store(home.tenant, integration, api_key=key, labels=ours)
    assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", ['labels["config-owner"]'])
    await home.admin.store(home.tenant, integration, api_key=key, labels=ours)
    again = await operator.store(home.tenant, integration, api_key={"api_key": planted()}, labels={"a": "b"})
    assert dict(again.labels) == {**ours, "a": "b"}
    theirs = {"config-owner": "theirs"}
    update = pb.UpdateCredentialRequest(
        credential=pb.Credential(tenant=home.tenant, id=integration, labels=theirs),
        update_mask=FieldMask(paths=["labels"]),
    )
    with pytest.raises(Refused) as caught:
        await operator.call("UpdateCredential", update)
    assert caught.value.fields == ['credential.labels["config-owner"]']
    one = pb.StoreCredentialRequest(tenant=home.tenant, integration=integration, labels=theirs)
    one.api_key.api_key = planted()
    answer = (await imported(operator, pb.ImportCredentialsRequest(item="it", credential=one)))["it"]
    assert [each.field for each in answer.refusal.field_violations] == ['labels["config-owner"]']
    assert await home.get(integration) == again


async def test_an_update_changes_what_its_mask_names(home: Home) -> None:
    """`*` is all, so that what is unset is cleared; an unknown name is refused; a stale etag is a CONFLICT."""
    integration = await home.integration()
    first = await home.admin.store(home.tenant, integration, api_key={"api_key": planted()}, labels={"a": "b"})
    with pytest.raises(Refused) as caught:
        await home.update(integration, ["labels", "state"], labels={"c": "d"})
    assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", ["update_mask"])
    only = await home.update(integration, ["labels"], labels={"c": "d"}, enabled=False)
    assert (only.enabled, dict(only.labels)) == (True, {"c": "d"})
    with refused("CONFLICT"):
        await home.update(integration, ["labels"], etag=first.etag)
    every = await home.update(integration, ["*"], etag=only.etag)
    assert (every.enabled, dict(every.labels)) == (False, {})


async def test_revoking_leaves_no_version_with_material_and_the_record_says_so(home: Home, openbao: OpenBao) -> None:
    """Older KV versions held the ciphertext too. Revoking twice is the same; storing again brings it back."""
    integration = await home.integration()
    for _ in range(3):
        await home.admin.store(home.tenant, integration, api_key={"api_key": planted()})
    done = await home.revoke(integration, integration=integration)
    assert done.provider_result == pb.RevokeCredentialResponse.PROVIDER_RESULT_NOT_SUPPORTED
    assert (done.credential.state, done.credential.generation) == (State.STATE_REVOKED, 3)
    assert (await home.revoke(integration)).credential.etag == done.credential.etag
    await assert_nothing_sealed(openbao, home.tenant, integration)
    with refused("CREDENTIAL_REVOKED"):
        await home.app.proxied(home.tenant, integration, "/v1/x")
    again = await home.admin.store(home.tenant, integration, api_key={"api_key": planted()})
    assert (again.state, again.generation) == (State.STATE_ACTIVE, 4)
    assert int(again.etag) > int(done.credential.etag), "an etag never comes twice"
    await home.app.proxied(home.tenant, integration, "/v1/x")


async def assert_nothing_sealed(openbao: OpenBao, tenant: str, credential: str) -> None:
    """No version of the document can be read but those without ciphertext."""
    token = await openbao.login()
    metadata = await openbao.call("GET", f"secret/metadata/{tenant}/{credential}", token=token)
    versions = metadata.body["data"]["versions"]
    for version in range(1, max(map(int, versions)) + 1):
        found = await openbao.call("GET", f"secret/data/{tenant}/{credential}?version={version}", token=token)
        data = (found.body.get("data") or {}).get("data")
        assert not data or data["ciphertext"] == "", version


async def test_a_refresh_under_way_does_not_bring_a_revoked_credential_back(home: Home) -> None:
    """It writes over the version that it read, and that number never comes again."""
    integration, came, go = fresh_id("oauth"), asyncio.Event(), asyncio.Event()
    oauth = {"authorization_endpoint": f"{home.upstream.url}/a", "token_endpoint": f"{home.upstream.url}/token"}
    await home.admin.create_integration(
        integration,
        api={"base_url": home.upstream.url},
        oauth=oauth,
        oauth_client={"client_id": "c", "client_secret": planted("cs")},
        allow_private_addresses=True,
    )

    async def slowly(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await go.wait()
        body = b'{"access_token": "%b", "token_type": "Bearer"}' % planted("at").encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()

    home.upstream.handler = slowly
    past = datetime.now(UTC) - timedelta(seconds=1)
    material = {"access_token": planted("at"), "refresh_token": planted("rt"), "expire_time": past}
    await home.admin.store(home.tenant, integration, oauth=material)
    call = asyncio.create_task(home.app.proxied(home.tenant, integration, "/v1/x"))
    await asyncio.wait_for(came.wait(), 60)
    assert (await home.revoke(integration)).credential.state == State.STATE_REVOKED
    go.set()
    with refused("CREDENTIAL_REVOKED"):
        await call
    assert (await home.get(integration)).state == State.STATE_REVOKED


async def test_a_revocation_names_its_integration_or_is_not_found(home: Home) -> None:
    """REST's path has it; another one's is as none."""
    integration = await home.integration()
    await home.admin.store(home.tenant, integration, api_key={"api_key": planted()})
    with refused("CREDENTIAL_NOT_FOUND"):
        await home.revoke(integration, integration="notion")
    with refused("CREDENTIAL_NOT_FOUND", credential="none"):
        await home.revoke("none")
    assert (await home.get(integration)).state == State.STATE_ACTIVE


async def test_a_suspended_tenants_credentials_are_not_used(home: Home) -> None:
    """No call, lease, token or new material, at once; resumed, all is as it was."""
    integration = await home.integration({})
    await home.admin.store(home.tenant, integration, oauth={"access_token": planted("at")})
    reader = await home.server.app(home.tenant, role=access.ROLE_TOKEN_READER)
    fetch = pb.FetchAccessTokenRequest(tenant=home.tenant, credential=integration)
    assert (await reader.call("FetchAccessToken", fetch)).token_type == "Bearer"
    await home.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=home.tenant))
    uses = (
        home.app.proxied(home.tenant, integration, "/v1/x"),
        lease(home, integration),
        reader.call("FetchAccessToken", fetch),
        home.admin.store(home.tenant, integration, api_key={"api_key": "k"}),
        home.admin.call("VerifyCredential", pb.VerifyCredentialRequest(tenant=home.tenant, credential=integration)),
        home.admin.call("RefreshCredential", pb.RefreshCredentialRequest(tenant=home.tenant, credential=integration)),
    )
    for use in uses:
        with refused("TENANT_SUSPENDED", tenant=home.tenant):
            await use
    assert (await home.get(integration)).state == State.STATE_ACTIVE
    await home.admin.call("ResumeTenant", tenants.ResumeTenantRequest(tenant=home.tenant))
    await home.app.proxied(home.tenant, integration, "/v1/x")


async def test_a_token_is_fetched_for_as_long_as_it_is_wanted(home: Home) -> None:
    """`min_ttl` is bounded; an API key is no token."""
    integration = await home.integration({})
    await home.admin.store(home.tenant, integration, oauth={"access_token": planted("at"), "scopes": ["a"]})
    reader = await home.server.app(home.tenant, role=access.ROLE_TOKEN_READER)
    request = pb.FetchAccessTokenRequest(tenant=home.tenant, credential=integration)
    got = await reader.call("FetchAccessToken", request)
    assert (got.generation, list(got.scopes), got.HasField("expire_time")) == (1, ["a"], False)
    for seconds, nanos in ((601, 0), (-1, 0), (0, -1), (1, 2_000_000_000)):
        request.min_ttl.seconds, request.min_ttl.nanos = seconds, nanos
        with pytest.raises(Refused) as caught:
            await reader.call("FetchAccessToken", request)
        assert caught.value.fields == ["min_ttl"]
    by_key = await home.integration()
    await home.admin.store(home.tenant, by_key, api_key={"api_key": planted()})
    with refused("INTEGRATION_NOT_CONFIGURED", missing="oauth"):
        await reader.call("FetchAccessToken", pb.FetchAccessTokenRequest(tenant=home.tenant, credential=by_key))


async def test_verifying_asks_the_provider_by_the_identity_path(home: Home) -> None:
    """The provider's status is the answer; without identity path there is nothing to ask by."""
    integration = await home.integration(identity_path="/v1/me?x=1")
    await home.admin.store(home.tenant, integration, api_key={"api_key": planted()})
    request = pb.VerifyCredentialRequest(tenant=home.tenant, credential=integration)
    for status, accepted in ((b"200 OK", True), (b"403 Forbidden", False)):
        home.upstream.reply = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
        found = await home.admin.call("VerifyCredential", request)
        assert (found.accepted, found.http_status) == (accepted, int(status[:3]))
    assert home.upstream.requests[-1].request_line == b"GET /v1/me?x=1 HTTP/1.1"
    without = await home.integration()
    await home.admin.store(home.tenant, without, api_key={"api_key": planted()})
    with refused("INTEGRATION_NOT_CONFIGURED", missing="api.identity_path"):
        await home.admin.call("VerifyCredential", pb.VerifyCredentialRequest(tenant=home.tenant, credential=without))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, ["material"]),
        ({"api_key": {}}, ["api_key.api_key"]),
        ({"basic": {"password": "p"}}, ["basic.username"]),
        ({"oauth": {"refresh_token": "r"}}, ["oauth.access_token"]),
        ({"api_key": {"api_key": "k", "fields": {"Not-A-Name": "v"}}}, ["api_key.fields"]),
        ({"api_key": {"api_key": "k", "fields": {f"f{n}": "v" for n in range(17)}}}, ["api_key.fields"]),
        ({"oauth": {"access_token": "t", "scopes": ["two words"]}}, ["oauth.scopes"]),
        ({"oauth": {"access_token": "t", "scopes": ["s"] * 101}}, ["oauth.scopes"]),
        ({"oauth": {"access_token": "t", "expire_time": {"seconds": 1, "nanos": -1}}}, ["oauth.expire_time"]),
        ({"oauth": {"access_token": "t", "expire_time": {"seconds": -1}}}, ["oauth.expire_time"]),
        ({"api_key": {"api_key": "k"}, "labels": {"": "v"}}, ["labels"]),
        ({"api_key": {"api_key": "k"}, "labels": {f"l{n}": "v" for n in range(33)}}, ["labels"]),
        ({"api_key": {"api_key": "k"}, "labels": {"a": "v\n"}}, ["labels"]),
        ({"api_key": {"api_key": "k"}, "credential": "Not A Label"}, ["credential"]),
        ({"api_key": {"api_key": "k"}, "credential": "../other"}, ["credential"]),
    ],
)
async def test_what_is_wrong_with_a_store_is_named_by_its_field(
    home: Home, fields: dict[str, Any], named: list[str]
) -> None:
    """Before anything is read or written."""
    with pytest.raises(Refused) as caught:
        await home.admin.store(home.tenant, "notion", **fields)
    assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", named)


async def test_pages_of_credentials_give_each_once_while_others_are_stored(home: Home) -> None:
    """A walk by any page size; what comes and goes beside it hides nothing."""
    integration = await home.integration()
    names = [f"c{number:02}" for number in range(9)]
    material = {"api_key": planted()}
    await asyncio.gather(*(home.admin.store(home.tenant, integration, credential=n, api_key=material) for n in names))
    for size in (1, 2, 4, 9, 10):
        seen: list[str] = []
        token = ""
        while True:
            request = pb.ListCredentialsRequest(tenant=home.tenant, page_size=size, page_token=token)
            page = await home.admin.call("ListCredentials", request)
            seen += [credential.id for credential in page.credentials]
            token = page.next_page_token
            if not token:
                break
            await home.admin.store(home.tenant, integration, credential=f"{token[:3]}-x{size}", api_key=material)
        assert len(seen) == len(set(seen))
        assert set(names) <= set(seen)
    with pytest.raises(Refused) as caught:
        await home.admin.call("ListCredentials", pb.ListCredentialsRequest(tenant=home.tenant, page_size=-1))
    assert caught.value.fields == ["page_size"]
