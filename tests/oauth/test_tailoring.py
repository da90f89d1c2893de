"""Definitions that are not the same for all tenants: inputs, what is found out after consent, and the hosts that follow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc import outbound
from connectors_grpc.checking.stage import TENANT, Stage
from connectors_grpc.circuit import FAILURES
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.revoking import ProviderResult
from connectors_grpc.domain.definition import (
    Api,
    ClientAuthentication,
    Discovery,
    Input,
    Integration,
    OAuth,
    OAuthClient,
    Placement,
    Revocation,
)
from connectors_grpc.domain.ids import CredentialId, IntegrationId
from connectors_grpc.domain.records import CredentialKind
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.inject.target import authority
from connectors_grpc.ports import Clock
from connectors_grpc.rules.definition import validate_definition
from connectors_grpc.secret import Secret
from connectors_grpc.tailoring import consenting, read_values, tailored
from tests.catalogue.vendor import raw
from tests.clock import ManualClock
from tests.redirected import MEANT_FOR, Redirected
from tests.upstream import RecordingUpstream, UpstreamRequest, recording_upstream

SHOP = Input("shop", "Shop", r"[a-z0-9][a-z0-9-]*", example="acme")
REGION = Input("region", choices={"us": "", "eu": ".eu"}, default="us")
HOST = Input("host", "Host", r"[a-z0-9.:-]+", example="git.acme.example", default="git.example")
SITE = Input("site", pattern="[a-z]+", optional=True)
CLOUD = Discovery(
    "cloud", "/id", "https://api.example/sites", "[a-z0-9-]+", match_pointer="/url", match="https://{site}.example"
)
INSTANCE = Discovery("instance", "/instance_url", pattern=r"https://([a-z0-9.-]+)\.force\.example/?")


def integration(host: str, *inputs: Input, base_url: str = "", **oauth: Any) -> Integration:
    """An OAuth integration at a host, or a template of one."""
    side = OAuth(
        authorization_endpoint=f"https://{host}/authorize",
        token_endpoint=f"https://{host}/token",
        client_authentication=ClientAuthentication.POST,
        **oauth,
    )
    return Integration(IntegrationId("shops"), oauth=side, api=Api(base_url or f"https://{host}/api"), inputs=inputs)


SHOPS = integration("{shop}.shops.example", SHOP)
SITES = integration("auth.example", SITE, base_url="https://api.example/ex/{cloud}", discovery=(CLOUD,))


@asynccontextmanager
async def staged(
    definition: Integration, *, own: bool = False, clock: Clock | None = None
) -> AsyncIterator[tuple[Stage, RecordingUpstream]]:
    """The definition on a stage, and where all that it sends comes in."""
    assert not validate_definition(definition)
    async with recording_upstream(raw(404)) as upstream:
        redirected = Redirected(upstream.url)
        try:
            async with Stage(
                definition, OAuthClient("id", Secret("s3cret")), redirected, clock=clock, own=own
            ) as stage:
                yield stage, upstream
        finally:
            await redirected.aclose()


async def connect(
    stage: Stage, upstream: RecordingUpstream, *found: Any, inputs: Mapping[str, str] | None = None, **reply: str
) -> None:
    """Connect; `found` is what discoveries are answered."""
    url = await stage.begin(inputs)
    upstream.replies += [raw(200, {"access_token": "at-1", "refresh_token": "rt-1", **reply})]
    upstream.replies += [raw(200, one) for one in found]
    await stage.finish(url, "code")


def meant_for(upstream: RecordingUpstream) -> list[str]:
    """Which hosts requests were for."""
    return [request.header(MEANT_FOR)[0] for request in upstream.requests]


async def refusal(awaited: Any) -> ConnectorsError:
    """Why it is refused."""
    with pytest.raises(ConnectorsError) as caught:
        await awaited
    return caught.value


async def test_a_subdomain_goes_into_every_url_and_is_sealed() -> None:
    """Consent, code, refresh and call are at the tenant's own host, and the credential may go nowhere else."""
    async with staged(SHOPS) as (stage, upstream):
        await connect(stage, upstream, inputs={"shop": "acme"})
        upstream.replies += [raw(200, {"access_token": "at-2"}), raw(200, {})]
        await stage.refresh()
        await stage.call("GET", "/orders")
        assert set(meant_for(upstream)) == {"https://acme.shops.example"}
        credential = (await stage.use()).held.credential
        assert credential.hosts == ("acme.shops.example",)
        assert credential.values == {"shop": "acme"}


async def test_connecting_again_need_not_repeat_what_was_given() -> None:
    """The inputs of the credential that is there hold, unless others are given."""
    async with staged(SHOPS) as (stage, upstream):
        await connect(stage, upstream, inputs={"shop": "acme"})
        assert (await stage.begin()).startswith("https://acme.shops.example/authorize?")
        assert (await stage.begin({"shop": "other"})).startswith("https://other.shops.example/authorize?")


@pytest.mark.parametrize(
    "value",
    [
        "evil.example/",
        "evil.example#",
        "evil.example?",
        "a@evil.example",
        "a\\",
        "..",
        ".",
        "a b",
        "",
        "é",
        "%2e",
        "a" * 300,
    ],
)
async def test_attack_37_a_given_value_never_ends_the_host(value: str) -> None:
    """Whatever the pattern lets through, the vendor's end of the name stays where it is."""
    lenient = integration("{shop}.shops.example", replace(SHOP, pattern=r"[\s\S]*"))
    async with staged(lenient) as (stage, _):
        error = await refusal(stage.begin({"shop": value}))
        assert error.reason is Reason.INVALID_FIELD or error.metadata == {"field": "shop"}
        assert not value or all(value not in violation.description for violation in error.fields if len(value) > 2)


@given(st.text() | st.text("abc.-_/:@?#%\\ \n", max_size=30))
def test_whatever_is_given_the_host_ends_as_the_definition_says(value: str) -> None:
    """Refused, or below the fixed end."""
    lenient = replace(SHOPS, inputs=(replace(SHOP, pattern=r"[\s\S]*"),))
    with contextlib.suppress(ConnectorsError):
        whole = tailored(lenient, read_values(lenient, {"shop": value}, found=True))
        assert whole.api is not None
        assert authority(whole.api.base_url).endswith(".shops.example")


async def test_inputs_are_asked_for_by_name_and_example() -> None:
    """What is missing, malformed or unknown is named, without the value."""
    async with staged(SHOPS) as (stage, _):
        for inputs, field in (
            ({}, "shop"),
            ({"shop": "Not A Shop"}, "shop"),
            ({"shop": "acme", "color": "red"}, "color"),
        ):
            error = await refusal(stage.begin(inputs))
            assert error.reason is Reason.INVALID_FIELD
            assert [violation.field for violation in error.fields] == [f"inputs.{field}"]
        assert "acme" in (await refusal(stage.begin())).fields[0].description


async def test_a_choice_fills_in_what_the_definition_says() -> None:
    """And a default holds where none is made."""
    async with staged(integration("api{region}.example", REGION)) as (stage, _):
        assert (await stage.begin()).startswith("https://api.example/")
        assert (await stage.begin({"region": "eu"})).startswith("https://api.eu.example/")
        assert (await refusal(stage.begin({"region": "mars"}))).reason is Reason.INVALID_FIELD


async def test_attack_37_a_host_of_the_tenants_choice_never_sees_the_platforms_client() -> None:
    """The vendor's own host does; any other needs an OAuth client of the tenant's own, now and at every later use."""
    definition = integration("{host}", HOST)
    async with staged(definition) as (stage, upstream):
        assert (await stage.begin()).startswith("https://git.example/")
        error = await refusal(stage.begin({"host": "git.acme.example"}))
        assert error.reason is Reason.INTEGRATION_NOT_CONFIGURED
        assert error.metadata["missing"] == "oauth_client of the tenant"
        assert not upstream.requests
    async with staged(definition, own=True) as (stage, upstream):
        await connect(stage, upstream, inputs={"host": "git.acme.example:8443"})
        assert meant_for(upstream) == ["https://git.acme.example:8443"]
        # The tenant's client goes, and the platform gets one: it does not take over.
        await stage.integrations.tenant_clients.delete(stage.caller, stage.tenant, definition.id)
        wanted = replace(definition, client=OAuthClient("platform", Secret("platforms-own")))
        await stage.integrations.create(stage.caller, wanted, request_id="", validate_only=False)
        before = len(upstream.requests)
        assert (await refusal(stage.refresh())).reason is Reason.INTEGRATION_NOT_CONFIGURED
        assert await stage.revoke() is ProviderResult.FAILED
        assert len(upstream.requests) == before


async def test_attack_37_nor_does_one_where_grants_are_ended() -> None:
    """An input that is the whole host of the definition's own revocation counts as any other."""
    ending = Revocation("https://{host}/end", parameters={"t": "{access_token}", "s": "{client_secret}"})
    async with staged(integration("a.example", HOST, revocation=ending)) as (stage, upstream):
        error = await refusal(stage.begin({"host": "git.acme.example"}))
        assert error.reason is Reason.INTEGRATION_NOT_CONFIGURED
        assert not upstream.requests


@pytest.mark.parametrize("definition", [integration("{host}", HOST), replace(integration("{host}", HOST), oauth=None)])
def test_attack_37_nor_does_one_lie_in_the_platforms_network_whatever_was_stored(definition: Integration) -> None:
    """A record of before, or an entry that let tenants choose only later, is not judged anew: so each use is."""
    opened = replace(definition, allow_private_addresses=True)
    assert not tailored(opened, {"host": Secret("git.acme.example")}).allow_private_addresses
    assert tailored(opened, {"host": Secret("git.example")}).allow_private_addresses


async def test_a_site_is_looked_up_after_consent() -> None:
    """By a call with the new token; its id is sealed, and calls go below it."""
    async with staged(SITES) as (stage, upstream):
        await connect(stage, upstream, [{"id": "c-1", "url": "https://acme.example"}])
        assert upstream.requests[-1].header("authorization") == ["Bearer at-1"]
        upstream.replies.append(raw(200, {}))
        await stage.call("GET", "/issue")
        assert upstream.requests[-1].target == "/ex/c-1/issue"


SEVERAL = [{"id": "c-1", "url": "https://acme.example"}, {"id": "c-2", "url": "https://other.example"}]


async def test_of_several_sites_an_input_says_which() -> None:
    """Without it nothing is stored, and the refusal names the input. The same site twice is one."""
    async with staged(SITES) as (stage, upstream):
        error = await refusal(connect(stage, upstream, SEVERAL))
        assert error.reason is Reason.AUTHORIZATION_REFUSED
        assert error.metadata == {"problem": "discovery_several", "discovery": "cloud", "input": "site"}
        await connect(stage, upstream, SEVERAL, inputs={"site": "other"})
        assert (await stage.use()).held.credential.values == {"site": "other", "cloud": "c-2"}
        await connect(stage, upstream, [SEVERAL[0]] * 2, inputs={"site": "acme"})
        assert (await stage.use()).held.credential.values["cloud"] == "c-1"


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([], "discovery_missing"),
        ({}, "discovery_missing"),
        ([{"id": "../../x"}], "discovery_refused"),
        ([{"id": "a" * 300}], "discovery_refused"),
        ([{"id": True}], "discovery_missing"),
    ],
    ids=str,
)
async def test_what_is_found_is_held_to_its_pattern(found: Any, problem: str) -> None:
    """Nothing of it goes on; the provider's words are not repeated."""
    async with staged(SITES) as (stage, upstream):
        error = await refusal(connect(stage, upstream, found))
        assert error.metadata == {"problem": problem, "discovery": "cloud"}
        assert (await refusal(stage.use())).reason is Reason.CREDENTIAL_NOT_FOUND


async def test_a_lookup_that_fails_for_a_moment_is_made_again() -> None:
    """The code is used up: once more is worth it."""
    async with staged(SITES) as (stage, upstream):
        url = await stage.begin()
        upstream.replies += [raw(200, {"access_token": "at-1"}), raw(503), raw(200, SEVERAL[:1])]
        await stage.finish(url, "code")
        url = await stage.begin()
        upstream.replies += [raw(200, {"access_token": "at-1"}), raw(503), raw(503)]
        assert (await refusal(stage.finish(url, "code"))).reason is Reason.PROVIDER_UNAVAILABLE


INSTANCES = integration("login.force.example", base_url="https://{instance}.force.example", discovery=(INSTANCE,))


async def test_a_host_in_a_reply_is_taken_below_the_vendors_end_only() -> None:
    """Of `instance_url` only what the pattern has in its group, and only before a fixed end."""
    async with staged(INSTANCES) as (stage, upstream):
        await connect(stage, upstream, instance_url="https://acme.my.force.example/")
        assert (await stage.use()).held.credential.hosts == ("acme.my.force.example",)
        for evil in (
            "https://evil.example",
            "https://acme.force.example.evil.example",
            "http://acme.force.example",
            "acme",
        ):
            error = await refusal(connect(stage, upstream, instance_url=evil))
            assert error.metadata["problem"] == "discovery_refused", evil
        # A refresh that names another host widens nothing.
        upstream.replies.append(raw(200, {"access_token": "at-2", "instance_url": "https://new.force.example"}))
        await stage.refresh()
        assert (await stage.use()).allowed_hosts == ("acme.my.force.example",)


async def test_what_is_stored_names_what_would_have_been_found() -> None:
    """An import knows its site; without it calls would have nowhere to go."""
    new = NewMaterial(CredentialKind.OAUTH, {"access_token": Secret("at-1")})
    async with staged(SITES) as (stage, _):
        error = await refusal(stage.store(new))
        assert [violation.field for violation in error.fields] == ["inputs.cloud"]
        await stage.store(new, {"cloud": "c-9"})
        assert (await stage.use()).api.base_url == "https://api.example/ex/c-9"


SECRETIVE = Integration(
    IntegrationId("keys"),
    api=Api("https://api.example", placement=Placement({"X-Key": "{api_key}", "X-App": "{application_key}"})),
    inputs=(Input("application_key", pattern="[a-z0-9-]+", secret=True),),
)


async def test_a_secret_input_is_put_in_and_never_shown() -> None:
    """It is sealed with the credential, and stands in no record."""
    async with staged(SECRETIVE) as (stage, upstream):
        new = NewMaterial(CredentialKind.API_KEY, {"api_key": Secret("k-1")})
        stored = await stage.store(new, {"application_key": "app-s3cret"})
        assert stored.values == {}
        upstream.replies.append(raw(200, {}))
        await stage.call("GET", "/")
        assert upstream.requests[-1].header("x-app") == ["app-s3cret"]
        held = await stage.keeper.read(stage.tenant, stage.credential)
        assert held is not None
        assert "app-s3cret" not in repr(held)


async def test_no_reply_replaces_what_was_given() -> None:
    """A provider that answers a field of an input's name changes neither host nor placement."""
    placed = replace(
        SHOPS, api=Api("https://{shop}.shops.example", placement=Placement({"X-Shop": "{shop}:{access_token}"}))
    )
    async with staged(placed) as (stage, upstream):
        await connect(stage, upstream, inputs={"shop": "acme"}, shop="evil")
        upstream.replies.append(raw(200, {"access_token": "at-2", "shop": "evil"}))
        await stage.refresh()
        assert [value.reveal() for value in (await stage.use()).injection.headers.values()] == ["acme:at-2"]


async def test_one_tenants_dead_host_holds_up_no_other_tenant() -> None:
    """The circuit of a provider is per sealed host."""
    async with staged(SHOPS) as (stage, upstream):
        await connect(stage, upstream, inputs={"shop": "dead"})
        dead = stage.credential
        stage.credential = type(dead)("second")
        await connect(stage, upstream, inputs={"shop": "well"})
        well, stage.credential = stage.credential, dead
        for _ in range(6):
            upstream.replies.append(raw(503))
            await refusal(stage.refresh())
        upstream.replies.clear()
        before = len(upstream.requests)
        assert (await refusal(stage.refresh())).metadata["problem"] == "circuit_open"
        assert len(upstream.requests) == before
        stage.credential = well
        upstream.replies.append(raw(200, {"access_token": "at-2"}))
        await stage.refresh()


async def test_a_tenant_at_its_share_of_connections_speaks_against_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hosts hang: another token of its own is used while it lives, and renewed once there is room, for nothing failed."""
    monkeypatch.setattr(outbound, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(outbound, "WAITED", 0.001)
    clock, over = ManualClock(), asyncio.Event()

    async def hang(_request: UpstreamRequest) -> bytes:
        await over.wait()
        return raw(200, {"access_token": "at-2"})

    async with staged(SHOPS, clock=clock) as (stage, upstream):
        await connect(stage, upstream, inputs={"shop": "slow"}, expires_in="100")
        slow, well = stage.credential, CredentialId("second")
        stage.credential = well
        await connect(stage, upstream, inputs={"shop": "well"}, expires_in="100")
        upstream.replies.append(hang)
        hanging = asyncio.create_task(stage.refreshing.refresh(stage.tenant, slow))
        await upstream.seen(3)
        clock.advance(90)
        for _ in range(FAILURES):
            assert (await stage.use()).material.fields["access_token"] == Secret("at-1")
            assert (await refusal(stage.refresh())).reason is Reason.LIMIT_EXCEEDED
        assert len(upstream.requests) == 3
        over.set()
        await hanging
        upstream.replies.append(raw(200, {"access_token": "at-3"}))
        assert (await stage.use()).material.fields["access_token"] == Secret("at-3")


REVOKES = replace(
    SHOPS,
    oauth=replace(
        SHOPS.oauth or OAuth(),
        revocation=Revocation("https://{shop}.shops.example/me", "DELETE", Placement({"X-Token": "{access_token}"})),
    ),
)


@pytest.mark.parametrize(
    ("status", "result"), [(204, "revoked"), (404, "revoked"), (410, "revoked"), (401, "failed"), (500, "failed")]
)
async def test_a_grant_is_ended_in_the_providers_own_way(status: int, result: str) -> None:
    """What is not there any more is ended too; a refusal is said, never hidden."""
    async with staged(REVOKES) as (stage, upstream):
        await connect(stage, upstream, inputs={"shop": "acme"})
        upstream.replies.append(raw(status))
        assert (await stage.revoke()).value == result
        request = upstream.requests[-1]
        assert (request.method, request.target, request.header("x-token")) == ("DELETE", "/me", ["at-1"])


async def test_the_refresh_tokens_end_is_remembered_as_the_provider_says_it() -> None:
    """From the reply, counted from when it was asked; a new refresh token without a word has none."""
    async with staged(SHOPS) as (stage, upstream):
        url = await stage.begin({"shop": "acme"})
        upstream.replies.append(raw(200, {"access_token": "a", "refresh_token": "r", "refresh_token_expires_in": 7200}))
        credential = await stage.finish(url, "code")
        assert credential.refresh_expire_time is not None
        assert credential.issue_time is not None
        assert (credential.refresh_expire_time - credential.issue_time).total_seconds() == 7200
        upstream.replies.append(raw(200, {"access_token": "b"}))
        assert (await stage.refresh()).refresh_expire_time == credential.refresh_expire_time
        upstream.replies.append(raw(200, {"access_token": "c", "refresh_token": "s"}))
        assert (await stage.refresh()).refresh_expire_time is None


async def test_an_entry_that_ships_is_not_opened_to_this_network_where_tenants_choose_the_host() -> None:
    """Not by `allow_private_addresses` alone either, which changes nothing else of the entry."""
    async with staged(integration("{host}", HOST)) as (stage, _):

        def opened(current: Integration) -> Integration:
            return replace(current, allow_private_addresses=True)

        update = stage.integrations.update(stage.caller, stage.definition.id, opened, version=0, keep_client=True)
        error = await refusal(update)
        assert [violation.field for violation in error.fields] == ["integration.allow_private_addresses"]


BAD: Mapping[str, tuple[Integration, str]] = {
    "no such input": (integration("{shop}.shops.example"), "oauth.authorization_endpoint"),
    "no fixed end": (integration("{shop}.example", SHOP), "oauth.authorization_endpoint"),
    "not the first part": (integration("x.{shop}.example.org", SHOP), "oauth.authorization_endpoint"),
    "two in one host": (integration("{shop}.{host}.example", SHOP, HOST), "oauth.authorization_endpoint"),
    "in a query": (integration("a.example/x?y={shop}", SHOP), "oauth.authorization_endpoint"),
    "optional in a URL": (integration("{site}.a.example", SITE), "oauth.authorization_endpoint"),
    "a chosen host in this network": (
        replace(integration("{host}", HOST), allow_private_addresses=True), "allow_private_addresses",
    ),
    "secret where people consent": (integration("a.example", replace(SHOP, secret=True)), "inputs"),
    "twice": (integration("a.example", SHOP, SHOP), "inputs"),
    "a credential's field": (integration("a.example", replace(SHOP, id="access_token")), "inputs"),
    "pattern and choices": (integration("a.example", replace(REGION, pattern="x")), "inputs"),
    "neither": (integration("a.example", Input("x")), "inputs"),
    "no pattern at all": (integration("a.example", replace(SHOP, pattern="(")), "inputs"),
    "a look-ahead": (integration("a.example", replace(SHOP, pattern="(?=a)a+")), "inputs"),
    "a back-reference": (integration("a.example", replace(SHOP, pattern=r"(a+)\1")), "inputs"),
    "a large repetition": (integration("a.example", replace(SHOP, pattern="(?:a{1,90}){1,90}(?:a{1,90}){1,90}")), "inputs"),
    "two groups": (integration("a.example", replace(SHOP, pattern="(a)(b)")), "inputs"),
    "an example that is none": (integration("a.example", replace(SHOP, example="Not A Shop")), "inputs"),
    "many": (integration("a.example", *(Input(f"i{n}", pattern="x") for n in range(17))), "inputs"),
    "a host found out whole": (
        integration("a.example", base_url="https://{instance}", discovery=(INSTANCE,)), "api.base_url",
    ),
    "asked elsewhere": (
        integration("a.example", SITE, discovery=(replace(CLOUD, url="https://evil.example/"),)), "oauth.discovery",
    ),
    "no pointer": (integration("a.example", discovery=(Discovery("x", "id"),)), "oauth.discovery"),
    "match without place": (integration("a.example", SITE, discovery=(Discovery("x", "/a", match="{site}"),)), "oauth.discovery"),
    "match of nothing": (
        integration("a.example", discovery=(Discovery("x", "/a", match="{y}", match_pointer="/b"),)), "oauth.discovery",
    ),
    "revoked by GET with a token": (
        integration("a.example", revocation=Revocation("https://a.example/r", "GET", parameters={"t": "{access_token}"})),
        "oauth.revocation.parameters",
    ),
    "a token in the URL": (
        integration("a.example", revocation=Revocation("https://a.example/{access_token}")), "oauth.revocation.url",
    ),
    "revoked by PATCH": (
        integration("a.example", revocation=Revocation("https://a.example/", "PATCH")), "oauth.revocation.method",
    ),
    "two revocations": (
        integration("a.example", revocation_endpoint="https://a.example/r", revocation=Revocation("https://a.example/")),
        "oauth.revocation",
    ),
    "the code called state": (integration("a.example", code_parameter="state"), "oauth.code_parameter"),
    "a header of ours": (integration("a.example", token_headers={"Content-Type": "x"}), "oauth.token_headers"),
    "tokens at no pointer": (integration("a.example", token_pointer="authed_user"), "oauth.token_pointer"),
    "an odd error": (integration("a.example", terminal_errors=("No!",)), "oauth.terminal_errors"),
}  # fmt: skip


@pytest.mark.parametrize(("definition", "field"), BAD.values(), ids=BAD)
def test_a_definition_bounds_what_tenants_and_providers_may_say(definition: Integration, field: str) -> None:
    """Each fault by its field, before anything is stored."""
    assert field in {violation.field for violation in validate_definition(definition)}


def test_a_definition_without_placeholders_is_left_as_it_is() -> None:
    """The usual case costs nothing."""
    plain = integration("a.example")
    assert consenting(plain, {}) is plain
    assert tailored(plain, {}) is plain


async def test_a_code_may_come_under_another_name() -> None:
    """The contract calls it `code` all the same."""
    async with staged(integration("a.example", code_parameter="auth_code")) as (stage, upstream):
        await connect(stage, upstream)
        assert b"code=code" in upstream.requests[0].body


async def test_a_further_error_ends_the_grant_where_the_definition_says_so() -> None:
    """Elsewhere the same code is passing."""
    for errors, reason in ((("token_gone",), Reason.NEEDS_REAUTH), ((), Reason.PROVIDER_UNAVAILABLE)):
        async with staged(integration("a.example", terminal_errors=errors)) as (stage, upstream):
            await connect(stage, upstream)
            upstream.replies.append(raw(400, {"error": "token_gone"}))
            assert (await refusal(stage.refresh())).reason is reason


async def test_tokens_may_stand_deeper_in_the_reply_and_others_never_take_their_place() -> None:
    """A user's token under `authed_user`; the bot's at the top is another's."""
    definition = integration("a.example", token_pointer="/authed_user", scope_parameter="user_scope", scopes=("read",))
    async with staged(definition) as (stage, upstream):
        url = await stage.begin()
        assert "user_scope=read" in url
        upstream.replies.append(raw(200, {"access_token": "bots", "authed_user": {"id": "U1"}}))
        assert (await refusal(stage.finish(url, "code"))).reason is Reason.PROVIDER_UNAVAILABLE
        user = {"id": "U1", "access_token": "users", "refresh_token": "rt-1"}
        url = await stage.begin()
        upstream.replies.append(raw(200, {"access_token": "bots", "authed_user": user}))
        await stage.finish(url, "code")
        assert "users" in (await stage.use()).injection.headers["Authorization"].reveal()
        upstream.replies.append(raw(200, {"access_token": "users-2"}))
        await stage.refresh()
        assert "users-2" in (await stage.use()).injection.headers["Authorization"].reveal()


async def test_an_identity_call_may_be_a_post() -> None:
    """GraphQL and RPC-like APIs: JSON goes out, with its content type."""
    body = '{"query": "{ viewer { id } }"}'
    api = Api("https://a.example", identity_path="/graphql", identity_body=body, account_pointer="/id")
    async with staged(replace(integration("a.example"), api=api)) as (stage, upstream):
        await connect(stage, upstream, {"id": "v-1"})
        request = upstream.requests[-1]
        assert (request.method, request.body) == ("POST", body.encode())
        assert request.header("content-type") == ["application/json"]
        assert (await stage.managing.get(stage.caller, TENANT, stage.credential)).account == "v-1"
