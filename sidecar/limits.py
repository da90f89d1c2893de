"""Every bound of the engine, in one place. A queue, a buffer or a wait without a line here is a bug."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Units: seconds, bytes, and numbers of connections."""

    head: float = 30.0
    """From a connection's first byte of a head to its last."""
    keep_alive: float = 75.0
    """An app's connection between requests."""
    upload_idle: float = 60.0
    """Between two pieces of a request's body."""
    lease: float = 15.0
    """For a lease to be had."""
    connect: float = 10.0
    """Waiting for an upstream connection: queue, DNS, TCP and TLS together."""
    first_byte: float = 120.0
    """From the whole request sent to the answer's head."""
    idle: float = 300.0
    """Between two pieces of an answer's body, a slow app included."""
    pool_idle: float = 30.0
    """An upstream connection between requests; below what providers allow (60 s and more)."""
    pool_age: float = 600.0
    """An upstream connection's age after which it takes no further request, so that a name's new addresses are used."""
    whole: float = 0.0
    """From a request's head to its answer's end, WebSockets apart. 0: no bound (`--timeout`)."""
    linger: float = 2.0
    """Reading on after an early answer, so that it is not lost to a reset."""
    drain: float = 10.0
    """For requests in flight when the process is told to end."""
    tick: float = 0.25
    """How exactly all of these are kept."""
    connections: int = 4096
    """Of apps. Fewer where the process may not have the file descriptors."""
    upstreams: int = 4096
    """Upstream connections of all origins, WebSockets' among them; fewer, as above. The one idle longest makes way."""
    per_origin: int = 128
    """Upstream connections to one origin."""
    waiting: int = 1024
    """Requests that wait for an upstream connection of one origin."""
    tunnels: int = 512
    """WebSockets that are open at once. Their idle time is `idle`, either way."""
    kept_body: int = 1 << 20
    """Of one request's body, for one resend."""
    kept_total: int = 64 << 20
    """Of all requests' bodies together."""
    interim: int = 16
    """1xx answers before the final one."""
    receive: int = 128 << 10
    """The one receive buffer."""
