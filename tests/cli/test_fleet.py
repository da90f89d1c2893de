"""`connectors tenant health`: every page, as a table or as JSON; and what tenants may use."""

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


def echo(request: tenants.UpdateTenantRequest) -> tenants.UpdateTenantResponse:
    """The tenant as it was sent."""
    return tenants.UpdateTenantResponse(tenant=request.tenant)


def test_what_a_tenant_may_use_is_set_shown_and_lifted(cli: Cli) -> None:
    """Bounds that are not named stay; 0 takes one away; nothing to change is told."""
    current = tenants.Tenant(id="acme", quota=tenants.Quota(calls_at_once=3, calls_per_second=5))
    cli.script.answers["GetTenant"] = lambda _: tenants.GetTenantResponse(tenant=current)
    cli.script.answers["UpdateTenant"] = echo
    shown = cli("tenant", "update", "acme", "--calls-at-once", "0", "--allow", "notion", "--allow", "github")
    assert shown.exit_code == 0, shown.output
    request = cli.script.asked[-1][1]
    assert list(request.update_mask.paths) == ["quota", "allowed_integrations"]
    assert request.tenant.quota == tenants.Quota(calls_per_second=5)
    assert "calls per second: 5" in shown.stdout
    assert "notion, github" in shown.stdout
    assert cli("tenant", "update", "acme", "--allow-all").exit_code == 0
    request = cli.script.asked[-1][1]
    assert list(request.update_mask.paths) == ["allowed_integrations"]
    assert not request.tenant.HasField("allowed_integrations")
    assert cli("tenant", "update", "acme").exit_code == 2
    assert cli("tenant", "update", "acme", "--allow", "notion", "--allow-all").exit_code == 2


def test_a_tenant_is_created_with_its_bounds(cli: Cli) -> None:
    """In the one call that makes it."""
    cli.script.answers["CreateTenant"] = lambda request: tenants.CreateTenantResponse(tenant=request.tenant)
    assert cli("tenant", "create", "acme", "--bytes-per-second", "1000", "--allow", "notion").exit_code == 0
    (method, request) = cli.script.asked[-1]
    assert (method, request.tenant.quota) == ("CreateTenant", tenants.Quota(bytes_per_second=1000))
    assert list(request.tenant.allowed_integrations.integrations) == ["notion"]
