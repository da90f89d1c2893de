"""Whole flows over real sockets: against the certified provider, and against the simulator at its worst."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors_grpc.domain.definition import ClientAuthentication, OAuth, OAuthClient
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.oauth2.authorize import authorization_request, check_callback, code_challenge, with_query
from connectors_grpc.oauth2.errors import (
    CallbackRefused,
    ClientRefused,
    InvalidGrant,
    Malformed,
    RequestRefused,
    TokenError,
    Transient,
)
from connectors_grpc.oauth2.token_reply import TokenReply, check_revocation, parse_token_reply
from connectors_grpc.oauth2.token_request import code_exchange, refresh, revocation
from connectors_grpc.outbound import HttpOutbound
from connectors_grpc.ports import HttpRequest
from connectors_grpc.secret import Secret
from connectors_grpc.simulator import Client, Simulator, SimulatorSettings
from connectors_grpc.simulator.misbehaviour import Misbehaviour
from tests.providers import RecordingUpstream, browser, recording_upstream, running_oidc_provider, running_simulator

SECRET = "canary:s3cr%t+of ours/ü".encode().hex()


@dataclass(frozen=True, slots=True)
class Flow:
    """A definition, a client, the callback that catches codes, and the real outbound."""

    oauth: OAuth
    client: OAuthClient
    callback: RecordingUpstream
    outbound: HttpOutbound
    scopes: tuple[str, ...]

    async def authorized(self) -> tuple[Mapping[str, list[str]], Secret]:
        """What came to the callback after a person consented, and the verifier."""
        verifier = Secret(secrets.token_urlsafe(32))
        wanted = authorization_request(
            self.oauth,
            client_id=self.client.client_id,
            redirect_uri=f"{self.callback.url}/callback",
            state="a-state",
            challenge=code_challenge(verifier),
            scopes=self.scopes,
        )
        link = with_query(self.oauth.authorization_endpoint, wanted)
        async with browser() as person:
            await person.consent(link, account="alice")
        return parse_qs(urlsplit(self.callback.requests[-1].target).query), verifier

    async def exchanged(self, code: Secret, verifier: Secret) -> TokenReply:
        """The tokens for a code."""
        redirect_uri = f"{self.callback.url}/callback"
        return await self.sent(
            code_exchange(
                self.oauth,
                self.client,
                code=code,
                redirect_uri=redirect_uri,
                verifier=verifier,
                allow_private_addresses=True,
            )
        )

    async def tokens(self) -> TokenReply:
        """The tokens of one whole flow."""
        params, verifier = await self.authorized()
        return await self.exchanged(check_callback(params, self.oauth), verifier)

    async def refreshed(self, token: Secret | None) -> TokenReply:
        """A refresh."""
        assert token is not None
        return await self.sent(refresh(self.oauth, self.client, refresh_token=token, allow_private_addresses=True))

    async def sent(self, request: HttpRequest) -> TokenReply:
        """A token request, and its answer."""
        return parse_token_reply(await self.outbound.send(request), self.oauth, datetime.now(UTC))


@pytest.fixture(scope="module")
async def certified() -> AsyncIterator[Flow]:
    """The certified provider, whose client's secret needs form-urlencoding."""
    outbound = HttpOutbound()
    async with recording_upstream() as callback, running_oidc_provider([f"{callback.url}/callback"]) as provider:
        oauth = OAuth(
            provider.authorization_endpoint,
            provider.token_endpoint,
            revocation_endpoint=provider.revocation_endpoint,
            issuer=provider.issuer,
            iss_required=True,
            authorization_parameters={"prompt": "consent"},
        )
        client = OAuthClient(provider.client_id, Secret(provider.client_secret))
        yield Flow(oauth, client, callback, outbound, ("openid", "offline_access"))
    await outbound.aclose()


async def test_the_certified_provider_accepts_the_whole_flow(certified: Flow) -> None:
    """PKCE, `iss`, Basic with an awkward secret, rotation, and a reuse that ends the family."""
    first = await certified.tokens()
    assert first.expires_in == timedelta(seconds=3)
    assert set(first.scopes or ()) == {"openid", "offline_access"}
    second = await certified.refreshed(first.refresh_token)
    assert second.refresh_token is not None
    assert second.refresh_token != first.refresh_token
    with pytest.raises(InvalidGrant):
        await certified.refreshed(first.refresh_token)
    with pytest.raises(InvalidGrant):
        await certified.refreshed(second.refresh_token)


async def test_28_the_certified_provider_refuses_a_wrong_verifier_and_a_used_code(certified: Flow) -> None:
    """Each is invalid_grant to us."""
    params, verifier = await certified.authorized()
    code = check_callback(params, certified.oauth)
    with pytest.raises(InvalidGrant):
        await certified.exchanged(code, Secret("x" * 43))
    params, verifier = await certified.authorized()
    code = check_callback(params, certified.oauth)
    await certified.exchanged(code, verifier)
    with pytest.raises(InvalidGrant):
        await certified.exchanged(code, verifier)


async def test_28_the_certified_provider_s_callback_is_refused_under_another_issuer(certified: Flow) -> None:
    """The mix-up attack of RFC 9207."""
    params, _ = await certified.authorized()
    with pytest.raises(CallbackRefused, match="iss_mismatch"):
        check_callback(params, replace(certified.oauth, issuer="http://127.0.0.1:1"))


async def test_a_wrong_client_secret_is_the_client_s_fault_not_the_grant_s(certified: Flow) -> None:
    """An admin must act; the person's consent is not at issue."""
    wrong = replace(certified, client=OAuthClient(certified.client.client_id, Secret("wrong")))
    with pytest.raises(ClientRefused):
        await wrong.refreshed(Secret("any"))


async def test_30_a_revoked_grant_is_gone_at_the_certified_provider(certified: Flow) -> None:
    """RFC 7009; and revoking it again is a success."""
    tokens = await certified.tokens()
    assert tokens.refresh_token is not None
    for _ in range(2):
        request = revocation(
            certified.oauth,
            certified.client,
            token=tokens.refresh_token,
            hint="refresh_token",
            allow_private_addresses=True,
        )
        assert request is not None
        check_revocation(await certified.outbound.send(request), datetime.now(UTC))
    with pytest.raises(InvalidGrant):
        await certified.refreshed(tokens.refresh_token)


@dataclass(frozen=True, slots=True)
class Simulated:
    """A flow against a simulator that can be told to misbehave."""

    sim: Simulator
    flow: Flow


@pytest.fixture(scope="module")
async def simulated() -> AsyncIterator[Simulated]:
    """A simulator that consents by itself."""
    outbound = HttpOutbound()
    async with recording_upstream() as callback:
        registered = Client("web", SECRET, (f"{callback.url}/callback",))
        async with running_simulator(SimulatorSettings((registered,), auto_consent=True)) as sim:
            oauth = OAuth(f"{sim.url}/authorize", f"{sim.url}/token", client_authentication=ClientAuthentication.POST)
            flow = Flow(oauth, OAuthClient("web", Secret(SECRET)), callback, outbound, ("notes.read", "offline_access"))
            yield Simulated(sim, flow)
    await outbound.aclose()


@pytest.mark.parametrize(
    ("what", "kind", "retry_after"),
    [
        (Misbehaviour.INVALID_GRANT_400, InvalidGrant, None),
        (Misbehaviour.INVALID_GRANT_401, InvalidGrant, None),
        (Misbehaviour.INVALID_GRANT_403, InvalidGrant, None),
        (Misbehaviour.ERROR_IN_200, RequestRefused, None),
        (Misbehaviour.UNAUTHORIZED, RequestRefused, None),
        (Misbehaviour.ECHO_SECRET, RequestRefused, None),
        (Misbehaviour.SLOW_DOWN, Transient, None),
        (Misbehaviour.RATE_LIMITED, Transient, 7.0),
        (Misbehaviour.UNAVAILABLE, Transient, None),
        (Misbehaviour.REDIRECT, Malformed, None),
        (Misbehaviour.GARBAGE_JSON, Malformed, None),
        (Misbehaviour.NOT_AN_OBJECT, Malformed, None),
    ],
)
async def test_every_misbehaviour_of_a_token_endpoint_has_its_error(
    simulated: Simulated, what: Misbehaviour, kind: type[TokenError], retry_after: float | None
) -> None:
    """And none of them holds our secret; the same refresh token works right after."""
    tokens = await simulated.flow.tokens()
    simulated.sim.next_replies.append(what)
    with pytest.raises(kind) as caught:
        await simulated.flow.refreshed(tokens.refresh_token)
    assert caught.value.retry_after == retry_after
    assert SECRET not in repr((str(caught.value), vars(caught.value), caught.value.__context__))
    assert (await simulated.flow.refreshed(tokens.refresh_token)).access_token


@pytest.mark.parametrize(
    ("what", "expires_in"),
    [
        (Misbehaviour.WRONG_CONTENT_TYPE, timedelta(hours=1)),
        (Misbehaviour.EXPIRES_IN_STRING, timedelta(hours=1)),
        (Misbehaviour.EXPIRES_IN_NEGATIVE, None),
        (Misbehaviour.EXPIRES_IN_MISSING, None),
    ],
)
async def test_27_an_odd_reply_with_good_tokens_is_kept(
    simulated: Simulated, what: Misbehaviour, expires_in: timedelta | None
) -> None:
    """The provider has rotated: what it answered is all there is."""
    tokens = await simulated.flow.tokens()
    simulated.sim.next_replies.append(what)
    second = await simulated.flow.refreshed(tokens.refresh_token)
    assert second.expires_in == expires_in
    assert (await simulated.flow.refreshed(second.refresh_token)).access_token


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (Misbehaviour.HUGE_BODY, Reason.BODY_TOO_LARGE),
        (Misbehaviour.HANG, Reason.PROVIDER_UNAVAILABLE),
        (Misbehaviour.HALF_REPLY, Reason.PROVIDER_UNAVAILABLE),
    ],
)
async def test_a_token_endpoint_that_breaks_the_protocol_is_bounded(
    simulated: Simulated, what: Misbehaviour, reason: Reason
) -> None:
    """In bytes and in time."""
    flow = simulated.flow
    request = refresh(flow.oauth, flow.client, refresh_token=Secret("any"), allow_private_addresses=True)
    if what is Misbehaviour.HALF_REPLY:
        tokens = await flow.tokens()
        assert tokens.refresh_token is not None
        request = refresh(flow.oauth, flow.client, refresh_token=tokens.refresh_token, allow_private_addresses=True)
    simulated.sim.next_replies.append(what)
    with pytest.raises(ConnectorsError) as caught:
        await flow.sent(replace(request, timeout=2.0) if what is Misbehaviour.HANG else request)
    assert caught.value.reason is reason
    assert caught.value.metadata.get("sent", "maybe") == "maybe"
