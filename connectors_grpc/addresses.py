"""Addresses that people write: where to listen, whom to call, where state lies. Standard library only, and no I/O."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

UNIX = "unix:"


class AddressInvalid(ValueError):
    """The text is no address, or one that may not be used; the message says what is wanted, never what came."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port, or the path of a Unix socket (then `host` is empty and `port` 0)."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, `[IPV6]:PORT` or `unix:/path`.

        Bounds: port 0 to 65535, 0 for any free one.  Raises: AddressInvalid.
        """
        if text.startswith(UNIX):
            path = text.removeprefix(UNIX)
            path = path.removeprefix("//") if path.startswith("///") else path
            if not path.startswith("/"):
                raise AddressInvalid("a Unix socket is unix:/absolute/path")
            return cls("", 0, path)
        host, colon, port = text.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise AddressInvalid("HOST:PORT is wanted, as in 127.0.0.1:50051 or [::1]:50051")
        bare = host.removeprefix("[").removesuffix("]")
        if ("[" in host) != (":" in bare) or any(char in bare for char in "/@[] \t"):
            raise AddressInvalid("HOST:PORT is wanted; an IPv6 address stands in brackets")
        return cls(bare, int(port))

    @property
    def is_local(self) -> bool:
        """Whether what is sent there can't leave this machine."""
        return bool(self.path) or is_loopback(self.host)

    def __str__(self) -> str:
        if self.path:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address. No name is looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_tls_unless_loopback(address: Address, *, tls: bool) -> None:
    """Refuse plain text to or from another machine.  Raises: AddressInvalid."""
    if not tls and not address.is_local:
        raise AddressInvalid(
            "the address is not loopback, and without TLS keys and tokens would cross the network in the clear"
        )


def check_vault_address(text: str) -> str:
    """A Vault's address: https://, http:// on loopback only, or unix:///path; or several of one cluster, separated by commas.

    Raises: AddressInvalid.
    """
    if "," in text:
        return ",".join(check_vault_address(each.strip()) for each in text.split(","))
    if text.startswith(UNIX):
        return f"unix://{Address.parse(text).path}"
    check_url(text, "https://vault:8200, http://127.0.0.1:8200 or unix:///path")
    return text.rstrip("/")


def check_url(text: str, wanted: str) -> None:
    """Take https anywhere, http on loopback only; nothing but scheme, host, port and path.  Raises: AddressInvalid."""
    try:
        url = urlsplit(text)
        host, _port = url.hostname or "", url.port
    except ValueError:
        raise AddressInvalid(f"{wanted} is wanted") from None
    if url.scheme not in ("http", "https") or not host or url.query or url.fragment or "@" in url.netloc:
        raise AddressInvalid(f"{wanted} is wanted")
    require_tls_unless_loopback(Address(host, 0), tls=url.scheme == "https")


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/connectors`, or `~/.local/state/connectors`.  Source: XDG Base Directory Specification 0.8."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "connectors"
