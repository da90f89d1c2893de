"""Many tenants suspended, resumed and deleted in one call: each with a result of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest_asyncio

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from tests.api.test_import import command
from tests.running import Client, Server, fresh_id, refused
from tests.worlds import until

API = {
    "base_url": "https://api.notes.example",
    "placement": {"headers": {"authorization": "Bearer {api_key}"}},
}
State = pb.Tenant


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def notes(server: Server) -> str:
    """An integration that takes API keys."""
    return (await server.admin.create_integration(fresh_id("bulk"), api=API)).id


async def made(client: Client, count: int) -> list[str]:
    """So many tenants."""
    return [(await client.create_tenant()).id for _ in range(count)]


async def suspend(client: Client, *tenants: str) -> list[pb.BatchTenantResult]:
    """BatchSuspendTenants."""
    answer = await client.call("BatchSuspendTenants", pb.BatchSuspendTenantsRequest(tenants=tenants))
    return list(answer.results)


async def resume(client: Client, *tenants: str) -> list[pb.BatchTenantResult]:
    """BatchResumeTenants."""
    answer = await client.call("BatchResumeTenants", pb.BatchResumeTenantsRequest(tenants=tenants))
    return list(answer.results)


async def delete(client: Client, *tenants: str, force: bool = False) -> pb.Operation:
    """BatchDeleteTenants, to its end."""
    request = pb.BatchDeleteTenantsRequest(tenants=tenants, force=force)
    return await ended(client, (await client.call("BatchDeleteTenants", request)).operation)


async def ended(client: Client, operation: pb.Operation) -> pb.Operation:
    """The operation once it has ended."""
    found = operation

    async def done() -> bool:
        nonlocal found
        found = (await client.call("GetOperation", pb.GetOperationRequest(operation=operation.id))).operation
        return bool(found.done)

    await until(done)
    return found


def outcomes(operation: pb.Operation) -> dict[str, str]:
    """Each tenant's refusal, `deleted` for none."""
    return {each.tenant: each.error_reason or "deleted" for each in operation.batch_delete_tenants.results}


async def test_many_are_suspended_and_resumed_each_with_a_result(server: Server, notes: str) -> None:
    """In the order of the request; one that is none, or nobody's, stops no other; nothing is given out meanwhile."""
    tenants = await made(server.admin, 3)
    await server.admin.store(tenants[0], notes, api_key=credentials.ApiKeyMaterial(api_key="k"))
    asked = [tenants[0], "Not A Label", tenants[1], "nobody-" + fresh_id(), tenants[2]]
    results = await suspend(server.admin, *asked)
    assert [result.error_reason for result in results] == ["", "INVALID_FIELD", "", "TENANT_NOT_FOUND", ""]
    assert "tenant: " in results[1].error_message
    assert [result.tenant.id for result in results] == [tenants[0], "", tenants[1], "", tenants[2]]
    assert {result.tenant.state for result in results if result.tenant.id} == {State.STATE_SUSPENDED}
    with refused("TENANT_SUSPENDED"):
        await server.admin.store(tenants[0], notes, api_key=credentials.ApiKeyMaterial(api_key="k"))
    again = await suspend(server.admin, *tenants)
    assert {result.tenant.state for result in again} == {State.STATE_SUSPENDED}
    results = await resume(server.admin, *asked)
    assert [result.error_reason for result in results] == ["", "INVALID_FIELD", "", "TENANT_NOT_FOUND", ""]
    assert {result.tenant.state for result in results if result.tenant.id} == {State.STATE_ACTIVE}


async def test_each_tenant_is_authorised_as_in_a_call_of_its_own(server: Server) -> None:
    """An operator's own are suspended, others' refused in the same words as nobody's; deleting many is for admins."""
    mine, theirs = await made(server.admin, 2)
    operator = await server.app(mine, role=access.ROLE_OPERATOR)
    for results in (await suspend(operator, mine, theirs, "nobody"), await resume(operator, mine, theirs, "nobody")):
        assert [result.error_reason for result in results] == ["", "PERMISSION_DENIED", "PERMISSION_DENIED"]
        assert results[1] == results[2]
    narrow = await server.app(mine, role=access.ROLE_OPERATOR, credentials=["notion"])
    assert [result.error_reason for result in await suspend(narrow, mine)] == ["PERMISSION_DENIED"]
    scoped_admin = await server.app(mine, role=access.ROLE_ADMIN)
    for client in (operator, scoped_admin):
        with refused("PERMISSION_DENIED"):
            await delete(client, mine)


async def test_a_batch_is_one_to_a_hundred(server: Server) -> None:
    """None or more are refused whole."""
    for count in (0, 101):
        names = ["t"] * count
        for call in (suspend, resume, delete):
            with refused("INVALID_FIELD"):
                await call(server.admin, *names)
    with refused("INVALID_FIELD"):
        await delete(server.admin, "Not A Label")


async def test_many_are_deleted_by_one_operation_whose_receipt_names_each(server: Server, notes: str) -> None:
    """Those with credentials only by force; what was refused is left as it was, the rest is gone for good."""
    full, empty = await made(server.admin, 3), await made(server.admin, 9)
    for tenant in full:
        await server.admin.store(tenant, notes, api_key=credentials.ApiKeyMaterial(api_key="k"))
    nobody = "nobody-" + fresh_id()
    operation = await delete(server.admin, full[0], *empty, nobody, empty[0])
    assert outcomes(operation) == {full[0]: "NOT_EMPTY", **dict.fromkeys(empty, "deleted"), nobody: "TENANT_NOT_FOUND"}
    assert (operation.items_done, operation.items_total, operation.tenant) == (11, 11, "")
    assert operation.batch_delete_tenants.results[0].error_message
    assert (
        await server.admin.call("GetTenant", pb.GetTenantRequest(tenant=full[0]))
    ).tenant.state == State.STATE_ACTIVE
    by_force = await delete(server.admin, *full, force=True)
    receipts = [each.receipt for each in by_force.batch_delete_tenants.results]
    assert [(r.tenant, r.credentials_purged, r.key_shredded) for r in receipts] == [(name, 1, True) for name in full]
    assert len({receipt.uid for receipt in receipts}) == 3
    for tenant in (*full, *empty):
        with refused("TENANT_NOT_FOUND"):
            await server.admin.call("GetTenant", pb.GetTenantRequest(tenant=tenant))


async def test_the_same_tenants_again_are_the_same_operation_while_it_runs(server: Server, notes: str) -> None:
    """However often it is asked for, in any order."""
    tenants = await made(server.admin, 30)
    request = pb.BatchDeleteTenantsRequest(tenants=tenants, force=True)
    back = pb.BatchDeleteTenantsRequest(tenants=reversed(tenants), force=True)
    calls = [server.admin.call("BatchDeleteTenants", each) for each in (request, back, request)]
    operations = [(await call).operation for call in asyncio.as_completed(calls)]
    assert len({operation.id for operation in operations}) == 1
    assert set(outcomes(await ended(server.admin, operations[0])).values()) == {"deleted"}


async def test_many_can_be_suspended_and_deleted_over_rest(server: Server) -> None:
    """The same RPCs by their annotations."""
    tenants = await made(server.admin, 2)
    headers = {"Authorization": f"Bearer {server.admin.key}"}
    async with httpx2.AsyncClient(base_url=server.http_url, headers=headers, trust_env=False) as http:
        body: dict[str, Any] = {"tenants": tenants}
        results = (await http.post("/tenants:batchSuspend", json=body)).json()["results"]
        assert [each["tenant"]["state"] for each in results] == ["STATE_SUSPENDED"] * 2
        results = (await http.post("/tenants:batchResume", json=body)).json()["results"]
        assert [each["tenant"]["state"] for each in results] == ["STATE_ACTIVE"] * 2
        begun = (await http.post("/tenants:batchDelete", json=body)).json()
    operation = await ended(server.admin, pb.Operation(id=begun["id"]))
    assert set(outcomes(operation).values()) == {"deleted"}


async def test_many_are_named_on_the_command_line(server: Server) -> None:
    """A row each; exit code 1 if any was refused; one alone is shown as ever."""
    one, two = await made(server.admin, 2)
    code, out, err = await command(server, "tenant", "suspend", one, two, "nobody-at-all")
    assert (code, err) == (1, "2 suspended, 1 refused.\n")
    assert [row.split("\t")[:2] for row in out.splitlines()[1:]] == [
        [one, "suspended"],
        [two, "suspended"],
        ["nobody-at-all", "TENANT_NOT_FOUND"],
    ]
    assert (await command(server, "tenant", "resume", one, two))[0] == 0
    assert "state\tsuspended" in (await command(server, "tenant", "suspend", one))[1]
    assert (await command(server, "tenant", "delete", one, two))[0] == 2
    code, out, err = await command(server, "tenant", "delete", one, two, "--force", "--yes")
    assert (code, err.splitlines()[-1]) == (0, "2 deleted, 0 refused.")
    assert f"{two}\tdeleted\t0 credentials purged" in out
