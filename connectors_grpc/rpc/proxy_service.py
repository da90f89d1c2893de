"""ProxyService: parse, one use case, answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from connectors_grpc.boundary import caller, time_left
from connectors_grpc.credentials.leasing import GRANT_TTL, Leased, Leasing
from connectors_grpc.domain.ids import TenantId
from connectors_grpc.domain.records import ApiKey
from connectors_grpc.errors import ConnectorsError, Reason, invalid
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.proxy_service_pb2_grpc import ProxyServiceServicer
from connectors_grpc.ports import Change, Told
from connectors_grpc.proxying import Call, Proxying
from connectors_grpc.rpc import convert, definitions, parse
from connectors_grpc.secret import Secret
from connectors_grpc.streaming import PIECE, UPLOAD_IDLE, Behind, Head, Streaming
from connectors_grpc.trailers import MOST_BYTES, MOST_LINES, within_bounds
from connectors_grpc.watching import Event, Signal, Watching


class ProxyServicer(ProxyServiceServicer):
    """One for the server."""

    def __init__(self, proxying: Proxying, streaming: Streaming, leasing: Leasing, watching: Watching) -> None:
        self._proxying = proxying
        self._streaming = streaming
        self._leasing = leasing
        self._watching = watching

    async def Call(self, request: pb.CallRequest, _context: Any) -> pb.CallResponse:
        """See the contract."""
        reply = await self._proxying.call(
            caller(),
            parse.tenant_id(request.tenant),
            parse.credential_id(request.credential),
            _call(request),
            time_left(),
        )
        headers = [pb.Header(name=name, value=value) for name, value in reply.headers]
        return pb.CallResponse(http_status=reply.status, headers=headers, body=reply.body)

    async def CallStream(
        self, requests: AsyncIterator[pb.CallStreamRequest], _context: Any
    ) -> AsyncIterator[pb.CallStreamResponse]:
        """See the contract."""
        start = await _start(requests)
        answer = self._streaming.call(
            caller(),
            parse.tenant_id(start.tenant) if start.tenant else _only_tenant(caller()),
            parse.credential_id(start.credential),
            _call(start),
            _pieces(start.body, requests),
        )
        async with aclosing(answer) as parts:
            async for part in parts:
                if isinstance(part, Head):
                    yield pb.CallStreamResponse(start=_head(part))
                elif isinstance(part, Behind):
                    yield pb.CallStreamResponse(trailers=_trailers(part))
                else:
                    yield pb.CallStreamResponse(body=part)

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

    async def YieldLease(self, request: pb.YieldLeaseRequest, _context: Any) -> pb.YieldLeaseResponse:
        """See the contract."""
        self._watching.yielded(caller(), request.hold_id)
        return pb.YieldLeaseResponse()


def _call(request: pb.CallRequest) -> Call:
    return Call(
        method=request.method or "GET",
        path=request.path,
        headers=[(header.name, header.value) for header in request.headers],
        body=request.body,
    )


def _only_tenant(key: ApiKey) -> TenantId:
    """The one tenant that the key is bound to. Raises: INVALID_FIELD."""
    tenants = key.scope.tenants or {}
    if len(tenants) != 1:
        raise invalid("start.tenant", "a tenant id is wanted, for the key is not bound to one tenant")
    return next(iter(tenants))


async def _start(requests: AsyncIterator[pb.CallStreamRequest]) -> pb.CallRequest:
    """A stream's first part. Raises: INVALID_FIELD, DEADLINE_EXCEEDED."""
    try:
        async with asyncio.timeout(UPLOAD_IDLE):
            first = await anext(requests, None)
    except TimeoutError:
        raise ConnectorsError(Reason.DEADLINE_EXCEEDED) from None
    if first is None or first.WhichOneof("part") != "start":
        raise invalid("start", "the first part of a stream must be `start`")
    return first.start


async def _pieces(first: bytes, requests: AsyncIterator[pb.CallStreamRequest]) -> AsyncIterator[bytes | Behind]:
    """A body's pieces as they come, then its trailers. Raises: INVALID_FIELD."""
    if len(first) > PIECE:
        raise invalid("start.body", f"at most {PIECE} bytes a part")
    if first:
        yield first
    ended = False
    async for request in requests:
        part = request.WhichOneof("part")
        if ended or part not in ("body", "trailers") or len(request.body) > PIECE:
            raise invalid(
                "body", f"after `start`, parts of at most {PIECE} bytes of the body are wanted, then `trailers`"
            )
        ended = part == "trailers"
        yield _behind(request.trailers) if ended else request.body


def _behind(trailers: pb.Trailers) -> Behind:
    """Raises: INVALID_FIELD."""
    try:
        lines = [(line.name.encode("ascii"), line.value.encode("latin-1")) for line in trailers.headers]
    except UnicodeEncodeError:
        lines = []
    if len(lines) != len(trailers.headers) or not within_bounds(lines):
        raise invalid("trailers", f"up to {MOST_LINES} lines and {MOST_BYTES} bytes are wanted, names in ASCII")
    return Behind(tuple(lines))


def _trailers(behind: Behind) -> pb.Trailers:
    return pb.Trailers(
        headers=[pb.Header(name=name.decode("latin-1"), value=value.decode("latin-1")) for name, value in behind.lines]
    )


def _head(head: Head) -> pb.CallResponse:
    headers = [pb.Header(name=name, value=value) for name, value in head.headers]
    return pb.CallResponse(http_status=head.status, headers=headers, base_url=head.base_url)


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
        quota=convert.quota(use.tenant.quota),
        retry=definitions.retry(use.api.retry),
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
        rules=convert.rules(key),
    )


def _event(event: Event) -> pb.WatchLeasesResponse:
    match event:
        case Signal.RESYNC:
            return pb.WatchLeasesResponse(resync=pb.Resync())
        case Signal.HEARTBEAT:
            return pb.WatchLeasesResponse(heartbeat=pb.Heartbeat())
        case Told():
            return pb.WatchLeasesResponse(credential_held=_told(event))
        case Change(key=str(key)):
            return pb.WatchLeasesResponse(api_key_changed=pb.ApiKeyChanged(key_id=key))
        case Change(tenant=str(tenant), credential=str(credential)):
            return pb.WatchLeasesResponse(credential_changed=pb.CredentialChanged(tenant=tenant, credential=credential))
        case Change(tenant=str(tenant)):
            return pb.WatchLeasesResponse(tenant_changed=pb.TenantChanged(tenant=tenant))
        case _:
            return pb.WatchLeasesResponse(resync=pb.Resync())


def _told(told: Told) -> pb.CredentialHeld:
    return pb.CredentialHeld(
        tenant=told.hold.tenant,
        tenant_uid=told.hold.uid,
        credential=told.hold.credential,
        generation=told.hold.generation,
        hold_id=told.hold_id,
        ttl=convert.duration_of(timedelta(seconds=told.left)),
    )
