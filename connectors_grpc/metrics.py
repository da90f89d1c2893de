"""What the server counts, and the page of it. Labels are RPCs, reasons and results: never a tenant, a URL or a key.

It watches from outside: `Boundary` and `VaultClient` say how each call ended, ports are wrapped, the rest is looked at when
the page is asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from connectors_grpc import policy
from connectors_grpc.errors import ConnectorsError
from connectors_grpc.ports import Audit, HttpReply, HttpRequest, Outbound

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds, the sidecar's too. Units: seconds."""
UNKNOWN = "unknown"
"""Takes RPCs that there are not: callers choose their names."""
_NUMBER = re.compile(r"[0-9]+")


class Metrics:
    """One for the process; its own registry, so that a second server in one process counts for itself."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._rpcs = Counter("connectors_rpcs", "Calls by how they ended.", ("rpc", "reason"), registry=self._registry)
        self._rpc_seconds = self._histogram("rpc", "Of calls, streams included.", "rpc")
        self._vault_seconds = self._histogram(
            "vault_request", "Of requests to the Vault, by what came of them.", "result"
        )
        self._provider_seconds = self._histogram(
            "provider_request", "Of requests to providers' token, revocation and identity endpoints.", "result"
        )
        self._acts = Counter(
            "connectors_audited", "Lines of the audit trail.", ("action", "result"), registry=self._registry
        )
        ProcessCollector(registry=self._registry)

    def _histogram(self, name: str, text: str, label: str) -> Histogram:
        return Histogram(
            f"connectors_{name}_duration_seconds", text, (label,), buckets=BUCKETS, registry=self._registry
        )

    def rpc(self, method: str, reason: str, seconds: float) -> None:
        """A call ended."""
        known = method in policy.RULES
        name = method.removeprefix("/connectors.v1.") if known else UNKNOWN
        self._rpcs.labels(name, reason).inc()
        self._rpc_seconds.labels(name).observe(seconds)

    def vault(self, result: str, seconds: float) -> None:
        """A request to the Vault ended: `answered`, or `unavailable`."""
        self._vault_seconds.labels(result).observe(seconds)

    def provider(self, result: str, seconds: float) -> None:
        """A request to a provider ended: `2xx` and so on, or a reason."""
        self._provider_seconds.labels(result).observe(seconds)

    def audited(self, action: str, result: str) -> None:
        """A line was written. Statuses of calls are counted by class, results without their numbers: callers choose those."""
        status = len(result) == 3 and result.isdigit()
        self._acts.labels(action, f"{result[0]}xx" if status else _NUMBER.sub("N", result)).inc()

    def look_at(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """Gauges by name, with a text and what to ask when the page is asked for."""
        for name, (text, asked) in gauges.items():
            Gauge(f"connectors_{name}", text, registry=self._registry).set_function(asked)

    def page(self) -> bytes:
        """All of it, in the text format 0.0.4 of Prometheus."""
        return generate_latest(self._registry)


class CountedAudit:
    """`ports.Audit` that counts what it passes on."""

    def __init__(self, audit: Audit, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics

    def record(
        self, action: str, *, caller: str, result: str, tenant: str = "", target: str = "", generation: int = 0
    ) -> None:
        """See ports.Audit."""
        self._metrics.audited(action, result)
        self._audit.record(action, caller=caller, result=result, tenant=tenant, target=target, generation=generation)


class TimedOutbound:
    """`ports.Outbound` that times what it passes on."""

    def __init__(self, outbound: Outbound, metrics: Metrics) -> None:
        self._outbound = outbound
        self._metrics = metrics

    async def send(self, request: HttpRequest) -> HttpReply:
        """See ports.Outbound."""
        began, result = time.monotonic(), "cancelled"
        try:
            reply = await self._outbound.send(request)
            result = f"{reply.status // 100}xx"
        except ConnectorsError as error:
            result = error.reason.value
            raise
        finally:
            self._metrics.provider(result, time.monotonic() - began)
        return reply
