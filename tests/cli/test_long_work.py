"""Long work and many tenants at once, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc.cli import operation
from connectors_grpc.gen.connectors.v1 import error_reason_pb2 as reasons
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from tests.cli.conftest import Cli

RECEIPT = tenants.RotateKeyReceipt(
    version_before=1, version_after=2, rewrapped=7, unreadable_count=3, unreadable=["x", "y"]
)
RUNNING = tenants.Operation(id="op", tenant="a", items_done=3, items_total=7, step="rewrapping")
DONE = tenants.Operation(id="op", tenant="a", done=True, rotate_key=RECEIPT)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "POLL", 0.001)


def test_a_rotation_is_followed_to_its_end(cli: Cli) -> None:
    """Each step is told on stderr, the receipt on stdout, with what is damaged."""
    cli.script.answers["RotateTenantKey"] = lambda _: tenants.RotateTenantKeyResponse(operation=RUNNING)
    cli.script.answers["GetOperation"] = lambda _: tenants.GetOperationResponse(operation=DONE)
    result = cli("tenant", "rotate-key", "a")
    assert result.exit_code == 0
    assert "rewrapping ..." in result.stderr
    assert "key version now\t2" in result.stdout
    assert "x, y, and 1 more" in result.stdout


def test_a_rotation_need_not_be_waited_for(cli: Cli) -> None:
    """Then how far it is, and what to ask with, is shown."""
    cli.script.answers["RotateTenantKey"] = lambda _: tenants.RotateTenantKeyResponse(operation=RUNNING)
    result = cli("tenant", "rotate-key", "a", "--no-wait")
    assert "state\t3 of 7" in result.stdout
    assert [name for name, _ in cli.script.asked] == ["RotateTenantKey"]


def test_a_rotation_that_failed_is_code_1(cli: Cli) -> None:
    """And names the reason; the platform's as well."""
    failed = tenants.Operation(id="op", done=True, error_reason=reasons.ERROR_REASON_CONFLICT)
    cli.script.answers["RotatePlatformKey"] = lambda _: integrations.RotatePlatformKeyResponse(operation=failed)
    result = cli("integration", "rotate-platform-key")
    assert result.exit_code == 1
    assert "failed (CONFLICT)" in result.stdout


def answered(request: Any) -> tenants.BatchCreateTenantsResponse:
    """Refuses tenants whose id starts with `no`."""
    results = [
        tenants.BatchCreateTenantsResult(error_reason="ALREADY_EXISTS", error_message="It is there.")
        if each.tenant_id.startswith("no")
        else tenants.BatchCreateTenantsResult(tenant=tenants.Tenant(id=each.tenant_id))
        for each in request.requests
    ]
    return tenants.BatchCreateTenantsResponse(results=results)


@pytest.mark.parametrize(
    "content",
    [
        '[{"id": "a", "display_name": "A", "labels": {"plan": "pro"}}, "b"]',
        '{"tenants": [{"id": "a", "displayName": "A", "labels": {"plan": "pro"}}, {"id": "b"}]}',
        '{"id": "a", "display_name": "A", "labels": {"plan": "pro"}}\n{"id": "b"}\n',
        "- {id: a, display_name: A, labels: {plan: pro}}\n- b\n",
    ],
)
def test_tenants_come_from_every_kind_of_file(cli: Cli, content: str) -> None:
    """From stdin too; the same tenant has the same request id each time, so that a repeat is the same call."""
    cli.script.answers["BatchCreateTenants"] = answered
    assert cli("tenant", "import", "-", stdin=content).exit_code == 0
    cli("tenant", "import", "-", stdin=content)
    (_, first), (_, again) = cli.script.asked
    assert first == again
    assert [request.tenant_id for request in first.requests] == ["a", "b"]
    assert (first.requests[0].tenant.display_name, dict(first.requests[0].tenant.labels)) == ("A", {"plan": "pro"})
    assert len({request.request_id for request in first.requests}) == 2


def test_many_tenants_go_in_batches_and_each_refusal_is_shown(cli: Cli, tmp_path: Path) -> None:
    """A hundred at a time; exit code 1 if any was refused, and the others are made."""
    cli.script.answers["BatchCreateTenants"] = answered
    file = tmp_path / "t.json"
    file.write_text(json.dumps([f"t-{number}" for number in range(230)] + ["no-1"]))
    result = cli("tenant", "import", str(file))
    assert [len(request.requests) for _, request in cli.script.asked] == [100, 100, 31]
    assert result.exit_code == 1
    assert "no-1\tALREADY_EXISTS\tIt is there." in result.stdout
    assert "230 created, 1 refused." in result.stderr
    shown = cli("tenant", "import", str(file), "--json", "--validate-only")
    assert len(json.loads(shown.stdout)["results"]) == 231
    assert all(each.validate_only for each in cli.script.asked[-1][1].requests)


@pytest.mark.parametrize(
    "content", ["", "[]", "7", "[7]", '[{"name": "a"}]', '[{"id": 7}]', '[{"id": "a", "labels": {"a": 1}}]']
)
def test_a_file_that_is_none_of_these_is_refused_before_anything_is_asked(cli: Cli, content: str) -> None:
    """Exit code 2, and which tenant it is."""
    assert cli("tenant", "import", "-", stdin=content).exit_code == 2
    assert not cli.script.asked
