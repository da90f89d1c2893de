"""HTTP to third parties: the address that was checked is the one dialled, and nothing is followed, kept or unpacked.

Built on httpcore2, the transport below httpx2: a client above it would bring redirects, cookies, proxies from the environment,
normalised URLs and merged headers, each to be switched off. Knows nothing of OAuth, tenants or credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore2

from connectors_grpc.certificates import ClientCertificate, Contexts
from connectors_grpc.dialling import AddressRefused, PinningBackend, tls_context
from connectors_grpc.errors import ConnectorsError, Reason, invalid
from connectors_grpc.inject import authority
from connectors_grpc.ports import HttpReply, HttpRequest, HttpStream
from connectors_grpc.resolving import Resolver, SystemResolver
from connectors_grpc.shares import Shares
from connectors_grpc.trailers import EXTENSION, Pool, Raw, Trailers

MOST_CONNECTIONS = 100
MOST_STREAMED = 256
"""Of streamed calls, which last as long as an app likes: in a pool of their own, so that they keep nothing else waiting."""
WAITED = 1 / 3
"""Of a request's time, how much it waits for its turn at most: what is left is the provider's."""
MOST_WAITING = 500
"""Requests of one tenant that wait: more would leave callers of others no room to call at all."""
MOST_IDLE = 20
IDLE_TTL = 15.0
CONNECT = 10.0
"""Seconds for a streamed call to get a connection."""
_URL = re.compile(r"https?://[\x21\x24-\x7e]+")
_OURS = frozenset(("host", "content-length", "transfer-encoding", "connection"))
_WITHOUT_BODY = frozenset(("GET", "HEAD", "OPTIONS", "DELETE", "TRACE"))
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
"""May be sent again.  Source: RFC 9110 section 9.2.2."""


class HttpOutbound:
    """`ports.Outbound` over a bounded pool of kept-alive connections, HTTP/1.1.

    Connections that were dialled under `allow_private_addresses` have pools of their own: a request without it never meets
    them. So have streamed calls, and integrations with a client certificate. Tenants share what is not streamed: one whose
    hosts hang, however many they are, leaves room for the others. TLS is verified against the system's roots (certifi's where
    the system has none) and those of `ca_file`.
    Open for the process's life; `aclose` ends it.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        resolve: Resolver | None = None,
        certificates: Mapping[str, ClientCertificate] | None = None,
        spare: int = 1,
    ) -> None:
        """`spare` is the shares': how much of the connections one tenant leaves free. Raises: CertificateRefused."""
        silence_http_libraries()
        contexts = Contexts(lambda: tls_context(ca_file), certificates)
        self._certified = contexts.identities
        self._system = SystemResolver()
        self._pools = {
            (streamed, private, identity): Pool(
                context=partial(contexts.of, identity),
                max_connections=most,
                max_keepalive_connections=MOST_IDLE,
                keepalive_expiry=IDLE_TTL,
                network_backend=PinningBackend(resolve or self._system, private=private),
            )
            for streamed, most in ((False, MOST_CONNECTIONS), (True, MOST_STREAMED))
            for private in (False, True)
            for identity in ("", *contexts.identities)
        }
        self._shares: Mapping[Pool, Shares[str]] = {
            pool: Shares(MOST_CONNECTIONS, spare) for pool in self._pools.values()
        }

    async def send(self, request: HttpRequest) -> HttpReply:
        """Send once, but for what `_head` sends again; the whole exchange takes at most `request.timeout` seconds.

        `Host` and `Content-Length` are set here, `Connection` and `Transfer-Encoding` left out; all other header lines go out
        as given, in order. The reply's come back as they came. An error's `sent` says whether the request may have reached
        the provider (`no`, `maybe`), its `problem` what happened; neither they nor anything logged has a path, a query, a
        header or a body.
        Raises: ADDRESS_NOT_ALLOWED, PROVIDER_UNAVAILABLE, BODY_TOO_LARGE, LIMIT_EXCEEDED; INVALID_FIELD for what can't be sent
        as HTTP.
        """
        progress = _Progress()
        prepared = _prepare(request, progress)
        where = authority(request.url)
        pool = self._pool(request, streamed=False)
        try:
            async with asyncio.timeout(request.timeout), _turn(self._shares[pool], request):
                reply = await _exchange(pool, prepared, progress, request.max_body)
        except (TimeoutError, OSError, UnicodeError, AddressRefused, _TooLarge, *_FAILURES) as error:
            failure = _refusal(error, where, progress, request.max_body)
        else:
            return reply
        raise failure  # outside of `except`, so that no library's exception, which may quote the peer, hangs on it

    @contextlib.asynccontextmanager
    async def stream(
        self,
        request: HttpRequest,
        body: AsyncIterator[bytes] | None,
        length: int | None,
        trailers: Callable[[], Raw] = list,
    ) -> AsyncIterator[HttpStream]:
        """As `StreamingOutbound` says. Leaving the block before the body's end closes the connection."""
        progress = _Progress()
        where = authority(request.url)
        passed = Trailers(trailers if body is not None and length is None else list)
        prepared = _streamed(_prepare(request, progress), request, body, length, passed)
        pool = self._pool(request, streamed=True)
        async with contextlib.AsyncExitStack() as stack:
            failure: ConnectorsError | None = None
            try:
                response = await _head(pool, prepared, progress, whole=body is None)
                stack.push_async_callback(response.aclose)
                if response.status < 200:
                    raise httpcore2.RemoteProtocolError("an upgrade that nobody asked for")
            except (OSError, UnicodeError, AddressRefused, *_FAILURES) as error:
                failure = _refusal(error, where, progress, 0)
            if failure is not None:
                raise failure  # outside of `except`, as above
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers)
            yield HttpStream(response.status, headers, _pieces(response, where, progress), passed.came)

    def _pool(self, request: HttpRequest, *, streamed: bool) -> Pool:
        identity = request.integration if request.integration in self._certified else ""
        return self._pools[streamed, request.allow_private_addresses, identity]

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()
        self._system.close()


@contextlib.asynccontextmanager
async def _turn(shares: Shares[str], request: HttpRequest) -> AsyncIterator[None]:
    """A place of the tenant's among the connections.

    Not a time-out if it comes to none: that would speak against a provider that nobody asked. Raises: LIMIT_EXCEEDED.
    """
    refusal = ConnectorsError(Reason.LIMIT_EXCEEDED, {"limit": "connections"}, retry_after=1.0)
    if shares.waiting(request.tenant) >= MOST_WAITING:
        raise refusal
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(request.timeout * WAITED):
                await stack.enter_async_context(shares.turn(request.tenant))
        except TimeoutError:
            raise refusal from None
        yield


class _TooLarge(Exception):
    """The reply's body is above the bound."""


_FAILURES = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
    ssl.SSLError,
)


class _Progress:
    """How far an exchange came, told by the transport's trace hook, whose details (headers, bodies) are not looked at."""

    sent = False
    dialled = False

    async def __call__(self, name: str, _details: object) -> None:
        if name == "http11.send_request_headers.started":
            self.sent = True
        elif name == "connection.connect_tcp.started":
            self.dialled = True


def _prepare(request: HttpRequest, progress: _Progress) -> httpcore2.Request:
    """The request as the transport wants it. Raises: INVALID_FIELD."""
    parts, port = _split(request.url)
    if not request.method.isascii() or request.method == "CONNECT":
        raise invalid("method", "an HTTP method other than CONNECT")
    headers = [(b"Host", authority(request.url).encode("ascii"))]
    try:
        headers += [(k.encode("ascii"), v.encode("latin-1")) for k, v in request.headers if k.lower() not in _OURS]
    except UnicodeEncodeError:
        headers = []
    if not headers:
        raise invalid("headers", "names in ASCII, values in Latin-1")
    if request.body or request.method not in _WITHOUT_BODY:
        headers.append((b"Content-Length", str(len(request.body)).encode("ascii")))
    rest = request.url[len(f"{parts.scheme}://{parts.netloc}") :]
    target = rest if rest.startswith("/") else f"/{rest}"
    return httpcore2.Request(
        request.method.encode("ascii"),
        httpcore2.URL(
            scheme=parts.scheme.encode("ascii"),
            host=(parts.hostname or "").encode("ascii"),
            port=port,
            target=target.encode("ascii"),
        ),
        headers=headers,
        content=request.body,
        extensions={"timeout": {"connect": request.timeout}, "trace": progress},
    )


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    if not port or not parts.hostname or "@" in parts.netloc or _URL.fullmatch(url) is None:
        raise invalid("url", "an absolute http or https URL of visible ASCII characters, without user info")
    return parts, port


async def _head(pool: Pool, request: httpcore2.Request, progress: _Progress, *, whole: bool) -> httpcore2.Response:
    """The answer, its body yet to come. `whole`: the request's body is here, and not a stream that was read.

    A kept connection that ends before it answers says nothing of the request, for the provider may have closed it as idle: one
    that is idempotent goes out again, until it has had a connection of its own.
    """
    while True:
        try:
            return await pool.handle_async_request(request)
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError):
            if progress.dialled or not whole or request.method not in _IDEMPOTENT:
                raise


async def _exchange(pool: Pool, request: httpcore2.Request, progress: _Progress, max_body: int) -> HttpReply:
    response = await _head(pool, request, progress, whole=True)
    try:
        if response.status < 200:
            raise httpcore2.RemoteProtocolError("an upgrade that nobody asked for")
        body = bytearray()
        async with contextlib.aclosing(response.aiter_stream()) as parts:
            async for part in parts:
                body += part
                if len(body) > max_body:
                    raise _TooLarge
        if _more_came(response):
            response.extensions["network_stream"].spent = True
    finally:
        await response.aclose()
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers)
    return HttpReply(response.status, headers, bytes(body))


def _streamed(
    prepared: httpcore2.Request,
    request: HttpRequest,
    body: AsyncIterator[bytes] | None,
    length: int | None,
    trailers: Trailers,
) -> httpcore2.Request:
    """The same request with a body that streams. Source: RFC 9112 section 6."""
    framing = [(b"Transfer-Encoding", b"chunked")]
    if body is None or length is not None:
        wanted = length if body is not None else None if request.method in _WITHOUT_BODY else 0
        framing = [] if wanted is None else [(b"Content-Length", str(wanted).encode("ascii"))]
    headers = [pair for pair in prepared.headers if pair[0].lower() != b"content-length"] + framing
    times = dict.fromkeys(("read", "write"), request.timeout) | dict.fromkeys(("connect", "pool"), CONNECT)
    return httpcore2.Request(
        prepared.method,
        prepared.url,
        headers=headers,
        content=body,
        extensions={**prepared.extensions, "timeout": times, EXTENSION: trailers},
    )


async def _pieces(response: httpcore2.Response, where: str, progress: _Progress) -> AsyncIterator[bytes]:
    """A body as it comes. Raises: PROVIDER_UNAVAILABLE."""
    failure: ConnectorsError | None = None
    try:
        async with contextlib.aclosing(response.aiter_stream()) as parts:
            async for part in parts:
                yield part
        if _more_came(response):
            response.extensions["network_stream"].spent = True
    except (OSError, *_FAILURES) as error:
        failure = _refusal(error, where, progress, 0)
    if failure is not None:
        raise failure


def _more_came(response: httpcore2.Response) -> bool:
    """Whether bytes came in after a whole reply. The transport would take them for the answer to the next request, another
    tenant's maybe. It shows them nowhere in public; a test holds this to what it is inside.
    """
    stream: Any = response.stream
    return bool(stream._stream._connection._h11_state.trailing_data[0])  # noqa: SLF001


def _refusal(error: Exception, where: str, progress: _Progress, max_body: int) -> ConnectorsError:
    match error:
        case AddressRefused():
            return ConnectorsError(Reason.ADDRESS_NOT_ALLOWED, {"host": where})
        case _TooLarge():
            return ConnectorsError(Reason.BODY_TOO_LARGE, {"host": where, "limit_bytes": str(max_body)})
        case httpcore2.LocalProtocolError():
            return invalid("headers", "a method and header lines as RFC 9110 has them: no CR, LF or NUL")
        case TimeoutError() | httpcore2.TimeoutException():
            problem = "timeout"
        case ssl.SSLError():
            problem = "tls"
        case httpcore2.ConnectError() if error.args and isinstance(error.args[0], ssl.SSLError):
            problem = "tls"
        case socket.gaierror() | UnicodeError():
            problem = "name"
        case httpcore2.ConnectError() | OSError():
            problem = "unreachable"
        case _:
            problem = "protocol"
    details = {"host": where, "problem": problem, "sent": "maybe" if progress.sent else "no"}
    return ConnectorsError(Reason.PROVIDER_UNAVAILABLE, details)


def silence_http_libraries() -> None:
    """Keep libraries' traces out of every log: at DEBUG and INFO they write whole URLs, headers and cookies."""
    for name in (
        "httpcore2",
        "httpx2",
        "httpcore2.connection",
        "httpcore2.http11",
        "httpcore2.http2",
        "httpcore2.proxy",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
