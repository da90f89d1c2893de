"""An asynchronous adapter under hvac's API classes: one request, one bounded answer. Knows no path and no meaning.

hvac's methods end in `return self._adapter.post(...)`, so an adapter whose `request` is a coroutine makes them
awaitable. Those that look into the answer themselves are not for us: `Adapter.login` with `use_token`, `patch`.
It stands on httpx2's transport and not on its client: a transport follows no redirect, keeps no cookie and reads no
proxy from the environment, and costs a fifth less.
"""

from __future__ import annotations

import json as jsonlib
import logging
import ssl
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
from hvac import adapters

from connectors_grpc import logs
from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.network import Network
from connectors_grpc.vault.settings import Endpoint, VaultMisconfigured, VaultSettings

log = logs.get("vault")
MAX_BODY: Final = 1 << 20
_CONNECTIONS: Final = 32
_IDLE: Final = 30.0
_CONNECT: Final = 1.0
_NOT_SERVING: Final = 500
_EVERYBODYS: Final = "/v1/sys/health"  # of the whole Vault: asked of a namespace, it is refused
_MAX_RETRY_AFTER: Final = 60


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole. The body may hold secrets: `repr` hides it."""

    status: int
    body: bytes = field(repr=False)
    retry_after: float = 1.0

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.  Raises: VaultUnavailable: what answers is not a Vault, or not well."""
        try:
            decoded = jsonlib.loads(self.body)
        except (ValueError, RecursionError):
            decoded = None
        if not isinstance(decoded, dict):
            log.error("vault_reply_malformed", http_status=self.status, bytes=len(self.body))
            raise VaultUnavailable
        return decoded

    def field(self, *path: str) -> Any:
        """What stands at `path` in the body; None where any part of it is missing.  Raises: VaultUnavailable."""
        found: Any = self.json()
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def text(self, *path: str) -> str:
        """The text at `path`.  Raises: VaultUnavailable if there is none."""
        found = self.field(*path)
        if not isinstance(found, str):
            raise malformed(self)
        return found

    def errors(self) -> str:
        """The Vault's own words. They may quote a request: for comparison, never for a log.

        Raises: VaultUnavailable.
        """
        found = self.field("errors")
        return "\n".join(str(each) for each in found) if isinstance(found, list) else ""


def malformed(reply: Reply) -> VaultUnavailable:
    """A well-formed answer that is not what was asked for."""
    log.error("vault_reply_malformed", http_status=reply.status, bytes=len(reply.body))
    return VaultUnavailable()


class AsyncAdapter(adapters.Adapter):  # type: ignore[misc]  # hvac has no types
    """hvac's adapter over a bounded pool of connections to each node. One node is asked until it fails, then the next.

    Bounds: 32 connections a node, 1 MiB each way; the caller brings the deadline.
    """

    def __init__(self, settings: VaultSettings) -> None:
        # Not hvac's own __init__: it would open a session of requests.
        self._nodes = [_Node(endpoint.base, _transport(settings, endpoint)) for endpoint in settings.endpoints()]
        self._current = 0
        self.token: str | None = None
        self.namespace = settings.namespace
        self._unreachable = False

    def get_login_token(self, response: Any) -> str:
        """Not used: `login` is always called without `use_token`."""
        raise NotImplementedError

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,  # noqa: ARG002  (hvac's signature: statuses are read by our callers)
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        wrap_ttl: str | None = None,
    ) -> Coroutine[Any, Any, Reply]:
        """Send one request.  Raises: VaultUnavailable if there is no whole answer; ValueError if the body is too big."""
        if wrap_ttl is not None:
            raise NotImplementedError
        target = f"{url}?{urlencode(params)}" if params else url
        body = None if json is None else jsonlib.dumps(json, separators=(",", ":"), allow_nan=False).encode()
        if body is not None and len(body) > MAX_BODY:
            raise ValueError("a request to the Vault is at most 1 MiB")
        return self._exchange(method.upper(), target, headers or {}, body)

    def note_unreachable(self, error: str) -> None:
        """Say so once, and not again for every call until it answers. The next call goes to the next node."""
        self._leave(self._current)
        self._say_unreachable(error)

    def _say_unreachable(self, error: str) -> None:
        if not self._unreachable:
            self._unreachable = True
            log.warning("vault_unreachable", error=error)

    async def aclose(self) -> None:
        """Close all connections."""
        for node in self._nodes:
            await node.transport.aclose()

    def _leave(self, number: int) -> None:
        """Go to the next node, unless somebody went already."""
        if number == self._current:
            self._current = (number + 1) % len(self._nodes)

    async def _exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        for tries in count(1):
            number = self._current
            node = self._nodes[number]
            # With one node the caller's deadline is bound enough; with several, one that swallows packets must not use it up.
            bounds = {"timeout": {"connect": _CONNECT}} if len(self._nodes) > 1 else {}
            request = httpx2.Request(
                method, node.base + target, headers=self._headers(target, headers), content=body, extensions=bounds
            )
            try:
                response, content = await _sent(node.transport, request)
            except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
                self._leave(number)
                # Only what surely was not sent is sent again: a write may have been carried out.
                if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout) and tries < len(self._nodes):
                    continue
                self._say_unreachable(type(error).__name__)
                # `from None`: the library's error holds the request, with our token in it.
                raise VaultUnavailable from None
            if response.status_code >= _NOT_SERVING:
                self._leave(number)  # sealed, or it knows of no active node; another one may
            if self._unreachable:
                self._unreachable = False
                log.info("vault_reachable")
            return Reply(response.status_code, content, _retry_after(response.headers))
        raise AssertionError

    def _headers(self, target: str, given: Mapping[str, str]) -> dict[str, str]:
        # X-Vault-Request keeps an agent from serving requests that were forged through somebody else.
        headers = {"X-Vault-Request": "true"}
        if self.token:
            headers["X-Vault-Token"] = self.token
        if self.namespace and not target.startswith(_EVERYBODYS):
            headers["X-Vault-Namespace"] = self.namespace
        headers.update(given)
        return headers


def silence() -> None:
    """Keep the HTTP libraries' own logs, which show URLs and headers, at WARNING and above whatever the root's level."""
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class _Node:
    """One address of the Vault, and the connections to it."""

    base: str
    transport: httpx2.AsyncHTTPTransport


def _transport(settings: VaultSettings, endpoint: Endpoint) -> httpx2.AsyncHTTPTransport:
    transport = httpx2.AsyncHTTPTransport(
        verify=_tls(settings) if endpoint.tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        trust_env=False,
        uds=endpoint.socket,
        limits=httpx2.Limits(
            max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=_IDLE
        ),
    )
    # It takes no backend in public; a test holds this to what it is inside.
    transport._pool._network_backend = Network()  # noqa: SLF001
    return transport


async def _sent(transport: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> tuple[httpx2.Response, bytes]:
    response = await transport.handle_async_request(request)
    try:
        return response, await _bounded(response)
    finally:
        await response.aclose()


async def _bounded(response: httpx2.Response) -> bytes:
    """The body as it came. No content coding is asked for, and none undone."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > MAX_BODY:
            log.error("vault_reply_too_large", http_status=response.status_code)
            raise VaultUnavailable
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _retry_after(headers: httpx2.Headers) -> float:
    """Seconds, 1 unless the answer says otherwise.  Bounds: 1 to 60.  Source: RFC 9110 section 10.2.3."""
    value = headers.get("retry-after", "")
    return float(min(max(int(value), 1), _MAX_RETRY_AFTER)) if value.isdecimal() and len(value) < 9 else 1.0


def _tls(settings: VaultSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except (OSError, ValueError):
        raise VaultMisconfigured("The Vault's CA file can't be read.") from None
