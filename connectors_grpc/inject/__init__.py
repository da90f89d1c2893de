"""How a credential is put into a request: which hosts it may go to, which fields it fills, which headers pass.

Written once, for the server's Call and for the sidecar alike; the sidecar imports nothing else that knows of credentials.
Pure: bytes in, bytes out. It must not know where a credential comes from, nor how a request is sent.

Two moments. `resolve` turns a definition's templates and a credential's fields into an `Injection`: the server does that, once
a lease. `Plan.of` compiles an injection into bytes, once a lease; `parse_target`, `Plan.target`, `Plan.request_headers` and
`Plan.response_headers` are the hot path.
"""

from connectors_grpc.inject.plan import Headers, HostNotAllowed, PathNotAllowed, Plan
from connectors_grpc.inject.rules import CallNotAllowed, RuleRefused, Rules
from connectors_grpc.inject.target import Target, TargetRefused, authority, parse_target
from connectors_grpc.inject.templates import FieldRefused, Injection, PlaceholderUnresolved, resolve
from connectors_grpc.inject.trailers import request_trailers, response_trailers

__all__ = [
    "CallNotAllowed",
    "FieldRefused",
    "Headers",
    "HostNotAllowed",
    "Injection",
    "PathNotAllowed",
    "PlaceholderUnresolved",
    "Plan",
    "RuleRefused",
    "Rules",
    "Target",
    "TargetRefused",
    "authority",
    "parse_target",
    "request_trailers",
    "resolve",
    "response_trailers",
]
