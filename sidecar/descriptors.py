"""How many connections the process may have, by the file descriptors that it may. Below the bound an `accept` never fails.

That matters: where it fails, the event loop is told of the same connection again and again, and spins.
"""

from __future__ import annotations

import resource
from dataclasses import replace

from connectors_grpc.logs import get
from sidecar.limits import Limits

log = get("sidecar.descriptors")

RESERVE = 64
"""For all else: listeners, the server's channel, look-ups, dials under way, logs."""
FEWEST = 8


def fitted(limits: Limits) -> Limits:
    """The bounds that the process can keep: its soft limit of descriptors is raised as far as that is needed and allowed."""
    wanted = limits.connections + limits.upstreams + RESERVE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    if raised >= wanted:
        return limits
    half = max(FEWEST, (raised - RESERVE) // 2)
    log.warning("descriptors.few", result=f"{half} connections of apps and {half} to upstreams")
    return replace(limits, connections=min(limits.connections, half), upstreams=min(limits.upstreams, half))
