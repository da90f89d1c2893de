"""Call rules: what a key may call, judged on the path that is sent, by the sidecar and by the server alike."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.cli.key import _rules as parse_option
from connectors_grpc.cli.key import create
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc as stubs
from connectors_grpc.inject import CallNotAllowed, RuleRefused, Rules, TargetRefused, parse_target
from connectors_grpc.inject.rules import Rule
from tests.providers import recording_upstream
from tests.running import Server, refusals, refused
from tests.sidecar.harness import Key, World

READ = [(["GET"], "/v1/pages/*", []), (["POST"], "/v1/search", ["notes"]), ([], "/v1/files/**", [])]


def allowed(method: str, path: str, credential: str = "notes", *names: bytes) -> bool:
    """What the rules READ say."""
    rules = Rules.of(READ)
    assert rules is not None
    try:
        rules.check(credential, method.encode(), parse_target(path.encode()), names)
    except (CallNotAllowed, TargetRefused):
        return False
    return True


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/pages/p1"),
        ("HEAD", "/v1/pages/p1"),
        ("GET", "/v1/pages/p1?x=/v1/admin"),
        ("GET", "/v1/pages/p%201"),
        ("GET", "/v1/p%61ges/p1"),
        ("POST", "/v1/search"),
        ("DELETE", "/v1/files/a/b/c"),
        ("PATCH", "/v1/files"),
        ("GET", "/v1/files/a%2Fb"),
    ],
)
def test_what_a_rule_says_is_allowed(method: str, path: str) -> None:
    """GET allows HEAD; `*` is one segment, `**` any number; the query is free."""
    assert allowed(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/pages/p1"),
        ("get", "/v1/pages/p1"),
        ("GET", "/v1/pages"),
        ("GET", "/v1/pages/"),
        ("GET", "/v1/pages/p1/"),
        ("GET", "/v1/pages/p1/children"),
        ("GET", "/v1/users"),
        ("GET", "/V1/pages/p1"),
        ("GET", "/"),
        ("GET", "//v1/pages/p1"),
        ("GET", "/v1//pages/p1"),
        ("GET", "/v1/pages//p1"),
        ("POST", "/v1/search/x"),
        ("GET", "/v1/filesystem"),
    ],
)
def test_what_no_rule_says_is_not(method: str, path: str) -> None:
    """Methods, depth, case, doubled and trailing slashes."""
    assert not allowed(method, path)


class Counted(bytes):
    """A segment that counts how often it is compared."""

    compared = 0
    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return bytes.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


@given(st.lists(st.sampled_from(["*", "a", "b"]), min_size=1, max_size=255), st.booleans(), st.text("ab", max_size=300))
def test_a_pattern_looks_at_each_segment_once(parts: list[str], below: bool, path: str) -> None:
    """`**` stands at the end alone, so that there is nothing to try in two ways, whatever is sent."""
    rule = Rule.of([], "/" + "/".join([*parts, *(["**"] if below else [])]), [])
    Counted.compared = 0
    given = [Counted(part.encode()) for part in path]
    fits = len(given) == len(parts) or (below and len(given) > len(parts))
    wanted = fits and all(part in ("*", each) for part, each in zip(parts, path, strict=False))
    assert rule.matches(given) == wanted
    assert Counted.compared <= min(len(parts), len(given))


def test_a_pattern_in_the_middle_of_which_anything_may_stand_is_refused() -> None:
    """It is what would have to be tried in many ways."""
    for path in ("/**/a", "/a/**/b/**", "/a*/b", "/***"):
        with pytest.raises(RuleRefused):
            Rule.of([], path, [])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/pages/a%2Fb",
        "/v1/pages/a%2fb%2fdelete",
        "/v1/pages/a%252Fb",
        "/v1/pages/a%25252Fb",
        "/v1/pages%2Fp1/children",
        "/v1/pages/%2e%2e",
        "/v1/pages/..%2Fadmin",
        "/v1/pages/..;",
        "/v1/pages/..;x=1",
        "/v1/files/..;/admin",
        "/v1/files/%2e%2e;/admin",
        "/v1/files/..%3B/admin",
        "/v1/files/..%253B/admin",
        "/v1/files/a%2F..;%2F..;%2Fadmin",
        "/v1/files/%252e%252e/admin",
        "/v1/files/%25252e%25252e%25252fadmin",
        "/v1/files/;/admin",
        "/v1/files/a%5C..%5Cadmin",
        "/v1/files/" + "%25" * 3 + "2525252e",
        "/v1%2Ffiles/../admin",
    ],
)
def test_attack_15_no_spelling_reaches_more_than_the_rules(path: str) -> None:
    """Whatever a provider decodes, and however often: every reading must be allowed."""
    assert not allowed("GET", path)


@pytest.mark.parametrize(
    "name", [b"X-HTTP-Method-Override", b"x_http_method_override", b"X-Original-URL", b"X-Method-Override"]
)
def test_a_header_that_overrides_the_method_or_path_is_refused(name: bytes) -> None:
    """A GET may else be a DELETE at the provider."""
    assert not allowed("GET", "/v1/pages/p1", "notes", name)


@pytest.mark.parametrize(
    "query", ["_method=DELETE", "a=1&_Method=x", "%5Fmethod=DELETE", "x-http-method-override=PUT", "a;_method=x"]
)
def test_a_parameter_that_overrides_the_method_is_refused(query: str) -> None:
    """However it is spelt."""
    assert not allowed("GET", f"/v1/pages/p1?{query}")


def test_a_rule_may_be_for_some_credentials_only() -> None:
    """Search is for `notes`."""
    assert not allowed("POST", "/v1/search", "other")
    assert allowed("GET", "/v1/pages/p1", "other")


@pytest.mark.parametrize(
    "path", ["", "v1", "/v1/%41", "/v1/../x", "/v1/**/x", "/a//b", "/a?b", "/a b", "/" + "x" * 600]
)
def test_a_pattern_that_can_not_be_meant_is_refused(path: str) -> None:
    """Encoded, relative, with a query; `**` only at the end."""
    with pytest.raises(RuleRefused):
        Rules.of([([], path, [])])
    with pytest.raises(RuleRefused):
        Rules.of([(["get"], "/v1", [])])


@given(st.text(alphabet="/ab.;%2eEfF5Cc*_~", max_size=40))
def test_any_path_is_allowed_or_refused_and_never_leaves_the_tree(tail: str) -> None:
    """What is allowed below /v1/files stays there once it is decoded to the end and its parameters are dropped."""
    from urllib.parse import unquote

    path = f"/v1/files/{tail}"
    if not allowed("GET", path):
        return
    for _ in range(8):
        path = unquote(path)
    parts = [part.partition(";")[0] for part in path.split("/")]
    assert parts[:3] == ["", "v1", "files"]
    assert not {".", ".."} & set(parts)


# --- at the sidecar


def ruled(w: World, *rules: access.CallRule) -> Key:
    """A key with rules."""
    key = Key.of("ruled")
    w.server.allow(key, ["acme"], ["*"])
    w.server.grants[key.key_id][1].rules.extend(rules)
    return key


async def test_the_sidecar_holds_a_key_to_its_rules(w: World) -> None:
    """First call and later ones; the denied ones never leave, and another key of the same credential is not held to them."""
    key = ruled(w, access.CallRule(methods=["GET"], path="/v1/pages/*"))
    for path, method, status in (
        ("/v1/pages/p1/x", "GET", 403),
        ("/v1/pages/p1", "GET", 200),
        ("/v1/pages/p1", "DELETE", 403),
        ("/v1/pages/p1%2Fx", "GET", 403),
        ("/v1/pages/..;", "GET", 403),
        ("/v1/pages/p1?_method=DELETE", "GET", 403),
    ):
        answer = await w.ask(f"/~acme/notes{path}", key.bearer, method)
        assert (answer.status, answer.reason) == (status, "" if status == 200 else "PERMISSION_DENIED"), path
    answer = await w.ask("/~acme/notes/v1/pages/p1", key.bearer + b"X-HTTP-Method-Override: DELETE\r\n")
    assert answer.reason == "PERMISSION_DENIED"
    assert len(w.provider.got) == 1
    assert (await w.ask("/~acme/notes/v1/anything", method="DELETE")).status == 200


async def test_a_denied_call_with_a_body_leaves_the_connection_usable(w: World) -> None:
    """Its body is read and dropped; the next call goes on."""
    key = ruled(w, access.CallRule(path="/v1/pages/*"))
    app = await w.app()
    for path, status in (("/v1/x", 403), ("/v1/pages/1", 200), ("/v1/x", 403), ("/v1/pages/1", 200)):
        data = w.request(f"/~acme/notes{path}", key.bearer, "POST", b"abc")
        assert (await app.ask(data)).status == status


async def test_rules_that_the_sidecar_can_not_read_allow_nothing(w: World) -> None:
    """A newer server's: fail closed."""
    key = ruled(w, access.CallRule(path="/v1/{id}"))
    assert (await w.ask("/~acme/notes/v1/x", key.bearer)).reason == "PERMISSION_DENIED"
    assert w.provider.got == []


# --- at the server


async def test_the_server_holds_call_and_call_stream_to_the_rules_and_tells_sidecars(server: Server) -> None:
    """And keeps them with the key."""
    tenant = (await server.admin.create_tenant()).id
    async with recording_upstream() as upstream:
        name = await server.admin.keyed_api(tenant, upstream.url, "a-secret-of-some-length")
        rules = [access.CallRule(methods=["GET"], path="/v1/pages/*", credentials=[name])]
        app = await server.app(tenant, rules=rules)
        assert (await app.proxied(tenant, name, "/v1/pages/1")).http_status == 200
        for path, method in (("/v1/pages/1", "DELETE"), ("/v1/users", "GET"), ("/v1/pages/a%2Fb", "GET")):
            with refused("PERMISSION_DENIED", denied_by="rules"):
                await app.proxied(tenant, name, path, method=method)
            start = proxy.CallRequest(tenant=tenant, credential=name, path=path, method=method)
            call = stubs.ProxyServiceStub(server.channel).CallStream(
                iter([proxy.CallStreamRequest(start=start)]), metadata=app.metadata, timeout=20
            )
            with refused("PERMISSION_DENIED", denied_by="rules"), refusals():
                await call.read()
        assert len(upstream.requests) == 1
        key_id, sha256 = Key("x", app.key).text.split("_")[1], Key("x", app.key).sha256
        proof = proxy.AppKeyProof(key_id=key_id, sha256=sha256)
        request = proxy.LeaseRequest(tenant=tenant, credential=name, app_key=proof)
        assert list((await server.sidecar.call("Lease", request)).app_grant.rules) == rules
        listed = (await server.admin.call("ListApiKeys", access.ListApiKeysRequest(page_size=500))).api_keys
        assert next(list(key.rules) for key in listed if key.id == key_id) == rules


async def test_rules_are_checked_when_a_key_is_made(server: Server) -> None:
    """Patterns, methods, credentials, their number; and only `app` keys are held to them."""
    tenant = (await server.admin.create_tenant()).id
    good = access.CallRule(path="/v1/*")
    for rules, role in (
        ([access.CallRule(path="v1")], access.ROLE_APP),
        ([access.CallRule(methods=["get"], path="/v1")], access.ROLE_APP),
        ([access.CallRule(path="/v1", credentials=["No Label"])], access.ROLE_APP),
        ([good] * 51, access.ROLE_APP),
        ([good], access.ROLE_OPERATOR),
    ):
        with refused("INVALID_FIELD"):
            await server.admin.create_key([role], [tenant], rules=rules)
    with refused("INVALID_FIELD"):
        await server.admin.create_key([access.ROLE_APP, access.ROLE_TOKEN_READER], [tenant], rules=[good])


def test_the_command_line_takes_rules_as_people_write_them() -> None:
    """Methods first, credentials last, both optional."""
    context, parameter = click.Context(create), create.params[0]
    found = parse_option(context, parameter, ("GET,POST /v1/pages/*", "/v1/**", "GET /v1/x notion,github"))
    assert found == [
        access.CallRule(methods=["GET", "POST"], path="/v1/pages/*"),
        access.CallRule(path="/v1/**"),
        access.CallRule(methods=["GET"], path="/v1/x", credentials=["notion", "github"]),
    ]
    for wrong in ("", "GET", "GET /a b c"):
        with pytest.raises(click.BadParameter):
            parse_option(context, parameter, (wrong,))
