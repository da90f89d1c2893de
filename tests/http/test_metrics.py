"""What the server says of itself at /metrics, to whom, and what it never says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1.proxy_service_pb2_grpc import ProxyServiceStub
from connectors_grpc.metrics import Metrics
from connectors_grpc.simulator.misbehaviour import Misbehaviour
from tests.openbao import OpenBao
from tests.running import Server, fresh_id, refused, running_server
from tests.worlds import World, forms, until

Sample = tuple[str, frozenset[tuple[str, str]]]


async def answer(server: Server, key: str = "") -> httpx2.Response:
    """GET /metrics."""
    async with httpx2.AsyncClient(base_url=server.http_url, trust_env=False) as http:
        return await http.get("/metrics", headers={"Authorization": f"Bearer {key}"} if key else {})


async def samples(server: Server) -> Mapping[Sample, float]:
    """The page, as Prometheus reads it."""
    page = await answer(server, server.admin.key)
    assert page.status_code == 200, page.text
    assert page.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


def found(page: Mapping[Sample, float], name: str, **labels: str) -> float:
    """One sample; 0 while there is none."""
    return page.get((name, frozenset(labels.items())), 0.0)


async def test_calls_are_counted_by_how_they_ended_and_timed(server: Server) -> None:
    """Also a refused one; the Vault's part is there too."""
    before = await samples(server)
    tenant = await server.admin.create_tenant()
    with refused("PERMISSION_DENIED"):
        await server.client(await server.admin.create_key([access.ROLE_APP], [tenant.id])).create_tenant()
    after = await samples(server)
    rpc = "TenantService/CreateTenant"
    for reason in ("OK", "PERMISSION_DENIED"):
        grown = [found(page, "connectors_rpcs_total", rpc=rpc, reason=reason) for page in (before, after)]
        assert grown[1] - grown[0] == 1
    timed = [found(page, "connectors_rpc_duration_seconds_count", rpc=rpc) for page in (before, after)]
    assert timed[1] - timed[0] == 2
    vault = [
        found(page, "connectors_vault_request_duration_seconds_count", result="answered") for page in (before, after)
    ]
    assert vault[1] > vault[0]
    assert found(after, "connectors_vault_authenticated") == 1
    assert found(after, "connectors_audited_total", action="CreateTenant", result="created") > 0
    assert found(after, "process_resident_memory_bytes") > 0
    await until(lambda: _hears(server))


async def _hears(server: Server) -> bool:
    return found(await samples(server), "connectors_changes_heard") == 1


async def test_refreshes_and_what_providers_answer_are_counted(world: World) -> None:
    """One that passed, one that the provider was too busy for."""
    assert (await world.connect()).status_code == 200
    before = await samples(world.server)
    await world.refresh()
    world.next(Misbehaviour.UNAVAILABLE)
    with refused("PROVIDER_UNAVAILABLE"):
        await world.refresh()
    after = await samples(world.server)
    name = "connectors_provider_request_duration_seconds_count"
    for result in ("2xx", "5xx"):
        assert found(after, name, result=result) - found(before, name, result=result) == 1
    acts = "connectors_audited_total"
    for result in ("refreshed", "PROVIDER_UNAVAILABLE"):
        labels = {"action": "RefreshCredential", "result": result}
        assert found(after, acts, **labels) - found(before, acts, **labels) == 1


@pytest.mark.parametrize("role", [access.ROLE_APP, access.ROLE_OPERATOR, access.ROLE_SIDECAR, access.ROLE_TOKEN_READER])
async def test_only_an_admin_of_all_tenants_may_look(server: Server, role: int) -> None:
    """Without a key it is 401; load and failures of the platform are no tenant's affair."""
    assert (await answer(server)).status_code == 401
    tenant = await server.admin.create_tenant()
    key = await server.admin.create_key([role], [tenant.id])
    refusal = await answer(server, key)
    assert (refusal.status_code, refusal.json()["reason"]) == (403, "PERMISSION_DENIED")


async def test_a_key_for_one_tenant_may_not_look_whatever_its_role(server: Server) -> None:
    """An admin's either."""
    tenant = await server.admin.create_tenant()
    key = await server.admin.create_key([access.ROLE_ADMIN], [tenant.id])
    assert (await answer(server, key)).status_code == 403


async def test_no_tenant_no_secret_and_no_name_of_a_callers_choosing_is_on_the_page(world: World) -> None:
    """However many methods there are not: they are one label (attack 25)."""
    assert (await world.connect()).status_code == 200
    await world.whoami()
    invented = fresh_id("Invented")
    for method in (f"/{invented}/Get", f"/connectors.v1.{invented}/Get"):
        ask: Any = world.server.channel.unary_unary(method)
        with pytest.raises(grpc.RpcError):
            await ask(b"", metadata=world.admin.metadata)
    text = (await answer(world.server, world.admin.key)).text
    assert 'connectors_rpcs_total{reason="PERMISSION_DENIED",rpc="unknown"}' in text
    hidden = [*world.secrets, world.admin.key, world.app.key, (await world.token()).access_token]
    assert not [form for secret in hidden for form in forms(secret) if form in text]
    assert not [name for name in (invented, world.tenant, world.integration) if name in text]


def test_two_servers_of_one_process_count_for_themselves() -> None:
    """And statuses of calls are counted by class, results as they are."""
    one, other = Metrics(), Metrics()
    for result in ("200", "204", "handed out"):
        one.audited("Call", result)
    assert b'connectors_audited_total{action="Call",result="2xx"} 2.0' in one.page()
    assert b'result="handed out"' in one.page()
    assert b"connectors_audited_total{" not in other.page()


def test_however_many_imports_there_are_they_are_few_series() -> None:
    """How many credentials a stream has is its caller's choice, and may not make labels."""
    metrics = Metrics()
    for number in range(50):
        metrics.audited("ImportCredentials", f"stored {number}, unchanged {number + 1}, refused 0")
    acts = [line for line in metrics.page().splitlines() if line.startswith(b"connectors_audited_total{")]
    assert acts == [
        b'connectors_audited_total{action="ImportCredentials",result="stored N, unchanged N, refused N"} 50.0'
    ]


async def test_watches_are_seen_while_they_last(server: Server, openbao: OpenBao) -> None:
    """Of two sidecars that watch, and once they have left, of none."""
    async with running_server(openbao, server.keys) as own:
        watching = [
            ProxyServiceStub(own.channel).WatchLeases(proxy.WatchLeasesRequest(), metadata=own.sidecar.metadata)
            for _ in range(2)
        ]
        for call in watching:
            await call.read()
        assert await _watched(own, 2)
        for call in watching:
            call.cancel()
        await until(lambda: _watched(own, 0))


async def _watched(server: Server, times: int) -> bool:
    return found(await samples(server), "connectors_watches") == times
