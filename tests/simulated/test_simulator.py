"""The simulated provider: rotation classes, PKCE, redirects, each misbehaviour, persistence, hostile input."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.simulator import (
    Account,
    Client,
    Endpoint,
    Habit,
    Misbehaviour,
    Queued,
    RotatingAtOnce,
    RotatingWithGrace,
    Simulator,
    SimulatorSettings,
    StateFileInvalid,
    Static,
    create_app,
    demo_client,
    fingerprint,
    serve,
)
from connectors_grpc.simulator.app import _is_ours
from connectors_grpc.simulator.book import Book, Code
from connectors_grpc.simulator.parameters import parse_basic, parse_body, parse_form
from connectors_grpc.simulator.protocol import (
    Chance,
    Issued,
    Refusal,
    exchange_code,
    introspect,
    new_code,
    pkce_matches,
    refresh,
)
from tests.providers import Clock, browser, recording_upstream, running_simulator

CALLBACK = "http://127.0.0.1:9/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
SECRET = "a+secret%with:all &of=it"
CLIENT = Client("web", SECRET, (CALLBACK,))
ALICE = Account("alice", api_key="alice-key", password="alice-password")
SETTINGS = SimulatorSettings((CLIENT,), seed=7, accounts=(ALICE, Account("bob")), auto_consent=True)


@dataclass(frozen=True, slots=True)
class Setting:
    """A simulator, its clock, and an HTTP client for it."""

    sim: Simulator
    clock: Clock
    http: httpx2.AsyncClient

    async def code(self, **changes: str) -> str:
        """A code, consented to at once."""
        query = authorization_request() | changes
        reply = await self.http.get("/authorize", params=query)
        return parse_qs(urlsplit(reply.headers["location"]).query)["code"][0]

    async def token(self, client: Client = CLIENT, /, **fields: str) -> httpx2.Response:
        """A token request with client_secret_post."""
        who = {"client_id": client.client_id, "client_secret": client.client_secret or ""}
        return await self.http.post("/token", data=who | fields)

    async def exchanged(self, code: str) -> httpx2.Response:
        """A code traded in."""
        return await self.token(
            grant_type="authorization_code", code=code, redirect_uri=CALLBACK, code_verifier=VERIFIER
        )

    async def tokens(self, account: str = "alice") -> dict[str, Any]:
        """The tokens of one whole flow."""
        reply = await self.exchanged(await self.code(login_hint=account))
        assert reply.status_code == 200, reply.text
        document: dict[str, Any] = reply.json()
        return document

    async def refreshed(self, refresh_token: str) -> httpx2.Response:
        """A refresh."""
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token)

    async def get(self, path: str, token: str) -> httpx2.Response:
        """The API, asked with a token."""
        return await self.http.get(path, headers={"Authorization": f"Bearer {token}"})

    def treat(self, **changes: Any) -> None:
        """Change how the client is treated from now on."""
        self.sim.clients["web"] = replace(CLIENT, **changes)


def authorization_request() -> dict[str, str]:
    """A good authorization request."""
    return {
        "client_id": "web",
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "state": "a state/with?odd&chars",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }


@contextlib.asynccontextmanager
async def a_setting(settings: SimulatorSettings = SETTINGS) -> AsyncIterator[Setting]:
    """A simulator that serves while the block runs."""
    clock = Clock()
    async with (
        running_simulator(settings, clock) as sim,
        httpx2.AsyncClient(base_url=sim.url, trust_env=False, timeout=20) as http,
    ):
        yield Setting(sim, clock, http)


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Setting]:
    """One simulator for this module."""
    async with a_setting() as setting:
        yield setting


@pytest.fixture
def at(shared: Setting) -> Setting:
    """The shared simulator, with its client as registered and nothing queued."""
    shared.sim.clients["web"] = CLIENT
    shared.sim.next_replies.clear()
    shared.sim.record.clear()
    return shared


# --- authorization


async def test_a_person_consents_as_bob_and_the_notes_are_bobs() -> None:
    """The form, the choice of account, the redirect with state and issuer."""
    async with recording_upstream() as callback, browser() as person:
        redirect_uri = f"{callback.url}/callback?kept=1"
        client = replace(CLIENT, redirect_uris=(redirect_uri,))
        async with a_setting(replace(SETTINGS, clients=(client,), auto_consent=False)) as at:
            query = authorization_request() | {"redirect_uri": redirect_uri}
            link = f"{at.sim.url}/authorize?{urlencode(query)}"
            page = await person.open(link)
            assert "Simulator." in page.text
            assert (await person.consent(link, account="bob")).text == "ok"
            answer = parse_qs(urlsplit(callback.requests[-1].target).query)
            assert answer["state"] == [query["state"]]
            assert answer["iss"] == [at.sim.url]
            assert answer["kept"] == ["1"]
            reply = await at.token(
                grant_type="authorization_code",
                code=answer["code"][0],
                redirect_uri=redirect_uri,
                code_verifier=VERIFIER,
            )
            whoami = await at.get("/v1/whoami", reply.json()["access_token"])
            assert whoami.json()["account"] == "bob"


async def test_a_person_who_says_no_sends_access_denied_to_the_client() -> None:
    """The refusal carries state and issuer too."""
    async with recording_upstream() as callback, browser() as person:
        client = replace(CLIENT, redirect_uris=(callback.url + "/",))
        async with a_setting(replace(SETTINGS, clients=(client,), auto_consent=False)) as at:
            query = authorization_request() | {"redirect_uri": callback.url + "/"}
            await person.consent(f"{at.sim.url}/authorize?{urlencode(query)}", press="deny")
            answer = parse_qs(urlsplit(callback.requests[-1].target).query)
            assert answer["error"] == ["access_denied"]
            assert answer["iss"] == [at.sim.url]


@pytest.mark.parametrize(
    "redirect_uri", [CALLBACK + "/", CALLBACK + "?a=b", "http://127.0.0.1:9/Callback", "http://evil.example/", ""]
)
async def test_a_redirect_uri_that_differs_at_all_gets_a_page_and_no_redirect(at: Setting, redirect_uri: str) -> None:
    """RFC 9700 section 2.1: compared to the letter."""
    reply = await at.http.get("/authorize", params=authorization_request() | {"redirect_uri": redirect_uri})
    assert reply.status_code == 400
    assert "location" not in reply.headers


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "everything"}, "invalid_scope"),
    ],
)
async def test_other_wrong_requests_are_told_to_the_client(at: Setting, change: dict[str, str], error: str) -> None:
    """RFC 6749 section 4.1.2.1, with the issuer of RFC 9207."""
    reply = await at.http.get("/authorize", params=authorization_request() | change)
    answer = parse_qs(urlsplit(reply.headers["location"]).query)
    assert answer["error"] == [error]
    assert answer["iss"] == [at.sim.url]


async def test_a_client_without_pkce_may_leave_it_out(at: Setting) -> None:
    """Some providers have none; a verifier out of nowhere is refused all the same."""
    at.treat(require_pkce=False)
    query = {k: v for k, v in authorization_request().items() if not k.startswith("code_")}
    location = (await at.http.get("/authorize", params=query)).headers["location"]
    code = parse_qs(urlsplit(location).query)["code"][0]
    assert (await at.exchanged(code)).json()["error"] == "invalid_grant"
    location = (await at.http.get("/authorize", params=query)).headers["location"]
    code = parse_qs(urlsplit(location).query)["code"][0]
    reply = await at.token(grant_type="authorization_code", code=code, redirect_uri=CALLBACK)
    assert reply.status_code == 200


# --- codes and client authentication


def test_the_vector_of_rfc_7636_holds() -> None:
    """RFC 7636 appendix B."""
    assert pkce_matches(CHALLENGE, VERIFIER)
    assert not pkce_matches(CHALLENGE, VERIFIER[:-1] + "x")
    assert not pkce_matches(CHALLENGE, "short")


@pytest.mark.parametrize("change", [{"code_verifier": "x" * 43}, {"redirect_uri": CALLBACK + "/"}])
async def test_a_code_with_the_wrong_verifier_or_redirect_uri_is_burnt(at: Setting, change: dict[str, str]) -> None:
    """Refused, and refused when all is right a second time."""
    code = await at.code()
    good = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    assert (await at.token(**good | change)).json()["error"] == "invalid_grant"
    assert (await at.token(**good)).json()["error"] == "invalid_grant"


async def test_a_code_used_twice_takes_its_tokens_with_it(at: Setting) -> None:
    """RFC 6749 section 4.1.2."""
    code = await at.code()
    tokens = (await at.exchanged(code)).json()
    assert (await at.get("/v1/whoami", tokens["access_token"])).status_code == 200
    assert (await at.exchanged(code)).json()["error"] == "invalid_grant"
    assert (await at.get("/v1/whoami", tokens["access_token"])).status_code == 401


async def test_a_code_expires() -> None:
    """After a minute by the simulator's clock."""
    async with a_setting() as at:
        code = await at.code()
        at.clock.advance(61)
        assert (await at.exchanged(code)).json()["error"] == "invalid_grant"


async def test_basic_is_urlencoded_and_json_bodies_are_taken(at: Setting) -> None:
    """RFC 6749 section 2.3.1, and what Notion wants."""
    code = await at.code()
    encoded = base64.b64encode(f"web:{quote_plus(SECRET)}".encode()).decode()
    body = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    reply = await at.http.post("/token", json=body, headers={"Authorization": f"Basic {encoded}"})
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    raw = base64.b64encode(f"web:{SECRET}".encode()).decode()
    refused = await at.http.post("/token", json=body, headers={"Authorization": f"Basic {raw}"})
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert refused.headers["www-authenticate"].startswith("Basic")


async def test_two_ways_of_client_authentication_at_once_are_refused(at: Setting) -> None:
    """RFC 6749 section 2.3."""
    reply = await at.http.post(
        "/token", data={"client_secret": SECRET, "grant_type": "client_credentials"}, auth=("web", SECRET)
    )
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")


async def test_client_credentials_give_a_token_without_a_refresh_token(at: Setting) -> None:
    """RFC 6749 section 4.4.3."""
    reply = (await at.token(grant_type="client_credentials", scope="notes.read")).json()
    assert "refresh_token" not in reply
    assert reply["scope"] == "notes.read"
    assert (await at.get("/v1/whoami", reply["access_token"])).json()["account"] == "client:web"


# --- refresh, by class


async def test_static_keeps_one_refresh_token(at: Setting) -> None:
    """It works again and again, and the reply has none."""
    at.treat(rotation=Static())
    tokens = await at.tokens()
    for _ in range(3):
        reply = await at.refreshed(tokens["refresh_token"])
        assert reply.status_code == 200
        assert "refresh_token" not in reply.json()


async def test_rotating_at_once_kills_the_family_on_reuse(at: Setting) -> None:
    """The second use of one token ends its successor and every access token."""
    at.treat(rotation=RotatingAtOnce())
    first = await at.tokens()
    second = (await at.refreshed(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (await at.refreshed(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await at.refreshed(second["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await at.get("/v1/whoami", second["access_token"])).status_code == 401


async def test_a_grace_in_seconds_forgives_reuse_until_it_is_over(at: Setting) -> None:
    """Atlassian: ten minutes of leeway, a later reuse revokes both."""
    at.treat(rotation=RotatingWithGrace(600), access_lifetime=None)
    first = await at.tokens()
    second = (await at.refreshed(first["refresh_token"])).json()
    at.clock.advance(599)
    third = await at.refreshed(first["refresh_token"])
    assert third.status_code == 200
    at.clock.advance(1)
    assert (await at.refreshed(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await at.refreshed(second["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await at.get("/v1/whoami", third.json()["access_token"])).status_code == 401


async def test_a_grace_until_first_use_ends_with_the_new_tokens_use(at: Setting) -> None:
    """Shopify: the old token works until the new one was used."""
    at.treat(rotation=RotatingWithGrace(None, reuse_revokes=False))
    first = await at.tokens()
    await at.refreshed(first["refresh_token"])
    second = (await at.refreshed(first["refresh_token"])).json()
    third = (await at.refreshed(second["refresh_token"])).json()
    assert (await at.refreshed(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await at.refreshed(third["refresh_token"])).status_code == 200


@pytest.mark.parametrize(("kills", "status"), [(True, 401), (False, 200)])
async def test_whether_a_refresh_kills_the_old_access_token_is_the_clients_setting(
    at: Setting, kills: bool, status: int
) -> None:
    """GitLab and Zendesk do, most do not."""
    at.treat(refresh_kills_access_token=kills)
    first = await at.tokens()
    second = (await at.refreshed(first["refresh_token"])).json()
    assert (await at.get("/v1/whoami", first["access_token"])).status_code == status
    assert (await at.get("/v1/whoami", second["access_token"])).status_code == 200


async def test_omissions_are_the_clients_setting(at: Setting) -> None:
    """No expires_in (Salesforce), no refresh token in the refresh reply (Figma), extra fields (Notion)."""
    at.treat(omit_expires_in=True, omit_refresh_token_on_refresh=True, extra_reply={"workspace_id": "w1"})
    first = await at.tokens()
    assert "expires_in" not in first
    assert first["workspace_id"] == "w1"
    assert "refresh_token" not in (await at.refreshed(first["refresh_token"])).json()
    assert (await at.refreshed(first["refresh_token"])).status_code == 200


async def test_tokens_expire_by_the_clients_lifetimes() -> None:
    """Access token first, the idle refresh token later."""
    client = replace(CLIENT, access_lifetime=10, refresh_lifetime=100)
    async with a_setting(replace(SETTINGS, clients=(client,))) as at:
        first = await at.tokens()
        at.clock.advance(10)
        assert (await at.get("/v1/whoami", first["access_token"])).status_code == 401
        at.clock.advance(89)
        second = await at.refreshed(first["refresh_token"])
        assert second.json()["expires_in"] == 10
        at.clock.advance(100)
        assert (await at.refreshed(second.json()["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_refresh_may_not_widen_the_scope(at: Setting) -> None:
    """RFC 6749 section 6."""
    reply = await at.exchanged(await at.code(scope="notes.read"))
    fields = {"grant_type": "refresh_token", "refresh_token": reply.json()["refresh_token"]}
    assert (await at.token(**fields, scope="notes.write")).json()["error"] == "invalid_scope"
    assert (await at.token(**fields, scope="notes.read")).status_code == 200


async def test_revoking_a_refresh_token_ends_its_family_and_unknown_tokens_are_no_error(at: Setting) -> None:
    """RFC 7009 sections 2.1 and 2.2."""
    tokens = await at.tokens()
    who = {"client_id": "web", "client_secret": SECRET}
    assert (await at.http.post("/revoke", data={**who, "token": "unknown"})).status_code == 200
    assert (await at.http.post("/revoke", data={**who, "token": tokens["refresh_token"]})).status_code == 200
    assert (await at.get("/v1/whoami", tokens["access_token"])).status_code == 401
    assert (await at.refreshed(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await at.http.post("/revoke", data={**who, "client_secret": "x", "token": "t"})).status_code == 401


async def test_another_client_gets_nothing_from_a_token(at: Setting) -> None:
    """Neither a refresh, nor a revocation."""
    other = at.sim.clients["other"] = Client("other", "another secret")
    tokens = await at.tokens()
    refused = await at.token(other, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refused.json()["error"] == "invalid_grant"
    who = {"client_id": "other", "client_secret": "another secret", "token": tokens["access_token"]}
    assert (await at.http.post("/revoke", data=who)).status_code == 400
    assert (await at.get("/v1/whoami", tokens["access_token"])).status_code == 200


@given(st.lists(st.integers(min_value=0, max_value=7), max_size=12))
def test_rotating_at_once_only_ever_serves_the_newest_token_of_a_live_family(uses: list[int]) -> None:
    """Whatever is tried in whatever order: one use of an old token, and nothing of the family works again."""
    book, code = Book(), Code("web", CALLBACK, None, "alice", "notes.read", expires_at=60)
    value = new_code(book, code, str)
    first = exchange_code(book, CLIENT, value, redirect_uri=CALLBACK, verifier=None, by=Chance(0, str))
    assert isinstance(first, Issued)
    issued, alive, newest = [first], True, first
    for use in uses:
        tried = issued[use % len(issued)]
        alive = alive and tried is newest
        result = refresh(book, CLIENT, tried.refresh_token or "", scope=None, by=Chance(1, str))
        assert isinstance(result, Issued) is alive
        if isinstance(result, Issued):
            issued.append(result)
            newest = result
        assert (introspect(book, newest.access_token, 1) is not None) is alive


# --- wrong replies on demand


@pytest.mark.parametrize(
    ("what", "status", "error"),
    [
        (Misbehaviour.INVALID_GRANT_400, 400, "invalid_grant"),
        (Misbehaviour.INVALID_GRANT_401, 401, "invalid_grant"),
        (Misbehaviour.INVALID_GRANT_403, 403, "invalid_grant"),
        (Misbehaviour.ERROR_IN_200, 200, "invalid_auth"),
        (Misbehaviour.SLOW_DOWN, 400, "slow_down"),
        (Misbehaviour.RATE_LIMITED, 429, "rate_limited"),
        (Misbehaviour.UNAVAILABLE, 503, "temporarily_unavailable"),
        (Misbehaviour.UNAUTHORIZED, 401, "invalid_token"),
        (Misbehaviour.ECHO_SECRET, 400, "invalid_request"),
    ],
)
async def test_a_queued_refusal_comes_once_and_changes_nothing(
    at: Setting, what: Misbehaviour, status: int, error: str
) -> None:
    """The same refresh token works right after."""
    tokens = await at.tokens()
    at.sim.next_replies.append(what)
    reply = await at.refreshed(tokens["refresh_token"])
    assert (reply.status_code, reply.json()["error"]) == (status, error)
    if what is Misbehaviour.RATE_LIMITED:
        assert reply.headers["retry-after"] == "7"
    if what is Misbehaviour.ECHO_SECRET:
        assert SECRET in reply.json()["error_description"]
    assert (await at.refreshed(tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize(
    ("what", "expires_in"),
    [
        (Misbehaviour.EXPIRES_IN_STRING, "3600"),
        (Misbehaviour.EXPIRES_IN_NEGATIVE, -1),
        (Misbehaviour.EXPIRES_IN_MISSING, None),
    ],
)
async def test_expires_in_can_be_wrong(at: Setting, what: Misbehaviour, expires_in: object) -> None:
    """The tokens themselves are good."""
    at.sim.next_replies.append(what)
    tokens = await at.tokens()
    assert tokens.get("expires_in") == expires_in
    assert (await at.get("/v1/whoami", tokens["access_token"])).status_code == 200


async def test_an_omitted_refresh_token_leaves_the_old_one_alive(at: Setting) -> None:
    """RFC 6749 section 6: the client keeps what it has."""
    tokens = await at.tokens()
    at.sim.next_replies.append(Misbehaviour.REFRESH_TOKEN_OMITTED)
    assert "refresh_token" not in (await at.refreshed(tokens["refresh_token"])).json()
    assert (await at.refreshed(tokens["refresh_token"])).status_code == 200


async def test_a_wrong_content_type_carries_good_tokens(at: Setting) -> None:
    """JSON that calls itself HTML."""
    at.sim.next_replies.append(Misbehaviour.WRONG_CONTENT_TYPE)
    reply = await at.exchanged(await at.code())
    assert reply.headers["content-type"].startswith("text/html")
    assert (await at.get("/v1/whoami", reply.json()["access_token"])).status_code == 200


@pytest.mark.parametrize(
    ("what", "parsed"), [(Misbehaviour.GARBAGE_JSON, ValueError), (Misbehaviour.NOT_AN_OBJECT, list)]
)
async def test_a_body_can_be_no_json_or_no_object(at: Setting, what: Misbehaviour, parsed: type) -> None:
    """Both with the right content type."""
    at.sim.next_replies.append(what)
    reply = await at.token(grant_type="client_credentials")
    assert reply.headers["content-type"] == "application/json"
    if parsed is ValueError:
        with pytest.raises(ValueError):
            reply.json()
    else:
        assert isinstance(reply.json(), parsed)


async def test_the_token_endpoint_can_redirect_and_can_send_ten_megabytes(at: Setting) -> None:
    """Neither may be followed or read whole by a client."""
    at.sim.next_replies.extend([Misbehaviour.REDIRECT, Misbehaviour.HUGE_BODY])
    redirect = await at.token(grant_type="client_credentials")
    assert (redirect.status_code, redirect.headers["location"]) == (307, f"{at.sim.url}/elsewhere")
    huge = await at.token(grant_type="client_credentials")
    assert len(huge.content) == 10 * 1024 * 1024
    assert isinstance(huge.json(), dict)


async def test_half_a_reply_comes_after_the_rotation(at: Setting) -> None:
    """The window in which a refresh token is lost: the provider has moved on."""
    tokens = await at.tokens()
    at.sim.next_replies.append(Misbehaviour.HALF_REPLY)
    with pytest.raises(httpx2.RemoteProtocolError):
        await at.refreshed(tokens["refresh_token"])
    assert (await at.refreshed(tokens["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(("what", "status"), [(Misbehaviour.HANG, 200), (Misbehaviour.HANG_AFTER_ACTING, 400)])
async def test_a_hang_ends_when_the_client_leaves(at: Setting, what: Misbehaviour, status: int) -> None:
    """Before acting nothing happened; after acting the token was rotated."""
    tokens = await at.tokens()
    at.sim.next_replies.append(what)
    with pytest.raises(httpx2.ReadTimeout):
        await at.http.post(
            "/token",
            data={
                "client_id": "web",
                "client_secret": SECRET,
                "grant_type": "refresh_token",
                "refresh_token": tokens["refresh_token"],
            },
            timeout=1.0,
        )
    assert (await at.refreshed(tokens["refresh_token"])).status_code == status


async def test_closing_the_simulator_ends_hangs() -> None:
    """A hanging reply does not keep a test from ending."""
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as http:
        async with running_simulator(SETTINGS) as sim:
            sim.next_replies.append(Misbehaviour.HANG)
            data = {"client_id": "web", "client_secret": SECRET, "grant_type": "client_credentials"}
            hanging = asyncio.create_task(http.post(f"{sim.url}/token", data=data))
            async with asyncio.timeout(60):
                await sim.record.reached(1)
        assert (await hanging).status_code == 503


async def test_unavailable_after_acting_has_rotated(at: Setting) -> None:
    """A 503 that lies."""
    tokens = await at.tokens()
    at.sim.next_replies.append(Misbehaviour.UNAVAILABLE_AFTER_ACTING)
    assert (await at.refreshed(tokens["refresh_token"])).status_code == 503
    assert (await at.refreshed(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_queued_reply_can_be_for_one_client_and_one_endpoint(at: Setting) -> None:
    """Others pass it by."""
    other = at.sim.clients["other"] = Client("other", "another secret")
    at.sim.next_replies.append(Queued(Misbehaviour.UNAVAILABLE, "other"))
    at.sim.next_replies.append(Queued(Misbehaviour.RATE_LIMITED, on=Endpoint.API))
    at.sim.next_replies.append(Queued(Misbehaviour.UNAVAILABLE, on=Endpoint.REVOKE))
    tokens = await at.tokens()
    assert (await at.token(other, grant_type="client_credentials")).status_code == 503
    assert (await at.get("/v1/notes", tokens["access_token"])).status_code == 429
    assert (await at.get("/v1/notes", tokens["access_token"])).status_code == 200
    revocation = {"client_id": "web", "client_secret": SECRET, "token": "t"}
    assert (await at.http.post("/revoke", data=revocation)).status_code == 503
    assert not at.sim.next_replies


async def test_a_clients_own_misbehaviour_is_the_same_under_the_same_seed() -> None:
    """A share of the replies is wrong, and which ones can be foretold."""
    wrong = (Habit(Misbehaviour.UNAVAILABLE, 0.25), Habit(Misbehaviour.RATE_LIMITED, 0.25))
    client = replace(CLIENT, misbehaves=wrong)

    async def statuses(seed: int) -> list[int]:
        async with a_setting(replace(SETTINGS, clients=(client,), seed=seed)) as at:
            return [(await at.token(grant_type="client_credentials")).status_code for _ in range(24)]

    first = await statuses(1)
    assert first == await statuses(1)
    assert set(first) == {200, 429, 503}
    assert first != await statuses(2)


# --- the API


async def test_each_account_sees_its_own_notes(at: Setting) -> None:
    """Created, listed, changed, deleted; bob sees none of it."""
    alice = {"Authorization": f"Bearer {(await at.tokens())['access_token']}"}
    bob = {"Authorization": f"Bearer {(await at.tokens('bob'))['access_token']}"}
    made = await at.http.post("/v1/notes", json={"title": "Milk"}, headers=alice)
    where = made.headers["location"]
    assert made.status_code == 201
    assert (await at.http.get(where, headers=alice)).json()["title"] == "Milk"
    assert (await at.http.get(where, headers=bob)).status_code == 404
    assert (await at.http.get("/v1/notes", headers=bob)).json()["notes"] == []
    changed = await at.http.patch(where, json={"text": "two"}, headers=alice)
    assert (changed.json()["text"], changed.json()["revision"]) == ("two", 2)
    assert (await at.http.delete(where, headers=bob)).status_code == 404
    assert (await at.http.delete(where, headers=alice)).status_code == 204
    assert (await at.http.patch(where, json={"text": "x"}, headers=alice)).status_code == 404


async def test_pages_of_notes_are_linked(at: Setting) -> None:
    """Following `next` gives each note once."""
    headers = {"Authorization": f"Bearer {(await at.tokens('bob'))['access_token']}"}
    made = [(await at.http.post("/v1/notes", json={"title": str(n)}, headers=headers)).json() for n in range(5)]
    found: list[Any] = []
    link: str | None = "/v1/notes?limit=2"
    while link:
        page = await at.http.get(link, headers=headers)
        found += page.json()["notes"]
        link = page.links["next"]["url"] if "next" in page.links else None
    assert found == made


@pytest.mark.parametrize("path", ["/userinfo", "/v1/whoami", "/v1/notes", "/v1/notes/x", "/v1/stream", "/v1/bytes/3"])
async def test_every_route_needs_a_token(at: Setting, path: str) -> None:
    """RFC 6750 section 3."""
    bare = await at.http.get(path)
    assert (bare.status_code, bare.headers["www-authenticate"]) == (401, 'Bearer realm="simulator"')
    wrong = await at.get(path, "wrong")
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    two = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    assert (await at.http.get(path, headers=two)).status_code == 401


async def test_bodies_stream_both_ways(at: Setting) -> None:
    """Echo, bytes and events."""
    token = (await at.tokens())["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/x-odd"}
    sent = bytes(range(256)) * 4096

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(sent), 50_000):
            yield sent[start : start + 50_000]

    echoed = await at.http.post("/v1/echo", content=chunks(), headers=headers)
    assert echoed.content == sent
    assert echoed.headers["content-type"] == "text/x-odd"
    got = await at.get("/v1/bytes/100000", token)
    assert got.content == (bytes(range(256)) * 400)[:100_000]
    events = await at.get("/v1/stream?count=3", token)
    assert events.headers["content-type"].startswith("text/event-stream")
    assert events.text.count("event: tick") == 3


async def test_api_keys_and_basic_say_whose_they_are(at: Setting) -> None:
    """And nothing else opens them."""
    keyed = await at.http.get("/keyed/whoami", headers={"X-Api-Key": "alice-key"})
    assert keyed.json() == {"account": "alice"}
    assert (await at.http.get("/keyed/whoami", headers={"X-Api-Key": "wrong"})).status_code == 401
    assert (await at.http.get("/keyed/whoami")).status_code == 401
    assert (await at.http.get("/basic/whoami", auth=("alice", "alice-password"))).json() == {"account": "alice"}
    assert (await at.http.get("/basic/whoami", auth=("alice-key", ""))).json() == {"account": "alice"}
    assert (await at.http.get("/basic/whoami", auth=("bob", ""))).status_code == 401
    assert (await at.http.get("/basic/whoami")).status_code == 401


async def test_the_metadata_names_what_is_there(at: Setting) -> None:
    """RFC 8414, RFC 9207."""
    metadata = (await at.http.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["issuer"] == at.sim.url
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert metadata["code_challenge_methods_supported"] == ["S256"]


# --- the record


async def test_the_record_shows_fingerprints_and_never_a_secret(at: Setting) -> None:
    """Who called with what can be checked; nothing in it can be used."""
    tokens = await at.tokens()
    await at.get("/v1/whoami?api_key=query-secret", tokens["access_token"])
    shown = (await at.http.get("/-/record")).text
    for secret in (tokens["access_token"], tokens["refresh_token"], SECRET, "query-secret", VERIFIER):
        assert secret not in shown
    last = json.loads(shown)["requests"][-1]
    assert last["credential_fingerprint"] == fingerprint(tokens["access_token"])
    assert (last["method"], last["path"], last["account"]) == ("GET", "/v1/whoami", "alice")
    assert last["token_id"].startswith("at-")
    assert last["query"] == [{"name": "api_key", "fingerprint": fingerprint("query-secret")}]
    raw = at.sim.record.on("/v1/whoami")[-1]
    assert raw.header("authorization") == [f"Bearer {tokens['access_token']}"]
    assert tokens["access_token"] not in repr(raw)


async def test_the_record_says_whether_a_secret_came_in_any_form(at: Setting) -> None:
    """Raw, percent-encoded or inside Basic; what did not come did not come."""
    await at.http.get("/basic/whoami", auth=("alice", "in basic"))
    await at.http.get("/v1/notes", params={"key": "in query&"}, headers={"X-Api-Key": "in-header"})
    await at.http.post("/token", data={"client_secret": "in form="})
    for secret in ("in basic", "in query&", "in-header", "in form="):
        assert at.sim.record.saw(secret)
    assert not at.sim.record.saw("never sent")


async def test_the_record_is_bounded_and_can_be_cleared(at: Setting) -> None:
    """A long run keeps the latest; a large body is counted, not kept."""
    token = (await at.tokens())["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    await at.http.post("/v1/echo", content=b"x" * 100_000, headers=headers)
    seen = at.sim.record[-1]
    assert (seen.body_length, len(seen.body)) == (100_000, 16 * 1024)
    await asyncio.gather(*(at.http.get("/") for _ in range(600)))
    assert len(at.sim.record) == 512
    assert (await at.http.delete("/-/record")).status_code == 204
    assert len(at.sim.record) == 0


# --- persistence, seed, settings


async def test_tokens_and_notes_survive_a_restart_and_the_file_holds_no_token(tmp_path: Path) -> None:
    """The file is private, and of no use to a thief."""
    path = tmp_path / "state.json"
    settings = replace(SETTINGS, state_file=path)
    async with a_setting(settings) as at:
        first = await at.tokens()
        used = (await at.refreshed(first["refresh_token"])).json()
        headers = {"Authorization": f"Bearer {used['access_token']}"}
        await at.http.post("/v1/notes", json={"title": "kept"}, headers=headers)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for token in (first["access_token"], used["refresh_token"]):
        assert token not in path.read_text()
    async with a_setting(settings) as at:
        notes = (await at.get("/v1/notes", used["access_token"])).json()["notes"]
        assert [note["title"] for note in notes] == ["kept"]
        again = (await at.refreshed(used["refresh_token"])).json()
        assert again["access_token"] not in (first["access_token"], used["access_token"])
        assert (await at.refreshed(first["refresh_token"])).json()["error"] == "invalid_grant"
        assert (await at.get("/v1/notes", again["access_token"])).status_code == 401


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 2}', "[" * 100_000, '{"version": 1, "minted": 1}'])
def test_a_state_file_that_is_not_ours_is_refused(tmp_path: Path, content: str) -> None:
    """It is left as it is."""
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(StateFileInvalid):
        create_app(replace(SETTINGS, state_file=path))
    assert path.read_text() == content


async def test_the_same_seed_gives_the_same_tokens() -> None:
    """And no seed gives others."""

    async def first_token(seed: int | None) -> str:
        async with a_setting(replace(SETTINGS, seed=seed)) as at:
            return str((await at.tokens())["access_token"])

    assert await first_token(3) == await first_token(3)
    assert len({await first_token(3), await first_token(4), await first_token(None), await first_token(None)}) == 4


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", "127.1", "", "2130706433"])
def test_a_host_that_is_not_loopback_is_refused(host: str) -> None:
    """The simulator gives tokens to anybody who asks."""
    with pytest.raises(ValueError, match="loopback"):
        replace(SETTINGS, host=host)


def test_settings_never_show_a_secret() -> None:
    """Nor does the demo's client have one of its own."""
    client = demo_client("made-just-now", CALLBACK)
    settings = replace(SETTINGS, clients=(client, CLIENT))
    assert client.client_id == "demo-client"
    for secret in ("made-just-now", SECRET, "alice-key", "alice-password"):
        assert secret not in repr(settings)


async def test_serve_tells_its_url_once_and_ends_when_cancelled() -> None:
    """What the command runs; afterwards the port is free."""
    urls: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(serve(replace(SETTINGS, host="localhost"), urls.put_nowait))
    async with asyncio.timeout(60), httpx2.AsyncClient(trust_env=False) as http:
        url = await urls.get()
        assert (await http.get(url)).status_code == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with socket.socket() as probe:
        probe.settimeout(5)
        assert probe.connect_ex(("127.0.0.1", urlsplit(url).port or 0)) != 0


# --- hostile input


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 3_000_000),
        ("application/x-www-form-urlencoded", b"grant_type=a&grant_type=b"),
        ("application/x-www-form-urlencoded", b"client_id=%ff%fe"),
        ("application/x-www-form-urlencoded", b"\xff\xfe"),
        ("application/x-www-form-urlencoded", b"&".join(b"k%d=v" % n for n in range(1000))),
        ("application/json", b"[" * 60_000),
        ("application/json", b'{"client_id": 1}'),
        ("application/json", b'{"client_id": {"a": []}}'),
        ("application/json", b'{"client_id": "\\ud800"}'),
        ("application/json", b"9" * 60_000),
        ("application/json", b"\x00"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("", b"grant_type=client_credentials"),
    ],
)
@pytest.mark.parametrize("path", ["/token", "/revoke", "/authorize"])
async def test_hostile_bodies_are_the_senders_fault(at: Setting, path: str, content_type: str, body: bytes) -> None:
    """400, never 500."""
    reply = await at.http.post(path, content=body, headers={"Content-Type": content_type})
    assert reply.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/bytes/" + "9" * 5000, 400),
        ("GET", "/v1/bytes/-1", 400),
        ("GET", "/v1/bytes/²", 400),
        ("GET", "/v1/stream?count=99999", 400),
        ("GET", "/v1/stream?interval=x", 400),
        ("GET", "/v1/notes?limit=0", 400),
        ("GET", "/v1/notes?after=%00%ff", 200),
        ("GET", "/v1/notes/%2e%2e%2fx", 404),
        ("PUT", "/v1/notes", 405),
        ("GET", "/authorize?%ff=%ff&a=" + "b" * 20_000, 400),
        ("GET", "/authorize?client_id=%3Cscript%3E", 400),
    ],
)
async def test_hostile_targets_are_the_senders_fault(at: Setting, method: str, path: str, status: int) -> None:
    """4xx, never 500."""
    token = (await at.tokens())["access_token"]
    reply = await at.http.request(method, path, headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == status


@pytest.mark.parametrize("note", [b"", b"[]", b'{"title": 1}', b'{"title": "\\ud800"}', b'{"x": 1}', b"[" * 60_000])
async def test_a_hostile_note_is_refused(at: Setting, note: bytes) -> None:
    """400, never 500; the shelf is unchanged."""
    headers = {"Authorization": f"Bearer {(await at.tokens())['access_token']}"}
    assert (await at.http.post("/v1/notes", content=note, headers=headers)).status_code == 400


async def test_what_is_shown_on_a_page_is_escaped() -> None:
    """The state of a hostile link does not run."""
    async with a_setting(replace(SETTINGS, auto_consent=False)) as at:
        query = authorization_request() | {"state": '"><script>alert(1)</script>', "login_hint": "<b>"}
        page = await at.http.get("/authorize", params=query)
        assert "<script" not in page.text
        assert "<b>" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_a_foreign_host_is_answered_421(at: Setting) -> None:
    """A rebound name reaches nothing, the record least of all."""
    assert (await at.http.get("/-/record", headers={"Host": "evil.example"})).status_code == 421


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:80", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("[::1]:80", True),
        ("LOCALHOST:1", True),
        ("notes.localhost", True),
        ("localhost.evil.example", False),
        ("evil.example:127", False),
        ("127.0.0.1:x", False),
        ("", False),
        ("127.0.0.1@evil.example", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, ours: bool) -> None:
    """Names and addresses that never leave it."""
    assert _is_ours([host]) is ours
    assert not _is_ours([host, host])


@given(st.binary(max_size=300), st.text(max_size=60))
def test_every_parser_gives_a_value_or_a_refusal(raw: bytes, text: str) -> None:
    """On any bytes."""
    for found in (parse_form(raw), parse_body("application/json", raw), parse_body(text, raw)):
        assert isinstance(found, Refusal | dict)
    assert parse_basic(text) is None or isinstance(parse_basic(text), tuple)


@given(st.binary(min_size=32, max_size=90))
def test_a_verifier_matches_its_own_challenge_and_no_other(raw: bytes) -> None:
    """RFC 7636 section 4.6."""
    verifier = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert pkce_matches(challenge, verifier)
    assert not pkce_matches(CHALLENGE, verifier)
