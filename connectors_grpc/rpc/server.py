"""The gRPC server: services, boundary, health, reflection, channelz, limits, and how it stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_channelz.v1 import channelz
from grpc_channelz.v1 import channelz_pb2 as channelz_messages
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from connectors_grpc.boundary import Boundary
from connectors_grpc.gen.connectors.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    integration_service_pb2,
    integration_service_pb2_grpc,
    proxy_service_pb2,
    proxy_service_pb2_grpc,
    tenant_service_pb2,
    tenant_service_pb2_grpc,
)
from connectors_grpc.rpc.access_service import AccessServicer
from connectors_grpc.rpc.credential_service import CredentialServicer
from connectors_grpc.rpc.integration_service import IntegrationServicer
from connectors_grpc.rpc.interceptor import BoundaryInterceptor
from connectors_grpc.rpc.proxy_service import ProxyServicer
from connectors_grpc.rpc.tenant_service import TenantServicer
from connectors_grpc.settings import ServerSettings

SERVING = health_pb2.HealthCheckResponse.SERVING
MOST_MESSAGE = 8 * 1024 * 1024
OPTIONS: Sequence[tuple[str, int | str]] = (
    ("grpc.max_receive_message_length", MOST_MESSAGE),
    ("grpc.max_send_message_length", MOST_MESSAGE),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.so_reuseport", 0),
    # Clients spread over replicas; the library adds 10 % of jitter (gRFC A9).
    ("grpc.max_connection_age_ms", 30 * 60 * 1000),
    ("grpc.max_connection_age_grace_ms", 60 * 1000),
    ("grpc.keepalive_time_ms", 60 * 1000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10 * 1000),
)
DESCRIPTORS = tuple(
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (tenant_service_pb2, "TenantService"),
        (integration_service_pb2, "IntegrationService"),
        (credential_service_pb2, "CredentialService"),
        (proxy_service_pb2, "ProxyService"),
        (access_service_pb2, "AccessService"),
    )
)
SERVICES = tuple(descriptor.full_name for descriptor in DESCRIPTORS)


@dataclass(frozen=True, slots=True)
class Servicers:
    """One of each service."""

    tenant: TenantServicer
    integration: IntegrationServicer
    credential: CredentialServicer
    proxy: ProxyServicer
    access: AccessServicer

    def handlers(self) -> dict[str, Any]:
        """Every method by its RPC path, for other doors to the same servicers."""
        servicers = (self.tenant, self.integration, self.credential, self.proxy, self.access)
        return {
            f"/{descriptor.full_name}/{method.name}": getattr(servicer, method.name)
            for descriptor, servicer in zip(DESCRIPTORS, servicers, strict=True)
            for method in descriptor.methods
        }


class GrpcServer:
    """Listens on `settings.grpc_listen`; `port` says where after `start`."""

    def __init__(self, servicers: Servicers, boundary: Boundary, settings: ServerSettings) -> None:
        self._settings = settings
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=(BoundaryInterceptor(boundary),), options=OPTIONS, maximum_concurrent_rpcs=2000
        )
        tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(servicers.tenant, self._server)
        integration_service_pb2_grpc.add_IntegrationServiceServicer_to_server(servicers.integration, self._server)
        credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(servicers.credential, self._server)
        proxy_service_pb2_grpc.add_ProxyServiceServicer_to_server(servicers.proxy, self._server)
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(servicers.access, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        channelz.add_channelz_servicer(self._server)
        names = (*SERVICES, health.SERVICE_NAME, channelz_messages.DESCRIPTOR.services_by_name["Channelz"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)
        self.port = 0

    async def start(self) -> None:
        """Listen and say SERVING. Raises: OSError, the address in its text."""
        where = str(self._settings.grpc_listen)
        try:
            if self._settings.tls_cert and self._settings.tls_key:
                pair = (self._settings.tls_key.read_bytes(), self._settings.tls_cert.read_bytes())
                self.port = self._server.add_secure_port(where, grpc.ssl_server_credentials([pair]))
            else:
                self.port = self._server.add_insecure_port(where)
        except RuntimeError:
            raise OSError(
                f"{where} can't be listened on: is the port in use? Choose another by --grpc-listen."
            ) from None
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, SERVING)

    async def drain(self) -> None:
        """Say NOT_SERVING, so that balancers look elsewhere."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """No new calls; those under way have `grace` seconds."""
        await self._server.stop(grace)
