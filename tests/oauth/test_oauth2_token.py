"""The back channel: how token requests look, and what becomes of every answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.domain.definition import ClientAuthentication, OAuth, OAuthClient, TokenRequestFormat
from connectors_grpc.errors import Reason
from connectors_grpc.oauth2.errors import (
    ClientRefused,
    InvalidGrant,
    Malformed,
    OAuthError,
    RequestRefused,
    TokenError,
    Transient,
    connectors_error,
)
from connectors_grpc.oauth2.parameters import TOKEN_RESERVED
from connectors_grpc.oauth2.token_reply import TokenReply, check_revocation, parse_token_reply
from connectors_grpc.oauth2.token_request import code_exchange, refresh, revocation
from connectors_grpc.ports import HttpReply, HttpRequest
from connectors_grpc.secret import Secret

OAUTH = OAuth(
    "https://as.example/authorize", "https://as.example/token", revocation_endpoint="https://as.example/revoke"
)
CLIENT = OAuthClient("client", Secret("s3cr3t"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = {"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt", "scope": "a b"}


def exchange(oauth: OAuth, client: OAuthClient = CLIENT) -> HttpRequest:
    """A code exchange."""
    return code_exchange(
        oauth,
        client,
        code=Secret("c&de"),
        redirect_uri="https://us.example/cb",
        verifier=Secret("v" * 43),
        allow_private_addresses=False,
    )


def form(request: HttpRequest) -> dict[str, str]:
    """Its form, each parameter once."""
    parsed = parse_qs(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert all(len(values) == 1 for values in parsed.values())
    return {name: values[0] for name, values in parsed.items()}


def reply(document: object, status: int = 200, **headers: str) -> HttpReply:
    """A JSON reply."""
    lines = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return HttpReply(status, tuple(lines.items()), json.dumps(document).encode())


def parse(document: object, status: int = 200, oauth: OAuth = OAUTH, **headers: str) -> TokenReply:
    """What a reply of that document is."""
    return parse_token_reply(reply(document, status, **headers), oauth, NOW)


def failure(answer: HttpReply, oauth: OAuth = OAUTH) -> TokenError:
    """The error that a reply is."""
    with pytest.raises(TokenError) as caught:
        parse_token_reply(answer, oauth, NOW)
    return caught.value


def test_a_code_exchange_is_a_bounded_form_post_with_basic() -> None:
    """RFC 6749 section 4.1.3, RFC 7636 section 4.5."""
    request = exchange(OAUTH)
    assert (request.method, request.url) == ("POST", "https://as.example/token")
    assert form(request) == {
        "grant_type": "authorization_code",
        "code": "c&de",
        "redirect_uri": "https://us.example/cb",
        "code_verifier": "v" * 43,
    }
    assert dict(request.headers) == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "connectors",
        "Authorization": "Basic " + base64.b64encode(b"client:s3cr3t").decode(),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    assert 0 < request.timeout <= 30
    assert request.max_body == 65_536
    assert "s3cr3t" not in repr(request)


def test_basic_form_urlencodes_id_and_secret_first() -> None:
    """RFC 6749 section 2.3.1: a colon in the id, and `%`, `+`, `&` or a space in either, survive."""
    request = exchange(OAUTH, OAuthClient("a:b c", Secret("p%w+&/")))
    encoded = dict(request.headers)["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded) == b"a%3Ab+c:p%25w%2B%26%2F"


def test_the_client_s_credentials_go_in_the_body_where_the_definition_says_so() -> None:
    """client_secret_post."""
    request = exchange(replace(OAUTH, client_authentication=ClientAuthentication.POST))
    assert form(request)["client_id"] == "client"
    assert form(request)["client_secret"] == "s3cr3t"
    assert "Authorization" not in dict(request.headers)


@pytest.mark.parametrize("method", ClientAuthentication)
def test_a_public_client_sends_its_id_and_no_secret(method: ClientAuthentication) -> None:
    """Whatever the method, there is none to send."""
    request = exchange(replace(OAUTH, client_authentication=method), OAuthClient("client"))
    assert form(request)["client_id"] == "client"
    assert "client_secret" not in form(request)
    assert "Authorization" not in dict(request.headers)


def test_a_secret_is_not_sent_where_the_method_is_none() -> None:
    """Even if one is stored."""
    request = exchange(replace(OAUTH, client_authentication=ClientAuthentication.NONE))
    assert b"s3cr3t" not in request.body
    assert "Authorization" not in dict(request.headers)


def test_a_json_token_endpoint_gets_json() -> None:
    """Notion's."""
    request = exchange(replace(OAUTH, token_request_format=TokenRequestFormat.JSON))
    assert dict(request.headers)["Content-Type"] == "application/json"
    assert json.loads(request.body)["code"] == "c&de"


def test_no_verifier_goes_to_a_provider_without_pkce() -> None:
    """Some refuse what they do not know."""
    assert "code_verifier" not in form(exchange(replace(OAUTH, pkce=False)))


def test_extra_token_parameters_are_sent_and_replace_nothing() -> None:
    """Zendesk wants `expires_in`; nobody gets to set `grant_type`."""
    evil = dict.fromkeys(TOKEN_RESERVED, "evil")
    oauth = replace(OAUTH, token_parameters={"expires_in": "3600", **evil})
    assert form(exchange(oauth))["expires_in"] == "3600"
    assert b"evil" not in exchange(oauth).body


def test_a_refresh_goes_to_its_own_endpoint_if_there_is_one() -> None:
    """RFC 6749 section 6; Figma has one."""
    oauth = replace(OAUTH, refresh_endpoint="https://as.example/refresh", scope_separator=",")
    request = refresh(oauth, CLIENT, refresh_token=Secret("r+t"), scopes=("a", "b"), allow_private_addresses=True)
    assert request.url == "https://as.example/refresh"
    assert request.allow_private_addresses
    assert form(request) == {"grant_type": "refresh_token", "refresh_token": "r+t", "scope": "a,b"}
    plain = refresh(OAUTH, CLIENT, refresh_token=Secret("rt"), allow_private_addresses=False)
    assert plain.url == "https://as.example/token"
    assert form(plain) == {"grant_type": "refresh_token", "refresh_token": "rt"}


def test_a_revocation_names_token_and_hint() -> None:
    """RFC 7009 section 2.1; without extra token parameters, and not at all without an endpoint."""
    oauth = replace(OAUTH, token_parameters={"expires_in": "1"})
    request = revocation(oauth, CLIENT, token=Secret("rt"), hint="refresh_token", allow_private_addresses=False)
    assert request is not None
    assert request.url == "https://as.example/revoke"
    assert form(request) == {"token": "rt", "token_type_hint": "refresh_token"}
    none = replace(OAUTH, revocation_endpoint="")
    assert revocation(none, CLIENT, token=Secret("rt"), hint="refresh_token", allow_private_addresses=False) is None


def test_a_good_reply_is_read_whole() -> None:
    """RFC 6749 section 5.1, and the plain fields besides, as secrets."""
    answer = parse({**GOOD, "workspace_id": "w1", "bot_id": 7, "owner": {"x": 1}, "ok": True, "id_token": "e30"})
    assert answer == TokenReply(
        access_token=Secret("at"),
        refresh_token=Secret("rt"),
        expires_in=timedelta(hours=1),
        scopes=("a", "b"),
        token_type="Bearer",
        extra={"workspace_id": Secret("w1"), "bot_id": Secret("7")},
    )
    assert "at" not in repr(answer.access_token)
    assert "w1" not in repr(answer)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3600, 3600), ("3600", 3600), (3600.9, 3600), (1, 1), (3, 3), ("0003", 3), (10**300, 3653 * 86_400),
        (1e300, 3653 * 86_400),
        (0, None), (-1, None), ("-1", None), ("0", None), (0.5, None), (True, None), (False, None), ("", None), ("1h", None),
        ("٣", None), (" 5", None), (None, None), ([], None), ({}, None), (float("nan"), None), (float("inf"), None),
        ("9" * 100, None),
    ],
    ids=str,
)  # fmt: skip
def test_expires_in_is_read_or_counts_as_not_said(value: object, seconds: int | None) -> None:
    """An odd lifetime never costs us the tokens, of which the refresh token may be the only one there is."""
    answer = parse({**GOOD, "expires_in": value})
    assert answer.expires_in == (None if seconds is None else timedelta(seconds=seconds))
    assert answer.refresh_token == Secret("rt")


@pytest.mark.parametrize(
    ("value", "separator", "scopes"),
    [
        ("a b", " ", ("a", "b")),
        ("a,b", ",", ("a", "b")),
        ("a b", ",", ("a", "b")),
        ("a,b", " ", ("a,b",)),
        (" a  a ", " ", ("a",)),
        (["a", "b", 1], " ", ("a", "b")),
        ('a "b" c', " ", ("a", "c")),
        ("", " ", None),
        (7, " ", None),
        (None, " ", None),
    ],
)
def test_scopes_are_split_as_the_provider_joins_them(
    value: object, separator: str, scopes: tuple[str, ...] | None
) -> None:
    """None means that those asked for were granted."""
    assert parse({**GOOD, "scope": value}, oauth=replace(OAUTH, scope_separator=separator)).scopes == scopes


@pytest.mark.parametrize(
    ("value", "expected"),
    [("bearer", "Bearer"), ("BEARER", "Bearer"), ("bot", "bot"), ("", "Bearer"), (None, "Bearer"), ("a b", "Bearer"),
     (1, "Bearer")],
)  # fmt: skip
def test_the_token_type_s_case_does_not_count(value: object, expected: str) -> None:
    """RFC 6749 section 7.1."""
    assert parse({**GOOD, "token_type": value}).token_type == expected


@pytest.mark.parametrize("absent", [None, ""])
def test_a_reply_without_a_refresh_token_says_so(absent: str | None) -> None:
    """The one in hand goes on."""
    assert parse({**GOOD, "refresh_token": absent}).refresh_token is None
    assert parse({"access_token": "at"}).refresh_token is None


def test_a_form_encoded_reply_is_read_by_its_content_type() -> None:
    """GitHub's way when it is not asked for JSON, errors included."""
    kind = (("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),)
    answer = parse_token_reply(HttpReply(200, kind, b"access_token=at&scope=a%20b&token_type=bearer"), OAUTH, NOW)
    assert (answer.access_token, answer.scopes) == (Secret("at"), ("a", "b"))
    assert isinstance(failure(HttpReply(200, kind, b"error=bad_verification_code")), InvalidGrant)
    assert isinstance(failure(HttpReply(200, kind, b"access_token=a&access_token=b")), Malformed)
    assert isinstance(failure(HttpReply(200, kind, b"a" * 10)), Malformed)


def test_json_is_read_under_any_other_content_type() -> None:
    """A rotated refresh token is worth more than a correct label."""
    body = json.dumps(GOOD).encode()
    for headers in ((("Content-Type", "text/html"),), ()):
        assert parse_token_reply(HttpReply(200, headers, body), OAUTH, NOW).refresh_token == Secret("rt")


@pytest.mark.parametrize("status", [200, 400, 401, 403])
@pytest.mark.parametrize(
    "error", ["invalid_grant", "bad_verification_code", "bad_refresh_token", "invalid_refresh_token"]
)
def test_a_refused_grant_is_terminal_whatever_the_status(status: int, error: str) -> None:
    """400 by the RFC, 401 and 403 by some, 200 by GitHub and Slack."""
    found = failure(reply({"error": error, "error_description": "no"}, status))
    assert isinstance(found, InvalidGrant)
    assert connectors_error(found, refreshing=True).reason is Reason.NEEDS_REAUTH
    assert connectors_error(found).reason is Reason.AUTHORIZATION_REFUSED
    assert connectors_error(found).metadata == {"oauth_error": error}


@pytest.mark.parametrize(
    ("document", "status", "kind"),
    [
        ({"error": "invalid_client"}, 401, ClientRefused),
        ({"error": "unauthorized_client"}, 400, ClientRefused),
        ({"error": "incorrect_client_credentials"}, 200, ClientRefused),
        ({"error": "invalid_scope"}, 400, RequestRefused),
        ({"error": "unsupported_grant_type"}, 400, RequestRefused),
        ({"error": "what_is_this"}, 400, RequestRefused),
        ({"error": {"code": 5}}, 400, RequestRefused),
        ({"error": {"code": 5}}, 200, RequestRefused),
        ({"message": "no"}, 404, RequestRefused),
        ({**GOOD}, 400, RequestRefused),
        ({**GOOD, "error": "invalid_grant"}, 200, InvalidGrant),
        ({"ok": False, "error": "invalid_code"}, 200, InvalidGrant),
        ({"ok": False, "error": "bad_client_secret"}, 200, ClientRefused),
        ({"ok": False, "error": "ratelimited"}, 200, Transient),
        ({**GOOD, "ok": False}, 200, RequestRefused),
        ({"error": "slow_down"}, 400, Transient),
        ({"error": "temporarily_unavailable"}, 400, Transient),
        ({"error": "server_error"}, 400, Transient),
        ({"error": "invalid_grant"}, 500, Transient),
        ({"error": "invalid_grant"}, 429, Transient),
        ({**GOOD}, 503, Transient),
        ({}, 408, Transient),
        ({**GOOD}, 302, Malformed),
        ({**GOOD}, 101, Malformed),
        ({}, 200, Malformed),
        ({"error": ""}, 200, Malformed),
        ({"error": None, "access_token": 5}, 200, Malformed),
    ],
    ids=str,
)
def test_every_other_answer_is_one_of_the_closed_set(document: object, status: int, kind: type[TokenError]) -> None:
    """By the error where there is one, by the status where a gateway or a limit speaks."""
    assert type(failure(reply(document, status))) is kind


def test_an_empty_error_beside_a_token_is_none() -> None:
    """Some send the field always."""
    for nothing in ("", None, False):
        assert parse({**GOOD, "error": nothing}).access_token == Secret("at")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'"at"', b"{", b"\xff\xfe", b'{"access_token":"a"', b"[" * 60_000,
     b'{"a":' + b"9" * 5000 + b"}"],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 400, 401])
def test_what_is_no_object_is_malformed(body: bytes, status: int) -> None:
    """And the error carries nothing of it, not even by its context."""
    found = failure(HttpReply(status, (), body))
    assert isinstance(found, Malformed)
    assert found.__cause__ is None
    assert found.__context__ is None


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
@pytest.mark.parametrize(
    "value", ["a\r\nb", "a\0", "a b", "ü", "a" * 16_385, 7, ["a"], {"a": 1}, True], ids=lambda v: str(v)[:8]
)
def test_19_a_token_that_no_header_can_carry_is_malformed(name: str, value: object) -> None:
    """CR, LF, NUL and everything that is not visible ASCII, at most 16 KiB."""
    assert isinstance(failure(reply({**GOOD, name: value})), Malformed)


def test_tokens_of_16_kib_pass() -> None:
    """The bound itself is allowed."""
    assert parse({**GOOD, "access_token": "a" * 16_384}).access_token == Secret("a" * 16_384)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999", 3600.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2026 00:01:00 -0000", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 400, None),
        ("Thu, 99 Foo 2026 00:01:00 GMT", None),
        ("Thu, 01 Jan 99999 00:01:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(text: str, seconds: float | None) -> None:
    """RFC 9110 section 10.2.3; never above an hour, never below now."""
    found = failure(reply({}, 429, Retry_After=text))
    assert found.retry_after == seconds
    assert connectors_error(found, refreshing=True).retry_after == seconds
    assert failure(reply({"error": "slow_down"}, 400, Retry_After=text)).retry_after == seconds


@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
@pytest.mark.parametrize("field", ["error", "error_description", "access_token", "message", "ok"])
def test_25_an_echo_of_our_secret_reaches_no_error(status: int, field: str) -> None:
    """Not by the code, which looks like one, nor by anything else that a provider may quote."""
    secret = "s3cr3t_of_ours"
    document: dict[str, object] = {"error": "invalid_request", field: secret}
    if field == "access_token":
        document = {"access_token": f"{secret}\n"}
    found = failure(reply(document, status))
    told = [connectors_error(found, refreshing=refreshing) for refreshing in (False, True)]
    assert secret not in repr((str(found), found.args, vars(found), [(str(t), t.metadata) for t in told]))


def test_errors_while_refreshing_are_transient_unless_the_grant_or_the_client_is_refused() -> None:
    """Only `invalid_grant` says that a person must connect again."""
    expected: Mapping[type[OAuthError], tuple[Reason, Reason]] = {
        InvalidGrant: (Reason.AUTHORIZATION_REFUSED, Reason.NEEDS_REAUTH),
        ClientRefused: (Reason.OAUTH_CLIENT_REFUSED, Reason.OAUTH_CLIENT_REFUSED),
        RequestRefused: (Reason.AUTHORIZATION_REFUSED, Reason.PROVIDER_UNAVAILABLE),
        Transient: (Reason.PROVIDER_UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE),
        Malformed: (Reason.PROVIDER_UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE),
    }
    assert set(TokenError.__subclasses__()) == set(expected)
    for kind, reasons in expected.items():
        assert (
            tuple(connectors_error(kind("x"), refreshing=refreshing).reason for refreshing in (False, True)) == reasons
        )


@pytest.mark.parametrize(
    "answer",
    [
        HttpReply(200, (), b""),
        HttpReply(204, (), b""),
        reply({"request_id": "x"}),
        reply({"error": "invalid_token"}, 400),
        reply({"error": "invalid_grant"}, 400),
    ],
    ids=["empty", "no content", "object", "unknown token", "gone"],
)
def test_a_revocation_that_left_no_token_is_a_success(answer: HttpReply) -> None:
    """RFC 7009 section 2.2: what is unknown there is revoked."""
    check_revocation(answer, NOW)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (HttpReply(503, (), b""), Transient),
        (HttpReply(302, (), b""), Malformed),
        (HttpReply(400, (), b"<html>"), RequestRefused),
        (reply({"error": "invalid_client"}, 401), ClientRefused),
        (reply({"error": "unsupported_token_type"}, 400), RequestRefused),
        (reply({"ok": False}), RequestRefused),
    ],
    ids=str,
)
def test_a_revocation_that_failed_says_so(answer: HttpReply, kind: type[TokenError]) -> None:
    """The grant may live on there."""
    with pytest.raises(kind):
        check_revocation(answer, NOW)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NAMES = st.sampled_from([*GOOD, "error", "ok", "x"]) | st.text()
DOCUMENTS = st.dictionaries(NAMES, SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), SCALARS)).map(
    lambda document: json.dumps(document).encode()
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Content-Type", "Retry-After"]),
        st.text() | st.sampled_from(["application/json", "application/x-www-form-urlencoded"]),
    ),
    max_size=3,
).map(tuple)


@given(st.integers(100, 599), HEADERS, st.binary() | DOCUMENTS)
def test_any_bytes_are_a_reply_or_one_of_our_errors(
    status: int, headers: tuple[tuple[str, str], ...], body: bytes
) -> None:
    """Whatever status, header lines and body come."""
    try:
        answer = parse_token_reply(HttpReply(status, headers, body), OAUTH, NOW)
    except (InvalidGrant, ClientRefused, RequestRefused, Transient, Malformed):
        return
    assert 200 <= status < 300
    assert answer.access_token.reveal().isprintable()
    assert answer.expires_in is None or answer.expires_in > timedelta(0)
