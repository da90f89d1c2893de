"""HTTP to third parties over real loopback sockets, against servers that do not behave."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors_grpc import outbound as outbounds
from connectors_grpc.certificates import ClientCertificate
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.outbound import MOST_CONNECTIONS, HttpOutbound
from connectors_grpc.ports import HttpReply, HttpRequest, Outbound
from connectors_grpc.resolving import SystemResolver
from tests.sidecar.test_process import certificate as client_certificate
from tests.upstream import RecordingUpstream, recording_upstream

CANARY = "canary-3f9a1c"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def outbound() -> AsyncIterator[HttpOutbound]:
    """An outbound with the system's resolver."""
    one = HttpOutbound()
    yield one
    await one.aclose()


@pytest.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    """An upstream that answers 200."""
    async with recording_upstream() as one:
        yield one


def get(url: str, **changes: object) -> HttpRequest:
    """A GET that may reach loopback."""
    plain = HttpRequest("GET", url, (), b"", allow_private_addresses=True, timeout=10, max_body=65_536)
    return replace(plain, **changes)  # type: ignore[arg-type]


async def refused(outbound: Outbound, request: HttpRequest) -> ConnectorsError:
    """The error that sending ends with; it holds nothing but the host and constants."""
    with pytest.raises(ConnectorsError) as caught:
        await outbound.send(request)
    assert CANARY not in repr((caught.value, caught.value.metadata, caught.value.__cause__, caught.value.__context__))
    return caught.value


def resolver(*answers: Sequence[str]) -> Callable[[str, int], object]:
    """Gives one answer after another, the last one for ever."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def test_a_request_goes_out_as_it_was_given(outbound: HttpOutbound, upstream: RecordingUpstream) -> None:
    """Method, target, order, spelling and doubles of header lines, and the body's bytes."""
    headers = (("X-B", "1"), ("x-a", "2"), ("X-B", "3"), ("Host", "evil.example"), ("Content-Length", "999"))
    url = f"{upstream.url}/a%2Fb/?q=%20+x&&"
    reply = await outbound.send(get(url, method="PATCH", headers=headers, body=b"\x00\xff"))
    request = upstream.requests[0]
    assert reply == HttpReply(200, (("Content-Type", "text/plain"), ("Content-Length", "2")), b"ok")
    assert request.request_line == b"PATCH /a%2Fb/?q=%20+x&& HTTP/1.1"
    expected = [
        ("Host", f"127.0.0.1:{upstream.port}"),
        ("X-B", "1"),
        ("x-a", "2"),
        ("X-B", "3"),
        ("Content-Length", "2"),
    ]
    assert request.headers == expected
    assert request.body == b"\x00\xff"


async def test_a_reply_comes_back_as_it_was_sent(outbound: HttpOutbound, upstream: RecordingUpstream) -> None:
    """Order, spelling and doubles of header lines, and a coded body left coded."""
    body = gzip.compress(b"hello")
    upstream.reply = (
        b"HTTP/1.1 418 X\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Odd: caf\xe9\r\nContent-Encoding: gzip\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    reply = await outbound.send(get(upstream.url))
    assert reply.status == 418
    assert reply.headers[:3] == (("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("X-Odd", "café"))
    assert reply.body == body


async def test_cookies_are_not_kept_and_connections_are(outbound: HttpOutbound, upstream: RecordingUpstream) -> None:
    """The second request comes on the same connection, without the cookie that the first reply set."""
    upstream.reply = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nContent-Length: 0\r\n\r\n"
    for _ in range(3):
        await outbound.send(get(upstream.url))
    assert upstream.connections == 1
    assert all(request.header("cookie") == [] for request in upstream.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_13_a_redirect_is_an_answer_and_not_followed(
    outbound: HttpOutbound, upstream: RecordingUpstream, status: int
) -> None:
    """The credential in the request goes nowhere else."""
    upstream.reply = f"HTTP/1.1 {status} X\r\nLocation: {upstream.url}/else\r\nContent-Length: 0\r\n\r\n".encode()
    assert (await outbound.send(get(upstream.url))).status == status
    assert len(upstream.requests) == 1


async def test_proxies_of_the_environment_are_not_used(
    outbound: HttpOutbound, upstream: RecordingUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would dial an address that nobody checked."""
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await outbound.send(get(upstream.url))).status == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "localhost", "[::ffff:127.0.0.1]",
     "[64:ff9b::7f00:1]"],
)  # fmt: skip
async def test_11_every_spelling_of_a_private_address_is_refused(
    outbound: HttpOutbound, upstream: RecordingUpstream, host: str
) -> None:
    """After resolution, before anything is dialled."""
    request = get(f"http://{host}:{upstream.port}/?t={CANARY}", allow_private_addresses=False)
    error = await refused(outbound, request)
    assert error.reason is Reason.ADDRESS_NOT_ALLOWED
    assert upstream.connections == 0


async def test_12_the_address_that_was_checked_is_the_one_dialled(upstream: RecordingUpstream) -> None:
    """A name that turns to loopback after its check is dialled where it was checked, and refused when asked again."""
    calls: list[str] = []

    async def rebinding(host: str, _port: int) -> Sequence[str]:
        calls.append(host)
        return ["192.0.2.1"] if len(calls) == 1 else ["127.0.0.1"]

    outbound = HttpOutbound(resolve=rebinding)
    for _ in range(2):
        request = get(f"http://rebind.example:{upstream.port}/", allow_private_addresses=False)
        assert (await refused(outbound, request)).reason is Reason.ADDRESS_NOT_ALLOWED
    assert calls == ["rebind.example"] * 2
    assert upstream.connections == 0
    await outbound.aclose()


async def test_12_one_private_address_among_public_ones_refuses_the_name(upstream: RecordingUpstream) -> None:
    """All or none: a name with both is a rebinding attempt."""
    outbound = HttpOutbound(resolve=resolver(["1.1.1.1", "127.0.0.1"]))  # type: ignore[arg-type]
    request = get(f"http://mixed.example:{upstream.port}/", allow_private_addresses=False)
    assert (await refused(outbound, request)).reason is Reason.ADDRESS_NOT_ALLOWED
    await outbound.aclose()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_kept_connection_that_ends_as_it_is_used_costs_nothing(
    outbound: HttpOutbound, upstream: RecordingUpstream, method: str
) -> None:
    """The provider closes what is idle when it likes: what may be sent twice goes out again, over another connection."""
    upstream.replies = [OK, b""]
    for _ in range(2):
        assert (await outbound.send(get(upstream.url, method=method))).body == b"ok"
    assert [request.connection for request in upstream.requests] == [1, 1, 2]


async def test_what_may_not_be_sent_twice_or_was_alone_on_its_connection_is_sent_once(
    outbound: HttpOutbound, upstream: RecordingUpstream
) -> None:
    """A POST, as a token request is; and a request whose own connection ends says that this provider is not well."""
    upstream.replies = [b"", OK, b""]
    assert (await refused(outbound, get(upstream.url))).metadata["problem"] == "protocol"
    assert (await outbound.send(get(upstream.url))).body == b"ok"
    assert (await refused(outbound, get(upstream.url, method="POST"))).metadata["problem"] == "protocol"
    assert [request.connection for request in upstream.requests] == [1, 2, 2]


async def test_a_kept_connection_to_a_private_address_serves_only_those_who_may(upstream: RecordingUpstream) -> None:
    """A connection that a definition with `allow_private_addresses` opened is not there for one without."""
    outbound = HttpOutbound(resolve=resolver(["127.0.0.1"]))  # type: ignore[arg-type]
    url = f"http://inside.example:{upstream.port}/"
    assert (await outbound.send(get(url))).status == 200
    error = await refused(outbound, get(url, allow_private_addresses=False))
    assert error.reason is Reason.ADDRESS_NOT_ALLOWED
    assert len(upstream.requests) == 1
    await outbound.aclose()


async def test_the_next_address_is_tried_when_one_does_not_answer(upstream: RecordingUpstream) -> None:
    """In the resolver's order, within the deadline; Host is the name's."""
    outbound = HttpOutbound(resolve=resolver(["127.0.0.2", "127.0.0.1"]))  # type: ignore[arg-type]
    assert (await outbound.send(get(f"http://two.example:{upstream.port}/"))).status == 200
    assert upstream.requests[0].header("host") == [f"two.example:{upstream.port}"]
    await outbound.aclose()


async def test_a_hang_ends_with_the_deadline(outbound: HttpOutbound, upstream: RecordingUpstream) -> None:
    """The whole exchange is bounded, and the error says that the request may have arrived."""
    upstream.handler = _hang
    error = await refused(outbound, get(f"{upstream.url}/{CANARY}", timeout=1.0))
    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert error.metadata == {"host": f"127.0.0.1:{upstream.port}", "problem": "timeout", "sent": "maybe"}


async def test_a_tenant_whose_hosts_all_hang_leaves_room_for_the_others(
    upstream: RecordingUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many hosts it names. What is over its share waits a while, was never sent, and is not the provider's failure."""
    outbound = HttpOutbound(resolve=resolver(["127.0.0.1"]), spare=3)  # type: ignore[arg-type]
    async with recording_upstream() as tarpit:
        tarpit.handler = _hang
        held = [
            asyncio.create_task(
                outbound.send(get(f"http://{each}.example:{tarpit.port}/", timeout=60, tenant="greedy"))
            )
            for each in range(MOST_CONNECTIONS // 4)
        ]
        await tarpit.seen_heads(len(held))
        error = await refused(outbound, get(f"http://x.example:{tarpit.port}/", timeout=0.3, tenant="greedy"))
        assert (error.reason, error.metadata) == (Reason.LIMIT_EXCEEDED, {"limit": "connections"})
        assert len(tarpit.heads) == len(held)
        monkeypatch.setattr(outbounds, "MOST_WAITING", 0)
        async with asyncio.timeout(10):
            error = await refused(outbound, get(f"http://x.example:{tarpit.port}/", timeout=3600, tenant="greedy"))
        assert error.reason is Reason.LIMIT_EXCEEDED
        monkeypatch.undo()
        assert (await outbound.send(get(upstream.url, tenant="modest"))).status == 200
        held.pop().cancel()
        tarpit.handler = None
        assert (await outbound.send(get(tarpit.url, tenant="greedy"))).status == 200
        for each in held:
            each.cancel()
        await asyncio.gather(*held, return_exceptions=True)
    await outbound.aclose()


async def test_a_drip_of_bytes_does_not_extend_the_deadline(
    outbound: HttpOutbound, upstream: RecordingUpstream
) -> None:
    """Not time between bytes but time in all."""
    upstream.handler = _drip
    error = await refused(outbound, get(upstream.url, timeout=0.3))
    assert error.metadata["problem"] == "timeout"


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
    ],
    ids=["nothing", "garbage", "half", "bad chunk", "two lengths", "upgrade", "endless head"],
)
async def test_a_broken_reply_is_the_providers_failure(
    outbound: HttpOutbound, upstream: RecordingUpstream, reply: bytes
) -> None:
    """Half a reply is never taken for a whole one."""
    upstream.reply = reply
    upstream.close_after_reply = True
    error = await refused(outbound, get(f"{upstream.url}/{CANARY}", headers=(("Authorization", CANARY),)))
    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert error.metadata["sent"] == "maybe"


@pytest.mark.parametrize(
    "length", [b"Content-Length: 10485760\r\n\r\n", b"Connection: close\r\n\r\n"], ids=["told", "untold"]
)
async def test_a_huge_reply_stops_at_the_bound(
    outbound: HttpOutbound, upstream: RecordingUpstream, length: bytes
) -> None:
    """Announced or not; and the connection does not go back to the pool."""
    upstream.reply = b"HTTP/1.1 200 OK\r\n" + length + b"x" * 10_485_760
    error = await refused(outbound, get(upstream.url))
    assert error.reason is Reason.BODY_TOO_LARGE
    assert error.metadata["limit_bytes"] == "65536"
    upstream.reply = OK
    assert (await outbound.send(get(upstream.url))).body == b"ok"
    assert upstream.connections == 2


@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"HTTP/1.1 200 OK\r\nX: "])
@pytest.mark.parametrize("tls", [False, True])
async def test_what_comes_after_a_reply_is_never_the_answer_to_the_next_request(
    tmp_path: Path, more: bytes, tls: bool
) -> None:
    """Which may be another tenant's: that connection is not used again."""
    ca_file, server = certificate(tmp_path, "api.example")
    async with recording_upstream(tls=server if tls else None) as upstream:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        upstream.replies = [OK + more, chunked + more]
        upstream.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
        outbound = HttpOutbound(ca_file=ca_file, resolve=resolver(["127.0.0.1"]))  # type: ignore[arg-type]
        url = f"{'https' if tls else 'http'}://api.example:{upstream.port}/"
        assert [(await outbound.send(get(url))).body for _ in range(4)] == [b"ok", b"ok", b"good", b"good"]
        assert upstream.connections == 3
        await outbound.aclose()


async def test_a_body_after_a_head_reply_is_never_the_next_answer(
    outbound: HttpOutbound, upstream: RecordingUpstream
) -> None:
    """A server that answers HEAD as if it were GET."""
    upstream.replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"]
    assert (await outbound.send(get(upstream.url, method="HEAD"))).body == b""
    assert (await outbound.send(get(upstream.url))).body == b"ok"
    assert upstream.connections == 2


async def test_a_reply_of_exactly_the_bound_passes(outbound: HttpOutbound, upstream: RecordingUpstream) -> None:
    """The bound itself is allowed."""
    assert (await outbound.send(get(upstream.url, max_body=2))).body == b"ok"


async def test_an_unreachable_provider_was_sent_nothing(outbound: HttpOutbound) -> None:
    """Which is what makes a retry safe."""
    async with recording_upstream() as gone:
        url = gone.url
    error = await refused(outbound, get(f"{url}/?token={CANARY}"))
    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert (error.metadata["problem"], error.metadata["sent"]) == ("unreachable", "no")


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70, "a..b"])
async def test_a_name_that_does_not_resolve_is_unavailable(outbound: HttpOutbound, host: str) -> None:
    """Labels that are too long or empty too."""
    error = await refused(outbound, get(f"http://{host}/", allow_private_addresses=False))
    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert error.metadata["sent"] == "no"


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": (("X", f"{CANARY}\r\nEvil: 1"),)},
        {"headers": (("X", f"{CANARY}\0"),)},
        {"headers": (("X Y", CANARY),)},
        {"headers": (("X", f"{CANARY}\u20ac"),)},
        {"headers": ((f"\u20ac{CANARY}", "1"),)},
        {"method": "G T"},
        {"method": "CONNECT"},
        {"url": f"http://user:{CANARY}@127.0.0.1/"},
        {"url": "ftp://127.0.0.1/"},
        {"url": "http://127.0.0.1/a b"},
        {"url": "http://127.0.0.1/#x"},
        {"url": "http://127.0.0.1:99999/"},
        {"url": "http://[::1/"},
        {"url": "//127.0.0.1/"},
        {"url": ""},
    ],
    ids=str,
)
async def test_19_what_is_no_http_is_refused_before_anything_is_sent(
    outbound: HttpOutbound, upstream: RecordingUpstream, changes: dict[str, object]
) -> None:
    """CR, LF and NUL in header lines, odd methods, malformed URLs."""
    error = await refused(outbound, get(upstream.url, **changes) if "url" not in changes else get(**changes))  # type: ignore[arg-type]
    assert error.reason is Reason.INVALID_FIELD
    assert upstream.requests == []


async def test_25_nothing_is_logged_of_a_request(
    outbound: HttpOutbound, upstream: RecordingUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Even at DEBUG: the transport would write URLs and headers whole."""
    caplog.set_level(logging.DEBUG)
    await outbound.send(get(f"{upstream.url}/?t={CANARY}", headers=(("Authorization", CANARY),), body=CANARY.encode()))
    assert CANARY not in caplog.text
    assert CANARY not in repr(get(f"{upstream.url}/?t={CANARY}"))


async def test_a_cancelled_caller_leaves_the_pool_sound(outbound: HttpOutbound, upstream: RecordingUpstream) -> None:
    """The connection it used is closed, the next request has its own."""
    upstream.handler = _hang
    task = asyncio.create_task(outbound.send(get(upstream.url)))
    await upstream.seen_heads(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    upstream.handler = None
    assert (await outbound.send(get(upstream.url))).status == 200


async def test_many_requests_at_once_use_a_bounded_number_of_connections(
    outbound: HttpOutbound, upstream: RecordingUpstream
) -> None:
    """The rest wait for their turn, within their deadline."""
    replies = await asyncio.gather(*(outbound.send(get(upstream.url, timeout=60)) for _ in range(250)))
    assert {reply.status for reply in replies} == {200}
    assert upstream.connections <= 100


async def test_tls_is_verified_for_the_name_and_by_known_roots(tmp_path: Path) -> None:
    """Another CA, another name or no TLS at all: refused before the request is sent; the address dialled is the checked one."""
    ca_file, server = certificate(tmp_path, "api.example")
    async with recording_upstream(tls=server) as upstream:
        known = HttpOutbound(ca_file=ca_file, resolve=resolver(["127.0.0.1"]))  # type: ignore[arg-type]
        unknown = HttpOutbound(resolve=resolver(["127.0.0.1"]))  # type: ignore[arg-type]
        good = get(f"https://api.example:{upstream.port}/")
        other = get(f"https://other.example:{upstream.port}/?t={CANARY}")
        assert (await known.send(good)).status == 200
        for outbound, request in ((unknown, good), (known, other)):
            error = await refused(outbound, request)
            assert error.metadata["problem"] == "tls"
            assert error.metadata["sent"] == "no"
        assert len(upstream.requests) == 1
        await known.aclose()
        await unknown.aclose()


async def test_an_integration_shows_its_client_certificate_and_no_other_meets_its_connections(tmp_path: Path) -> None:
    """Whole calls and streamed ones; what else is sent there is refused by the provider."""
    ca_file, server = certificate(tmp_path, "api.example")
    (tmp_path / "client").mkdir()
    chain, key = client_certificate(tmp_path / "client", "bank")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(chain)
    async with recording_upstream(tls=server) as upstream:
        outbound = HttpOutbound(
            ca_file=ca_file,
            resolve=resolver(["127.0.0.1"]),  # type: ignore[arg-type]
            certificates={"bank": ClientCertificate(chain, key)},
        )
        bare = get(f"https://api.example:{upstream.port}/")
        mine = replace(bare, integration="bank")
        assert (await outbound.send(mine)).status == 200
        async with outbound.stream(mine, None, None) as reply:
            assert [piece async for piece in reply.body] == [b"ok"]
        for other in (bare, replace(bare, integration="notes")):
            assert (await refused(outbound, other)).reason is Reason.PROVIDER_UNAVAILABLE
        assert len(upstream.requests) == 2
        await outbound.aclose()


async def test_a_server_without_tls_gets_no_request_meant_for_https(
    outbound: HttpOutbound, upstream: RecordingUpstream
) -> None:
    """A handshake that fails sends nothing."""
    upstream.reply = b"not tls"
    error = await refused(outbound, get(upstream.url.replace("http:", "https:"), timeout=0.5))
    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert error.metadata["sent"] == "no"


async def _hang(_head: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _drip(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)  # the server's pace, not a wait of the test


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A CA's file, and a server context with a certificate for `name` by it."""
    now = datetime.now(UTC)
    key, ca_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        dates = (now - timedelta(hours=1), now + timedelta(hours=1))
        base = x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(public)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        base = base.serial_number(x509.random_serial_number()).not_valid_before(dates[0]).not_valid_after(dates[1])
        return base.add_extension(identifier, critical=False)

    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    ca = builder(ca_name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    ca = ca.add_extension(usage, critical=True)
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.9"))])
    leaf = builder(x509.Name([]), key.public_key()).add_extension(names, critical=True)
    pem, ca_pem = folder / "server.pem", folder / "ca.pem"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(plain[0]) + key.private_bytes(*plain))
    ca_pem.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(plain[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return ca_pem, context


class HangingNames:
    """Stands in for the system's resolver: names that begin with `hung` are not answered until the end."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hung = threading.Event()
        self.over = threading.Event()
        self.hangs: set[str] = set()

    def __call__(self, host: str, port: int, **_: object) -> Sequence[tuple[object, ...]]:
        self.asked.append(host)
        if host.startswith("hung") or host in self.hangs:
            self.hung.set()
            self.over.wait(60)
            raise socket.gaierror("no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def hanging() -> Iterator[HangingNames]:
    """Let go at the end, so that no thread stays."""
    names = HangingNames()
    yield names
    names.over.set()


async def test_a_name_that_hangs_holds_up_nothing_but_itself(hanging: HangingNames) -> None:
    """However many ask for it, it takes one thread; other names and the process's threads are free meanwhile."""
    resolver = SystemResolver(deadline=60.0, most=2, look_up=hanging)
    asking = [asyncio.ensure_future(resolver("hung.example", 443)) for _ in range(50)]
    try:
        async with asyncio.timeout(60):
            assert await resolver("fine.example", 443) == ["127.0.0.1"]
            assert await asyncio.to_thread(hanging.hung.wait, 20)
        assert hanging.asked.count("hung.example") == 1
        assert not any(one.done() for one in asking)
    finally:
        hanging.over.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        resolver.close()
    assert {type(answer) for answer in answers} == {socket.gaierror}


async def test_names_of_a_tenants_choice_hold_up_none_that_is_known(hanging: HangingNames) -> None:
    """As many as it likes, whose servers never answer: what answered before is answered still."""
    resolver = SystemResolver(deadline=60.0, most=2, look_up=hanging)
    assert await resolver("fine.example", 443) == ["127.0.0.1"]
    asking = [asyncio.ensure_future(resolver(f"hung{number}.example", 443)) for number in range(20)]
    try:
        assert await asyncio.to_thread(hanging.hung.wait, 20)
        assert await resolver("fine.example", 443) == ["127.0.0.1"]
        assert not any(one.done() for one in asking)
    finally:
        hanging.over.set()
        await asyncio.gather(*asking, return_exceptions=True)
        resolver.close()


async def insisted(resolver: SystemResolver, host: str) -> Sequence[str]:
    """What a name comes to, once there is time for it."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(TimeoutError):
                return await resolver(host, 443)


async def test_a_name_that_answers_once_and_then_hangs_counts_as_unknown_for_a_while(hanging: HangingNames) -> None:
    """It can't take a place among those that are known again and again."""
    resolver = SystemResolver(deadline=0.2, most=1, look_up=hanging)
    for host in ("fine.example", "turns.example"):
        assert await insisted(resolver, host) == ["127.0.0.1"]
    hanging.hangs.add("turns.example")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await resolver("turns.example", 443)
        assert await asyncio.to_thread(hanging.hung.wait, 20)
    hanging.over.set()
    assert await insisted(resolver, "fine.example") == ["127.0.0.1"]
    hanging.over.clear()
    with pytest.raises(TimeoutError):
        await resolver("turns.example", 443)
    assert await insisted(resolver, "fine.example") == ["127.0.0.1"]
    hanging.over.set()
    resolver.close()


async def test_a_lookup_has_a_deadline_of_its_own(hanging: HangingNames) -> None:
    """Also where every thread is taken; and when they are free again, names are answered again."""
    resolver = SystemResolver(deadline=0.05, most=1, look_up=hanging)
    for host in ("hung.example", "hung.example", "waits.example"):
        with pytest.raises(TimeoutError):
            await resolver(host, 443)
    assert await asyncio.to_thread(hanging.hung.wait, 20)
    assert hanging.asked == ["hung.example"]
    hanging.over.set()
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(TimeoutError):
                assert await resolver("waits.example", 443) == ["127.0.0.1"]
                break
    resolver.close()


async def test_a_caller_that_gives_up_ends_nobody_elses_lookup(hanging: HangingNames) -> None:
    """They share one flight, and the others still get its answer."""
    resolver = SystemResolver(look_up=hanging)
    first, second = (asyncio.ensure_future(resolver("hung.example", 443)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    hanging.over.set()
    with pytest.raises(socket.gaierror):
        await second
    assert hanging.asked == ["hung.example"]
    resolver.close()
