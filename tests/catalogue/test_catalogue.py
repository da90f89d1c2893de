"""The catalogue that ships, its loader, and the rules that every definition is held to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.catalogue import CatalogueError, load_catalogue
from connectors_grpc.catalogue.loader import parse_definition
from connectors_grpc.domain.definition import (
    Api,
    BasicPlacement,
    ClientAuthentication,
    Integration,
    OAuth,
    OAuthClient,
    Placement,
    RefreshRotation,
    ResetUnit,
    Retry,
    Source,
    TokenRequestFormat,
)
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.hosts import sealed_hosts
from connectors_grpc.inject import Plan, resolve
from connectors_grpc.rpc import definitions
from connectors_grpc.rules.definition import validate_definition
from connectors_grpc.secret import Secret
from connectors_grpc.tailoring import fields_with, read_values, tailored

OAUTH = OAuth("https://auth.example.com/authorize", "https://auth.example.com/token")
API = Api("https://api.example.com/v1", allowed_hosts=("uploads.example.com",))
ENTRIES = Path(__file__).parent.parent.parent / "connectors_grpc/catalogue/entries"
GOOD = Integration(IntegrationId("example"), oauth=OAUTH, api=API)
FILE = b"display_name: X\nverified: true\napi:\n  base_url: https://api.example.com\n"


def test_every_entry_loads_by_its_files_name() -> None:
    """Each loads, by the rules that hold for admins' definitions too."""
    catalogue = load_catalogue()
    assert len(catalogue) >= 24 + 10
    assert {f"{name}.yaml" for name in catalogue} == {file.name for file in ENTRIES.glob("*.yaml")}
    for name, entry in catalogue.items():
        assert entry.id == name
        assert entry.source is Source.CATALOGUE
        assert entry.client is None
        assert not entry.allow_private_addresses


def test_every_file_begins_with_what_a_reader_should_know() -> None:
    """Where to get a client or a key, what is odd, and what nobody has checked lately: stands where the reader looks."""
    for file in ENTRIES.glob("*.yaml"):
        text = file.read_text()
        assert text.startswith("# "), file.name
        assert "# Get one: " in text, file.name
        assert ("# Not re-checked: " in text) is ("\nverified: false\n" in text), file.name


@pytest.mark.parametrize("name", load_catalogue())
def test_every_entry_takes_a_credential_to_its_own_hosts_only(name: IntegrationId) -> None:
    """Its placement resolves, and a plan for its base URL compiles with the hosts that would be sealed."""
    entry = load_catalogue()[name]
    examples = {one.id: one.example or "s3cret-input" for one in entry.inputs}
    found = {one.id: "x1" for one in entry.oauth.discovery} if entry.oauth else {}
    values = read_values(entry, {**examples, **found}, found=True)
    entry = tailored(entry, values)
    assert entry.api is not None
    material = {field: Secret("s3cret-value") for field in ("access_token", "api_key", "username", "password")}
    Plan.of(
        resolve(entry.api.placement, fields_with(load_catalogue()[name], material, values)),
        base_url=entry.api.base_url,
        allowed_hosts=sealed_hosts(entry.api),
        default_headers=entry.api.default_headers,
        refused_urls=entry.oauth.endpoints() if entry.oauth else (),
    )


def test_quirks_of_notion_and_figma_are_in_the_domain_s_words() -> None:
    """One entry with a JSON token endpoint, one with a refresh endpoint of its own."""
    catalogue = load_catalogue()
    notion, figma = (catalogue[IntegrationId(name)].oauth for name in ("notion", "figma"))
    assert notion is not None
    assert figma is not None
    assert notion.token_request_format is TokenRequestFormat.JSON
    assert notion.client_authentication is ClientAuthentication.BASIC
    assert not notion.pkce
    assert figma.refresh_endpoint == "https://api.figma.com/v1/oauth/refresh"
    assert figma.refresh_rotation is RefreshRotation.STATIC
    assert figma.refresh_ends_access_token
    assert figma.default_access_token_ttl == timedelta(days=90)


@pytest.mark.parametrize("name", load_catalogue())
def test_an_entry_comes_back_from_the_contract_as_it_was(name: IntegrationId) -> None:
    """Files, records and messages say the same: what an admin reads of one may be sent to create another."""
    entry = load_catalogue()[name]
    back = definitions.definition(name, definitions.integration(entry))
    assert replace(back, source=entry.source, verified=entry.verified) == entry


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("github", Retry((403, 429, 503), "x-ratelimit-remaining", "x-ratelimit-reset", ResetUnit.EPOCH_SECONDS)),
        ("notion", Retry((429, 503))),
    ],
)
def test_entries_say_how_their_api_limits_calls(name: str, limits: Retry) -> None:
    """A 403 counts with the header that says so only; what says nothing has 429 and 503, with Retry-After."""
    api = load_catalogue()[IntegrationId(name)].api
    assert api is not None
    assert api.retry == limits


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (FILE + b"colour: red\n", "x.yaml: colour: no such field; take it out, or correct its name"),
        (b"verified: true\napi: {base_url: 'https://a.example'}\n", "x.yaml: display_name: Field required"),
        (
            FILE + b"  default_headers: {V: 2022-06-28}\n",
            "x.yaml: api.default_headers.V: a text; put it in quotes",
        ),
        (FILE + b"verified: false\n", "x.yaml: not YAML: verified stands twice"),
        (FILE + b"  allowed_hosts: ['*.example.com']\n", "x.yaml: api.allowed_hosts: exact names in lower case"),
        (b"- 1", "x.yaml: the file: Input should be a valid dictionary"),
        (b"", "x.yaml: the file: Input should be a valid dictionary"),
        (b"a: [", "x.yaml: not YAML: "),
        (b"\xff\xfe\x00", "x.yaml: not YAML: "),
        (b"!!python/object/apply:os.system [x]", "x.yaml: not YAML: could not determine a constructor"),
        (b"#" * 70_000, "x.yaml: not YAML: a file of up to 65536 bytes"),
        (b"[" * 60_000, "x.yaml: not YAML: "),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_a_wrong_file_is_refused_with_file_field_and_fix(content: bytes, fault: str) -> None:
    """A line that a person can act on."""
    with pytest.raises(CatalogueError) as caught:
        parse_definition("x.yaml", content)
    assert str(caught.value).startswith(fault)


def test_all_faults_of_all_files_come_at_once(tmp_path: Path) -> None:
    """Nobody corrects one line a start."""
    (tmp_path / "a.yaml").write_bytes(FILE + b"colour: red\nshape: round\n")
    (tmp_path / "Bad_Id.yaml").write_bytes(FILE)
    (tmp_path / "good.yaml").write_bytes(FILE)
    (tmp_path / "notes.txt").write_bytes(b"not a definition")
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(tmp_path)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["Bad_Id.yaml", "id"],
        ["a.yaml", "colour"],
        ["a.yaml", "shape"],
    ]


@pytest.mark.parametrize(("text", "ttl"), [("90d", 90 * 86_400), ("8h", 28_800), ("30m", 1800), ("45s", 45)])
def test_lengths_of_time_have_a_unit(text: str, ttl: float) -> None:
    """Seconds, minutes, hours or days, never a bare number."""
    oauth = (
        f"oauth: {{authorization_endpoint: 'https://a.example/a', token_endpoint: 'https://a.example/t',"
        f" client_authentication: none, default_access_token_ttl: {text}}}\n"
    )
    parsed = parse_definition("x.yaml", FILE + oauth.encode()).oauth
    assert parsed is not None
    assert parsed.default_access_token_ttl == timedelta(seconds=ttl)
    with pytest.raises(CatalogueError, match=r"default_access_token_ttl.*90d, 8h, 30m or 45s"):
        parse_definition("x.yaml", FILE + oauth.replace(text, "90").encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_definition_or_a_catalogue_error(content: bytes) -> None:
    """The parser's own errors do not escape."""
    with contextlib.suppress(CatalogueError):
        parse_definition("x.yaml", content)


def test_a_good_definition_has_no_violations() -> None:
    """With and without its halves, and with everything set."""
    full = replace(
        GOOD,
        oauth=replace(
            OAUTH,
            issuer="https://auth.example.com/realm",
            iss_required=True,
            revocation_endpoint="https://auth.example.com/revoke?a=1",
            scopes=("a:b", "https://x.example/scope"),
            scope_separator=",",
            authorization_parameters={"prompt": "consent", "user_scope": ""},
            token_parameters={"expires_in": "3600"},
            default_access_token_ttl=timedelta(hours=1),
        ),
        api=replace(
            API,
            placement=Placement(headers={"DD-API-KEY": "{api_key}"}, query={"key": "{api_key}"}),
            default_headers={"Notion-Version": "2022-06-28"},
            identity_path="/me?fields=id",
        ),
        client=OAuthClient("id", Secret("secret")),
    )
    for one in (GOOD, full, replace(GOOD, oauth=None), replace(GOOD, api=None)):
        assert validate_definition(one) == ()


BAD_URLS = (
    "",
    "api.example.com",
    "//api.example.com",
    "http://api.example.com",
    "ftp://api.example.com",
    "HTTPS://api.example.com",
    "https://",
    "https:///x",
    "https://api.example.com#f",
    "https://user@api.example.com",
    "https://user:pw@api.example.com",
    "https://api.example.com\\@evil.com",
    "https://API.example.com",
    "https://api..example.com",
    "https://-a.example.com",
    "https://a_b.example.com",
    "https://bücher.example",
    "https://127.0.0.1",
    "https://127.1",
    "https://2130706433",
    "https://0x7f000001",
    "https://[::1]",
    "https://[",
    "https://api.example.com:0",
    "https://api.example.com:99999",
    "https://api.example.com:",
    "https://{host}.example.com",
    "https://api.example.com/{x}",
    "https://api.example.com/a/../b",
    "https://api.example.com/%2e%2e/b",
    "https://api.example.com/a b",
    "https://api.example.com/a\r\nb",
    "https://*.example.com",
    "https://api.example.com/" + "a" * 2048,
)


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_is_absolute_https_with_an_exact_name(url: str) -> None:
    """For endpoints and for the base URL alike; the answer never repeats the value."""
    for one, field in (
        (replace(GOOD, oauth=replace(OAUTH, token_endpoint=url)), "oauth.token_endpoint"),
        (replace(GOOD, oauth=replace(OAUTH, authorization_endpoint=url)), "oauth.authorization_endpoint"),
        (replace(GOOD, api=replace(API, base_url=url, allowed_hosts=())), "api.base_url"),
    ):
        violations = validate_definition(one)
        assert {violation.field for violation in violations} == {field}
        assert not url or all(url not in violation.description for violation in violations)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "http://[::1]:80", "http://localhost", "https://10.0.0.1"])
def test_private_hosts_and_http_pass_where_they_are_allowed(url: str) -> None:
    """For services in one's own network, by an admin's word."""
    one = replace(GOOD, api=Api(url), allow_private_addresses=True)
    assert validate_definition(one) == ()
    assert validate_definition(replace(one, allow_private_addresses=False)) != ()


BAD_OAUTH: Mapping[str, tuple[Mapping[str, object], str]] = {
    "response_type": ({"authorization_parameters": {"response_type": "token"}}, "oauth.authorization_parameters"),
    "request_uri": ({"authorization_parameters": {"request_uri": "x"}}, "oauth.authorization_parameters"),
    "scope": ({"authorization_parameters": {"scope": "x"}}, "oauth.authorization_parameters"),
    "in the query": ({"authorization_endpoint": "https://a.example/?state=1"}, "oauth.authorization_endpoint"),
    "token": ({"token_parameters": {"client_secret": "x"}}, "oauth.token_parameters"),
    "name": ({"token_parameters": {"a b": "x"}}, "oauth.token_parameters"),
    "value": ({"token_parameters": {"a": "x\n"}}, "oauth.token_parameters"),
    "many": ({"token_parameters": {f"a{i}": "" for i in range(33)}}, "oauth.token_parameters"),
    "iss": ({"iss_required": True}, "oauth.iss_required"),
    "issuer": ({"issuer": "https://a.example/?q"}, "oauth.issuer"),
    "separator": ({"scope_separator": ", "}, "oauth.scope_separator"),
    "empty scope": ({"scopes": ("",)}, "oauth.scopes"),
    "quoted scope": ({"scopes": ('a"b',)}, "oauth.scopes"),
    "two scopes in one": ({"scopes": ("a,b",), "scope_separator": ","}, "oauth.scopes"),
    "many scopes": ({"scopes": ("a",) * 101}, "oauth.scopes"),
    "ttl": ({"default_access_token_ttl": timedelta(0)}, "oauth.default_access_token_ttl"),
    "idle ttl": ({"refresh_token_idle_ttl": timedelta(days=36_500)}, "oauth.refresh_token_idle_ttl"),
}


@pytest.mark.parametrize(("changes", "field"), BAD_OAUTH.values(), ids=BAD_OAUTH)
def test_the_oauth_side_keeps_to_the_protocol(changes: Mapping[str, object], field: str) -> None:
    """Nothing in it replaces what the server sets."""
    one = replace(GOOD, oauth=replace(OAUTH, **changes))  # type: ignore[arg-type]
    assert [violation.field for violation in validate_definition(one)] == [field]


BAD_API: Mapping[str, tuple[Mapping[str, object], str]] = {
    "slash": ({"base_url": "https://api.example.com/"}, "api.base_url"),
    "query": ({"base_url": "https://api.example.com/a?b"}, "api.base_url"),
    "host url": ({"allowed_hosts": ("https://a.example",)}, "api.allowed_hosts"),
    "host suffix": ({"allowed_hosts": (".example.com",)}, "api.allowed_hosts"),
    "host path": ({"allowed_hosts": ("a.example/x",)}, "api.allowed_hosts"),
    "host user": ({"allowed_hosts": ("u@a.example",)}, "api.allowed_hosts"),
    "host address": ({"allowed_hosts": ("169.254.169.254",)}, "api.allowed_hosts"),
    "many hosts": ({"allowed_hosts": ("a.example",) * 33}, "api.allowed_hosts"),
    "no placement": ({"placement": Placement()}, "api.placement"),
    "bare": ({"placement": Placement(headers={"X-Key": "constant"})}, "api.placement"),
    "bare basic": ({"placement": Placement(basic=BasicPlacement("a", "b"))}, "api.placement"),
    "braces": ({"placement": Placement(headers={"X-Key": "{api_key} {oops"})}, "api.placement.headers"),
    "odd field": ({"placement": Placement(headers={"X-Key": "{api_key}{A}"})}, "api.placement.headers"),
    "crlf": ({"placement": Placement(headers={"X-Key": "{api_key}\r\nX: 1"})}, "api.placement.headers"),
    "hop": ({"placement": Placement(headers={"Transfer_Encoding": "{api_key}"})}, "api.placement.headers"),
    "host": ({"placement": Placement(headers={"Host": "{api_key}"})}, "api.placement.headers"),
    "length": ({"placement": Placement(headers={"content-length": "{api_key}"})}, "api.placement.headers"),
    "ours": ({"placement": Placement(headers={"X-Connectors-Key": "{api_key}"})}, "api.placement.headers"),
    "name": ({"placement": Placement(headers={"X Key": "{api_key}"})}, "api.placement.headers"),
    "twice": ({"placement": Placement(headers={"X-Key": "{api_key}", "x_key": "{api_key}"})}, "api.placement.headers"),
    "colon": ({"placement": Placement(basic=BasicPlacement("a:{api_key}"))}, "api.placement.basic"),
    "both": (
        {"placement": Placement(headers={"authorization": "{api_key}"}, basic=BasicPlacement("{api_key}"))},
        "api.placement.basic",
    ),
    "parameter": ({"placement": Placement(query={"a&b": "{api_key}"})}, "api.placement.query"),
    "default crlf": ({"default_headers": {"V": "1\r\n"}}, "api.default_headers"),
    "default key": ({"default_headers": {"X-Api-Key": "1"}}, "api.default_headers"),
    "default placed": ({"default_headers": {"AUTHORIZATION": "1"}}, "api.default_headers"),
    "default cookie": ({"default_headers": {"Cookie": "1"}}, "api.default_headers"),
    "identity": ({"identity_path": "me"}, "api.identity_path"),
    "identity dots": ({"identity_path": "/a/../b"}, "api.identity_path"),
    "a good status": ({"retry": Retry(statuses=(200,), remaining_header="x")}, "api.retry.statuses"),
    "many statuses": ({"retry": Retry(statuses=(429,) * 9)}, "api.retry.statuses"),
    "a refusal that says nothing of limits": ({"retry": Retry(statuses=(403,))}, "api.retry.remaining_header"),
    "remaining": ({"retry": Retry(remaining_header="a b")}, "api.retry.remaining_header"),
    "reset": ({"retry": Retry(reset_header="a:b")}, "api.retry.reset_header"),
}


@pytest.mark.parametrize(("changes", "field"), BAD_API.values(), ids=BAD_API)
def test_the_api_side_keeps_the_credential_where_it_belongs(changes: Mapping[str, object], field: str) -> None:
    """Exact hosts, placed fields, and no header that frames or routes."""
    one = replace(GOOD, api=replace(API, **changes))  # type: ignore[arg-type]
    assert [violation.field for violation in validate_definition(one)] == [field]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "Bad_Id"}, "id"),
        ({"display_name": "a\nb"}, "display_name"),
        ({"display_name": "a" * 201}, "display_name"),
        ({"oauth": None, "api": None}, "api"),
        ({"client": OAuthClient("")}, "oauth_client.client_id"),
        ({"client": OAuthClient("a b")}, "oauth_client.client_id"),
        ({"client": OAuthClient("a", Secret("x\n"))}, "oauth_client.client_secret"),
        ({"client": OAuthClient("a", Secret("x" * 4097))}, "oauth_client.client_secret"),
    ],
    ids=str,
)
def test_the_rest_of_a_definition_is_bounded(changes: Mapping[str, object], field: str) -> None:
    """Ids, names, and the OAuth client."""
    one = replace(GOOD, **changes)  # type: ignore[arg-type]
    assert [violation.field for violation in validate_definition(one)] == [field]


def test_sealed_hosts_are_authorities_in_one_spelling() -> None:
    """The base URL's first, default ports left out, none twice."""
    api = Api("https://api.example.com:443/v1", allowed_hosts=("b.example:443", "b.example", "c.example:8443"))
    assert sealed_hosts(api) == ("api.example.com", "b.example", "c.example:8443")
    assert sealed_hosts(Api("http://127.0.0.1:80", allowed_hosts=("[::1]:443",))) == ("127.0.0.1", "[::1]:443")


TEXT_FIELDS = [(OAuth, "oauth", field.name) for field in fields(OAuth) if field.type == "str"] + [
    (Api, "api", field.name) for field in fields(Api) if field.type == "str"
]


@given(st.sampled_from(TEXT_FIELDS), st.text() | st.text("htps:/[]{}@%.a1\x00\n"))
def test_any_text_in_any_field_gives_an_answer(field: tuple[type, str, str], text: str) -> None:
    """Violations or none, never an exception; and what passes compiles into sealed hosts."""
    _, part, name = field
    half = getattr(GOOD, part)
    one = replace(GOOD, **{part: replace(half, **{name: text})})
    if not validate_definition(one):
        assert one.api is not None
        assert sealed_hosts(one.api)
