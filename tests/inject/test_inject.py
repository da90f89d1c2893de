"""How a credential is put into a request, without a socket: templates, hosts, headers, query, targets."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.domain.definition import BasicPlacement, Placement
from connectors_grpc.inject import (
    FieldRefused,
    HostNotAllowed,
    Injection,
    PathNotAllowed,
    PlaceholderUnresolved,
    Plan,
    TargetRefused,
    authority,
    parse_target,
    resolve,
)
from connectors_grpc.inject.memo import MOST, RESTLESS, Memo
from connectors_grpc.secret import Secret

TOKEN = "tok-0123456789abcdef"
BASE = "https://api.example.com/v1"


def plan(headers: dict[str, str] | None = None, query: dict[str, str] | None = None, **settings: Any) -> Plan:
    """A plan for api.example.com, with a bearer token unless told otherwise."""
    given = {"Authorization": f"Bearer {TOKEN}"} if headers is None else headers
    injection = Injection({k: Secret(v) for k, v in given.items()}, {k: Secret(v) for k, v in (query or {}).items()})
    whole: dict[str, Any] = {"base_url": BASE, "allowed_hosts": ["api.example.com"], "default_headers": {}} | settings
    return Plan.of(injection, **whole)


def names(lines: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Lower-case names, `_` read as `-`: as the loosest server reads them."""
    return [name.lower().replace(b"_", b"-") for name, _ in lines]


# --- templates


def test_templates_are_filled_with_the_credentials_fields() -> None:
    """Headers, Basic and query."""
    placement = Placement(
        headers={"X-Key": "k={api_key}"}, query={"sig": "{api_key}"}, basic=BasicPlacement("{user}", "{api_key}")
    )
    got = resolve(placement, {"api_key": Secret("s3cret"), "user": Secret("me")})
    assert {k: v.reveal() for k, v in got.headers.items()} == {
        "X-Key": "k=s3cret",
        "Authorization": "Basic " + base64.b64encode(b"me:s3cret").decode(),
    }
    assert got.query["sig"].reveal() == "s3cret"


def test_23_a_placeholder_left_unresolved_is_refused() -> None:
    """By the field's name."""
    with pytest.raises(PlaceholderUnresolved, match="access_token"):
        resolve(Placement(headers={"Authorization": "Bearer {access_token}"}), {"api_key": Secret("x")})


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\0b", "a\tb", " a", "a ", "a\x7f", "日本"])
def test_19_a_value_that_can_not_stand_in_a_header_is_refused(value: str) -> None:
    """Refused, never cleaned, and never quoted in the error."""
    with pytest.raises(FieldRefused) as refused:
        resolve(Placement(headers={"X-Key": "{api_key}"}), {"api_key": Secret(value)})
    assert refused.value.args == ("X-Key",)


def test_a_colon_in_a_basic_user_name_is_refused() -> None:
    """It would move the boundary.  Source: RFC 7617 section 2."""
    with pytest.raises(FieldRefused):
        resolve(Placement(basic=BasicPlacement("{user}")), {"user": Secret("a:b")})


def test_a_filled_value_is_not_a_template_again() -> None:
    """A field's braces mean nothing."""
    fields = {"api_key": Secret("{other}"), "other": Secret("x")}
    assert resolve(Placement(headers={"X-Key": "{api_key}"}), fields).headers["X-Key"].reveal() == "{other}"


# --- hosts


@pytest.mark.parametrize(
    "base_url",
    ["https://api.example.com.evil.com", "https://evilapi.example.com", "https://api.example.com:8443", "ftp://api.example.com",
     "https://api.example.com@evil.com", "https://user@evil.com/api.example.com", "//api.example.com", "https://"],
)  # fmt: skip
def test_14_a_base_url_whose_host_was_not_sealed_is_refused(base_url: str) -> None:
    """Whole authorities are compared, never suffixes."""
    with pytest.raises(HostNotAllowed):
        plan(base_url=base_url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://API.Example.com/x", "api.example.com"),
        ("https://api.example.com:443", "api.example.com"),
        ("http://api.example.com:80", "api.example.com"),
        ("http://api.example.com:443", "api.example.com:443"),
        ("https://[2606:4700::1]:8443/x", "[2606:4700::1]:8443"),
    ],
)
def test_hosts_are_compared_in_one_form(url: str, expected: str) -> None:
    """Lower case, no default port."""
    assert authority(url) == expected


def test_a_plan_shows_no_secret() -> None:
    """`repr` names the host alone."""
    assert TOKEN not in repr(plan())


# --- requests


@pytest.mark.parametrize("name", [b"Authorization", b"authorization", b"AUTHORIZATION", b"AuThOrIzAtIoN"])
def test_16_the_apps_authorization_is_replaced_in_any_case(name: bytes) -> None:
    """One, ours, also where several came."""
    lines = plan().request_headers([(name, b"Bearer app"), (b"Accept", b"*/*"), (name, b"again")])
    assert lines == [(b"Host", b"api.example.com"), (b"Accept", b"*/*"), (b"Authorization", f"Bearer {TOKEN}".encode())]


HEADER_NAMES = st.sampled_from(
    [b"Authorization", b"X-Api-Key", b"X_Api_Key", b"x-api-key", b"Connection", b"X-Tenant-Id", b"X_Tenant_Id", b"Host",
     b"X-Connectors-Key", b"X-Connectors_Any", b"X-Forwarded-For", b"Forwarded", b"Cookie", b"Accept", b"X-Version", b"x_version",
     b"Transfer-Encoding", b"Content-Length", b"Proxy-Authorization", b"TE", b"X-Mine"]
)  # fmt: skip
LINES = st.lists(
    st.tuples(HEADER_NAMES, st.sampled_from([b"a", b"authorization, host", b"x-mine", b"X_Mine, close"])), max_size=12
)


@given(LINES)
def test_exactly_one_of_each_injected_name_goes_out_whatever_came(lines: list[tuple[bytes, bytes]]) -> None:
    """Ours; no control, forwarding, hop-by-hop or cookie line; one Host; and doing it twice changes nothing."""
    mine = plan({"X-Api-Key": "the-secret-of-the-tenant"}, default_headers={"X-Version": "1"})
    out = mine.request_headers(lines)
    read = names(out)
    assert [value for name, value in out if name == b"X-Api-Key"] == [b"the-secret-of-the-tenant"]
    assert read.count(b"x-api-key") == 1
    assert out[0] == (b"Host", b"api.example.com")
    assert read.count(b"host") == 1
    refused = {b"authorization", b"connection", b"x-tenant-id", b"forwarded", b"cookie", b"transfer-encoding", b"te"}
    assert not refused & set(read)
    assert not any(name.startswith((b"x-connectors-", b"x-forwarded-", b"proxy-")) for name in read)
    assert b"x-version" in read
    assert mine.request_headers(out) == out


def test_17_connection_names_its_options_away_and_nothing_of_ours() -> None:
    """Two lines of it, in any case."""
    lines = [
        (b"Connection", b"X-A, Authorization"),
        (b"X-A", b"1"),
        (b"X-B", b"2"),
        (b"connection", b"x-b ,Host"),
        (b"X-C", b"3"),
    ]
    assert names(plan().request_headers(lines)) == [b"host", b"x-c", b"authorization"]


def test_20_connection_can_not_name_a_bodys_length_away() -> None:
    """Else the body would be read as the next message, of whoever comes next on that connection. Both ways."""
    lines = [(b"Connection", b"content-length, Content_Length"), (b"Content-Length", b"3")]
    assert (b"Content-Length", b"3") in plan().request_headers(lines)
    assert plan().response_headers(lines) == [(b"Content-Length", b"3")]


def test_a_default_header_gives_way_to_the_apps_own() -> None:
    """In any spelling; unless Connection names the app's away."""
    mine = plan(default_headers={"Notion-Version": "2022-06-28"})
    assert (b"Notion-Version", b"2022-06-28") in mine.request_headers([])
    own = mine.request_headers([(b"notion-version", b"2025-09-03")])
    assert [value for name, value in own if name.lower() == b"notion-version"] == [b"2025-09-03"]
    named = mine.request_headers([(b"Connection", b"notion-version"), (b"notion-version", b"2025-09-03")])
    assert [value for name, value in named if name.lower() == b"notion-version"] == [b"2022-06-28"]


def test_cookies_pass_only_where_the_definition_says_so() -> None:
    """Both ways."""
    for allowed in (False, True):
        mine = plan(pass_cookies=allowed)
        assert (b"cookie" in names(mine.request_headers([(b"Cookie", b"a=b")]))) is allowed
        assert (b"set-cookie" in names(mine.response_headers([(b"Set-Cookie", b"a=b")]))) is allowed


def test_trailers_replace_nothing_of_ours() -> None:
    """No credential, no control, no default."""
    mine = plan(default_headers={"X-Version": "1"})
    lines = [
        (b"X-Sum", b"1"),
        (b"Authorization", b"x"),
        (b"X_Version", b"2"),
        (b"X-Tenant-Id", b"x"),
        (b"connection", b"x"),
    ]
    assert mine.passed(lines) == [(b"X-Sum", b"1")]


# --- targets


def test_the_base_path_comes_first_and_injected_parameters_replace_the_apps() -> None:
    """By name, decoded; the rest as it came."""
    mine = plan(headers={}, query={"api_key": "s e/cret"})
    target = parse_target(b"/things?a=1&api_key=theirs&api%5Fkey=theirs&b=%20")
    assert mine.target(target) == b"/v1/things?a=1&b=%20&api_key=s+e%2Fcret"
    assert mine.target(parse_target(b"/things")) == b"/v1/things?api_key=s+e%2Fcret"
    assert plan().target(parse_target(b"/things?")) == b"/v1/things?"


@pytest.mark.parametrize(
    "path",
    [
        b"/oauth/token",
        b"/oauth/token/",
        b"//oauth//token",
        b"/OAUTH/Token",
        b"/%6fauth/token",
        b"/oauth%2ftoken",
        b"/oauth/token?x=1",
    ],
)
def test_34_the_providers_oauth_endpoints_are_refused_in_every_spelling(path: bytes) -> None:
    """The loosest reading counts."""
    mine = plan(refused_urls=["https://api.example.com/v1/oauth/token", "https://elsewhere.com/v1/things"])
    with pytest.raises(PathNotAllowed):
        mine.target(parse_target(path))
    assert mine.target(parse_target(b"/things")) == b"/v1/things"
    assert mine.target(parse_target(b"/oauth/tokens")) == b"/v1/oauth/tokens"


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"*", b"http://h/x", b"/a/../b", b"/a/..", b"/..", b"/.", b"/./a", b"/%2e%2e", b"/%2E%2e/a",
     b"/.%2e/a", b"/%252e%252e/a",
     b"/a%2f..%2fb", b"/a\\b", b"/a%5cb", b"/a%00", b"/a%0d%0a", b"/a%7f", b"/a#b", b"/a b", b"/a%", b"/a%zz", b"/\xc3\xa4",
     b"/a?b#c", b"/a?\x00", b"/a?b c", b"/a?%zz"],
)  # fmt: skip
def test_15_a_target_that_two_readers_could_read_differently_is_refused(raw: bytes) -> None:
    """Decoded or not, once or twice."""
    with pytest.raises(TargetRefused):
        parse_target(raw)


@pytest.mark.parametrize(
    "raw",
    [b"/", b"/a", b"/a/", b"/a//b", b"/.well-known/x", b"/a.b/c..d", b"/...", b"/group%2Fproject", b"/a:b@c;d=e",
     b"/a?", b"/a?b=/../?c",
     b"/a?f[x]={y}|z", b"/%E6%97%A5"],
)  # fmt: skip
def test_15_other_targets_pass_byte_for_byte(raw: bytes) -> None:
    """Nothing is normalised behind the app's back."""
    assert parse_target(raw).request_target == raw


@given(st.binary(max_size=30).map(lambda tail: b"/" + tail))
def test_any_bytes_are_a_target_or_refused(raw: bytes) -> None:
    """Never another exception, and what passes has no dot segment in any reading."""
    try:
        target = parse_target(raw)
    except TargetRefused:
        return
    assert target.request_target == raw
    assert not any(part in (b".", b"..") for part in target.path.split(b"/"))


# --- answers


def test_35_what_only_we_may_say_is_stripped_from_an_answer() -> None:
    """In any spelling; duplicates and order of the rest are kept."""
    lines = [(b"Link", b"1"), (b"X-Connectors-Error", b"x"), (b"x_connectors_y", b"x"), (b"Alt-Svc", b"x"), (b"link", b"2"),
             (b"Connection", b"x-hop"), (b"X-Hop", b"1"), (b"Transfer-Encoding", b"chunked"), (b"Trailer", b"x")]  # fmt: skip
    assert plan().response_headers(lines) == [(b"Link", b"1"), (b"link", b"2")]


def test_34_a_line_that_echoes_the_credential_is_dropped() -> None:
    """With or without its scheme, as a parameter raw or encoded; others stay."""
    mine = plan(query={"sig": "a/long+secret"})
    echoes = [f"Bearer {TOKEN}", TOKEN, f"x={TOKEN}&y", "sig=a/long+secret", "sig=a%2Flong%2Bsecret"]
    lines = [(b"X-Echo", text.encode()) for text in echoes]
    assert mine.response_headers([*lines, (b"X-Fine", b"1")]) == [(b"X-Fine", b"1")]


def test_34_nothing_of_an_answer_that_echoes_is_remembered() -> None:
    """Of others the lines are, for all tenants of the integration: not those that want a closer look, but those beside them."""
    mine = plan(default_headers={"X-Of-This-Test": "1"})  # equal plans share what they remember
    fine = (0, b"X-Fine: 1", b"X-Fine", b"1", True)
    other = (0, b"X-Other: 1", b"X-Other", b"1", True)
    echo = (1, b"X-Echo: " + TOKEN.encode(), b"X-Echo", TOKEN.encode(), True)
    link = (1, b"Link: <https://a>", b"Link", b"<https://a>", True)
    hops = (1, b"Connection: x-hop", b"Connection", b"x-hop", False)
    assert mine.response_block(b"", [None, None], [fine, echo]) is None
    assert mine.response_block(b"", [None, None, None], [fine, link, (2, *echo[1:])]) is None
    assert not mine.policy.returned.known
    assert mine.response_block(b"HTTP/1.1 200 OK\r\n", [None], [fine]) == b"HTTP/1.1 200 OK\r\nX-Fine: 1\r\n"
    assert mine.response_block(b"", [None, None], [other, link]) is None
    assert mine.response_block(b"", [None, None], [other, hops]) is None
    assert mine.policy.returned.known == {raw: raw + b"\r\n" for _, raw, *_ in (fine, other)}


def test_a_line_that_changes_with_every_message_does_not_drive_out_the_rest() -> None:
    """Nor does one that may hold a secret stay, nor do names without end."""
    memo: Memo[bytes, bytes] = Memo()
    memo.keep(b"X-Steady", b"X-Steady: 1", b"")
    for number in range(10_000):
        memo.keep(b"X-Request-Id", b"X-Request-Id: %d" % number, b"")
        memo.keep(b"X-Session", b"X-Session: %d" % number, b"")
    assert b"X-Steady: 1" in memo.known
    assert len(memo.known) == 1 + RESTLESS
    for number in range(10_000):
        memo.keep(b"X-%d" % number, b"X-%d: 1" % number, b"")
    assert len(memo.known) <= MOST
    assert not any(b"Session" in line for line in memo.known)


def test_the_cache_of_verdicts_is_bounded() -> None:
    """An app, or an upstream, that invents names does not grow it without end."""
    mine = plan()
    for number in range(2000):
        line = [(b"X-%d" % number, b"1")]
        assert len(mine.request_headers(line)) == 3
        assert mine.response_headers(line) == line
    assert len(mine.policy.verdicts) <= 512
    assert len(mine.policy.back) <= 512


def test_plans_of_one_integration_share_all_but_the_credential() -> None:
    """A sidecar holds thousands of them."""
    mine, theirs = (
        plan({"Authorization": f"Bearer {owner}-0123456789"}, default_headers={"X-Version": "1"})
        for owner in ("mine", "theirs")
    )
    for part in ("policy", "authority", "base_path", "before", "defaults", "refused"):
        assert getattr(mine, part) is getattr(theirs, part), part
    assert mine.after != theirs.after
