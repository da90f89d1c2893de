"""Signed assertions, minted tokens, devices and pushed requests: how requests look, and what becomes of every answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from connectors_grpc.domain.definition import (
    Api,
    ClientAuthentication,
    Grant,
    Integration,
    OAuth,
    OAuthClient,
    SigningAlgorithm,
)
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.oauth2 import device, token_request
from connectors_grpc.oauth2.assertions import KeyRefused, Stamp, client_assertion, signing_key
from connectors_grpc.oauth2.authorize import authorization_request
from connectors_grpc.oauth2.errors import ClientRefused, InvalidGrant, Malformed, TokenError, Transient
from connectors_grpc.oauth2.minting import InputMissing, minting, needed, parse_minted
from connectors_grpc.oauth2.pushed import pushed_request, pushed_url
from connectors_grpc.ports import HttpReply, HttpRequest
from connectors_grpc.rules.clients import client_violations
from connectors_grpc.rules.definition import validate_definition
from connectors_grpc.secret import Secret

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = Stamp(NOW, "a-jti")
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
FORMS = {"pkcs8": PrivateFormat.PKCS8, "pkcs1 or sec1": PrivateFormat.TraditionalOpenSSL}
TOKEN = "https://as.example/token"


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> Secret:
    """A key as people paste it."""
    return Secret(key.private_bytes(Encoding.PEM, form, NoEncryption()).decode())


def claims(token: str, key: RSAKey | ECKey, algorithm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT whose signature is good."""
    decoded = jwt.decode(token, key, algorithms=[algorithm])
    return dict(decoded.header), dict(decoded.claims)


def form(request: HttpRequest) -> dict[str, list[str]]:
    """Its form."""
    return parse_qs(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)


def reply(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpReply:
    """A JSON answer."""
    lines = (("Content-Type", "application/json"), *(headers or {}).items())
    return HttpReply(status, lines, json.dumps(document).encode())


def mint(oauth: OAuth, client: OAuthClient, **inputs: str) -> HttpRequest:
    """The request that mints."""
    secrets = {name: Secret(text) for name, text in inputs.items()}
    return minting(oauth, client, secrets, stamp=STAMP, allow_private_addresses=False)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("algorithm", [None, SigningAlgorithm.RS256, SigningAlgorithm.PS256], ids=str)
def test_an_rsa_key_proves_the_client(form: PrivateFormat, algorithm: SigningAlgorithm | None) -> None:
    """RFC 7523 section 3: issuer and subject are the client, the audience its token endpoint, good for five minutes, once."""
    oauth = OAuth(token_endpoint=TOKEN, signing_algorithm=algorithm)
    token = client_assertion(oauth, OAuthClient("me", pem(RSA, form), key_id="k1"), STAMP).reveal()
    header, found = claims(token, RSAKey.import_key(RSA), algorithm or "RS256")
    assert (header["alg"], header["kid"]) == (algorithm or "RS256", "k1")
    assert (found["iss"], found["sub"], found["aud"], found["jti"]) == ("me", "me", TOKEN, "a-jti")
    assert found["iat"] <= NOW.timestamp() < found["exp"] <= found["iat"] + 300


def test_a_p256_key_signs_es256_for_the_audience_of_the_definition() -> None:
    """Some providers want the issuer as audience."""
    oauth = OAuth(token_endpoint=TOKEN, assertion_audience="https://as.example")
    header, found = claims(
        client_assertion(oauth, OAuthClient("me", pem(EC)), STAMP).reveal(), ECKey.import_key(EC), "ES256"
    )
    assert "kid" not in header
    assert found["aud"] == "https://as.example"


def test_a_jwk_brings_its_own_kid() -> None:
    """So that each of several keys has its own."""
    members = RSAKey.import_key(RSA).as_dict(private=True) | {"kid": "own"}
    key = signing_key(Secret(json.dumps(members)), key_id="other")
    assert key.key_id == "own"
    assert "own" not in repr(key)


BAD_KEYS = {
    "empty": "",
    "a secret": "s3cret",
    "public": RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode(),
    "short RSA": pem(rsa.generate_private_key(65537, 1024)).reveal(),
    "another curve": pem(ec.generate_private_key(ec.SECP384R1())).reveal(),
    "cut": pem(RSA).reveal()[:400],
    "not a JWK": '{"kty": "RSA"}',
    "a symmetric JWK": '{"kty": "oct", "k": "c2VjcmV0"}',
    "a public JWK": json.dumps(ECKey.import_key(EC).as_dict(private=False)),
    "not an object": "{1}",
    "long": pem(RSA).reveal() + " " * 9000,
}


@pytest.mark.parametrize("text", BAD_KEYS.values(), ids=BAD_KEYS)
def test_what_is_no_key_that_can_sign_is_refused_and_not_repeated(text: str) -> None:
    """By the rules for definitions too, when the definition signs."""
    with pytest.raises(KeyRefused) as caught:
        signing_key(Secret(text))
    assert not text or text not in str(caught.value)
    signs = OAuth(token_endpoint=TOKEN, client_authentication=ClientAuthentication.PRIVATE_KEY_JWT)
    assert list(client_violations(OAuthClient("me", Secret(text)), signs))


def test_key_and_algorithm_must_fit() -> None:
    """Not ES256 by RSA, nor RS256 by P-256."""
    with pytest.raises(KeyRefused):
        signing_key(pem(RSA), SigningAlgorithm.ES256)
    with pytest.raises(KeyRefused):
        signing_key(pem(EC), SigningAlgorithm.RS256)


def test_private_key_jwt_stands_in_the_body_and_the_key_nowhere() -> None:
    """RFC 7523 section 2.2."""
    oauth = OAuth(token_endpoint=TOKEN, client_authentication=ClientAuthentication.PRIVATE_KEY_JWT)
    request = token_request.refresh(
        oauth, OAuthClient("me", pem(EC)), refresh_token=Secret("rt"), allow_private_addresses=False, stamp=STAMP
    )
    sent = form(request)
    assert sent["client_assertion_type"] == ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]
    assert claims(sent["client_assertion"][0], ECKey.import_key(EC), "ES256")[1]["sub"] == "me"
    assert not any(name == "Authorization" for name, _ in request.headers)
    assert b"PRIVATE" not in request.body


@pytest.mark.parametrize("how", [ClientAuthentication.BASIC, ClientAuthentication.POST], ids=str)
def test_a_private_key_is_never_sent_as_a_secret(how: ClientAuthentication) -> None:
    """Whatever a definition was changed to since the key was stored."""
    oauth = OAuth(token_endpoint=TOKEN, client_authentication=how)
    with pytest.raises(ClientRefused):
        token_request.refresh(
            oauth, OAuthClient("me", pem(RSA)), refresh_token=Secret("rt"), allow_private_addresses=False, stamp=STAMP
        )
    assert list(client_violations(OAuthClient("me", pem(RSA)), oauth))


def test_client_credentials_ask_with_scopes_resources_and_the_definition_s_parameters() -> None:
    """RFC 6749 section 4.4.2, RFC 8707 section 2.2."""
    oauth = OAuth(
        token_endpoint=TOKEN,
        grant=Grant.CLIENT_CREDENTIALS,
        scopes=("a", "b"),
        resources=("https://api.example", "https://two.example"),
        token_parameters={"audience": "x", "grant_type": "evil"},
    )
    assert form(mint(oauth, OAuthClient("me", Secret("s3cret")))) == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "resource": ["https://api.example", "https://two.example"],
        "audience": ["x"],
    }
    assert form(mint(oauth, OAuthClient("me", Secret("s3cret")), scope="b"))["scope"] == ["b"]


GOOGLE = OAuth(
    token_endpoint="https://oauth2.googleapis.com/token",
    grant=Grant.JWT_BEARER,
    client_authentication=ClientAuthentication.NONE,
    scopes=("https://www.googleapis.com/auth/drive",),
    assertion_claims={"iss": "{client_id}", "scope": "{scope}", "sub": "{subject}"},
)


def test_a_google_service_account_signs_for_its_subject() -> None:
    """RFC 7523 section 2.1; Google wants the scope as a claim."""
    assert needed(GOOGLE) == ("subject",)
    sent = form(mint(GOOGLE, OAuthClient("robot@p.example", pem(RSA), key_id="k"), subject="ann@corp.example"))
    assert sent["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    header, found = claims(sent["assertion"][0], RSAKey.import_key(RSA), "RS256")
    assert header["kid"] == "k"
    assert found.items() >= {
        "iss": "robot@p.example",
        "sub": "ann@corp.example",
        "scope": "https://www.googleapis.com/auth/drive",
        "aud": "https://oauth2.googleapis.com/token",
    }.items()  # fmt: skip
    with pytest.raises(InputMissing):
        mint(GOOGLE, OAuthClient("robot", pem(RSA)))


def test_a_token_is_exchanged() -> None:
    """RFC 8693 section 2.1."""
    oauth = OAuth(token_endpoint=TOKEN, grant=Grant.TOKEN_EXCHANGE)
    sent = form(mint(oauth, OAuthClient("me", Secret("s")), subject_token="theirs"))
    assert sent["grant_type"] == ["urn:ietf:params:oauth:grant-type:token-exchange"]
    assert sent["subject_token"] == ["theirs"]
    assert sent["subject_token_type"] == ["urn:ietf:params:oauth:token-type:access_token"]


GITHUB = OAuth(
    token_endpoint="https://api.github.com/app/installations",
    grant=Grant.GITHUB_APP_INSTALLATION,
    client_authentication=ClientAuthentication.NONE,
)


def test_a_github_app_asks_for_its_installation_s_token() -> None:
    """An RS256 JWT of ten minutes at most, issued by the app."""
    request = mint(GITHUB, OAuthClient("12345", pem(RSA, PrivateFormat.TraditionalOpenSSL)), installation_id="987")
    assert (request.method, request.url) == ("POST", "https://api.github.com/app/installations/987/access_tokens")
    bearer = dict(request.headers)["Authorization"].removeprefix("Bearer ")
    _, found = claims(bearer, RSAKey.import_key(RSA), "RS256")
    assert found["iss"] == "12345"
    assert found["exp"] - found["iat"] <= 600
    assert found["iat"] < NOW.timestamp() < found["exp"]


@pytest.mark.parametrize("text", ["", "0", "../x", "1/2", "1?", "１", "1" * 21])
def test_an_installation_is_a_number(text: str) -> None:
    """Nothing else comes into the URL."""
    with pytest.raises(InputMissing):
        mint(GITHUB, OAuthClient("1", pem(RSA)), installation_id=text)


def test_an_installation_token_ends_when_it_says() -> None:
    """`expires_at` as ISO 8601."""
    minted = parse_minted(reply({"token": "ghs_x", "expires_at": "2026-01-01T01:00:00Z"}, 201), GITHUB, NOW)
    assert minted.access_token == Secret("ghs_x")
    assert minted.expires_in == timedelta(hours=1)
    assert minted.refresh_token is None


INSTALLATION_REPLIES: Mapping[str, tuple[HttpReply, type[TokenError]]] = {
    "401": (reply({"message": "A JSON web token could not be decoded"}, 401), ClientRefused),
    "403": (reply({"message": "This installation has been suspended"}, 403), ClientRefused),
    "403 limited": (reply({}, 403, {"Retry-After": "7"}), Transient),
    "403 none left": (reply({}, 403, {"X-RateLimit-Remaining": "0"}), Transient),
    "404": (reply({"message": "Not Found"}, 404), InvalidGrant),
    "429": (reply({}, 429), Transient),
    "502": (reply({}, 502), Transient),
    "302": (reply({}, 302), Malformed),
    "no token": (reply({"expires_at": "2026-01-01T01:00:00Z"}, 201), Malformed),
    "odd token": (reply({"token": "a\nb", "expires_at": "2026-01-01T01:00:00Z"}, 201), Malformed),
    "odd time": (reply({"token": "a", "expires_at": "soon"}, 201), Malformed),
    "naive time": (reply({"token": "a", "expires_at": "2026-01-01T01:00:00"}, 201), Malformed),
}


@pytest.mark.parametrize(("answer", "error"), INSTALLATION_REPLIES.values(), ids=INSTALLATION_REPLIES)
def test_every_refusal_of_github_has_its_kind(answer: HttpReply, error: type[TokenError]) -> None:
    """Only an installation that is gone needs a new one; a key that is refused is an admin's to correct."""
    with pytest.raises(error):
        parse_minted(answer, GITHUB, NOW)


@pytest.mark.parametrize("grant", [Grant.CLIENT_CREDENTIALS, Grant.JWT_BEARER], ids=str)
@pytest.mark.parametrize("error", ["invalid_grant", "invalid_scope", "invalid_client", "something"])
def test_a_refusal_that_uses_nothing_up_is_never_terminal(grant: Grant, error: str) -> None:
    """Once an admin has corrected it, the next try is good."""
    with pytest.raises(ClientRefused):
        parse_minted(reply({"error": error}, 400), OAuth(token_endpoint=TOKEN, grant=grant), NOW)


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_request"])
def test_a_refused_subject_token_is_terminal(error: str) -> None:
    """RFC 8693 section 2.2.2: only the tenant can give another."""
    with pytest.raises(InvalidGrant):
        parse_minted(reply({"error": error}, 400), OAuth(token_endpoint=TOKEN, grant=Grant.TOKEN_EXCHANGE), NOW)


def test_refresh_tokens_are_kept_after_an_exchange_only() -> None:
    """RFC 6749 section 4.4.3: a client that can mint needs none."""
    answer = reply({"access_token": "at", "refresh_token": "rt", "token_type": "N_A"})
    exchanged = parse_minted(answer, OAuth(token_endpoint=TOKEN, grant=Grant.TOKEN_EXCHANGE), NOW)
    minted = parse_minted(answer, OAuth(token_endpoint=TOKEN, grant=Grant.CLIENT_CREDENTIALS), NOW)
    assert exchanged.refresh_token == Secret("rt")
    assert minted.refresh_token is None


@given(st.binary(max_size=200), st.integers(100, 599), st.sampled_from(list(Grant)[1:]))
def test_any_answer_gives_a_token_or_one_of_the_five_errors(body: bytes, status: int, grant: Grant) -> None:
    """Whatever the bytes."""
    answer = HttpReply(status, (), body)
    for read in (
        lambda: parse_minted(answer, OAuth(token_endpoint=TOKEN, grant=grant), NOW),
        lambda: device.parse_device_authorization(answer, NOW),
        lambda: pushed_url(answer, OAuth("https://as.example/auth", TOKEN), "me", NOW),
    ):
        with pytest.raises(TokenError):
            read()


def test_a_device_s_codes_are_read_with_bounds() -> None:
    """RFC 8628 section 3.2: `interval` is five seconds unless said."""
    granted = device.parse_device_authorization(
        reply(
            {"device_code": "dc", "user_code": "AB-CD", "verification_uri": "https://as.example/d", "expires_in": 600}
        ),
        NOW,
    )
    assert (granted.interval, granted.expires_in) == (timedelta(seconds=5), timedelta(minutes=10))
    assert granted.verification_uri_complete == ""
    google = {"device_code": "dc", "user_code": "x", "verification_url": "https://g.example", "expires_in": 99999}
    found = device.parse_device_authorization(reply({**google, "interval": 9999}), NOW)
    assert (found.interval, found.expires_in) == (device.LONGEST_INTERVAL, device.LONGEST_LIFE)
    for wrong in ({"user_code": "a\nb"}, {"verification_url": "javascript:1"}, {"expires_in": 0}, {"device_code": ""}):
        with pytest.raises(Malformed):
            device.parse_device_authorization(reply({**google, **wrong}), NOW)


def test_what_is_pushed_is_what_the_browser_would_carry() -> None:
    """RFC 9126 sections 2.1 and 4; then the browser carries a reference and the client's id only."""
    oauth = OAuth(
        "https://as.example/auth?tenant=x",
        TOKEN,
        pushed_authorization_request_endpoint="https://as.example/par",
        resources=("https://api.example",),
    )
    wanted = authorization_request(
        oauth, client_id="me", redirect_uri="https://us.example/cb", state="st", challenge="ch", scopes=("a",)
    )
    client = OAuthClient("me", Secret("s"))
    request = pushed_request(oauth, client, wanted, stamp=STAMP, allow_private_addresses=False)
    assert request.url == "https://as.example/par"
    assert form(request) == {
        "response_type": ["code"],
        "client_id": ["me"],
        "redirect_uri": ["https://us.example/cb"],
        "state": ["st"],
        "scope": ["a"],
        "resource": ["https://api.example"],
        "code_challenge": ["ch"],
        "code_challenge_method": ["S256"],
    }
    url = pushed_url(reply({"request_uri": "urn:x:1&y", "expires_in": 60}, 201), oauth, "me", NOW)
    assert parse_qs(urlsplit(url).query) == {"tenant": ["x"], "client_id": ["me"], "request_uri": ["urn:x:1&y"]}


GOOD = Integration(IntegrationId("x"), oauth=OAuth("https://as.example/a", TOKEN), api=Api("https://api.example"))
MINTED = OAuth(token_endpoint=TOKEN, grant=Grant.CLIENT_CREDENTIALS)
BEARER = replace(GOOGLE, assertion_claims={})
BAD: Mapping[str, tuple[OAuth, str]] = {
    "nowhere to consent": (OAuth(token_endpoint=TOKEN), "oauth.authorization_endpoint"),
    "device": (replace(MINTED, device_authorization_endpoint=TOKEN), "oauth.device_authorization_endpoint"),
    "par": (
        OAuth(token_endpoint=TOKEN, device_authorization_endpoint=TOKEN, pushed_authorization_request_endpoint=TOKEN),
        "oauth.pushed_authorization_request_endpoint",
    ),
    "idle": (replace(MINTED, refresh_token_idle_ttl=timedelta(days=1)), "oauth.refresh_token_idle_ttl"),
    "resource": (replace(MINTED, resources=("no uri",)), "oauth.resources"),
    "fragment": (replace(MINTED, resources=("https://a.example/#x",)), "oauth.resources"),
    "key as secret": (
        replace(GOOGLE, client_authentication=ClientAuthentication.BASIC),
        "oauth.client_authentication",
    ),
    "claims": (replace(MINTED, assertion_claims={"iss": "x"}), "oauth.assertion_claims"),
    "reserved claim": (replace(BEARER, assertion_claims={"iss": "x", "exp": "1"}), "oauth.assertion_claims"),
    "other input": (replace(BEARER, assertion_claims={"iss": "{secret}"}), "oauth.assertion_claims"),
    "no issuer": (replace(BEARER, assertion_claims={"sub": "x"}), "oauth.assertion_claims"),
    "audience": (replace(BEARER, assertion_audience="a b"), "oauth.assertion_audience"),
    "github slash": (replace(GITHUB, token_endpoint="https://a.example/"), "oauth.token_endpoint"),
    "github ES256": (replace(GITHUB, signing_algorithm=SigningAlgorithm.ES256), "oauth.signing_algorithm"),
}


@pytest.mark.parametrize(("oauth", "field"), BAD.values(), ids=BAD)
def test_a_definition_says_of_grants_only_what_holds_together(oauth: OAuth, field: str) -> None:
    """Each fault names its field."""
    assert [violation.field for violation in validate_definition(replace(GOOD, oauth=oauth))] == [field]


@pytest.mark.parametrize("oauth", [MINTED, GOOGLE, BEARER, GITHUB, replace(MINTED, resources=("urn:x:y",))], ids=str)
def test_good_definitions_of_grants_pass(oauth: OAuth) -> None:
    """None needs an authorization endpoint."""
    assert validate_definition(replace(GOOD, oauth=oauth)) == ()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"account_pointer": "id", "identity_path": "/me"}, "api.account_pointer"),
        ({"account_pointer": "/a~2", "identity_path": "/me"}, "api.account_pointer"),
        ({"account_pointer": "/id"}, "api.account_pointer"),
        ({"ok_field": "a b", "identity_path": "/me"}, "api.ok_field"),
        ({"ok_field": "ok"}, "api.ok_field"),
    ],
    ids=str,
)
def test_where_an_identity_is_looked_up_is_checked(changes: Mapping[str, Any], field: str) -> None:
    """A pointer of RFC 6901, a member's name, and a call to look into."""
    api = replace(GOOD.api or Api(""), **changes)
    assert [violation.field for violation in validate_definition(replace(GOOD, api=api))] == [field]


def test_a_client_has_up_to_three_further_secrets() -> None:
    """Each held to the same rules; none without a first."""
    three = (Secret("b"), Secret("c"), Secret("d"))
    assert not list(client_violations(OAuthClient("me", Secret("a"), others=three)))
    assert [one.secret for one in OAuthClient("me", Secret("a"), others=three).each()] == [Secret("a"), *three]
    for client in (
        OAuthClient("me", Secret("a"), others=(*three, Secret("e"))),
        OAuthClient("me", None, others=three),
        OAuthClient("me", Secret("a"), others=(Secret("\n"),)),
    ):
        assert {violation.field for violation in client_violations(client)} == {"oauth_client.client_secrets"}
