"""Operations as the contract has them."""

from __future__ import annotations

from typing import assert_never

from connectors_grpc.domain.operation import Deletion, DeletionOf, Deletions, Operation, Rotation
from connectors_grpc.errors import MEANING, Reason
from connectors_grpc.gen.connectors.v1 import error_reason_pb2 as reasons
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from connectors_grpc.rpc.convert import time_of


def operation(record: Operation) -> pb.Operation:
    """As stored; a receipt only once it has ended well."""
    message = pb.Operation(
        id=record.id,
        tenant=record.tenant,
        done=record.done,
        items_done=record.items_done,
        items_total=record.items_total,
        step=record.step,
        create_time=time_of(record.create_time),
        end_time=time_of(record.done_time),
    )
    if record.error:
        message.error_reason = reasons.ErrorReason.Value(f"ERROR_REASON_{record.error}")
    if record.done and not record.error:
        _put_receipt(message, record)
    return message


def _put_receipt(message: pb.Operation, record: Operation) -> None:
    match record.work:
        case Deletion() as work:
            message.delete_tenant.CopyFrom(_deleted(record.tenant, record.uid, work))
        case Deletions() as work:
            message.batch_delete_tenants.CopyFrom(pb.BatchDeleteTenantsReceipt(results=map(_of_many, work.each)))
        case Rotation() as work:
            message.rotate_key.CopyFrom(
                pb.RotateKeyReceipt(
                    version_before=work.from_version,
                    version_after=work.to_version,
                    rewrapped=work.rewrapped,
                    unreadable_count=work.unreadable_count,
                    unreadable=work.unreadable,
                )
            )
        case _:
            assert_never(record.work)


def _deleted(tenant: str, uid: str | None, work: Deletion) -> pb.DeleteTenantReceipt:
    return pb.DeleteTenantReceipt(
        tenant=tenant,
        uid=uid or "",
        credentials_purged=work.purged,
        revocations_failed=work.revocations_failed,
        key_shredded=work.key_shredded,
    )


def _of_many(one: DeletionOf) -> pb.BatchDeleteTenantsResult:
    if one.error:
        text = MEANING[Reason(one.error)].text
        return pb.BatchDeleteTenantsResult(tenant=one.tenant, error_reason=one.error, error_message=text)
    return pb.BatchDeleteTenantsResult(tenant=one.tenant, receipt=_deleted(one.tenant, one.uid, one.deletion))
