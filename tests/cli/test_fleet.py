"""`connectors tenant health`: every page, as a table or as JSON."""

from __future__ import annotations

import json

from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from tests.cli.conftest import Cli


def status(name: str, **fields: object) -> tenants.TenantStatus:
    """How a tenant is."""
    tenant = tenants.Tenant(id=name, state=tenants.Tenant.STATE_ACTIVE)
    return tenants.TenantStatus(tenant=tenant, **fields)  # type: ignore[arg-type]


def pages(request: tenants.ListTenantStatusesRequest) -> tenants.ListTenantStatusesResponse:
    """An empty page first, which is not the end."""
    if not request.page_token:
        return tenants.ListTenantStatusesResponse(next_page_token="acme")
    needy = status(
        "zeta",
        credentials_by_state={"needs_reauth": 1, "active": 2},
        needs_reauth=["notion"],
        needs_attention=True,
        unreadable_count=1,
        counted_partly=True,
    )
    return tenants.ListTenantStatusesResponse(statuses=[needy])


def test_what_needs_a_person_is_said(cli: Cli) -> None:
    """Counts, what is damaged, and what to connect again."""
    cli.script.answers["ListTenantStatuses"] = pages
    result = cli("tenant", "health", "--needs-attention")
    assert result.exit_code == 0, result.output
    for word in ("zeta", "2 active, 1 needs_reauth, 1 damaged+", "yes", "notion"):
        assert word in result.output
    assert all(request.needs_attention for _, request in cli.script.asked)


def test_as_json_it_is_the_contracts_message(cli: Cli) -> None:
    """All pages in one."""
    cli.script.answers["ListTenantStatuses"] = pages
    found = json.loads(cli("tenant", "health", "--json").stdout)
    assert [each["tenant"]["id"] for each in found["statuses"]] == ["zeta"]


def test_nobody_in_need_is_said(cli: Cli) -> None:
    """An empty table would be a question."""
    cli.script.answers["ListTenantStatuses"] = lambda _: tenants.ListTenantStatusesResponse()
    assert "No tenant needs attention." in cli("tenant", "health", "--needs-attention").output
