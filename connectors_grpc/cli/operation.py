"""Long work as a person sees it: waited for, with its progress on a terminal, and its receipt."""

from __future__ import annotations

import sys
import time

import click

from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.output import Output, clean, word
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.error_reason_pb2 import ErrorReason

POLL = 0.5

wait_option = click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is done.")


def await_operation(session: Session, operation: pb.Operation) -> pb.Operation:
    """Ask until the work has ended. Ctrl-C ends the asking, not the work."""
    shown = ""
    while not operation.done:
        shown = _tell(operation, shown)
        time.sleep(POLL)
        operation = session.tenants.GetOperation(pb.GetOperationRequest(operation=operation.id)).operation
    if shown and sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    return operation


def _tell(operation: pb.Operation, shown: str) -> str:
    """Progress on stderr: one line that changes on a terminal, a line for each step elsewhere."""
    if sys.stderr.isatty():
        line = f"{_counted(operation)}  {clean(operation.step)}"
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)
        return line
    if operation.step and operation.step != shown:
        click.echo(f"{clean(operation.step)} ...", err=True)
    return operation.step


def show_operation(ctx: click.Context, out: Output, operation: pb.Operation) -> None:
    """How the work stands; exit code 1 if it failed."""
    if out.json:
        out.message(operation)
    else:
        pairs = [("operation", operation.id), ("tenant", operation.tenant), ("state", _state(operation))]
        if operation.HasField("delete_tenant"):
            pairs += _deleted(operation.delete_tenant)
        if operation.HasField("rotate_key"):
            pairs += _rotated(operation.rotate_key)
        out.record(pairs)
    if operation.error_reason:
        ctx.exit(FAILED)


def _deleted(receipt: pb.DeleteTenantReceipt) -> list[tuple[str, str]]:
    return [
        ("credentials purged", str(receipt.credentials_purged)),
        ("key shredded", "yes" if receipt.key_shredded else ""),
        ("still granted at the provider", ", ".join(receipt.revocations_failed)),
    ]


def _rotated(receipt: pb.RotateKeyReceipt) -> list[tuple[str, str]]:
    more = receipt.unreadable_count - len(receipt.unreadable)
    damaged = [*receipt.unreadable, *([f"and {more} more"] if more else [])]
    return [
        ("key version before", str(receipt.version_before)),
        ("key version now", str(receipt.version_after)),
        ("rewrapped", str(receipt.rewrapped)),
        ("damaged before, not rewrapped", ", ".join(damaged)),
    ]


def _state(operation: pb.Operation) -> str:
    if operation.error_reason:
        return f"failed ({word(ErrorReason.Name(operation.error_reason), 'ERROR_REASON_').upper()})"
    return "done" if operation.done else _counted(operation)


def _counted(operation: pb.Operation) -> str:
    return f"{operation.items_done} of {operation.items_total}"
