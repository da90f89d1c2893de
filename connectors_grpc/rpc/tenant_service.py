"""TenantService: parse, one use case, answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from connectors_grpc.boundary import caller, check_item
from connectors_grpc.deleting import Deleting
from connectors_grpc.domain.ids import OperationId
from connectors_grpc.domain.records import TenantState
from connectors_grpc.errors import ConnectorsError, invalid
from connectors_grpc.fleet import Fleet
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.tenant_service_pb2_grpc import TenantServiceServicer
from connectors_grpc.operations import Operations
from connectors_grpc.rotating import Rotating
from connectors_grpc.rpc import convert, parse
from connectors_grpc.rpc.operation import operation
from connectors_grpc.several import several
from connectors_grpc.tenants import Tenants

MOST_AT_ONCE = 100
SUSPEND = "/connectors.v1.TenantService/SuspendTenant"
RESUME = "/connectors.v1.TenantService/ResumeTenant"


class TenantServicer(TenantServiceServicer):
    """One for the server."""

    def __init__(
        self, tenants: Tenants, deleting: Deleting, rotating: Rotating, operations: Operations, fleet: Fleet
    ) -> None:
        self._tenants = tenants
        self._deleting = deleting
        self._rotating = rotating
        self._operations = operations
        self._fleet = fleet

    async def CreateTenant(self, request: pb.CreateTenantRequest, _context: Any) -> pb.CreateTenantResponse:
        """See the contract."""
        return pb.CreateTenantResponse(tenant=await self._create(request))

    async def _create(self, request: pb.CreateTenantRequest) -> pb.Tenant:
        tenant = await self._tenants.create(
            caller(),
            parse.tenant_id(request.tenant_id, "tenant_id"),
            display_name=parse.display_name(request.tenant.display_name, "tenant.display_name"),
            labels=parse.labels(request.tenant.labels, "tenant.labels"),
            request_id=parse.request_id(request.request_id),
            validate_only=request.validate_only,
            quota=parse.quota(request.tenant.quota, "tenant.quota"),
            integrations=parse.allowed_integrations(request.tenant, "tenant"),
        )
        return convert.tenant(tenant)

    async def GetTenant(self, request: pb.GetTenantRequest, _context: Any) -> pb.GetTenantResponse:
        """See the contract."""
        tenant = await self._tenants.get(caller(), parse.tenant_id(request.tenant), fresh=True)
        return pb.GetTenantResponse(tenant=convert.tenant(tenant))

    async def ListTenants(self, request: pb.ListTenantsRequest, _context: Any) -> pb.ListTenantsResponse:
        """See the contract."""
        after, limit = parse.page(request.page_size, request.page_token)
        page = await self._tenants.list(caller(), after=after, limit=limit)
        return pb.ListTenantsResponse(tenants=map(convert.tenant, page.tenants), next_page_token=page.next)

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, _context: Any) -> pb.UpdateTenantResponse:
        """See the contract."""
        wanted = request.tenant
        named = parse.mask(request.update_mask, wanted, ("display_name", "labels", "quota", "allowed_integrations"))
        fields = {
            "display_name": ("display_name", parse.display_name(wanted.display_name, "tenant.display_name")),
            "labels": ("labels", parse.labels(wanted.labels, "tenant.labels")),
            "quota": ("quota", parse.quota(wanted.quota, "tenant.quota")),
            "allowed_integrations": ("integrations", parse.allowed_integrations(wanted, "tenant")),
        }
        tenant = await self._tenants.update(
            caller(),
            parse.tenant_id(wanted.id, "tenant.id"),
            version=parse.version(wanted.etag),
            changes=dict(fields[name] for name in named),
        )
        return pb.UpdateTenantResponse(tenant=convert.tenant(tenant))

    async def DeleteTenant(self, request: pb.DeleteTenantRequest, _context: Any) -> pb.DeleteTenantResponse:
        """See the contract."""
        begun = await self._deleting.delete(
            caller(), parse.tenant_id(request.tenant), force=request.force, version=parse.version(request.etag)
        )
        return pb.DeleteTenantResponse(operation=operation(begun))

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, _context: Any) -> pb.SuspendTenantResponse:
        """See the contract."""
        tenant_id = parse.tenant_id(request.tenant)
        tenant = await self._tenants.set_state(caller(), tenant_id, TenantState.SUSPENDED, "SuspendTenant")
        return pb.SuspendTenantResponse(tenant=convert.tenant(tenant))

    async def ResumeTenant(self, request: pb.ResumeTenantRequest, _context: Any) -> pb.ResumeTenantResponse:
        """See the contract."""
        tenant_id = parse.tenant_id(request.tenant)
        tenant = await self._tenants.set_state(caller(), tenant_id, TenantState.ACTIVE, "ResumeTenant")
        return pb.ResumeTenantResponse(tenant=convert.tenant(tenant))

    async def GetTenantStatus(self, request: pb.GetTenantStatusRequest, _context: Any) -> pb.GetTenantStatusResponse:
        """See the contract."""
        status = await self._deleting.status(caller(), parse.tenant_id(request.tenant))
        return pb.GetTenantStatusResponse(
            tenant=convert.tenant(status.tenant),
            credentials_by_state={state.value: count for state, count in status.by_state.items()},
            needs_reauth=status.needs_reauth,
        )

    async def ListTenantStatuses(
        self, request: pb.ListTenantStatusesRequest, _context: Any
    ) -> pb.ListTenantStatusesResponse:
        """See the contract."""
        after, limit = parse.page(request.page_size, request.page_token)
        page = await self._fleet.list(caller(), after=after, limit=limit, needing=request.needs_attention)
        statuses = [
            pb.TenantStatus(
                tenant=convert.tenant(one.tenant),
                credentials_by_state={state.value: count for state, count in one.by_state.items()},
                needs_reauth=one.needs_reauth,
                needs_attention=one.needs_attention,
                unreadable_count=one.unreadable,
                counted_partly=one.partly,
            )
            for one in page.tenants
        ]
        return pb.ListTenantStatusesResponse(statuses=statuses, next_page_token=page.next)

    async def GetOperation(self, request: pb.GetOperationRequest, _context: Any) -> pb.GetOperationResponse:
        """See the contract."""
        operation_id = OperationId(parse.label(request.operation, "operation"))
        return pb.GetOperationResponse(operation=operation(await self._operations.get(caller(), operation_id)))

    async def RotateTenantKey(self, request: pb.RotateTenantKeyRequest, _context: Any) -> pb.RotateTenantKeyResponse:
        """See the contract."""
        begun = await self._rotating.tenant(caller(), parse.tenant_id(request.tenant))
        return pb.RotateTenantKeyResponse(operation=operation(begun))

    async def BatchCreateTenants(
        self, request: pb.BatchCreateTenantsRequest, _context: Any
    ) -> pb.BatchCreateTenantsResponse:
        """See the contract."""
        if not 1 <= len(request.requests) <= MOST_AT_ONCE:
            raise invalid("requests", f"1 to {MOST_AT_ONCE} are wanted")
        return pb.BatchCreateTenantsResponse(results=await several(self._result, request.requests))

    async def _result(self, request: pb.CreateTenantRequest) -> pb.BatchCreateTenantsResult:
        try:
            return pb.BatchCreateTenantsResult(tenant=await self._create(request))
        except ConnectorsError as error:
            return pb.BatchCreateTenantsResult(error_reason=error.reason.value, error_message=_said(error))

    async def BatchSuspendTenants(
        self, request: pb.BatchSuspendTenantsRequest, _context: Any
    ) -> pb.BatchSuspendTenantsResponse:
        """See the contract."""

        async def one(name: str) -> pb.Tenant:
            one_request = pb.SuspendTenantRequest(tenant=name)
            check_item(SUSPEND, one_request)
            return (await self.SuspendTenant(one_request, None)).tenant

        return pb.BatchSuspendTenantsResponse(results=await _each(request.tenants, one))

    async def BatchResumeTenants(
        self, request: pb.BatchResumeTenantsRequest, _context: Any
    ) -> pb.BatchResumeTenantsResponse:
        """See the contract."""

        async def one(name: str) -> pb.Tenant:
            one_request = pb.ResumeTenantRequest(tenant=name)
            check_item(RESUME, one_request)
            return (await self.ResumeTenant(one_request, None)).tenant

        return pb.BatchResumeTenantsResponse(results=await _each(request.tenants, one))

    async def BatchDeleteTenants(
        self, request: pb.BatchDeleteTenantsRequest, _context: Any
    ) -> pb.BatchDeleteTenantsResponse:
        """See the contract."""
        tenants = [parse.tenant_id(name, "tenants") for name in _bounded(request.tenants)]
        begun = await self._deleting.delete_many(caller(), tenants, force=request.force)
        return pb.BatchDeleteTenantsResponse(operation=operation(begun))


def _bounded(tenants: Sequence[str]) -> Sequence[str]:
    if not 1 <= len(tenants) <= MOST_AT_ONCE:
        raise invalid("tenants", f"1 to {MOST_AT_ONCE} are wanted")
    return tenants


async def _each(tenants: Sequence[str], work: Callable[[str], Awaitable[pb.Tenant]]) -> list[pb.BatchTenantResult]:
    """What the work gives for each, or why it was refused."""

    async def one(name: str) -> pb.BatchTenantResult:
        try:
            return pb.BatchTenantResult(tenant=await work(name))
        except ConnectorsError as error:
            return pb.BatchTenantResult(error_reason=error.reason.value, error_message=_said(error))

    return await several(one, _bounded(tenants))


def _said(error: ConnectorsError) -> str:
    """The refusal for people, naming the fields that are wrong."""
    return " ".join([error.meaning.text, *(f"{each.field}: {each.description}." for each in error.fields)])
