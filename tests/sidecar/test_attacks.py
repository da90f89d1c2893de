"""What the sidecar's door, injection and answers must survive, by the numbers of the attack list. Raw sockets throughout."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.resolving import SystemResolver
from tests.sidecar.harness import OK, SIDECAR_KEY, Answer, App, Got, Key, World, aged, world


async def refused(w: World, request: bytes, status: int, reason: str = "MALFORMED_REQUEST") -> Answer:
    """The request is refused, and nothing at all reaches the provider."""
    app = await w.app()
    answer = await app.ask(request)
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.all(b"content-type") == [b"application/problem+json"]
    assert answer.problem["reason"] == reason
    assert w.provider.got == []
    app.close()
    return answer


def raw(w: World, line: bytes = b"GET /~acme/notes/v1 HTTP/1.1", lines: bytes = b"", body: bytes = b"") -> bytes:
    """A request whose every byte a test may choose."""
    return line + b"\r\nHost: " + w.host + b"\r\n" + w.key.bearer + lines + b"\r\n" + body


@pytest.mark.parametrize(
    "host", [b"evil.com", b"evil.com:15001", b"127.0.0.1.evil.com", b"localhost.evil:1", b"127.0.0.1:1"]
)
async def test_01_a_rebound_host_is_misdirected_before_anything_else(w: World, host: bytes) -> None:
    """Even for health, and even with a good key."""
    for path in (b"/~acme/notes/v1", b"/-/healthz"):
        request = b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + w.key.bearer + b"\r\n"
        await refused(w, request, 421, "WRONG_HOST")


async def test_01_the_listeners_own_names_are_taken(w: World) -> None:
    """localhost, 127.0.0.1 and [::1], with the port, in any case."""
    port = w.address.rpartition(":")[2].encode()
    for name in (b"localhost:", b"LocalHost:", b"127.0.0.1:", b"[::1]:"):
        app = await w.app()
        request = b"GET /-/healthz HTTP/1.1\r\nHost: " + name + port + b"\r\n\r\n"
        assert (await app.ask(request)).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        b"Origin: https://evil.com\r\n",
        b"Origin: null\r\n",
        b"Sec-Fetch-Site: cross-site\r\n",
        b"Sec-Fetch-Site: same-origin\r\n",
    ],
)
async def test_02_a_browser_page_is_refused_without_a_cors_header(w: World, lines: bytes) -> None:
    """With a key, and as a preflight."""
    answer = await refused(w, raw(w, lines=lines), 403, "BROWSER_REFUSED")
    assert b"access-control" not in answer.head.lower()
    preflight = raw(w, b"OPTIONS /~acme/notes/v1 HTTP/1.1", lines + b"Access-Control-Request-Method: POST\r\n")
    assert b"access-control" not in (await refused(w, preflight, 403, "BROWSER_REFUSED")).head.lower()


async def test_03_a_request_without_the_apps_key_is_refused(w: World) -> None:
    """An SSRF can choose the URL, not the headers."""
    await refused(w, b"GET /~acme/notes/v1 HTTP/1.1\r\nHost: " + w.host + b"\r\n\r\n", 403, "API_KEY_MISSING")
    assert w.server.asked == []


async def test_04_a_unix_socket_is_its_owners_alone_and_needs_no_key(tmp_path: Path) -> None:
    """Mode 0600; no app key is asked for, but one that is shown is checked."""
    path = tmp_path / "sidecar.sock"
    async with world(unix=path) as w:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reader, writer = await asyncio.open_unix_connection(str(path))
        app = App(reader, writer)
        assert (await app.ask(b"GET /~acme/notes/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 200
        assert not w.server.asked[0].HasField("app_key")
        wrong = b"GET /~acme/notes/v1 HTTP/1.1\r\nHost: localhost\r\n" + Key.of("app-1").bearer + b"\r\n"
        assert (await app.ask(wrong)).reason == "API_KEY_INVALID"
        writer.close()
    assert not path.exists()


@pytest.mark.parametrize(
    "path",
    ["/~acme/notes/v1?x=/-/healthz",
     "/~acme/notes/-/healthz", "/-/healthz?x", "/-/healthz/", "//-/healthz", "/-/healthz%00", "/-/metrics"],
)  # fmt: skip
async def test_05_what_only_looks_like_health_is_not_open(w: World, path: str) -> None:
    """Exactly the path, exactly GET or HEAD."""
    app = await w.app()
    answer = await app.ask(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: " + w.host + b"\r\n\r\n")
    assert answer.status in (400, 403)
    post = await w.ask("/-/healthz", b"User-Agent: kube-probe/1.30\r\nX-Connectors-Key: x\r\n", "POST")
    assert post.status in (400, 403)
    assert w.provider.got == []


async def test_06_a_failed_key_never_becomes_nobody(w: World) -> None:
    """Neither under --open: what is shown is checked."""
    bad = [
        Key.of("app-1").bearer,
        b"Authorization: Bearer cnk_app-1_short\r\n",
        b"X-Connectors-Key: \r\n",
        b"X-Api-Key: cnk_\r\n",
    ]
    for lines in bad:
        request = b"GET /~acme/notes/v1 HTTP/1.1\r\nHost: " + w.host + b"\r\n" + lines + b"\r\n"
        await refused(w, request, 403, "API_KEY_INVALID")
    async with world(open_door=True) as opened:
        head = b"GET /~acme/notes/v1 HTTP/1.1\r\nHost: " + opened.host + b"\r\n"
        for lines in bad:
            await refused(opened, head + lines + b"\r\n", 403, "API_KEY_INVALID")
        app = await opened.app()
        assert (await app.ask(head + b"Authorization: Bearer dummy\r\n\r\n")).status == 200


@pytest.mark.parametrize(
    "host", [b"localhost/#@evil", b"localhost#@evil", b"a@b", b"a b", b"", b"[::1", b"::1", b"a:99999999"]
)
async def test_07_a_host_that_is_no_host_is_malformed(w: World, host: bytes) -> None:
    """400, whatever it begins with."""
    await refused(w, b"GET /-/healthz HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", 400)


async def test_08_two_hosts_are_malformed(w: World) -> None:
    """Equal or not; and none is no better."""
    for lines in (b"Host: evil.com\r\n", b"host: " + w.host + b"\r\n"):
        await refused(w, raw(w, lines=lines), 400)
    await refused(w, b"GET /-/healthz HTTP/1.1\r\n\r\n", 400)


async def test_09_what_an_app_says_of_its_origin_is_not_believed_or_passed(w: World) -> None:
    """Neither the door nor the provider sees it."""
    lines = b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX_Forwarded_Proto: https\r\n"
    lines += b"Forwarded: for=1\r\nX-Real-IP: 1.1.1.1\r\n"
    assert (await w.ask(lines=lines)).status == 200
    assert b"forwarded" not in w.provider.got[0].head.lower()
    assert b"x-real-ip" not in w.provider.got[0].head.lower()


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "localhost", "[::ffff:127.0.0.1]"]
)
async def test_11_a_private_address_in_any_spelling_is_not_dialled(w: World, host: str) -> None:
    """Checked after resolution."""
    authority = f"{host}:{w.provider.port}"
    w.connect(base_url=f"http://{authority}", allowed_hosts=[authority], allow_private_addresses=False)
    answer = await w.ask()
    assert answer.reason in ("ADDRESS_NOT_ALLOWED", "UPSTREAM_UNREACHABLE")
    assert answer.status in (403, 502)
    assert w.provider.connections == 0


async def test_11_a_connection_made_for_a_lease_that_may_is_not_lent_to_one_that_may_not(w: World) -> None:
    """The pool keeps them apart."""
    assert (await w.ask()).status == 200
    w.connect("globex", allow_private_addresses=False)
    assert (await w.ask("/~globex/notes/v1")).reason == "ADDRESS_NOT_ALLOWED"


async def test_12_the_address_that_was_checked_is_the_one_that_is_dialled(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One resolution a connection: a second answer can't change where it goes."""
    asked = []

    async def resolve(_: SystemResolver, host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1" if len(asked) == 1 else "127.0.0.2"]

    authority = f"api.example.com:{w.provider.port}"
    w.connect(base_url=f"http://{authority}", allowed_hosts=[authority])
    monkeypatch.setattr(SystemResolver, "__call__", resolve)
    assert (await w.ask()).status == 200
    assert asked == ["api.example.com"]
    assert w.provider.got[0].all(b"host") == [authority.encode()]


async def test_13_a_redirect_is_passed_back_and_not_followed(w: World) -> None:
    """Elsewhere as it is; to the upstream's own base by the address the app used."""
    own = f"http://127.0.0.1:{w.provider.port}"
    for location, seen in (
        ("https://evil.com/x", "https://evil.com/x"),
        (f"{own}/v1/next?a=b", f"http://{w.address}/~acme/notes/v1/next?a=b"),
        ("/v1/next", f"http://{w.address}/~acme/notes/v1/next"),
        (f"{own}.evil.com/v1", f"{own}.evil.com/v1"),
        (f"//127.0.0.1:{w.provider.port}/v1", f"http://{w.address}/~acme/notes/v1"),
        ("next", "next"),
    ):
        w.provider.reply = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        before = len(w.provider.got)
        answer = await w.ask()
        assert (answer.status, answer.all(b"location")) == (302, [seen.encode()])
        assert len(w.provider.got) == before + 1


@pytest.mark.parametrize(
    "host", ["api.example.com.evil.com", "evilapi.example.com", "xapi.example.com", "api.example.com:8443"]
)
async def test_14_a_host_that_was_not_sealed_is_refused(w: World, host: str) -> None:
    """Fail closed before a name is resolved."""
    w.connect(base_url=f"https://{host}/v1", allowed_hosts=["api.example.com"])
    assert (await w.ask()).reason == "HOST_NOT_ALLOWED"


@pytest.mark.parametrize(
    "rest",
    ["/../x", "/a/../b", "/%2e%2e/x", "/.%2E/x", "/a/%2e", "/a\\b",
     "/a%5cb", "/a%00", "/a#b", "/%252e%252e/x", "/a%0d%0aX:y", "/ä", "/a%zz"],
)  # fmt: skip
async def test_15_a_path_that_two_readers_could_read_differently_is_refused(w: World, rest: str) -> None:
    """In latin-1 bytes on the wire."""
    await refused(w, raw(w, b"GET /~acme/notes" + rest.encode("latin-1") + b" HTTP/1.1"), 400)


@pytest.mark.parametrize(
    "path",
    [
        "/%7Eacme/notes/x",
        "/~ACME/notes",
        "/~acme",
        "/~/notes",
        "/~acme//x",
        "/",
        "*",
        "http://127.0.0.1/x",
        "/~a%63me/notes",
    ],
)
async def test_15_an_address_outside_the_grammar_is_refused(w: World, path: str) -> None:
    """Nothing is decoded before it is matched."""
    await refused(w, raw(w, b"GET " + path.encode() + b" HTTP/1.1"), 400)


async def test_15_an_encoded_slash_passes_as_it_came(w: World) -> None:
    """`group%2Fproject` is a legitimate id."""
    assert (await w.ask("/~acme/notes/v1/projects/group%2Fproject")).status == 200
    assert w.provider.got[0].line == b"GET /v1/projects/group%2Fproject HTTP/1.1"


async def test_16_exactly_one_authorization_goes_out_and_it_is_ours(w: World) -> None:
    """In any case, duplicated, or with an underscore for a hyphen."""
    w.connect(headers=[pb.InjectedField(name="X-Api-Key", value="the-tenants-own-secret")])
    key = w.key.text.encode()
    lines = b"AUTHORIZATION: Bearer %b\r\nauthorization: Bearer %b\r\nX_Api_Key: mine\r\nx-api-key: mine too\r\n" % (
        key,
        key,
    )
    assert (await w.ask(lines=lines)).status == 200
    got = w.provider.got[0]
    assert got.all(b"x-api-key") == [b"the-tenants-own-secret"]
    assert got.all(b"authorization") == []
    assert got.all(b"x_api_key") == []


async def test_17_connection_can_not_name_the_injected_header_away(w: World) -> None:
    """Nor Host; what else it names is dropped."""
    lines = b"Connection: Authorization, Host, X-Mine\r\nX-Mine: 1\r\n"
    assert (await w.ask(lines=lines)).status == 200
    got = w.provider.got[0]
    assert got.all(b"authorization") == [w.token()]
    assert len(got.all(b"host")) == 1
    assert got.all(b"x-mine") == []
    assert got.all(b"connection") == []


async def test_18_control_headers_stop_at_the_sidecar(w: World) -> None:
    """The app's key in every place, the tenant, and whatever begins as ours does."""
    key = w.key.text.encode()
    lines = (
        b"X-Connectors-Key: %b\r\nX-Api-Key: %b\r\nX-Tenant-Id: acme\r\nX-Connectors-Debug: 1\r\nCookie: a=b\r\n"
        % (key, key)
    )
    lines += b"Proxy-Authorization: Basic x\r\nTE: trailers\r\nKeep-Alive: 5\r\n"
    assert (await w.ask(lines=lines)).status == 200
    head = w.provider.got[0].head
    assert key not in head
    assert SIDECAR_KEY.encode() not in head
    for name in (b"x-tenant-id", b"x-connectors", b"cookie", b"proxy-", b"\r\nte:", b"keep-alive"):
        assert name not in head.lower()


async def test_19_a_line_break_in_a_method_or_a_header_is_refused(w: World) -> None:
    """Never skipped, never cleaned."""
    for line in (
        b"GE\rT /~acme/notes HTTP/1.1",
        b"GET\t/~acme/notes HTTP/1.1",
        b"get /~acme/notes HTTP/1.1",
        b"G\0T /~acme/notes HTTP/1.1",
    ):
        await refused(w, raw(w, line), 400)
    for lines in (b"X: a\rb\r\n", b"X: a\0b\r\n", b"X: a\nY: b\r\n", b"X\x7f: b\r\n", b"X: \x01\r\n"):
        await refused(w, raw(w, lines=lines), 400)


SMUGGLING = {
    "CL and TE": (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "two Content-Lengths": (b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"),
    "a list of Content-Lengths": (b"Content-Length: 3, 3\r\n", b"abc"),
    "a signed Content-Length": (b"Content-Length: +3\r\n", b"abc"),
    "a hexadecimal Content-Length": (b"Content-Length: 0x3\r\n", b"abc"),
    "an empty Content-Length": (b"Content-Length:\r\n", b""),
    "an underscored Content-Length": (b"Content_Length: 3\r\n", b"abc"),
    "two Transfer-Encodings": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "a coding besides chunked": (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "a coding that is none": (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "an obs-fold": (b"X: a\r\n b\r\n", b""),
    "a space before the colon": (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "a line without colon": (b"Nonsense\r\n", b""),
    "a nameless line": (b": x\r\n", b""),
    "a bare LF": (b"X: a\nY: b\r\n", b""),
    "a bare CR": (b"X: a\rY: b\r\n", b""),
    "a chunk extension": (b"Transfer-Encoding: chunked\r\n", b"3;a=b\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a space": (b"Transfer-Encoding: chunked\r\n", b"3 \r\nabc\r\n0\r\n\r\n"),
    "a negative chunk size": (b"Transfer-Encoding: chunked\r\n", b"-3\r\nabc\r\n0\r\n\r\n"),
    "a 0x chunk size": (b"Transfer-Encoding: chunked\r\n", b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a huge chunk size": (b"Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\nabc"),
    "a chunk longer than it says": (b"Transfer-Encoding: chunked\r\n", b"2\r\nabc\r\n0\r\n\r\n"),
    "a chunk line ended by LF": (b"Transfer-Encoding: chunked\r\n", b"3\nabc\r\n0\r\n\r\n"),
    "a trailer with a bare LF": (b"Transfer-Encoding: chunked\r\n", b"0\r\nX: a\nY: b\r\n\r\n"),
    "a length in a trailer": (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"),
    "a transfer coding in a trailer": (
        b"Transfer-Encoding: chunked\r\n",
        b"3\r\nabc\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
    ),
}


async def test_20_connection_can_not_name_a_bodys_length_away(w: World) -> None:
    """The body stays the body of this request."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(2):
        lines = b"Connection: keep-alive, Content-Length\r\n"
        assert (await w.ask(lines=lines, method="POST", body=smuggled)).status == 200
    assert [got.body for got in w.provider.got] == [smuggled, smuggled]


@pytest.mark.parametrize("case", SMUGGLING)
async def test_20_doubtful_framing_is_refused_and_the_connection_closes(w: World, case: str) -> None:
    """What follows on the connection is never read as a request."""
    lines, body = SMUGGLING[case]
    app = await w.app()
    answer = await app.ask(
        raw(w, b"POST /~acme/notes/v1 HTTP/1.1", lines, body) + raw(w, b"GET /~acme/notes/smuggled HTTP/1.1")
    )
    assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")
    assert answer.all(b"connection") == [b"close"]
    assert await app.closed()
    assert all(b"smuggled" not in got.head for got in w.provider.got)


async def test_20_doubtful_framing_is_refused_byte_by_byte_too(w: World) -> None:
    """As soon as it can't become good."""
    app = await w.app()
    for byte in b"GET / HTTP/1.1\nHost: x\n\n":
        app.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await app.answer()).status == 400
    assert await app.closed()


BROKEN_ANSWERS = {
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two Content-Lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "a bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("case", BROKEN_ANSWERS)
async def test_20_an_answer_with_doubtful_framing_is_dropped_with_its_connection(w: World, case: str) -> None:
    """502 if the head is bad, a cut connection if the body is; the provider's connection is not used again."""
    w.provider.replies = [BROKEN_ANSWERS[case]]
    app = await w.app()
    await app.send(w.request())
    if case == "a bad chunk":
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await app.answer()
    else:
        assert (await app.answer()).reason == "UPSTREAM_UNREACHABLE"
    assert (await w.ask()).status == 200
    assert w.provider.connections == 2


async def test_20_an_answer_nobody_asked_for_is_not_given_to_the_next_request(w: World) -> None:
    """Bytes after an answer's end make its connection unusable."""
    w.provider.replies = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    ]
    assert (await w.ask()).body == b"ok"
    assert (await w.ask()).body == b"ok"
    assert w.provider.connections == 2


async def test_22_what_is_not_connected_is_never_forwarded_bare(w: World) -> None:
    """Unknown tenant, credential or host."""
    assert (await w.ask("/~acme/unknown/v1")).reason == "CREDENTIAL_NOT_FOUND"
    assert (await w.ask("/~initech/notes/v1")).reason == "PERMISSION_DENIED"
    assert w.provider.got == []


async def test_31_the_header_form_varies_by_tenant(w: World) -> None:
    """An SDK's cache may key by URL: it is told not to."""
    w.connect("globex")
    for tenant in ("acme", "globex"):
        answer = await w.ask("/notes/v1/pages", b"X-Tenant-Id: %b\r\n" % tenant.encode())
        assert answer.all(b"vary") == [b"X-Tenant-Id"]
        assert w.provider.got[-1].all(b"authorization") == [w.token(tenant)]
    assert (await w.ask()).all(b"vary") == []
    twice = b"X-Tenant-Id: acme\r\nX-Tenant-Id: globex\r\n"
    assert (await w.ask("/notes/v1", twice)).status == 400
    assert (await w.ask("/~acme/notes/v1", b"X-Tenant-Id: globex\r\n")).status == 400
    assert (await w.ask("/notes/v1", b"X_Tenant_Id: acme\r\n")).status == 400


async def test_33_an_endpoint_that_always_answers_401_drives_one_refresh_a_generation(w: World) -> None:
    """And none for a young token."""
    aged(w.server.leases["acme", "notes"], 3600)
    w.provider.reply = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nnope"
    for _ in range(5):
        assert (await w.ask()).body == b"nope"
    assert len([ask for ask in w.server.asked if ask.rejected_generation]) == 1
    aged(w.connect("globex"), 5)
    assert (await w.ask("/~globex/notes/v1")).body == b"nope"
    assert len([ask for ask in w.server.asked if ask.rejected_generation]) == 1


async def test_38_a_401_is_not_cured_by_the_token_of_who_took_the_tenants_name(w: World) -> None:
    """A call of the earlier tenant's is under way when another gets its id, and a later generation."""
    aged(w.server.leases["acme", "notes"], 1)
    answered, first = asyncio.Event(), w.token()

    async def refused(got: Got, writer: asyncio.StreamWriter) -> bytes:
        if got.all(b"authorization") != [first]:
            return OK
        await answered.wait()
        return b"HTTP/1.1 401 No\r\nContent-Length: 1\r\n\r\nn"

    w.provider.reply = refused
    app = await w.app()
    await app.send(w.request("/~acme/notes/old"))
    await w.until(lambda: len(w.provider.got) == 1)
    later = Key.of("app-2")
    w.connect(generation=2, tenant_uid="uid-of-another")
    w.server.allow(later, ["acme"], ["notes"])
    w.server.tell(pb.WatchLeasesResponse(tenant_changed=pb.TenantChanged(tenant="acme")))
    await w.told()
    assert (await w.ask("/~acme/notes/new", later.bearer)).status == 200
    answered.set()
    assert (await app.answer()).status == 401
    assert [got.line.split()[1] for got in w.provider.got].count(b"/old") == 1


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_34_trace_and_connect_are_never_passed(w: World, method: str) -> None:
    """405, with what is allowed."""
    answer = await refused(w, raw(w, method.encode() + b" /~acme/notes/v1 HTTP/1.1"), 405, "METHOD_NOT_ALLOWED")
    assert b"TRACE" not in answer.all(b"allow")[0]


@pytest.mark.parametrize(
    "path", ["/v1/oauth/token", "/v1/oauth/token/", "/v1//oauth/token", "/V1/OAuth/%74oken", "/v1/oauth/token?x=1"]
)
async def test_34_the_providers_oauth_endpoints_are_refused(w: World, path: str) -> None:
    """In every spelling that a provider may read as the same."""
    w.connect(refused_urls=[f"http://127.0.0.1:{w.provider.port}/v1/oauth/token"])
    assert (await w.ask(f"/~acme/notes{path}", method="POST")).reason == "PATH_NOT_ALLOWED"
    assert w.provider.got == []


async def test_34_an_echo_of_the_credential_is_scrubbed_from_the_answers_head(w: World) -> None:
    """Bodies are the provider's; they pass untouched."""
    token = w.token().removeprefix(b"Bearer ")
    w.provider.reply = b"HTTP/1.1 200 %b\r\nX-Echo: %b\r\nX-Fine: 1\r\nContent-Length: 0\r\n\r\n" % (token, token)
    for _ in range(2):  # nor is it remembered
        answer = await w.ask()
        assert answer.status == 200
        assert token not in answer.head
        assert answer.all(b"x-fine") == [b"1"]


async def test_35_an_upstream_can_not_speak_as_the_sidecar(w: World) -> None:
    """X-Connectors-*, Alt-Svc and cookies are stripped."""
    w.provider.reply = (
        b"HTTP/1.1 401 Unauthorized\r\nX-Connectors-Error: NEEDS_REAUTH\r\nx_connectors_link: http://evil\r\nAlt-Svc: h3=evil\r\n"
        b"Set-Cookie: a=b\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n"
    )
    head = (await w.ask()).head.lower()
    for name in (b"connectors", b"alt-svc", b"cookie", b"x-hop", b"keep-alive", b"evil"):
        assert name not in head


async def test_36_the_apps_key_is_proof_to_the_server_and_never_its_text(w: World) -> None:
    """The server gets a hash; the sidecar speaks by a key of its own."""
    assert (await w.ask()).status == 200
    asked = w.server.asked[0]
    assert asked.app_key.key_id == "app-1"
    assert asked.app_key.sha256 == w.key.sha256
    assert w.key.text.encode() not in asked.SerializeToString()


async def test_25_no_answer_of_ours_quotes_a_secret_or_the_query(w: World) -> None:
    """The server's metadata passes by allow-list; queries never."""
    w.server.errors = ["NEEDS_REAUTH"]
    answer = await w.ask("/~acme/notes/v1?token=in-the-query")
    assert (answer.status, answer.reason) == (401, "NEEDS_REAUTH")
    assert "StartAuthorization" in answer.problem["detail"]
    assert b"never-shown" not in answer.body
    assert b"in-the-query" not in answer.body
