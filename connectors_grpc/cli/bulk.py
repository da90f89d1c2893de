"""Many tenants at once: from a file (JSON, JSON Lines or YAML, in the shape of connectors.v1.Tenant), or named as arguments."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.documents import content_of, parsed
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.operation import await_operation
from connectors_grpc.cli.output import Output
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb

BATCH = 100
MOST = 8
"""MiB of a file."""
KNOWN = {"id": str, "display_name": str, "labels": dict}
NAMESPACE = uuid.UUID("7d2b3c0e-6f0a-4e55-9d7e-3a1c5b9f2e64")
"""From which the request ids are derived: the same tenant imported again is the same request."""

tenants_argument = click.argument("tenant_ids", metavar="TENANT...", nargs=-1, required=True)


def read_tenants(path: Path) -> list[pb.CreateTenantRequest]:
    """The tenants in a file, `-` for stdin. Bounds: 8 MiB.  Raises: UsageError, which says where."""
    items = parsed(content_of(path, "FILE", most=MOST), "FILE", lines=True)
    if isinstance(items, dict):
        items = items.get("tenants", [items])
    if not isinstance(items, list) or not items:
        raise click.UsageError("A list of tenants is wanted, or an object with `tenants`.")
    return [_request(item, number) for number, item in enumerate(items, 1)]


def _request(item: Any, number: int) -> pb.CreateTenantRequest:
    named = {("display_name" if name == "displayName" else name): value for name, value in _fields(item, number)}
    for name, value in named.items():
        if name not in KNOWN:
            raise click.UsageError(f"Tenant {number}: only {', '.join(KNOWN)} may be given.")
        if not isinstance(value, KNOWN[name]):
            raise click.UsageError(f"Tenant {number}: {name} has another type than connectors.v1.Tenant says.")
    labels = named.get("labels", {})
    if not all(isinstance(text, str) for pair in labels.items() for text in pair):
        raise click.UsageError(f"Tenant {number}: labels are texts.")
    if not named.get("id"):
        raise click.UsageError(f"Tenant {number}: id is wanted.")
    tenant = pb.Tenant(display_name=named.get("display_name", ""), labels=labels)
    return pb.CreateTenantRequest(
        tenant_id=named["id"], tenant=tenant, request_id=str(uuid.uuid5(NAMESPACE, named["id"]))
    )


def _fields(item: Any, number: int) -> Iterator[tuple[str, Any]]:
    if isinstance(item, str):
        item = {"id": item}
    if not isinstance(item, dict):
        raise click.UsageError(f"Tenant {number}: an object is wanted, or an id.")
    yield from ((str(name), value) for name, value in item.items())


def create_all(
    session: Session, requests: list[pb.CreateTenantRequest], *, validate_only: bool
) -> Iterator[tuple[str, pb.BatchCreateTenantsResult]]:
    """Each id with its result, batch by batch."""
    for start in range(0, len(requests), BATCH):
        batch = requests[start : start + BATCH]
        for request in batch:
            request.validate_only = validate_only
        answer = session.tenants.BatchCreateTenants(pb.BatchCreateTenantsRequest(requests=batch))
        yield from zip((request.tenant_id for request in batch), answer.results, strict=True)


def suspend_all(session: Session, tenants: Sequence[str]) -> pb.BatchSuspendTenantsResponse:
    """Each tenant's result, batch by batch."""
    found = pb.BatchSuspendTenantsResponse()
    for batch in _batches(tenants):
        found.MergeFrom(session.tenants.BatchSuspendTenants(pb.BatchSuspendTenantsRequest(tenants=batch)))
    return found


def resume_all(session: Session, tenants: Sequence[str]) -> pb.BatchResumeTenantsResponse:
    """Each tenant's result, batch by batch."""
    found = pb.BatchResumeTenantsResponse()
    for batch in _batches(tenants):
        found.MergeFrom(session.tenants.BatchResumeTenants(pb.BatchResumeTenantsRequest(tenants=batch)))
    return found


def delete_all(session: Session, tenants: Sequence[str], *, force: bool, wait: bool) -> Iterator[pb.Operation]:
    """An operation a batch; ended, with `wait`."""
    for batch in _batches(tenants):
        request = pb.BatchDeleteTenantsRequest(tenants=batch, force=force)
        operation = session.tenants.BatchDeleteTenants(request).operation
        yield await_operation(session, operation) if wait else operation


def _batches(tenants: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(tenants), BATCH):
        yield tenants[start : start + BATCH]


def show_results(
    ctx: click.Context,
    out: Output,
    done: str,
    tenants: Sequence[str],
    found: pb.BatchSuspendTenantsResponse | pb.BatchResumeTenantsResponse,
) -> None:
    """What became of each; exit code 1 if any was refused."""
    refused = sum(bool(result.error_reason) for result in found.results)
    if out.json:
        out.message(found)
    else:
        pairs = zip(tenants, found.results, strict=True)
        rows = [(name, result.error_reason or done, result.error_message) for name, result in pairs]
        out.table(("TENANT", "RESULT", "WHY"), rows, "")
        out.note(f"{len(rows) - refused} {done}, {refused} refused.")
    if refused:
        ctx.exit(FAILED)


def show_deletions(ctx: click.Context, out: Output, operations: Sequence[pb.Operation]) -> None:
    """What became of each tenant; of an operation that goes on, its id. Exit code 1 if any was refused."""
    results = [result for operation in operations for result in operation.batch_delete_tenants.results]
    going_on = [operation.id for operation in operations if not operation.done]
    failed = [operation for operation in operations if operation.error_reason]
    refused = sum(bool(result.error_reason) for result in results)
    if out.json:
        for operation in operations:
            out.message(operation)
    else:
        if results:
            rows = [
                (result.tenant, result.error_reason or "deleted", result.error_message or _purged(result.receipt))
                for result in results
            ]
            out.table(("TENANT", "RESULT", "WHAT"), rows, "")
        for name in going_on:
            out.said(f"The operation {name} goes on by itself.")
        out.note(f"{len(results) - refused} deleted, {refused} refused.")
    if refused or failed:
        ctx.exit(FAILED)


def _purged(receipt: pb.DeleteTenantReceipt) -> str:
    failed = ", ".join(receipt.revocations_failed)
    return f"{receipt.credentials_purged} credentials purged" + (f"; still granted there: {failed}" if failed else "")
