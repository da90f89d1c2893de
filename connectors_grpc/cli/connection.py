"""The way to the server: channel, key, deadline. One `Session` a command; nothing is opened before it is needed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import click
import grpc

from connectors_grpc.addresses import Address, AddressInvalid, default_state_dir, require_tls_unless_loopback
from connectors_grpc.gen.connectors.v1.access_service_pb2_grpc import AccessServiceStub
from connectors_grpc.gen.connectors.v1.credential_service_pb2_grpc import CredentialServiceStub
from connectors_grpc.gen.connectors.v1.integration_service_pb2_grpc import IntegrationServiceStub
from connectors_grpc.gen.connectors.v1.proxy_service_pb2_grpc import ProxyServiceStub
from connectors_grpc.gen.connectors.v1.tenant_service_pb2_grpc import TenantServiceStub
from connectors_grpc.secret import Secret

DEFAULT_SERVER = "127.0.0.1:50051"
PAGE = 500
MOST_KEY = 4096
MOST_MESSAGE = 8 << 20

Item = TypeVar("Item")


class KeyUnusable(click.ClickException):
    """There is no key to show, or its file is no key."""

    exit_code = 4


class Page(Protocol):
    """What every list answers."""

    @property
    def next_page_token(self) -> str:
        """Where to go on; empty at the end."""


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: list[tuple[str, str]]
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Sign(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Puts the key on every call, and the deadline on each that asks one thing and does not bring its own."""

    def __init__(self, key: Callable[[], Secret], timeout: float) -> None:
        self._key = key
        self._timeout = timeout

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Go on with the signed call."""
        timeout = self._timeout if details.timeout is None else details.timeout
        return continuation(self._signed(details, timeout), request)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        """Go on with the signed call."""
        return continuation(self._signed(details, details.timeout), requests)

    def _signed(self, details: Any, timeout: float | None) -> _Details:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self._key().reveal()}")]
        return _Details(details.method, timeout, metadata, details.credentials, None, None)


@dataclass
class Session:
    """Where the server is and how to be let in.  Units: `timeout` in seconds, for each call."""

    server: str = DEFAULT_SERVER
    key_file: Path | None = None
    ca_file: Path | None = None
    timeout: float = 30.0

    @cached_property
    def key(self) -> Secret:
        """The API key.  Raises: KeyUnusable."""
        path = self.key_file or default_key_file()
        if path is None:
            raise KeyUnusable(
                f"No API key: give --key-file, or CONNECTORS_KEY_FILE. `connectors up` on this machine leaves one in "
                f"{default_state_dir() / 'keys' / 'admin.key'}."
            )
        return read_key(path)

    @cached_property
    def plain_channel(self) -> grpc.Channel:
        """A channel without a key, for what is open to all.  Raises: BadParameter."""
        return open_channel(self.server, self.ca_file)

    @cached_property
    def channel(self) -> grpc.Channel:
        """A channel that shows the key with each call."""
        return grpc.intercept_channel(self.plain_channel, _Sign(lambda: self.key, self.timeout))

    @cached_property
    def tenants(self) -> TenantServiceStub:
        """TenantService."""
        return TenantServiceStub(self.channel)

    @cached_property
    def integrations(self) -> IntegrationServiceStub:
        """IntegrationService."""
        return IntegrationServiceStub(self.channel)

    @cached_property
    def credentials(self) -> CredentialServiceStub:
        """CredentialService."""
        return CredentialServiceStub(self.channel)

    @cached_property
    def proxy(self) -> ProxyServiceStub:
        """ProxyService."""
        return ProxyServiceStub(self.channel)

    @cached_property
    def access(self) -> AccessServiceStub:
        """AccessService."""
        return AccessServiceStub(self.channel)

    def close(self) -> None:
        """Close the channel if one was opened."""
        if "plain_channel" in self.__dict__:
            self.plain_channel.close()


def open_channel(server: str, ca_file: Path | None) -> grpc.Channel:
    """A channel.  Raises: as `_way`."""
    address, options, credentials = _way(server, ca_file)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)


def open_aio_channel(server: str, ca_file: Path | None) -> grpc.aio.Channel:
    """A channel for asyncio. The key is its user's to send.  Raises: as `_way`."""
    address, options, credentials = _way(server, ca_file)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _way(server: str, ca_file: Path | None) -> tuple[str, list[tuple[str, int]], grpc.ChannelCredentials | None]:
    """How to get there: plain to loopback, TLS to anywhere else, and TLS to loopback where `ca_file` is given.

    Raises: BadParameter for an address that is none, or plain text to another machine.
    """
    text = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    try:
        address = Address.parse(text)
        tls = not server.startswith("http://") and (
            ca_file is not None or server.startswith("https://") or not address.is_local
        )
        require_tls_unless_loopback(address, tls=tls)
    except AddressInvalid as error:
        raise click.BadParameter(f"{error}.", param_hint="--server (CONNECTORS_SERVER)") from None
    # A proxy of the environment is for other machines.
    options = [("grpc.max_receive_message_length", MOST_MESSAGE), ("grpc.enable_http_proxy", int(not address.is_local))]
    if not tls:
        return str(address), options, None
    roots = read_bytes(ca_file, "--ca-file (CONNECTORS_CA_FILE)") if ca_file else None
    return str(address), options, grpc.ssl_channel_credentials(roots)


def default_key_file() -> Path | None:
    """The admin key that a server on this machine left, if this user may read it."""
    state = os.environ.get("CONNECTORS_STATE_DIR")
    path = (Path(state).expanduser() if state else default_state_dir()) / "keys" / "admin.key"
    return path if os.access(path, os.R_OK) else None


def read_key(path: Path) -> Secret:
    """The key in a file.  Raises: KeyUnusable, without any of the content."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_KEY + 1)
    except OSError as error:
        raise KeyUnusable(f"The key file {path} can't be read: {error.strerror}.") from None
    text = content.strip().decode("ascii", "replace")
    if not text or len(content) > MOST_KEY or not all("!" <= char <= "~" for char in text):
        raise KeyUnusable(f"The key file {path} holds no key: one line of visible ASCII is wanted.")
    return Secret(text)


def others_may_read(path: Path) -> bool:
    """Whether group or others can read the file."""
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False


def read_bytes(path: Path, hint: str) -> bytes:
    """A file's content.  Raises: BadParameter naming the option."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{path} can't be read: {error.strerror}.", param_hint=hint) from None


def collect(fetch: Callable[[str], Page], items: Callable[[Any], list[Item]], limit: int) -> list[Item]:
    """The items of a list up to `limit`; a remark on stderr if there are more."""
    found = list(walk(fetch, items, limit + 1))
    if len(found) > limit:
        click.echo(f"There are more than {limit}: say --limit.", err=True)
    return found[:limit]


def walk(fetch: Callable[[str], Page], items: Callable[[Any], list[Item]], limit: int) -> Iterator[Item]:
    """Every item of a list, page by page, up to `limit`. A server that repeats a page token is not followed."""
    token, seen = "", 0
    while True:
        page = fetch(token)
        for item in items(page):
            if seen == limit:
                return
            seen += 1
            yield item
        if not page.next_page_token or page.next_page_token == token:
            return
        token = page.next_page_token
