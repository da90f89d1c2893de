"""`connectors tenant`: whose credentials are kept apart."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import click

from connectors_grpc.cli.base import (
    ExampleGroup,
    confirm,
    json_option,
    label_option,
    limit_option,
    pass_session,
    yes_option,
)
from connectors_grpc.cli.bulk import (
    create_all,
    delete_all,
    read_tenants,
    resume_all,
    show_deletions,
    show_results,
    suspend_all,
    tenants_argument,
)
from connectors_grpc.cli.connection import PAGE, Session, collect
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.operation import await_operation, show_operation, wait_option
from connectors_grpc.cli.output import Output, labels, when
from connectors_grpc.cli.tenant_bounds import any_given, bounds_options, put_bounds
from connectors_grpc.cli.tenant_view import show_one, state_of, status_row
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb


@click.group(
    cls=ExampleGroup, examples=("connectors tenant create acme --display-name 'Acme Inc'", "connectors tenant list")
)
def tenant() -> None:
    """Tenants: whose credentials are kept apart, each under a key of its own."""


@tenant.command(
    examples=(
        "connectors tenant create acme",
        "connectors tenant create acme --display-name 'Acme Inc' --label plan=pro",
        "connectors tenant create acme --calls-per-second 50 --allow notion --allow github",
    )
)
@click.argument("tenant_id", metavar="TENANT")
@click.option("--display-name", default="", help="For people.")
@label_option
@bounds_options
@click.option("--validate-only", is_flag=True, help="Check, and change nothing.")
@json_option
@pass_session
def create(
    session: Session,
    /,
    tenant_id: str,
    display_name: str,
    labels: dict[str, str],
    validate_only: bool,
    out: Output,
    **bounds: Any,
) -> None:
    """Create a tenant and its key in the Vault."""
    wanted = pb.Tenant(display_name=display_name, labels=labels)
    put_bounds(wanted, pb.Tenant(), bounds)
    request = pb.CreateTenantRequest(
        tenant_id=tenant_id, tenant=wanted, request_id=str(uuid.uuid4()), validate_only=validate_only
    )
    show_one(out, session.tenants.CreateTenant(request).tenant)


@tenant.command(examples=("connectors tenant get acme", "connectors tenant get acme --json"))
@click.argument("tenant_id", metavar="TENANT")
@json_option
@pass_session
def get(session: Session, tenant_id: str, out: Output) -> None:
    """Show one tenant."""
    show_one(out, session.tenants.GetTenant(pb.GetTenantRequest(tenant=tenant_id)).tenant)


@tenant.command("list", examples=("connectors tenant list", "connectors tenant list --json | jq -r '.tenants[].id'"))
@limit_option
@json_option
@pass_session
def list_(session: Session, limit: int, out: Output) -> None:
    """List tenants by id."""
    found = collect(
        lambda token: session.tenants.ListTenants(pb.ListTenantsRequest(page_size=PAGE, page_token=token)),
        lambda page: list(page.tenants),
        limit,
    )
    if out.json:
        out.message(pb.ListTenantsResponse(tenants=found))
        return
    rows = [(item.id, item.display_name, state_of(item), when(item.create_time), labels(item.labels)) for item in found]
    out.table(("TENANT", "NAME", "STATE", "CREATED", "LABELS"), rows, "No tenants yet: connectors tenant create TENANT")


@tenant.command(
    examples=(
        "connectors tenant update acme --display-name 'Acme Corp'",
        "connectors tenant update acme --label plan=free --remove-label trial",
        "connectors tenant update acme --calls-at-once 20 --allow-all",
    )
)
@click.argument("tenant_id", metavar="TENANT")
@click.option("--display-name", default=None, help="For people.")
@label_option
@click.option("--remove-label", "removed", multiple=True, metavar="NAME", help="A label to remove; may be repeated.")
@bounds_options
@json_option
@pass_session
def update(
    session: Session,
    /,
    tenant_id: str,
    display_name: str | None,
    labels: dict[str, str],
    removed: tuple[str, ...],
    out: Output,
    **bounds: Any,
) -> None:
    """Change the display name, labels, or what it may use. Other labels and bounds stay."""
    if display_name is None and not labels and not removed and not any_given(bounds):
        raise click.UsageError("Nothing to change: give --display-name, --label, --remove-label, a bound or --allow.")
    current = session.tenants.GetTenant(pb.GetTenantRequest(tenant=tenant_id)).tenant
    changed = pb.Tenant(id=tenant_id, etag=current.etag, display_name=display_name or "")
    kept = {name: value for name, value in current.labels.items() if name not in removed}
    changed.labels.update(kept | labels)
    request = pb.UpdateTenantRequest(tenant=changed)
    if display_name is not None:
        request.update_mask.paths.append("display_name")
    if labels or removed:
        request.update_mask.paths.append("labels")
    request.update_mask.paths.extend(put_bounds(request.tenant, current, bounds))
    show_one(out, session.tenants.UpdateTenant(request).tenant)


@tenant.command(examples=("connectors tenant delete acme", "connectors tenant delete acme zenith --force --yes"))
@tenants_argument
@click.option("--force", is_flag=True, help="Delete its credentials too.")
@wait_option
@yes_option
@json_option
@pass_session
@click.pass_context
def delete(
    ctx: click.Context, session: Session, tenant_ids: tuple[str, ...], force: bool, wait: bool, yes: bool, out: Output
) -> None:
    """Delete tenants for good: credentials are purged, their keys are shredded. Exit code 1 if any was refused."""
    what = f"the tenant {tenant_ids[0]}" if len(tenant_ids) == 1 else f"{len(tenant_ids)} tenants"
    confirm(f"Delete {what}{' and all credentials' if force else ''} for good?", yes=yes)
    if len(tenant_ids) == 1:
        operation = session.tenants.DeleteTenant(pb.DeleteTenantRequest(tenant=tenant_ids[0], force=force)).operation
        show_operation(ctx, out, await_operation(session, operation) if wait else operation)
        return
    show_deletions(ctx, out, list(delete_all(session, tenant_ids, force=force, wait=wait)))


@tenant.command(examples=("connectors tenant suspend acme", "connectors tenant suspend acme zenith"))
@tenants_argument
@json_option
@pass_session
@click.pass_context
def suspend(ctx: click.Context, session: Session, tenant_ids: tuple[str, ...], out: Output) -> None:
    """Freeze tenants: nothing is given out for them until they are resumed. Exit code 1 if any was refused."""
    if len(tenant_ids) == 1:
        show_one(out, session.tenants.SuspendTenant(pb.SuspendTenantRequest(tenant=tenant_ids[0])).tenant)
        return
    show_results(ctx, out, "suspended", tenant_ids, suspend_all(session, tenant_ids))


@tenant.command(examples=("connectors tenant resume acme", "connectors tenant resume acme zenith"))
@tenants_argument
@json_option
@pass_session
@click.pass_context
def resume(ctx: click.Context, session: Session, tenant_ids: tuple[str, ...], out: Output) -> None:
    """Lift suspensions. Exit code 1 if any was refused."""
    if len(tenant_ids) == 1:
        show_one(out, session.tenants.ResumeTenant(pb.ResumeTenantRequest(tenant=tenant_ids[0])).tenant)
        return
    show_results(ctx, out, "resumed", tenant_ids, resume_all(session, tenant_ids))


@tenant.command(examples=("connectors tenant status acme",))
@click.argument("tenant_id", metavar="TENANT")
@json_option
@pass_session
def status(session: Session, tenant_id: str, out: Output) -> None:
    """Say how a tenant is: its credentials by state, and what needs a person."""
    found = session.tenants.GetTenantStatus(pb.GetTenantStatusRequest(tenant=tenant_id))
    if out.json:
        out.message(found)
        return
    out.record(
        (
            ("tenant", found.tenant.id),
            ("state", state_of(found.tenant)),
            *((f"credentials {name}", str(count)) for name, count in sorted(found.credentials_by_state.items())),
            ("to connect again", ", ".join(found.needs_reauth)),
        )
    )


@tenant.command(examples=("connectors tenant health", "connectors tenant health --needs-attention"))
@click.option("--needs-attention", is_flag=True, help="Only tenants of which a credential needs a person.")
@limit_option
@json_option
@pass_session
def health(session: Session, needs_attention: bool, limit: int, out: Output) -> None:
    """Say how tenants are: their credentials by state, and what needs a person."""
    found = collect(
        lambda token: session.tenants.ListTenantStatuses(
            pb.ListTenantStatusesRequest(page_size=PAGE, page_token=token, needs_attention=needs_attention)
        ),
        lambda page: list(page.statuses),
        limit,
    )
    if out.json:
        out.message(pb.ListTenantStatusesResponse(statuses=found))
        return
    rows = map(status_row, found)
    empty = "No tenant needs attention." if needs_attention else "No tenants yet: connectors tenant create TENANT"
    out.table(("TENANT", "STATE", "CREDENTIALS", "ATTENTION", "CONNECT AGAIN"), rows, empty)


@tenant.command(
    "rotate-key", examples=("connectors tenant rotate-key acme", "connectors tenant rotate-key acme --no-wait")
)
@click.argument("tenant_id", metavar="TENANT")
@wait_option
@json_option
@pass_session
@click.pass_context
def rotate_key(ctx: click.Context, session: Session, tenant_id: str, wait: bool, out: Output) -> None:
    """Rotate the tenant's key in the Vault and rewrap its credentials, which stay in use meanwhile."""
    operation = session.tenants.RotateTenantKey(pb.RotateTenantKeyRequest(tenant=tenant_id)).operation
    show_operation(ctx, out, await_operation(session, operation) if wait else operation)


@tenant.command(
    "import",
    examples=(
        "connectors tenant import tenants.yaml        # a list of {id, display_name, labels}, or of ids",
        "connectors tenant import tenants.jsonl --validate-only",
    ),
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--validate-only", is_flag=True, help="Check, and change nothing.")
@json_option
@pass_session
@click.pass_context
def import_(ctx: click.Context, session: Session, file: Path, validate_only: bool, out: Output) -> None:
    """Create many tenants from a file (JSON, JSON Lines or YAML; - for stdin), each with a result of its own.

    Run again, it creates what is missing. Exit code 1 if any was refused.
    """
    results = list(create_all(session, read_tenants(file), validate_only=validate_only))
    refused = sum(bool(result.error_reason) for _, result in results)
    if out.json:
        out.message(pb.BatchCreateTenantsResponse(results=[result for _, result in results]))
    else:
        done = "ok" if validate_only else "created"
        rows = [(name, result.error_reason or done, result.error_message) for name, result in results]
        out.table(("TENANT", "RESULT", "WHY"), rows, "")
        click.echo(f"{len(results) - refused} {done}, {refused} refused.", err=True)
    if refused:
        ctx.exit(FAILED)
