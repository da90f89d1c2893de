"""TenantService: parse, one use case, answer."""

from __future__ import annotations

from typing import Any

from connectors_grpc.boundary import caller
from connectors_grpc.deleting import Deleting, Deletion
from connectors_grpc.domain.ids import OperationId
from connectors_grpc.domain.records import TenantState
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.tenant_service_pb2_grpc import TenantServiceServicer
from connectors_grpc.rpc import convert, parse
from connectors_grpc.tenants import Tenants


class TenantServicer(TenantServiceServicer):
    """One for the server."""

    def __init__(self, tenants: Tenants, deleting: Deleting) -> None:
        self._tenants = tenants
        self._deleting = deleting

    async def CreateTenant(self, request: pb.CreateTenantRequest, _context: Any) -> pb.CreateTenantResponse:
        """See the contract."""
        tenant = await self._tenants.create(
            caller(),
            parse.tenant_id(request.tenant_id, "tenant_id"),
            display_name=parse.display_name(request.tenant.display_name, "tenant.display_name"),
            labels=parse.labels(request.tenant.labels, "tenant.labels"),
            request_id=parse.request_id(request.request_id),
            validate_only=request.validate_only,
        )
        return pb.CreateTenantResponse(tenant=convert.tenant(tenant))

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
        changes = parse.mask(request.update_mask, wanted, ("display_name", "labels"))
        name = parse.display_name(wanted.display_name, "tenant.display_name")
        labels = parse.labels(wanted.labels, "tenant.labels")
        tenant = await self._tenants.update(
            caller(),
            parse.tenant_id(wanted.id, "tenant.id"),
            version=parse.version(wanted.etag),
            display_name=name if "display_name" in changes else None,
            labels=labels if "labels" in changes else None,
        )
        return pb.UpdateTenantResponse(tenant=convert.tenant(tenant))

    async def DeleteTenant(self, request: pb.DeleteTenantRequest, _context: Any) -> pb.DeleteTenantResponse:
        """See the contract."""
        deletion = await self._deleting.delete(
            caller(), parse.tenant_id(request.tenant), force=request.force, version=parse.version(request.etag)
        )
        return pb.DeleteTenantResponse(operation=_operation(deletion))

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

    async def GetOperation(self, request: pb.GetOperationRequest, _context: Any) -> pb.GetOperationResponse:
        """See the contract."""
        operation_id = OperationId(parse.label(request.operation, "operation"))
        return pb.GetOperationResponse(operation=_operation(await self._deleting.operation(caller(), operation_id)))

    async def RotateTenantKey(self, request: pb.RotateTenantKeyRequest, _context: Any) -> pb.RotateTenantKeyResponse:
        """Not yet."""
        raise ConnectorsError(Reason.NOT_IMPLEMENTED, {"rpc": "RotateTenantKey"})

    async def BatchCreateTenants(
        self, request: pb.BatchCreateTenantsRequest, _context: Any
    ) -> pb.BatchCreateTenantsResponse:
        """Not yet."""
        raise ConnectorsError(Reason.NOT_IMPLEMENTED, {"rpc": "BatchCreateTenants"})


def _operation(deletion: Deletion) -> pb.Operation:
    receipt = pb.DeleteTenantReceipt(
        tenant=deletion.tenant,
        uid=deletion.uid,
        credentials_purged=deletion.purged,
        revocations_failed=deletion.revocations_failed,
        key_shredded=deletion.key_shredded,
    )
    return pb.Operation(
        id=deletion.id,
        tenant=deletion.tenant,
        done=True,
        items_done=deletion.purged,
        items_total=deletion.purged,
        delete_tenant=receipt,
    )
