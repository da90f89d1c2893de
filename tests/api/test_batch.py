"""Many tenants in one call: each with a result of its own, and a repeat is the same call."""

from __future__ import annotations

import asyncio
import uuid

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from tests.running import Client, Server, fresh_id, refused


def wanted(tenant_id: str, **fields: object) -> pb.CreateTenantRequest:
    """One of a batch."""
    return pb.CreateTenantRequest(tenant_id=tenant_id, **fields)  # type: ignore[arg-type]


async def create(client: Client, *requests: pb.CreateTenantRequest) -> list[pb.BatchCreateTenantsResult]:
    """The batch."""
    answer = await client.call("BatchCreateTenants", pb.BatchCreateTenantsRequest(requests=requests))
    return list(answer.results)


async def test_a_hundred_tenants_are_made_in_order(server: Server) -> None:
    """Each as CreateTenant would have made it, and each can be used."""
    names = [fresh_id("batch") for _ in range(100)]
    requests = [wanted(name, tenant=pb.Tenant(display_name=name.upper(), labels={"n": name})) for name in names]
    results = await create(server.admin, *requests)
    assert [result.tenant.id for result in results] == names
    assert results[7].tenant.display_name == names[7].upper()
    assert len({result.tenant.uid for result in results}) == 100
    assert await server.app(names[99])


async def test_one_that_is_refused_stops_no_other_and_says_why(server: Server) -> None:
    """The reason, and in words which field is wrong."""
    there = (await server.admin.create_tenant()).id
    good = fresh_id("batch")
    results = await create(
        server.admin,
        wanted(there), wanted("Not A Label"), wanted(good), wanted(fresh_id(), request_id="no uuid"),
        wanted(fresh_id(), tenant=pb.Tenant(display_name="\x1b[2J")),
    )  # fmt: skip
    assert [r.error_reason for r in results] == [
        "ALREADY_EXISTS",
        "INVALID_FIELD",
        "",
        "INVALID_FIELD",
        "INVALID_FIELD",
    ]
    assert results[2].tenant.id == good
    assert "tenant_id: " in results[1].error_message
    assert not any(ord(char) < 32 for result in results for char in result.error_message)


async def test_a_repeated_batch_is_the_same_batch(server: Server) -> None:
    """By request ids: at once and again; without, a repeat is ALREADY_EXISTS. A tenant named twice is made once."""
    same = [wanted(fresh_id("batch"), request_id=str(uuid.uuid4())) for _ in range(10)]
    first, second = await asyncio.gather(create(server.admin, *same), create(server.admin, *same))
    third = await create(server.admin, *same)
    assert [r.tenant.uid for r in first] == [r.tenant.uid for r in second] == [r.tenant.uid for r in third]
    twice = fresh_id("batch")
    results = await create(server.admin, wanted(twice), wanted(twice))
    assert sorted(r.error_reason for r in results) == ["", "ALREADY_EXISTS"]


async def test_a_batch_can_be_checked_without_making_anything(server: Server) -> None:
    """Request by request."""
    name = fresh_id("batch")
    (result,) = await create(server.admin, wanted(name, validate_only=True))
    assert result.tenant.id == name
    with refused("TENANT_NOT_FOUND"):
        await server.admin.call("GetTenant", pb.GetTenantRequest(tenant=name))


async def test_a_batch_is_bounded_and_for_admins(server: Server) -> None:
    """None or too many are refused whole, and so is everybody else."""
    for count in (0, 101):
        with refused("INVALID_FIELD"):
            await create(server.admin, *[wanted(fresh_id("batch"))] * count)
    tenant = (await server.admin.create_tenant()).id
    operator = await server.app(tenant, role=access.ROLE_OPERATOR)
    with refused("PERMISSION_DENIED"):
        await create(operator, wanted(fresh_id("batch")))
