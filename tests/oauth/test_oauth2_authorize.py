"""The browser's leg: PKCE, the authorization URL, and the callback."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.domain.definition import OAuth
from connectors_grpc.errors import Reason
from connectors_grpc.oauth2.authorize import (
    authorization_request,
    check_callback,
    code_challenge,
    with_query,
)
from connectors_grpc.oauth2.errors import CallbackRefused, connectors_error
from connectors_grpc.oauth2.parameters import AUTHORIZATION_RESERVED
from connectors_grpc.secret import Secret

OAUTH = OAuth("https://as.example/authorize", "https://as.example/token")
WITH_ISS = OAuth("https://as.example/authorize", "https://as.example/token", issuer="https://as.example")
ISS_REQUIRED = OAuth(
    "https://as.example/authorize", "https://as.example/token", issuer="https://as.example", iss_required=True
)


def url_of(oauth: OAuth, **changes: object) -> str:
    """An authorization URL with usual arguments."""
    usual: dict[str, object] = {
        "client_id": "client 1",
        "redirect_uri": "https://us.example/oauth/callback/x?a=b",
        "state": "st&te",
        "challenge": "chal",
        "scopes": ("a:b", "c"),
    }
    wanted = authorization_request(oauth, **{**usual, **changes})  # type: ignore[arg-type]
    return with_query(oauth.authorization_endpoint, wanted)


def query_of(url: str) -> dict[str, list[str]]:
    """Its parameters."""
    return parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)


# RFC 7636 appendix B
RFC_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
RFC_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_pkce_gives_the_rfc_s_own_example() -> None:
    """The verifier and the challenge of RFC 7636 appendix B."""
    assert code_challenge(Secret(RFC_VERIFIER)) == RFC_CHALLENGE


@given(st.from_regex(r"[A-Za-z0-9._~-]{43,128}", fullmatch=True))
def test_every_verifier_has_a_challenge(verifier: str) -> None:
    """43 characters of base64url, however long it is."""
    assert len(code_challenge(Secret(verifier))) == 43


@pytest.mark.parametrize("text", ["", "a" * 42, "a" * 129, "a" * 42 + "=", "a" * 42 + "é", "a" * 43 + "\n"])
def test_what_is_no_verifier_has_no_challenge(text: str) -> None:
    """43 to 128 unreserved characters."""
    with pytest.raises(ValueError, match="verifier"):
        code_challenge(Secret(text))


def test_the_authorization_url_has_each_parameter_once_and_encoded() -> None:
    """RFC 6749 section 4.1.1 and RFC 7636 section 4.3."""
    assert query_of(url_of(OAUTH)) == {
        "response_type": ["code"],
        "client_id": ["client 1"],
        "redirect_uri": ["https://us.example/oauth/callback/x?a=b"],
        "state": ["st&te"],
        "scope": ["a:b c"],
        "code_challenge": ["chal"],
        "code_challenge_method": ["S256"],
    }
    assert "+" not in url_of(OAUTH)


def test_what_a_provider_does_not_take_is_left_out() -> None:
    """No PKCE where the definition says so or no challenge was made; no scope where there is none; its own separator."""
    plain = OAuth("https://as.example/a", "https://as.example/t", pkce=False, scope_separator=",")
    assert query_of(url_of(plain))["scope"] == ["a:b,c"]
    assert "code_challenge" not in query_of(url_of(plain))
    assert "code_challenge_method" not in query_of(url_of(OAUTH, challenge=None))
    assert "scope" not in query_of(url_of(OAUTH, scopes=()))


def test_the_endpoint_s_own_query_is_kept_as_it_is() -> None:
    """RFC 6749 section 3.1."""
    with_query = OAuth("https://as.example/a?tenant=x%20y&b", "https://as.example/t")
    assert url_of(with_query).startswith("https://as.example/a?tenant=x%20y&b&response_type=code&")
    empty = OAuth("https://as.example/a?", "https://as.example/t")
    assert url_of(empty).startswith("https://as.example/a?response_type=code&")


def test_a_definition_s_parameters_are_added_and_replace_none_of_the_protocol_s() -> None:
    """Attack 37: an edited definition does not steer the flow."""
    evil = dict.fromkeys(AUTHORIZATION_RESERVED, "evil")
    oauth = OAuth(
        "https://as.example/a", "https://as.example/t", authorization_parameters={"prompt": "consent", **evil}
    )
    url = url_of(oauth, challenge=None, scopes=())
    assert "evil" not in url
    assert query_of(url)["prompt"] == ["consent"]


GOOD = {"code": ["c0de"], "state": ["s"]}


@pytest.mark.parametrize(
    ("oauth", "params"),
    [
        (OAUTH, GOOD),
        (OAUTH, {**GOOD, "iss": ["https://anybody.example"]}),
        (OAUTH, {**GOOD, "scope": ["a b"], "authuser": ["0"]}),
        (WITH_ISS, GOOD),
        (WITH_ISS, {**GOOD, "iss": ["https://as.example"]}),
        (ISS_REQUIRED, {**GOOD, "iss": ["https://as.example"]}),
    ],
    ids=["plain", "iss unknown", "extras", "iss optional", "iss", "iss required"],
)
def test_a_good_callback_gives_its_code(oauth: OAuth, params: Mapping[str, list[str]]) -> None:
    """As a secret."""
    assert check_callback(params, oauth) == Secret("c0de")


@pytest.mark.parametrize(
    ("oauth", "params", "problem"),
    [
        (OAUTH, {}, "code_missing"),
        (OAUTH, {"code": [""]}, "code_missing"),
        (OAUTH, {"code": ["a\r\nb"]}, "code_missing"),
        (OAUTH, {"code": ["a" * 4097]}, "code_missing"),
        (OAUTH, {"code": ["a", "b"]}, "repeated_parameter"),
        (OAUTH, {"code": ["a", "a"]}, "repeated_parameter"),
        (OAUTH, {**GOOD, "state": ["s", "s"]}, "repeated_parameter"),
        (OAUTH, {**GOOD, "error": []}, "repeated_parameter"),
        (WITH_ISS, {**GOOD, "iss": ["https://evil.example"]}, "iss_mismatch"),
        (WITH_ISS, {**GOOD, "iss": ["https://as.example/"]}, "iss_mismatch"),
        (WITH_ISS, {**GOOD, "iss": ["HTTPS://as.example"]}, "iss_mismatch"),
        (WITH_ISS, {**GOOD, "iss": [""]}, "iss_mismatch"),
        (WITH_ISS, {"error": ["access_denied"], "iss": ["https://evil.example"]}, "iss_mismatch"),
        (WITH_ISS, {**GOOD, "iss": ["https://as.example", "https://evil.example"]}, "repeated_parameter"),
        (ISS_REQUIRED, GOOD, "iss_missing"),
        (ISS_REQUIRED, {"error": ["access_denied"]}, "iss_missing"),
    ],
)
def test_28_a_callback_that_is_not_the_provider_s_is_refused(
    oauth: OAuth, params: Mapping[str, list[str]], problem: str
) -> None:
    """Repeated parameters (RFC 6749 section 3.1), a wrong or missing `iss` (RFC 9207), no code."""
    with pytest.raises(CallbackRefused) as caught:
        check_callback(params, oauth)
    told = connectors_error(caught.value)
    assert told.reason is Reason.AUTHORIZATION_REFUSED
    assert told.metadata == {"problem": problem}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("access_denied", "access_denied"),
        ("server_error", "server_error"),
        ("<script>alert(1)</script>", "other"),
        ("access_denied\r\nX: 1", "other"),
        ("s3cr3t", "other"),
        ("", "other"),
    ],
)
def test_28_a_refusal_is_told_by_a_listed_code_and_nothing_else(error: str, told: str) -> None:
    """A hostile error or description is reflected nowhere; an error counts even beside a code."""
    params = {**GOOD, "error": [error], "error_description": ["<b>hostile</b>"], "error_uri": ["https://evil.example"]}
    with pytest.raises(CallbackRefused) as caught:
        check_callback(params, OAUTH)
    assert connectors_error(caught.value).metadata == {"oauth_error": told}
    assert str(caught.value) == told


@given(st.dictionaries(st.sampled_from(["code", "state", "iss", "error", "x"]), st.lists(st.text(), max_size=3)))
def test_any_callback_gives_a_code_or_a_refusal(params: dict[str, list[str]]) -> None:
    """And never lets a foreign issuer pass."""
    try:
        check_callback(params, ISS_REQUIRED)
    except CallbackRefused:
        return
    assert params["iss"] == ["https://as.example"]
