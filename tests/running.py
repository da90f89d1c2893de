"""The whole server in the tests' process, over a real OpenBao, spoken to through real channels.

`server` is one for the session: use a tenant id of your own in each test (`fresh_id`).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from connectors_grpc import app
from connectors_grpc.addresses import Address
from connectors_grpc.gen.connectors.v1 import (
    access_service_pb2 as access,
)
from connectors_grpc.gen.connectors.v1 import (
    access_service_pb2_grpc,
    credential_service_pb2_grpc,
    integration_service_pb2_grpc,
    proxy_service_pb2_grpc,
    tenant_service_pb2_grpc,
)
from connectors_grpc.gen.connectors.v1 import (
    credential_service_pb2 as credentials,
)
from connectors_grpc.gen.connectors.v1 import (
    integration_service_pb2 as integrations,
)
from connectors_grpc.gen.connectors.v1 import (
    proxy_service_pb2 as proxy,
)
from connectors_grpc.gen.connectors.v1 import (
    tenant_service_pb2 as tenants,
)
from connectors_grpc.ports import Clock
from connectors_grpc.settings import ServerSettings
from tests.openbao import OpenBao
from tests.ports import free_port

_numbers = itertools.count(1)


def fresh_id(name: str = "t") -> str:
    """An id that no other test uses."""
    return f"{name}-{next(_numbers)}"


class Refused(Exception):
    """A call ended with an error, read the way a client reads it."""

    def __init__(self, error: grpc.RpcError) -> None:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        assert status is not None, f"no google.rpc.Status came with {error.code()}"
        infos, self.fields, self.retry_after = [], [], None
        for detail in status.details:
            info, bad, retry = (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.BadRequest(),
                error_details_pb2.RetryInfo(),
            )
            if detail.Unpack(info):
                infos.append(info)
            elif detail.Unpack(bad):
                self.fields = [violation.field for violation in bad.field_violations]
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        assert len(infos) == 1, "exactly one ErrorInfo"
        self.code: grpc.StatusCode = error.code()
        self.reason = infos[0].reason
        self.metadata = dict(infos[0].metadata)
        self.text = status.message
        super().__init__(f"{self.code.name} {self.reason} {self.metadata} {self.fields}")


@contextmanager
def refusals() -> Iterator[None]:
    """Turn a failed call into `Refused`."""
    try:
        yield
    except grpc.RpcError as error:
        raise Refused(error) from None


@contextmanager
def refused(reason: str, **metadata: str) -> Iterator[None]:
    """The block must be refused for that reason, and say at least that metadata."""
    with pytest.raises(Refused) as caught, refusals():
        yield
    assert caught.value.reason == reason, caught.value
    assert metadata.items() <= caught.value.metadata.items(), caught.value


@dataclass
class Client:
    """One key's view of the API. Calls take keyword arguments of the request."""

    channel: grpc.aio.Channel
    key: str = field(repr=False)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """How the key is sent."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    async def call(self, rpc: str, request: Any, timeout: float = 60) -> Any:
        """One unary call by name. Raises: Refused."""
        stubs = (
            tenant_service_pb2_grpc.TenantServiceStub,
            integration_service_pb2_grpc.IntegrationServiceStub,
            credential_service_pb2_grpc.CredentialServiceStub,
            proxy_service_pb2_grpc.ProxyServiceStub,
            access_service_pb2_grpc.AccessServiceStub,
        )
        method = next(found for stub in stubs if (found := getattr(stub(self.channel), rpc, None)))
        with refusals():
            return await method(request, metadata=self.metadata, timeout=timeout)

    async def create_tenant(self, tenant: str | None = None, **fields: Any) -> tenants.Tenant:
        """A tenant, of a fresh id unless one is given."""
        request = tenants.CreateTenantRequest(tenant_id=tenant or fresh_id(), **fields)
        made: tenants.Tenant = (await self.call("CreateTenant", request)).tenant
        return made

    async def create_integration(self, integration: str, **definition: Any) -> integrations.Integration:
        """An integration."""
        request = integrations.CreateIntegrationRequest(
            integration_id=integration, integration=integrations.Integration(**definition)
        )
        made: integrations.Integration = (await self.call("CreateIntegration", request)).integration
        return made

    async def create_key(self, roles: list[int], tenants: list[str], **fields: Any) -> str:
        """A key's text."""
        wanted = access.ApiKey(roles=roles, tenants=tenants, **fields)  # type: ignore[arg-type]
        made: str = (await self.call("CreateApiKey", access.CreateApiKeyRequest(api_key=wanted))).secret
        return made

    async def store(self, tenant: str, integration: str, **fields: Any) -> credentials.Credential:
        """A stored credential."""
        request = credentials.StoreCredentialRequest(tenant=tenant, integration=integration, **fields)
        made: credentials.Credential = (await self.call("StoreCredential", request)).credential
        return made

    async def keyed_api(
        self, tenant: str, base_url: str, key: str, *, oauth: dict[str, Any] | None = None, **api: Any
    ) -> str:
        """An integration of a test's own, whose calls bear an API key, with that key stored for a tenant. Its id."""
        name = fresh_id("api")
        api = {"base_url": base_url, "placement": {"headers": {"Authorization": "Bearer {api_key}"}}, **api}
        await self.create_integration(name, oauth=oauth, api=api, allow_private_addresses=True)
        await self.store(tenant, name, api_key={"api_key": key})
        return name

    async def proxied(self, tenant: str, credential: str, path: str, **fields: Any) -> proxy.CallResponse:
        """ProxyService.Call."""
        request = proxy.CallRequest(tenant=tenant, credential=credential, path=path, **fields)
        made: proxy.CallResponse = await self.call("Call", request)
        return made


@dataclass
class Server:
    """A running server."""

    grpc_address: str
    http_url: str
    keys: Path
    channel: grpc.aio.Channel

    def client(self, key: str = "") -> Client:
        """A client with that key; without one, none is sent."""
        return Client(self.channel, key)

    @property
    def admin(self) -> Client:
        """The first admin key's."""
        return self.client((self.keys / "admin.key").read_text().strip())

    @property
    def sidecar(self) -> Client:
        """The first sidecar key's."""
        return self.client((self.keys / "sidecar.key").read_text().strip())

    async def app(self, tenant: str, role: int = access.ROLE_APP, **fields: Any) -> Client:
        """A client with a new key for one tenant, role `app` unless another is given."""
        return self.client(await self.admin.create_key([role], [tenant], **fields))


@asynccontextmanager
async def running_server(
    openbao: OpenBao, keys: Path, *, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Server]:
    """A server over that OpenBao, on free ports, by the system's clock unless one is given."""
    http_port = free_port()
    wanted = ServerSettings(
        grpc_listen=Address("127.0.0.1", 0),
        http_listen=Address("127.0.0.1", http_port),
        vault_secret_id_file=openbao.vault.secret_id_file,
        bootstrap_keys=keys,
        **{
            "state_dir": keys.parent / f"{keys.name}-{http_port}",
            "vault_addr": openbao.address,
            **settings,
        },
    )
    async with app.running(wanted, clock=clock) as grpc_server:
        address = f"127.0.0.1:{grpc_server.port}"
        async with grpc.aio.insecure_channel(address) as channel:
            yield Server(address, f"http://127.0.0.1:{http_port}", keys, channel)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(openbao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One server for the session."""
    async with running_server(openbao, tmp_path_factory.mktemp("keys")) as found:
        yield found
