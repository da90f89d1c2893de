"""Which services there are for given settings: their command lines and how one sees that they are ready. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from connectors_grpc.addresses import Address
from connectors_grpc.cli.connection import open_channel
from connectors_grpc.cli.health import http_status, is_serving
from connectors_grpc.embedded import EmbeddedVault, StateLayout
from connectors_grpc.settings import ServerSettings, UpSettings, flag
from connectors_grpc.supervisor.journal import Journal
from connectors_grpc.supervisor.service import Child, Probe, Service, VaultService

PROBE_TIMEOUT = 2.0
OK = 200
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (what others may have written)


@dataclass(frozen=True, slots=True)
class Parts:
    """All services, in the order in which they are started."""

    first: tuple[Service, ...]
    """Need nobody: OpenBao, simulator."""
    then: tuple[Service, ...]
    """Each needs those before it: server, sidecar."""

    def to_stop(self) -> tuple[Service, ...]:
        """In the order in which they are ended: sidecar, server, simulator, OpenBao."""
        return (*reversed(self.then), *reversed(self.first))


def listeners(settings: UpSettings) -> dict[str, Address]:
    """Every address that will be listened on, by its setting."""
    names = ["grpc_listen", "http_listen", "sidecar_listen", *(["simulator_listen"] if settings.demo else [])]
    return {name: getattr(settings, name) for name in names}


def parts_of(settings: UpSettings, layout: StateLayout, *, verbose: bool) -> Parts:
    """The services."""

    def child(name: str, arguments: list[str], probe: Probe, stop_deadline: float) -> Child:
        journal = Journal(name, layout.logs / f"{name}.log", echo=verbose)
        return Child(name, arguments, probe, journal, stop_deadline)

    first: list[Service] = []
    if settings.vault_addr is None:
        first.append(VaultService(EmbeddedVault(layout)))
    if settings.demo:
        simulator = settings.simulator_listen
        first.append(child("simulator", simulator_arguments(settings, layout), lambda: _answers(simulator, "/"), 5.0))
    server = child("server", server_arguments(settings, layout), lambda: _serves(settings), 15.0)
    sidecar_listen = settings.sidecar_listen
    sidecar = child("sidecar", sidecar_arguments(settings, layout), lambda: _answers(sidecar_listen, "/-/readyz"), 15.0)
    return Parts(tuple(first), (server, sidecar))


def server_arguments(settings: UpSettings, layout: StateLayout) -> list[str]:
    """`serve` with every setting as a flag, those of the embedded Vault put in. None of them is a secret."""
    values = {name: getattr(settings, name) for name in ServerSettings.model_fields}
    values["state_dir"] = layout.root
    values["bootstrap_keys"] = layout.keys
    if settings.vault_addr is None:
        values["vault_addr"] = f"unix://{layout.socket}"
        values["vault_secret_id_file"] = layout.approle
    given = [(flag(name), str(value)) for name, value in values.items() if value is not None]
    return ["serve", *(text for pair in given for text in pair)]


def sidecar_arguments(settings: UpSettings, layout: StateLayout) -> list[str]:
    """`sidecar` for the server that we run."""
    trust = ["--ca-file", str(settings.tls_cert)] if settings.tls_cert else []
    if settings.outbound_ca_file:
        trust += ["--upstream-ca", str(settings.outbound_ca_file)]
    for entry in (settings.client_certs or "").split():
        trust += ["--client-cert", entry]
    return [
        *("sidecar", "--server", server_address(settings), "--key-file", str(layout.keys / "sidecar.key")),
        *("--listen", str(settings.sidecar_listen), "--log-level", settings.log_level, *trust),
    ]


def simulator_arguments(settings: UpSettings, layout: StateLayout) -> list[str]:
    """`simulate` for the demo: client secret and state by file."""
    home = demo_home(layout)
    return [
        *("simulate", "--listen", str(settings.simulator_listen), "--state-file", str(home / "simulator.json")),
        *("--client-secret-file", str(client_secret_file(layout))),
        *("--redirect-uri", f"{settings.base_url}/oauth/callback/demo"),
    ]


def demo_home(layout: StateLayout) -> Path:
    """Where the demo keeps what is its own."""
    return layout.root / "demo"


def client_secret_file(layout: StateLayout) -> Path:
    """The demo's OAuth client secret, 0600."""
    return demo_home(layout) / "client.secret"


def server_address(settings: UpSettings) -> str:
    """Where to reach the server that we run."""
    return str(dialable(settings.grpc_listen))


def dialable(address: Address) -> Address:
    """The address to connect to for one that is listened on."""
    return Address(_WILDCARDS.get(address.host, address.host), address.port, address.path)


def _serves(settings: UpSettings) -> bool:
    channel = open_channel(server_address(settings), settings.tls_cert)
    try:
        return is_serving(channel, PROBE_TIMEOUT)
    except grpc.RpcError:
        return False
    finally:
        channel.close()


def _answers(address: Address, path: str) -> bool:
    return http_status(address, path, PROBE_TIMEOUT) == OK
