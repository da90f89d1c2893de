"""What an operator sets, parsed once; an error names the field and the fix. Knows no socket."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from connectors_grpc.certificates import CertificateRefused, ClientCertificate, read_certificates
from connectors_grpc.quota import Quota
from connectors_grpc.secret import Secret
from sidecar.limits import Limits
from sidecar.observing import Observing
from sidecar.refused import SettingsRefused
from sidecar.route import LABEL, Credential, Fixed, Tenant
from sidecar.server import Address

DEFAULT_LISTEN = "127.0.0.1:15001"
DEFAULT_SERVER = "127.0.0.1:50051"

_LABEL = re.compile(LABEL)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,45}")


@dataclass(frozen=True, slots=True)
class Tcp:
    """A loopback port. `port` 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket, made with mode 0600."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


Listen = Tcp | Unix


@dataclass(frozen=True, slots=True)
class Dedicated:
    """A listener for one credential: the path is the upstream's, untouched."""

    listen: Listen
    fixed: Fixed


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """All of it. `open_door`: no app key is asked for on loopback.

    `relay`: the server makes the calls; `relay_key` is then the app key of those who show none.
    """

    listen: Listen = field(default_factory=lambda: Tcp("127.0.0.1", 15001))
    server: Address = field(default_factory=lambda: Address(DEFAULT_SERVER))
    open_door: bool = False
    host_names: frozenset[str] = frozenset()
    upstream_ca: Path | None = None
    client_certificates: Mapping[str, ClientCertificate] = field(default_factory=dict)
    retried: frozenset[str] = frozenset()
    workers: int = 1
    dedicated: tuple[Dedicated, ...] = ()
    metrics_listen: Tcp | None = None
    relay: bool = False
    relay_key: Secret | None = None
    limits: Limits = field(default_factory=Limits)
    quota: Quota = field(default_factory=Quota)
    observing: Observing = field(default_factory=Observing)


def parse(
    *,
    listen: str = DEFAULT_LISTEN,
    server: str = DEFAULT_SERVER,
    key_file: str | None = None,
    open_door: bool = False,
    ca_file: str | None = None,
    upstream_ca: str | None = None,
    client_certs: Iterable[str] = (),
    retries: Iterable[str] = (),
    workers: int = 1,
    maps: Iterable[str] = (),
    host_names: Iterable[str] = (),
    metrics_listen: str | None = None,
    relay: bool = False,
    app_key_file: str | None = None,
    limits: Limits | None = None,
    quota: Quota | None = None,
    observing: Observing | None = None,
) -> SidecarSettings:
    """From options or environment, as text. Raises: SettingsRefused."""
    metrics = _listen("--metrics-listen", metrics_listen) if metrics_listen else None
    if isinstance(metrics, Unix):
        raise SettingsRefused("--metrics-listen", "must be host:port on loopback")
    if app_key_file and not relay:
        raise SettingsRefused("--app-key-file", "is for --relay only")
    return SidecarSettings(
        listen=_listen("--listen", listen),
        server=_server(server, ca_file, _key("--key-file", key_file)),
        open_door=open_door,
        host_names=frozenset(_name(name) for name in host_names),
        upstream_ca=_file("--upstream-ca", upstream_ca),
        client_certificates=_certificates(client_certs),
        retried=frozenset(_retried(name) for name in retries),
        workers=workers,
        dedicated=tuple(_dedicated(entry) for entry in maps),
        metrics_listen=metrics,
        relay=relay,
        relay_key=_key("--app-key-file", app_key_file),
        limits=limits or Limits(),
        quota=quota or Quota(),
        observing=observing or Observing(),
    )


def _listen(name: str, text: str) -> Listen:
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if not path.is_absolute():
            raise SettingsRefused(name, "a Unix socket needs an absolute path, as in unix:/run/connectors/sidecar.sock")
        if len(str(path)) > 100:
            raise SettingsRefused(name, "the path of a Unix socket may have up to 100 characters")
        return Unix(path)
    host, port = _host_port(name, text)
    if not _loopback(host):
        raise SettingsRefused(name, "must be a loopback address (127.0.0.1, [::1], localhost) or unix:/path")
    return Tcp("127.0.0.1" if host == "localhost" else host, port)


def _host_port(name: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or _HOST.fullmatch(host) is None or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsRefused(name, "must be host:port, as in 127.0.0.1:15001")
    return host, int(port)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _server(text: str, ca_file: str | None, key: Secret | None) -> Address:
    """`host:port`, `https://host:port` (TLS by the system's CAs, or --ca-file), or `unix:/path`."""
    tls = text.startswith("https://") or ca_file is not None
    target = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    ca_path = _file("--ca-file", ca_file)
    ca = ca_path.read_bytes() if ca_path is not None else None
    if target.startswith("unix:/"):
        return Address(target, key, tls, ca)
    host, _ = _host_port("--server", target)
    if not tls and not _loopback(host):
        raise SettingsRefused(
            "--server", "is not loopback, so it needs TLS: write https://host:port, or give --ca-file"
        )
    return Address(target, key, tls, ca)


def _key(name: str, key_file: str | None) -> Secret | None:
    path = _file(name, key_file)
    if path is None:
        return None
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if re.fullmatch(r"[\x21-\x7e]{16,512}", text) is None:
        role = "app" if name == "--app-key-file" else "sidecar"
        raise SettingsRefused(name, f"must hold one API key of the role `{role}`, on one line")
    return Secret(text)


def _file(name: str, text: str | None) -> Path | None:
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        raise SettingsRefused(name, "is not a file that can be read")
    return path


def _retried(name: str) -> str:
    if _LABEL.fullmatch(name) is None:
        raise SettingsRefused("--retry", "must be an integration's id, as in notion")
    return name


def _certificates(entries: Iterable[str]) -> dict[str, ClientCertificate]:
    try:
        return read_certificates(entries)
    except CertificateRefused as error:
        raise SettingsRefused("--client-cert", str(error)) from None


def _dedicated(entry: str) -> Dedicated:
    listen, equals, names = entry.partition("=")
    tenant, slash, credential = names.partition("/")
    if not equals or not slash or _LABEL.fullmatch(tenant) is None or _LABEL.fullmatch(credential) is None:
        raise SettingsRefused("--map", "must be listen=tenant/credential, as in 127.0.0.1:15010=acme/stripe")
    return Dedicated(_listen("--map", listen), Fixed(Tenant(tenant), Credential(credential)))


def _name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?(?::[0-9]{1,5})?", text) is None:
        raise SettingsRefused("--host-name", "must be host or host:port, as apps write it in Host")
    return text.lower()
