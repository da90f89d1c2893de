"""What tests use as the other side: the simulator, a recording raw upstream, a browser, the certified provider.

`async with running_simulator(settings) as sim`, `async with recording_upstream() as up`,
`async with browser() as person: page = await person.consent(link)`, `async with running_oidc_provider([...])`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from connectors_grpc.simulator import Simulator, SimulatorSettings
from connectors_grpc.simulator.server import running
from tests.browser import Browser, browser
from tests.oidc.harness import OidcProvider, running_oidc_provider
from tests.upstream import RecordingUpstream, UpstreamRequest, recording_upstream

__all__ = [
    "Browser",
    "Clock",
    "OidcProvider",
    "RecordingUpstream",
    "UpstreamRequest",
    "browser",
    "recording_upstream",
    "running_oidc_provider",
    "running_simulator",
]


@dataclass(slots=True)
class Clock:
    """A clock that a test moves. Units: seconds since the epoch."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.now += seconds


def running_simulator(
    settings: SimulatorSettings, clock: Callable[[], float] = time.time
) -> contextlib.AbstractAsyncContextManager[Simulator]:
    """The simulator on a free port of this loop: gives `.url`, `.record`, `.clients`, `.next_replies`, `.book`."""
    return running(settings, clock)
