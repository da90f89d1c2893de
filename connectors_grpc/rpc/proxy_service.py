"""ProxyService: parse, one use case, answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from connectors_grpc.boundary import caller, time_left
from connectors_grpc.credentials.leasing import GRANT_TTL, Leased, Leasing
from connectors_grpc.domain.records import ApiKey
from connectors_grpc.errors import ConnectorsError, Reason, invalid
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.proxy_service_pb2_grpc import ProxyServiceServicer
from connectors_grpc.ports import Change
from connectors_grpc.proxying import Call, Proxying
from connectors_grpc.rpc import convert, parse
from connectors_grpc.secret import Secret
from connectors_grpc.watching import Event, Signal, Watching


class ProxyServicer(ProxyServiceServicer):
    """One for the server."""

    def __init__(self, proxying: Proxying, leasing: Leasing, watching: Watching) -> None:
        self._proxying = proxying
        self._leasing = leasing
        self._watching = watching

    async def Call(self, request: pb.CallRequest, _context: Any) -> pb.CallResponse:
        """See the contract."""
        reply = await self._proxying.call(
            caller(),
            parse.tenant_id(request.tenant),
            parse.credential_id(request.credential),
            Call(
                method=request.method or "GET",
                path=request.path,
                headers=[(header.name, header.value) for header in request.headers],
                body=request.body,
            ),
            time_left(),
        )
        headers = [pb.Header(name=name, value=value) for name, value in reply.headers]
        return pb.CallResponse(http_status=reply.status, headers=headers, body=reply.body)

    async def CallStream(self, _requests: Any, _context: Any) -> AsyncIterator[pb.CallStreamResponse]:
        """Not yet."""
        raise ConnectorsError(Reason.NOT_IMPLEMENTED, {"rpc": "CallStream"})
        yield pb.CallStreamResponse()

    async def Lease(self, request: pb.LeaseRequest, _context: Any) -> pb.LeaseResponse:
        """See the contract."""
        proof = None
        if request.HasField("app_key"):
            if len(request.app_key.sha256) != 32:
                raise invalid("app_key.sha256", "the 32 bytes of a SHA-256 are wanted")
            proof = parse.key_id(request.app_key.key_id, "app_key.key_id"), request.app_key.sha256
        leased = await self._leasing.lease(
            caller(),
            parse.tenant_id(request.tenant) if request.tenant else None,
            parse.credential_id(request.credential),
            proof=proof,
            rejected_generation=request.rejected_generation,
        )
        return pb.LeaseResponse(lease=_lease(leased), app_grant=_grant(leased.grant))

    async def WatchLeases(
        self, _request: pb.WatchLeasesRequest, _context: Any
    ) -> AsyncIterator[pb.WatchLeasesResponse]:
        """See the contract."""
        async for event in self._watching.events(caller()):
            yield _event(event)


def _lease(leased: Leased) -> pb.Lease:
    use = leased.use
    credential = use.held.credential
    return pb.Lease(
        tenant=use.tenant.id,
        tenant_uid=use.tenant.uid,
        credential=credential.id,
        integration=credential.integration,
        generation=credential.generation,
        base_url=use.api.base_url,
        allowed_hosts=use.allowed_hosts,
        headers=_fields(use.injection.headers),
        query=_fields(use.injection.query),
        default_headers=[pb.Header(name=name, value=value) for name, value in use.api.default_headers.items()],
        refused_urls=use.refused_urls,
        allow_private_addresses=use.integration.allow_private_addresses,
        pass_cookies=use.api.pass_cookies,
        expire_time=convert.time_of(credential.expire_time),
        refreshable=credential.refreshable,
        issue_time=convert.time_of(credential.issue_time),
        refresh_after_ttl=convert.duration_of(leased.refresh_after),
        grace_ttl=convert.duration_of(leased.grace),
    )


def _fields(fields: Any) -> list[pb.InjectedField]:
    found: list[tuple[str, Secret]] = list(fields.items())
    return [pb.InjectedField(name=name, value=value.reveal()) for name, value in found]


def _grant(key: ApiKey | None) -> pb.AppGrant | None:
    if key is None:
        return None
    return pb.AppGrant(
        key_id=key.id,
        tenants=convert.names(key.scope.tenants),
        credentials=convert.names(key.scope.credentials),
        expire_time=convert.time_of(key.expire_time),
        ttl=convert.duration_of(GRANT_TTL),
    )


def _event(event: Event) -> pb.WatchLeasesResponse:
    match event:
        case Signal.RESYNC:
            return pb.WatchLeasesResponse(resync=pb.Resync())
        case Signal.HEARTBEAT:
            return pb.WatchLeasesResponse(heartbeat=pb.Heartbeat())
        case Change(key=str(key)):
            return pb.WatchLeasesResponse(api_key_changed=pb.ApiKeyChanged(key_id=key))
        case Change(tenant=str(tenant), credential=str(credential)):
            return pb.WatchLeasesResponse(credential_changed=pb.CredentialChanged(tenant=tenant, credential=credential))
        case Change(tenant=str(tenant)):
            return pb.WatchLeasesResponse(tenant_changed=pb.TenantChanged(tenant=tenant))
        case _:
            return pb.WatchLeasesResponse(resync=pb.Resync())
