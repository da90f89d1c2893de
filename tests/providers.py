"""What tests use as the other side: the simulator, a recording raw upstream, a browser, the certified provider.

`async with running_simulator(settings) as sim`, `async with recording_upstream() as up`,
`async with browser() as person: page = await person.consent(link)`, `async with running_oidc_provider([...])`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx2

from connectors_grpc.simulator import Simulator, SimulatorSettings
from connectors_grpc.simulator.server import running
from tests.oidc.harness import OidcProvider, running_oidc_provider

__all__ = [
    "Browser",
    "Clock",
    "OidcProvider",
    "RecordingUpstream",
    "UpstreamRequest",
    "browser",
    "recording_upstream",
    "running_oidc_provider",
    "running_simulator",
]

DEADLINE = 20.0
MOST_STEPS = 20
DEFAULT_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


@dataclass(slots=True)
class Clock:
    """A clock that a test moves. Units: seconds since the epoch."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.now += seconds


def running_simulator(
    settings: SimulatorSettings, clock: Callable[[], float] = time.time
) -> contextlib.AbstractAsyncContextManager[Simulator]:
    """The simulator on a free port of this loop: gives `.url`, `.record`, `.clients`, `.next_replies`, `.book`."""
    return running(settings, clock)


# --- an upstream that records bytes


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request as its bytes came. `body` is without chunked framing, `raw_body` with it."""

    connection: int
    head: bytes
    body: bytes
    raw_body: bytes

    @property
    def request_line(self) -> bytes:
        """The first line, without its end."""
        return self.head.partition(b"\r\n")[0]

    @property
    def method(self) -> str:
        """The method."""
        return self.request_line.split(b" ")[0].decode("latin-1")

    @property
    def target(self) -> str:
        """The request target, as sent."""
        return self.request_line.split(b" ")[1].decode("latin-1")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Every header in order, with its name as sent."""
        lines = self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]
        pairs = (line.decode("latin-1").partition(":") for line in lines)
        return [(name, value.strip()) for name, _, value in pairs]

    def header(self, name: str) -> list[str]:
        """Every value of one header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


Reply = bytes | Callable[[UpstreamRequest], bytes | Awaitable[bytes]]
Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RecordingUpstream:
    """An HTTP/1.1 server of bytes.

    `reply`: the raw reply, or what makes one from the request; empty bytes close without a reply.
    `replies`: raw replies that come first, in order.
    `handler`: where set, gets head, reader and writer in place of all that; the connection closes after it.
    `close_after_reply`: end the connection after each reply. `connections` counts those accepted.
    """

    def __init__(self) -> None:
        self.reply: Reply = DEFAULT_REPLY
        self.replies: list[Reply] = []
        self.handler: Handler | None = None
        self.close_after_reply = False
        self.requests: list[UpstreamRequest] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.url = ""
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def seen(self, count: int) -> list[UpstreamRequest]:
        """Wait until `count` whole requests came. Raises: TimeoutError after 20 s."""
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    async def seen_heads(self, count: int) -> list[bytes]:
        """Wait until `count` heads came, whatever of the bodies. Raises: TimeoutError after 20 s."""
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: len(self.heads) >= count)
        return self.heads

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while await self._one(number, reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the peer left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def stop(self) -> None:
        """End every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        async with self._changed:
            self.heads.append(head)
            self._changed.notify_all()
        if self.handler is not None:
            await self.handler(head, reader, writer)
            return False
        if b"\r\nexpect: 100-continue\r\n" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, raw = await _read_body(head, reader)
        request = UpstreamRequest(number, head, body, raw)
        async with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        chosen = self.replies.pop(0) if self.replies else self.reply
        made = chosen if isinstance(chosen, bytes) else chosen(request)
        reply = await made if inspect.isawaitable(made) else made
        writer.write(reply)
        await writer.drain()
        wants_close = b"\r\nconnection: close\r\n" in reply.partition(b"\r\n\r\n")[0].lower() + b"\r\n"
        return bool(reply) and not wants_close and not self.close_after_reply


async def _read_body(head: bytes, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The body that a head announces: without framing, and raw."""
    fields = UpstreamRequest(0, head, b"", b"")
    if "chunked" in "".join(fields.header("transfer-encoding")).lower():
        body = raw = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            chunk = await reader.readexactly(size + 2) if size else b""
            body, raw = body + chunk[:size], raw + line + chunk
            if not size:
                while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
                    raw += trailer
                return body, raw + b"\r\n"
    length = int((fields.header("content-length") or ["0"])[0])
    body = await reader.readexactly(length)
    return body, body


@contextlib.asynccontextmanager
async def recording_upstream(
    reply: Reply = DEFAULT_REPLY, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RecordingUpstream]:
    """A recording upstream on a free loopback port."""
    upstream = RecordingUpstream()
    upstream.reply = reply
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=1024 * 1024, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    upstream.url = f"{'https' if tls else 'http'}://127.0.0.1:{upstream.port}"
    try:
        yield upstream
    finally:
        server.close()
        await upstream.stop()
        await server.wait_closed()


# --- a person with a browser


@dataclass(slots=True)
class _Form:
    action: str
    method: str
    fields: list[tuple[str, str, str]] = field(default_factory=list)  # type, name, value


class _FormFinder(HTMLParser):
    """The first form of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.form: _Form | None = None
        self._inside = False
        self._select: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if tag == "form" and self.form is None:
            self.form, self._inside = _Form(at.get("action", ""), at.get("method", "get").lower()), True
        if not self._inside or self.form is None:
            return
        if tag in ("input", "button"):
            kind = at.get("type", "text" if tag == "input" else "submit").lower()
            self.form.fields.append((kind, at.get("name", ""), at.get("value", "")))
        elif tag == "select":
            self._select = (at.get("name", ""), [])
        elif tag == "option" and self._select is not None:
            self._select[1].append(at.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        elif tag == "select" and self._select is not None and self.form is not None:
            name, options = self._select
            self.form.fields.append(("select", name, "\n".join(options)))
            self._select = None


class Browser:
    """A person at a browser: follows redirects, keeps cookies by host, fills in and submits what is asked."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client
        self.visited: list[str] = []

    async def consent(self, link: str, account: str = "alice", press: str | None = None) -> httpx2.Response:
        """Follow a connect link as a person does, until a page without a form; that page.

        On each form the first submit button is pressed, or the one whose value is `press` where there is one.
        Raises: RuntimeError if it does not end after 20 pages.
        """
        page = await self.open(link)
        for _ in range(MOST_STEPS):
            finder = _FormFinder()
            if page.headers.get("content-type", "").startswith("text/html"):
                finder.feed(page.text)
                finder.close()
            if finder.form is None:
                return page
            page = await self._submit(page, finder.form, account, press)
        raise RuntimeError("the pages go round in circles")

    async def open(self, link: str) -> httpx2.Response:
        """Go to a link as if it was typed in, and wherever it redirects."""
        return await self._go("GET", link, None, initiator=None)

    async def _submit(self, page: httpx2.Response, form: _Form, account: str, press: str | None) -> httpx2.Response:
        target = urljoin(str(page.url), form.action)
        data = _filled_in(form, account, press)
        if form.method == "get":
            target = str(httpx2.URL(target).copy_with(params=data))
            return await self._go("GET", target, None, initiator=str(page.url))
        return await self._go("POST", target, data, initiator=str(page.url))

    async def _go(self, method: str, url: str, data: dict[str, str] | None, initiator: str | None) -> httpx2.Response:
        chain: list[str] = []
        for _ in range(MOST_STEPS):
            chain.append(url)
            self.visited.append(url)
            headers = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
            headers |= {"Sec-Fetch-Site": _site(initiator, chain), "Accept": "text/html,*/*;q=0.8"}
            if method == "POST" and initiator is not None:
                headers["Origin"] = _origin(initiator) if len({_origin(u) for u in chain}) == 1 else "null"
            reply = await self.client.request(method, url, data=data, headers=headers, follow_redirects=False)
            if reply.status_code not in (301, 302, 303, 307, 308):
                return reply
            if reply.status_code not in (307, 308):
                method, data = "GET", None
            url = urljoin(url, reply.headers["location"])
        raise RuntimeError("redirected in circles")


def _filled_in(form: _Form, account: str, press: str | None) -> dict[str, str]:
    """What a person's browser sends for a form."""
    buttons = [(name, value) for kind, name, value in form.fields if kind in ("submit", "image")]
    pressed = next((pair for pair in buttons if pair[1] == press), buttons[0] if buttons else ("", ""))
    sent = {pressed[0]: pressed[1]} if pressed[0] else {}
    for kind, name, value in form.fields:
        if not name or kind in ("submit", "image", "button", "reset", "file"):
            continue
        if kind == "select":
            options = value.split("\n")
            sent[name] = account if account in options else options[0]
        elif kind == "password":
            sent[name] = "a password"
        elif kind in ("text", "email"):
            sent[name] = value or account
        elif kind in ("checkbox", "radio"):
            sent.setdefault(name, value or "on")
        else:
            sent[name] = value
    return sent


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _site(initiator: str | None, chain: list[str]) -> str:
    """`Sec-Fetch-Site` for a navigation. Source: W3C Fetch Metadata section 2.3."""
    if initiator is None:
        return "none"
    if all(_origin(url) == _origin(initiator) for url in chain):
        return "same-origin"
    same_host = all(urlsplit(url).hostname == urlsplit(initiator).hostname for url in chain)
    return "same-site" if same_host else "cross-site"


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser with an empty cookie jar, that uses no proxy of this machine."""
    async with httpx2.AsyncClient(timeout=DEADLINE, trust_env=False) as client:
        yield Browser(client)
