"""What a tenant may use, on the command line: how it is given, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb

BOUNDS = {
    "calls_at_once": "Calls under way at the same time, of each server and each sidecar; 0 takes the bound away.",
    "calls_per_second": "Calls a second, likewise.",
    "bytes_per_second": "Bytes a second of both bodies together, likewise.",
}


def bounds_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Quota and allowed integrations; the command gets each by its name, None and () where it was not given."""
    function = click.option("--allow-all", is_flag=True, help="Let it use every integration.")(function)
    function = click.option(
        "--allow", "allowed", multiple=True, metavar="INTEGRATION",
        help="Let it use this integration, and no other than those that are named so.",
    )(function)  # fmt: skip
    for name, text in reversed(BOUNDS.items()):
        function = click.option(f"--{name.replace('_', '-')}", type=click.IntRange(0), default=None, help=text)(
            function
        )
    return function


def any_given(given: Mapping[str, Any]) -> bool:
    """Whether anything was; a bound of 0 is."""
    return bool(given["allowed"] or given["allow_all"]) or any(given[name] is not None for name in BOUNDS)


def put_bounds(tenant: pb.Tenant, current: pb.Tenant, given: Mapping[str, Any]) -> list[str]:
    """Put what was given over what holds; the fields that change, as a mask names them. Raises: UsageError."""
    changed = []
    if any(given[name] is not None for name in BOUNDS):
        tenant.quota.CopyFrom(current.quota)
        for name in BOUNDS:
            if given[name] is not None:
                setattr(tenant.quota, name, given[name])
        changed.append("quota")
    if given["allowed"] and given["allow_all"]:
        raise click.UsageError("--allow and --allow-all exclude each other.")
    if given["allowed"]:
        tenant.allowed_integrations.integrations.extend(given["allowed"])
    if given["allowed"] or given["allow_all"]:
        changed.append("allowed_integrations")
    return changed


def quota_text(tenant: pb.Tenant) -> str:
    """Its bounds; empty where there are none."""
    return ", ".join(f"{bound.name.replace('_', ' ')}: {value}" for bound, value in tenant.quota.ListFields())


def allowed_text(tenant: pb.Tenant) -> str:
    """The integrations that it may use; empty for all."""
    if not tenant.HasField("allowed_integrations"):
        return ""
    return ", ".join(tenant.allowed_integrations.integrations) or "no integration"
