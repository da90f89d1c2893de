"""A server's API as this package uses it: stubs, and how a failed call is told to people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import grpc

from connectors_grpc.gen.connectors.v1.credential_service_pb2_grpc import CredentialServiceStub
from connectors_grpc.gen.connectors.v1.integration_service_pb2_grpc import IntegrationServiceStub
from connectors_grpc.gen.connectors.v1.tenant_service_pb2_grpc import TenantServiceStub

AT_ONCE = 8
"""Unary calls under way. A server answers no faster for more: the Vault behind it is what takes the time."""
PAGE = 500
LONGEST = 6 * 3600.0
"""Seconds for a stream of credentials."""

Item = TypeVar("Item")
Value = TypeVar("Value")


class Api(Protocol):
    """What the command line's session has."""

    @property
    def tenants(self) -> TenantServiceStub:
        """TenantService."""

    @property
    def integrations(self) -> IntegrationServiceStub:
        """IntegrationService."""

    @property
    def credentials(self) -> CredentialServiceStub:
        """CredentialService."""


Explain = Callable[[grpc.RpcError], str]
"""A failed call in words: the reason, the fields, and what to do; never a secret."""
Reason = Callable[[grpc.RpcError], str]
"""A failed call's reason alone: NOT_FOUND's kinds are answers, not failures."""


def each(work: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[tuple[Item, Value]]:
    """What `work` gives for each item, in their order, up to AT_ONCE at a time. Raises: what `work` raises."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wanted = list(items)
        yield from zip(wanted, pool.map(work, wanted), strict=True)
