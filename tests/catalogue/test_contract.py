"""Every entry of the catalogue against what its vendor documents, by the real use cases; only hosts are redirected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import RSAKey

from connectors_grpc.catalogue import load_catalogue
from connectors_grpc.checking.stage import REDIRECT_URI, Stage
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.revoking import ProviderResult
from connectors_grpc.domain.definition import Integration, OAuthClient
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.domain.records import CredentialKind
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.secret import Secret
from tests.catalogue.vendor import (
    BASIC,
    CLIENT_ID,
    CLIENT_SECRET,
    CODE,
    FIXTURES,
    Fixture,
    expected,
    filled_in,
    raw,
    sent,
)
from tests.redirected import Redirected
from tests.upstream import RecordingUpstream, recording_upstream

CATALOGUE = load_catalogue()
TEXTS = {
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
    "basic": BASIC,
    "code": CODE,
    "redirect_uri": REDIRECT_URI,
}
CONSENT = [name for name, one in FIXTURES.items() if one.authorize]


def entry(name: str) -> Integration:
    """The catalogue's."""
    return CATALOGUE[IntegrationId(name)]


@asynccontextmanager
async def staged(fixture: Fixture) -> AsyncIterator[tuple[Stage, RecordingUpstream]]:
    """The entry on a stage, and where all that it sends comes in."""
    async with recording_upstream(raw(404)) as upstream:
        outbound = Redirected(upstream.url)
        secret = app_key() if fixture.mint else CLIENT_SECRET
        client = OAuthClient(CLIENT_ID, Secret(secret)) if fixture.authorize or fixture.mint else None
        try:
            async with Stage(entry(fixture.id), client, outbound) as stage:
                yield stage, upstream
        finally:
            await outbound.aclose()


@cache
def app_key() -> str:
    """The private key of an app that signs."""
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


async def obtain(fixture: Fixture, stage: Stage, upstream: RecordingUpstream) -> None:
    """A credential, in the way that the vendor has."""
    if fixture.authorize:
        await connect(fixture, stage, upstream)
        return
    if fixture.mint is None:
        await store(fixture, stage)
        return
    given = {name: Secret(value) for name, value in fixture.mint["given"].items()}
    await stage.store(NewMaterial(CredentialKind.OAUTH, {}, inputs=given))
    upstream.replies.append(raw(201, fixture.mint["reply"]))


async def connect(fixture: Fixture, stage: Stage, upstream: RecordingUpstream) -> str:
    """Connect as a tenant's person does, with the vendor's documented answers; the URL that they were sent to."""
    assert fixture.token is not None
    url = await stage.begin(fixture.inputs, ("a-scope",))
    upstream.replies.append(raw(200, fixture.token["reply"]))
    if fixture.discovery:
        upstream.replies.append(raw(200, fixture.discovery["reply"]))
    if fixture.identity and "account" in fixture.identity:
        upstream.replies.append(raw(200, fixture.identity["reply"]))
    await stage.finish(url, CODE)
    return url


async def store(fixture: Fixture, stage: Stage) -> None:
    """Store what the vendor's console gives."""
    given = {name: Secret(value) for name, value in fixture.material.items()}
    kind = CredentialKind.BASIC if "username" in given else CredentialKind.API_KEY
    await stage.store(NewMaterial(kind, given), fixture.inputs)


def test_every_entry_has_a_fixture_and_every_fixture_an_entry() -> None:
    """None goes untried."""
    assert set(CATALOGUE) == set(FIXTURES)
    assert all(one.source.startswith("https://") for one in FIXTURES.values())


@pytest.mark.parametrize("name", CONSENT)
async def test_a_person_is_sent_to_consent_as_the_vendor_wants_it(name: str) -> None:
    """The URL, every parameter and no other; PKCE where the vendor takes it."""
    fixture = FIXTURES[name]
    assert fixture.authorize is not None
    async with staged(fixture) as (stage, _):
        parts = urlsplit(await stage.begin(fixture.inputs, ("a-scope", "b-scope")))
    found = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == fixture.authorize["url"]
    assert found.pop("state")
    assert (found.pop("code_challenge", ""), found.pop("code_challenge_method", "")) != ("", "S256")
    assert ("code_challenge" in parts.query) is fixture.authorize["pkce"]
    separator = fixture.authorize.get("separator", " ")
    wanted = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        fixture.authorize.get("scopes_in", "scope"): f"a-scope{separator}b-scope",
        **fixture.authorize.get("parameters", {}),
    }
    assert found == wanted


@pytest.mark.parametrize("name", CONSENT)
async def test_a_code_is_exchanged_as_the_vendor_wants_it(name: str) -> None:
    """Method, URL, authentication, body and headers; then what is looked up, and what is kept."""
    fixture = FIXTURES[name]
    assert fixture.token is not None
    assert fixture.authorize is not None
    async with staged(fixture) as (stage, upstream):
        await connect(fixture, stage, upstream)
        request, *later = upstream.requests
        found = sent(request)
        assert found["parameters"].pop("code_verifier", None) is not None or not fixture.authorize["pkce"]
        assert found == expected(fixture.token, **TEXTS)
        has_headers(request.headers, fixture.token.get("headers", {"accept": "application/json"}))
        if fixture.discovery:
            assert sent(later.pop(0)) == expected({"method": "GET", "form": "none"} | dict(fixture.discovery), **TEXTS)
        if fixture.identity and "account" in fixture.identity:
            assert sent(later.pop(0)) == expected({"method": "GET", "form": "none"} | dict(fixture.identity), **TEXTS)
        assert not later
        credential = (await stage.use()).held.credential
        assert credential.hosts == fixture.hosts
        assert dict(credential.values) == {**fixture.inputs, **fixture.values}
        assert credential.account == str((fixture.identity or {}).get("account", ""))
        assert credential.refreshable is (fixture.refresh is not None)
        lifetime = fixture.token.get("reply", {}).get("expires_in") or fixture.authorize.get("assumed_lifetime")
        assert (credential.expire_time is None) is (lifetime is None)


@pytest.mark.parametrize("name", [name for name in CONSENT if FIXTURES[name].refresh])
async def test_a_token_is_refreshed_as_the_vendor_wants_it(name: str) -> None:
    """Then the new token goes out, and the new refresh token is used next; or the old one, where none came."""
    fixture = FIXTURES[name]
    assert fixture.refresh is not None
    assert fixture.token is not None
    async with staged(fixture) as (stage, upstream):
        await connect(fixture, stage, upstream)
        upstream.replies += [raw(200, fixture.refresh["reply"])] * 2
        await stage.refresh()
        request = upstream.requests[-1]
        assert sent(request) == expected(fixture.refresh, **TEXTS, rt=fixture.refresh["uses"])
        has_headers(request.headers, fixture.token.get("headers", {"accept": "application/json"}))
        use = await stage.use()
        assert fixture.refresh["gives"] in str([value.reveal() for value in use.injection.headers.values()])
        await stage.refresh()
        assert sent(upstream.requests[-1])["parameters"]["refresh_token"] == fixture.refresh["then_uses"]


def rotation(name: str) -> str:
    """What the entry says becomes of a used refresh token."""
    oauth = entry(name).oauth
    assert oauth is not None
    return f"{oauth.refresh_rotation.value}{', ends access token' if oauth.refresh_ends_access_token else ''}"


@pytest.mark.parametrize("name", [name for name in CONSENT if FIXTURES[name].refresh])
def test_an_entry_knows_how_refresh_tokens_rotate(name: str) -> None:
    """What decides whether a lost answer costs the grant."""
    fixture = FIXTURES[name]
    assert fixture.refresh is not None
    assert rotation(name) == fixture.refresh["rotation"]


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name, one in FIXTURES.items() for index in range(len(one.refused))]
)
async def test_a_refusal_is_understood(name: str, index: int) -> None:
    """Gone for good, or passing: by the vendor's own status and words."""
    fixture = FIXTURES[name]
    refused = fixture.refused[index]
    async with staged(fixture) as (stage, upstream):
        await connect(fixture, stage, upstream)
        upstream.replies.append(raw(refused["status"], refused["reply"]))
        with pytest.raises(ConnectorsError) as caught:
            await stage.refresh()
    assert caught.value.reason is Reason(refused["means"])


@pytest.mark.parametrize("name", [name for name, one in FIXTURES.items() if one.mint])
async def test_a_token_is_minted_as_the_vendor_wants_it(name: str) -> None:
    """By a signed JWT of bounded life; and ended again."""
    fixture = FIXTURES[name]
    assert fixture.mint is not None
    assert fixture.revoke is not None
    async with staged(fixture) as (stage, upstream):
        await obtain(fixture, stage, upstream)
        await stage.use()
        (request,) = upstream.requests
        found = sent(request)
        token = found.pop("authorization").removeprefix("Bearer ")
        claims = jwt.decode(token, RSAKey.import_key(app_key()), algorithms=["RS256"]).claims
        assert claims["iss"] == CLIENT_ID
        assert claims["exp"] - claims["iat"] <= fixture.mint["longest"]
        assert found == expected(fixture.mint, **TEXTS)
        upstream.replies.append(raw(fixture.revoke["status"]))
        assert await stage.revoke() is ProviderResult.REVOKED
        assert sent(upstream.requests[-1]) == expected(fixture.revoke, **TEXTS)


@pytest.mark.parametrize("name", CONSENT)
async def test_a_grant_is_ended_as_the_vendor_wants_it(name: str) -> None:
    """In its own form; where it has none, nothing is sent."""
    fixture = FIXTURES[name]
    async with staged(fixture) as (stage, upstream):
        await connect(fixture, stage, upstream)
        before = len(upstream.requests)
        upstream.replies.append(
            raw(fixture.revoke.get("status", 200), fixture.revoke.get("reply")) if fixture.revoke else b""
        )
        result = await stage.revoke()
        if fixture.revoke is None:
            assert (result, len(upstream.requests)) == (ProviderResult.NOT_SUPPORTED, before)
        else:
            assert result is ProviderResult.REVOKED
            assert sent(upstream.requests[-1]) == expected(fixture.revoke, **TEXTS)
            has_headers(upstream.requests[-1].headers, fixture.revoke.get("headers", {}))


@pytest.mark.parametrize("name", FIXTURES)
async def test_a_call_goes_where_the_vendor_has_its_api(name: str) -> None:
    """The URL, the credential where it belongs, the headers that each call needs."""
    fixture = FIXTURES[name]
    async with staged(fixture) as (stage, upstream):
        await obtain(fixture, stage, upstream)
        upstream.replies.append(raw(200, {}))
        await stage.call("GET", fixture.call["path"])
        request = upstream.requests[-1]
        assert sent(request)["url"] == fixture.call["url"]
        has_headers(request.headers, fixture.call["headers"])
        assert (await stage.use()).held.credential.hosts == fixture.hosts


@pytest.mark.parametrize("name", [name for name, one in FIXTURES.items() if one.identity])
async def test_the_identity_call_says_whose_account_it_is(name: str) -> None:
    """By the vendor's documented answer."""
    fixture = FIXTURES[name]
    assert fixture.identity is not None
    async with staged(fixture) as (stage, upstream):
        await obtain(fixture, stage, upstream)
        upstream.replies.append(raw(200, fixture.identity["reply"]))
        identity = await stage.verify()
        found = sent(upstream.requests[-1])
        wanted = expected({"method": "GET", "form": "none"} | dict(fixture.identity), **TEXTS)
        assert {part: found.get(part) for part in wanted} == wanted
    assert identity.accepted
    assert identity.account == str(fixture.identity.get("account", ""))


@pytest.mark.parametrize("name", FIXTURES)
def test_an_entry_knows_how_the_vendor_limits_calls(name: str) -> None:
    """429 and 503 with Retry-After, unless the vendor documents something else."""
    api = entry(name).api
    assert api is not None
    usual = {"statuses": [429, 503], "remaining_header": "", "reset_header": "", "reset_unit": "seconds"}
    found = asdict(api.retry)
    assert {**found, "statuses": list(found["statuses"])} == {**usual, **(FIXTURES[name].retry or {})}


def has_headers(lines: list[tuple[str, str]], wanted: Mapping[str, Any]) -> None:
    """Each wanted line is there once, with that value."""
    for name, value in wanted.items():
        found = [line for key, line in lines if key.lower() == name.lower()]
        assert found == [filled_in(str(value), TEXTS)], name
