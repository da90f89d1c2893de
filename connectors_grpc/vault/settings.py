"""Where the Vault is and how we log in, checked when it is made: no plain text beyond this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from connectors_grpc.addresses import is_loopback

DEFAULT_TIMEOUT: Final = 5.0
MAX_TIMEOUT: Final = 60.0
MAX_ADDRESSES: Final = 9
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}(?:/[A-Za-z0-9_-]{1,128}){0,7}/?")
_ROLE_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")


class VaultMisconfigured(Exception):
    """An operator must correct the Vault's settings; the text says which, and never holds a value of a secret."""


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """One of `address` (http, https, or `unix:///path`) and `socket_path`; one of `secret_id_file` and `token_file`.

    `address` may be several of one cluster, separated by commas: whichever answers is used. Any of them will do, for a
    standby passes on what only the active node can do.
    `secret_id_file` holds the secret id alone, or a JSON object with `secret_id` and `role_id`. Both files are read
    at each login, so that they may be exchanged while we run.
    Units: timeout in seconds, for one whole call.  Bounds: 0 < timeout <= 60.
    Raises: VaultMisconfigured.
    """

    address: str = ""
    socket_path: Path | None = None
    role_id: str = ""
    secret_id_file: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    namespace: str = ""
    timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        if bool(self.address) == (self.socket_path is not None):
            raise VaultMisconfigured("Give the Vault's address or its socket: one of the two.")
        if (self.secret_id_file is None) == (self.token_file is None):
            raise VaultMisconfigured("Give the Vault's secret id file or its token file: one of the two.")
        if self.role_id and not _ROLE_ID.fullmatch(self.role_id):
            raise VaultMisconfigured("The Vault's role id is malformed.")
        if self.namespace and not _NAMESPACE.fullmatch(self.namespace):
            raise VaultMisconfigured("The Vault's namespace is malformed.")
        if not 0 < self.timeout <= MAX_TIMEOUT:
            raise VaultMisconfigured("The Vault's timeout is above 0 and at most 60 seconds.")
        self.endpoints()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where to connect, the first choice first.  Bounds: 9.  Raises: VaultMisconfigured."""
        if self.socket_path is not None:
            return (Endpoint("http://localhost", str(self.socket_path)),)
        addresses = self.address.split(",")
        if len(addresses) > MAX_ADDRESSES:
            raise VaultMisconfigured(f"The Vault has more than {MAX_ADDRESSES} addresses.")
        return tuple(parse_address(address.strip()) for address in addresses)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The base of all URLs, without trailing slash, and the Unix socket to connect to instead of its host."""

    base: str
    socket: str | None = None

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.base.startswith("https://")


def parse_address(address: str) -> Endpoint:
    """The endpoint of `address`; http only to this very machine.  Raises: VaultMisconfigured."""
    try:
        url = urlsplit(address)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise VaultMisconfigured("The Vault's address is malformed.") from None
    if url.scheme == "unix" and not url.netloc and len(url.path) > 1 and not (url.query or url.fragment):
        return Endpoint("http://localhost", url.path)
    if url.scheme not in ("http", "https") or not _is_origin(url, host):
        raise VaultMisconfigured("The Vault's address is https://HOST[:PORT], or unix:///PATH.")
    if url.scheme == "http" and not is_loopback(host):
        raise VaultMisconfigured("The Vault's address is not loopback and not https: tokens would cross in plain text.")
    name = f"[{host}]" if ":" in host else host
    return Endpoint(f"{url.scheme}://{name}" + (f":{port}" if port else ""))


def _is_origin(url: SplitResult, host: str) -> bool:
    bare = url.path in ("", "/") and not url.query and not url.fragment
    return bare and url.username is None and re.fullmatch(r"[a-z0-9.:-]{1,253}", host) is not None
