"""Our sidecar as it runs in production: its own process, uvloop, door, limits, time-outs and metrics on, leases by gRPC."""

from __future__ import annotations

import sys

from bench.sidecar import tools
from bench.sidecar.peers.base import NotInstalled, Peer, Setup
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from tests.ports import free_port
from tests.sidecar.harness import SIDECAR_KEY, Key, Leaser


class Ours(Peer):
    """Needs a Leaser that listens: `server` is its address."""

    name = "ours"
    server = ""

    def start(self) -> None:
        key_file = self.setup.work / "sidecar.key"
        key_file.write_text(SIDECAR_KEY)
        self.metrics = free_port()
        args = [sys.executable, "-m", "sidecar", "--listen", f"127.0.0.1:{self.port}", "--server", self.server]
        args += ["--key-file", str(key_file), "--upstream-ca", str(self.setup.upstream.ca)]
        self.launch([*args, "--metrics-listen", f"127.0.0.1:{self.metrics}"], self.environment())

    def environment(self) -> dict[str, str]:
        """On top of this process's."""
        return {}

    @staticmethod
    def version() -> str:
        return tools.version(sys.executable, "--version")


class Compiled(Ours):
    """The same sources, of which the hot path is compiled by mypyc, where `make compiled` was run."""

    name = "ours-compiled"

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(tools.COMPILED), "PYTHONSAFEPATH": "1"}

    def start(self) -> None:
        if not tools.COMPILED.exists():
            raise NotInstalled("make compiled")
        super().start()


def leases(leaser: Leaser, setup: Setup, key: Key) -> None:
    """Let the server know every tenant's credential."""
    leaser.allow(key, ["*"], ["*"], ttl=3600)
    leaser.leases.clear()
    for tenant, token in setup.tokens.items():
        lease = pb.Lease(
            tenant=tenant,
            tenant_uid=f"uid-{tenant}",
            credential="notes",
            integration="notes",
            generation=1,
            base_url=setup.url,
            allowed_hosts=[setup.target],
            headers=[pb.InjectedField(name="Authorization", value=f"Bearer {token}")],
            default_headers=[pb.Header(name="Notion-Version", value="2025-09-03")],
            allow_private_addresses=True,
            refreshable=True,
        )
        lease.refresh_after_ttl.seconds = 3600
        lease.grace_ttl.seconds = 3600
        leaser.leases[tenant, "notes"] = lease
