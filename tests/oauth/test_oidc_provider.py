"""The harness around the certified provider, by a plain authorization code flow done by hand."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import httpx2
import pytest

from tests.oidc.harness import HERE
from tests.providers import OidcProvider, RecordingUpstream, browser, recording_upstream, running_oidc_provider


@dataclass(frozen=True, slots=True)
class Setting:
    """A provider, the client's callback that catches codes, and an HTTP client."""

    provider: OidcProvider
    callback: RecordingUpstream
    http: httpx2.AsyncClient

    @property
    def redirect_uri(self) -> str:
        return f"{self.callback.url}/callback"

    async def authorized(self, **changes: str) -> tuple[dict[str, str], str]:
        """What came to the redirect URI after a person consented, and the PKCE verifier."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": self.provider.client_id,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
            "scope": "openid offline_access",
            "prompt": "consent",
            "state": "a-state",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        } | changes
        link = f"{self.provider.authorization_endpoint}?{urlencode({k: v for k, v in query.items() if v})}"
        async with browser() as person:
            page = await person.consent(link, account="alice")
        assert page.text == "ok", page.text
        answer = parse_qs(urlsplit(self.callback.requests[-1].target).query)
        return {name: values[0] for name, values in answer.items()}, verifier

    async def token(self, **fields: str) -> httpx2.Response:
        """A token request with client_secret_basic, id and secret form-urlencoded first."""
        pair = f"{quote_plus(self.provider.client_id)}:{quote_plus(self.provider.client_secret)}"
        basic = base64.b64encode(pair.encode()).decode()
        headers = {"Authorization": f"Basic {basic}"}
        return await self.http.post(self.provider.token_endpoint, data=fields, headers=headers)

    async def tokens(self) -> dict[str, object]:
        """The tokens that one whole flow gives."""
        answer, verifier = await self.authorized()
        reply = await self.token(
            grant_type="authorization_code",
            code=answer["code"],
            redirect_uri=self.redirect_uri,
            code_verifier=verifier,
        )
        assert reply.status_code == 200, reply.text
        document: dict[str, object] = reply.json()
        return document

    async def me(self, token: object) -> httpx2.Response:
        """The resource, asked with a token."""
        return await self.http.get(self.provider.api_url, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
async def setting() -> AsyncIterator[Setting]:
    """One provider for this module."""
    async with (
        recording_upstream() as callback,
        running_oidc_provider([f"{callback.url}/callback"], access_ttl=60) as provider,
        httpx2.AsyncClient(trust_env=False, timeout=20) as http,
    ):
        yield Setting(provider, callback, http)


async def test_a_person_consents_and_the_code_gives_tokens_that_open_the_resource(setting: Setting) -> None:
    """Login form, consent form, code, state, issuer, exchange, resource."""
    answer, _ = await setting.authorized()
    assert answer["state"] == "a-state"
    assert answer["iss"] == setting.provider.issuer
    tokens = await setting.tokens()
    assert tokens["expires_in"] == 60
    me = await setting.me(tokens["access_token"])
    assert (me.status_code, me.json()["sub"]) == (200, "alice")


async def test_an_access_token_dies_when_its_minute_is_over(setting: Setting) -> None:
    """The provider's clock is moved, not waited for."""
    tokens = await setting.tokens()
    await setting.provider.advance(61)
    assert (await setting.me(tokens["access_token"])).status_code == 401


async def test_a_refresh_rotates_and_reuse_ends_the_family(setting: Setting) -> None:
    """The first refresh token is refused the second time, and takes its successor with it."""
    first = await setting.tokens()
    second = await setting.token(grant_type="refresh_token", refresh_token=str(first["refresh_token"]))
    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert (await setting.me(second.json()["access_token"])).status_code == 200
    reused = await setting.token(grant_type="refresh_token", refresh_token=str(first["refresh_token"]))
    assert (reused.status_code, reused.json()["error"]) == (400, "invalid_grant")
    after = await setting.token(grant_type="refresh_token", refresh_token=second.json()["refresh_token"])
    assert (after.status_code, after.json()["error"]) == (400, "invalid_grant")


async def test_without_pkce_the_client_is_told_so(setting: Setting) -> None:
    """PKCE is required of a confidential client too."""
    answer, _ = await setting.authorized(code_challenge="", code_challenge_method="")
    assert answer["error"] == "invalid_request"
    assert answer["iss"] == setting.provider.issuer


async def test_a_wrong_verifier_gives_nothing(setting: Setting) -> None:
    """The code alone is worth nothing."""
    answer, _ = await setting.authorized()
    reply = await setting.token(
        grant_type="authorization_code",
        code=answer["code"],
        redirect_uri=setting.redirect_uri,
        code_verifier="x" * 43,
    )
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")


async def test_a_secret_that_is_not_urlencoded_in_basic_is_refused(setting: Setting) -> None:
    """What makes the awkward secret an oracle: sent raw, it is another secret."""
    raw = (setting.provider.client_id, setting.provider.client_secret)
    reply = await setting.http.post(
        setting.provider.token_endpoint, data={"grant_type": "refresh_token", "refresh_token": "x"}, auth=raw
    )
    assert reply.status_code in (400, 401)
    assert reply.json()["error"] in ("invalid_client", "invalid_request")


async def test_a_revoked_refresh_token_gives_nothing(setting: Setting) -> None:
    """RFC 7009 at the provider."""
    tokens = await setting.tokens()
    pair = f"{quote_plus(setting.provider.client_id)}:{quote_plus(setting.provider.client_secret)}"
    headers = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    data = {"token": str(tokens["refresh_token"])}
    reply = await setting.http.post(setting.provider.revocation_endpoint, data=data, headers=headers)
    assert reply.status_code == 200
    refused = await setting.token(grant_type="refresh_token", refresh_token=str(tokens["refresh_token"]))
    assert refused.json()["error"] == "invalid_grant"


async def test_a_redirect_uri_that_is_not_registered_is_never_redirected_to(setting: Setting) -> None:
    """The person sees an error page at the provider."""
    query = urlencode(
        {
            "client_id": setting.provider.client_id,
            "response_type": "code",
            "scope": "openid",
            "redirect_uri": f"{setting.callback.url}/callback/x",
        }
    )
    page = await setting.http.get(f"{setting.provider.authorization_endpoint}?{query}")
    assert page.status_code == 400


async def test_the_provider_ends_with_its_owner(setting: Setting) -> None:
    """Closing its stdin is enough: no process is left behind."""
    async with running_oidc_provider([setting.redirect_uri]) as provider:
        assert provider.issuer != setting.provider.issuer
    assert provider._process.returncode == 0


def test_the_lock_file_names_no_registry() -> None:
    """So that whoever installs uses the registry they have set."""
    assert '"resolved"' not in (HERE / "package-lock.json").read_text()
