"""What is said once everything runs: addresses, where the keys lie, what to try. Never a key itself."""

from __future__ import annotations

import shlex

from connectors_grpc.addresses import default_state_dir
from connectors_grpc.cli.connection import DEFAULT_SERVER
from connectors_grpc.embedded import StateLayout
from connectors_grpc.settings import UpSettings
from connectors_grpc.supervisor.parts import dialable, server_address


def summary(settings: UpSettings, layout: StateLayout, demo_line: str | None, seconds: float) -> list[str]:
    """The lines.  Units: seconds that the start took."""
    admin = layout.keys / "admin.key"
    sidecar = settings.sidecar_listen
    lines = [
        "",
        f"Connectors is up, {seconds:.1f} s after it was asked to be.",
        f"  gRPC       {dialable(settings.grpc_listen)}",
        f"  HTTP       {settings.base_url}",
        f"  sidecar    {sidecar if sidecar.path else f'http://{sidecar}'}",
        f"  Vault      {settings.vault_addr or 'embedded OpenBao'}",
        f"  state      {layout.root}",
        f"  logs       {layout.logs}",
        f"  admin key  {admin if admin.exists() else 'given out earlier; it is not kept here any more'}",
    ]
    if settings.demo:
        lines.append(f"  simulator  http://{settings.simulator_listen}")
    if demo_line:
        lines += ["", "Try it: an app calls as the tenant `demo`, and never sees its token.", f"  {demo_line}"]
    if wanted := exports(settings, layout):
        lines += ["", "For the other commands, in another terminal:", f"  export {' '.join(wanted)}"]
    return [*lines, "", "Ctrl-C ends it."]


def exports(settings: UpSettings, layout: StateLayout) -> list[str]:
    """What the other commands must be told, as their defaults would not find this server."""
    told = {}
    if (server := server_address(settings)) != DEFAULT_SERVER:
        told["CONNECTORS_SERVER"] = server
    if layout.root != default_state_dir():
        told["CONNECTORS_STATE_DIR"] = str(layout.root)
    if settings.tls_cert:
        told["CONNECTORS_CA_FILE"] = str(settings.tls_cert)
    return [f"{name}={shlex.quote(value)}" for name, value in told.items()]
