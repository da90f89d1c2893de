"""How a tenant is shown: its state in a word, what it may use, how its credentials are."""

from __future__ import annotations

from connectors_grpc.cli.output import Output, labels, when, word
from connectors_grpc.cli.tenant_bounds import allowed_text, quota_text
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb


def show_one(out: Output, item: pb.Tenant) -> None:
    """One tenant."""
    if out.json:
        out.message(item)
        return
    out.record(
        (
            ("tenant", item.id),
            ("name", item.display_name),
            ("state", state_of(item)),
            ("uid", item.uid),
            ("labels", labels(item.labels)),
            ("quota", quota_text(item)),
            ("may use", allowed_text(item)),
            ("created", when(item.create_time)),
            ("changed", when(item.update_time)),
        )
    )


def state_of(item: pb.Tenant) -> str:
    """The state in a word."""
    return word(pb.Tenant.State.Name(item.state), "STATE_")


def status_row(item: pb.TenantStatus) -> tuple[str, ...]:
    """Its line among others."""
    attention = "yes" if item.needs_attention else ""
    return item.tenant.id, state_of(item.tenant), _counts(item), attention, ", ".join(item.needs_reauth)


def _counts(item: pb.TenantStatus) -> str:
    counts = [f"{count} {name}" for name, count in sorted(item.credentials_by_state.items())]
    counts += [f"{item.unreadable_count} damaged"] if item.unreadable_count else []
    return ", ".join(counts) + ("+" if item.counted_partly else "")
