"""Who may call what: every RPC of the descriptors, by every role, and by keys that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from connectors_grpc import boundary, policy
from connectors_grpc.domain.records import Role
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.rpc.convert import ROLE
from tests.raw_calls import RPCS, Metadata, Rpc, ask, bearer, ended
from tests.running import Server, fresh_id

NOBODY = "nobody-of-that-name"
DENIED = {"API_KEY_MISSING", "API_KEY_INVALID", "PERMISSION_DENIED"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def keys(server: Server) -> Mapping[Role, str]:
    """A key of each role, for all tenants."""
    return {role: await server.admin.create_key([number], ["*"]) for role, number in ROLE.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def useless(server: Server) -> Mapping[str, Metadata]:
    """Whatever is not a working key."""
    admin: list[int] = [access.ROLE_ADMIN]
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = await server.admin.create_key(admin, ["*"], expire_time=past)
    name = fresh_id("revoked")
    made = await server.admin.call(
        "CreateApiKey",
        access.CreateApiKeyRequest(key_id=name, api_key=access.ApiKey(roles=[access.ROLE_ADMIN], tenants=["*"])),
    )
    await server.admin.call("RevokeApiKey", access.RevokeApiKeyRequest(key=name))
    wrong = made.secret[:-1] + ("A" if made.secret[-1] != "A" else "B")
    return {
        "malformed": bearer("cnk_nope"),
        "empty": (("authorization", "Bearer "),),
        "basic": (("authorization", f"Basic {server.admin.key}"),),
        "bare": (("authorization", server.admin.key),),
        "unknown": bearer(f"cnk_{fresh_id('unknown')}_{'A' * 43}"),
        "one letter off": bearer(wrong),
        "expired": bearer(expired),
        "revoked": bearer(made.secret),
        "other header": (("x-api-key", made.secret),),
    }


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.name)
async def test_attack_6_every_rpc_refuses_what_is_no_key_in_the_same_words(
    server: Server, useless: Mapping[str, Metadata], rpc: Rpc
) -> None:
    """Nothing falls through to an empty identity, and the answer does not say what is wrong with the key."""
    for nothing in ((), (("authorization", f"Bearer {server.admin.key}"), ("x-api-key", server.admin.key))):
        answer = await ask(server.channel, rpc, rpc.request(NOBODY, NOBODY), nothing)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_MISSING")
    answers = {
        name: await ask(server.channel, rpc, rpc.request(NOBODY, NOBODY), sent) for name, sent in useless.items()
    }
    assert {name: answer.reason for name, answer in answers.items()} == dict.fromkeys(useless, "API_KEY_INVALID")
    assert len({answer.denial for answer in answers.values()}) == 1


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.name)
async def test_attack_36_every_rpc_takes_its_roles_and_no_other(
    server: Server, keys: Mapping[Role, str], rpc: Rpc
) -> None:
    """A key of another role is refused before anything else is looked at."""
    reasons = {}
    for role, key in keys.items():
        answer = await ask(server.channel, rpc, rpc.request(NOBODY, NOBODY), bearer(key))
        reasons[role] = answer.reason
    let_in = {role for role, reason in reasons.items() if reason not in DENIED}
    assert let_in == rpc.rule.roles, reasons
    assert {reason for reason in reasons.values() if reason in DENIED} <= {"PERMISSION_DENIED"}


@pytest.mark.parametrize("rpc", [rpc for rpc in RPCS if rpc.rule.platform], ids=lambda rpc: rpc.name)
async def test_what_is_the_platforms_needs_a_key_for_the_whole_platform(server: Server, rpc: Rpc) -> None:
    """An admin of one tenant, or of some credentials, is no admin of the platform."""
    tenant = (await server.admin.create_tenant()).id
    of_tenant = await server.admin.create_key([access.ROLE_ADMIN], [tenant])
    of_some = await server.admin.create_key([access.ROLE_ADMIN], ["*"], credentials=["notion"])
    for key in (of_tenant, of_some):
        assert (await ask(server.channel, rpc, rpc.request(), bearer(key))).reason == "PERMISSION_DENIED"


@pytest.mark.parametrize("rpc", [rpc for rpc in RPCS if rpc.rule.whole], ids=lambda rpc: rpc.name)
async def test_what_concerns_a_whole_tenant_needs_a_key_for_all_its_credentials(server: Server, rpc: Rpc) -> None:
    """A key for one credential does not freeze, rename or delete the tenant."""
    tenant = (await server.admin.create_tenant()).id
    key = await server.admin.create_key([access.ROLE_ADMIN], [tenant], credentials=["notion"])
    answer = await ask(server.channel, rpc, rpc.request(tenant), bearer(key))
    assert answer.reason == "PERMISSION_DENIED"


def test_every_rpc_of_the_descriptors_has_a_rule_and_no_rule_is_left_over() -> None:
    """Nothing is open, and nothing is ruled, by omission."""
    ours = {path for path in policy.RULES if path.startswith("/connectors.")}
    assert ours == {rpc.path for rpc in RPCS}


def test_every_rule_names_fields_that_the_request_has() -> None:
    """A mistyped field would authorise against an empty text."""
    for rpc in RPCS:
        for path in filter(None, (rpc.rule.tenant, *rpc.rule.credential)):
            message = rpc.descriptor.input_type
            for name in path.split("."):
                field = message.fields_by_name[name]
                message = field.message_type


def test_every_request_that_has_a_tenant_is_authorised_by_it() -> None:
    """A field `tenant` that no rule reads would be a way around the scope."""
    for rpc in RPCS:
        if rpc.accepts("tenant") and rpc.descriptor.input_type.fields_by_name["tenant"].message_type is None:
            assert rpc.rule.tenant == "tenant", rpc.name
        if rpc.accepts("credential") and rpc.descriptor.input_type.fields_by_name["credential"].message_type is None:
            assert "credential" in rpc.rule.credential, rpc.name


@pytest.mark.parametrize(
    "path",
    [
        "connectors.v1.TenantService/ListTenants",
        "//connectors.v1.TenantService/ListTenants",
        "/connectors.v1.TenantService/ListTenants/",
        "/connectors.v1.tenantservice/listtenants",
        "/connectors.v1.TenantService/ListTenants?x=/grpc.health.v1.Health/Check",
        "/connectors.v1.TenantService/../TenantService/ListTenants",
        "/connectors.v1.TenantService%2FListTenants",
        "/connectors.v1.TenantService/Nothing",
        "/grpc.health.v1.Health/Nothing",
        "/nobody.v1.NoService/None",
        "/",
    ],
)
async def test_attack_29_an_odd_path_is_refused_as_any_other(server: Server, path: str) -> None:
    """A path that is no method's gives nothing away: no key, a wrong key, and an admin's."""
    call = server.channel.unary_unary(path, tenants.ListTenantsRequest.SerializeToString, bytes)
    assert (await ended(call(tenants.ListTenantsRequest(), timeout=20))).reason == "API_KEY_MISSING"
    wrong = bearer("cnk_nope")
    assert (await ended(call(tenants.ListTenantsRequest(), metadata=wrong, timeout=20))).reason == "API_KEY_INVALID"
    admin = bearer(server.admin.key)
    answer = await ended(call(tenants.ListTenantsRequest(), metadata=admin, timeout=20))
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_health_is_open_and_says_serving(server: Server) -> None:
    """Balancers have no key."""
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", "connectors.v1.ProxyService"):
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_is_for_any_key_and_for_nobody_else(server: Server, keys: Mapping[Role, str]) -> None:
    """Command lines like grpcurl need it; strangers don't."""
    channel: Any = server.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)

    def services(metadata: Metadata) -> Any:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        return stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=20)

    assert (await ended(services(()))).reason == "API_KEY_MISSING"
    for key in keys.values():
        found = (await ended(services(bearer(key)))).reply.list_services_response.service
        assert "connectors.v1.TenantService" in {service.name for service in found}


async def test_channelz_is_for_admins(server: Server, keys: Mapping[Role, str]) -> None:
    """It says who is connected. What it does not find is its own refusal, without our bug report."""
    channel: Any = server.channel
    stub: Any = channelz_pb2_grpc.ChannelzStub(channel)
    for role, key in keys.items():
        call = stub.GetServers(channelz_pb2.GetServersRequest(), metadata=bearer(key), timeout=20)
        assert (await ended(call)).reason == ("OK" if role is Role.ADMIN else "PERMISSION_DENIED")
    missing = stub.GetServer(
        channelz_pb2.GetServerRequest(server_id=1 << 40), metadata=bearer(keys[Role.ADMIN]), timeout=20
    )
    assert (await ended(missing)).code is grpc.StatusCode.NOT_FOUND


async def test_a_message_that_does_not_parse_is_refused_after_the_key(server: Server) -> None:
    """Strangers' bytes are not parsed, and nobody is told a parser's words."""
    for path in ("TenantService/GetTenant", "ProxyService/WatchLeases"):
        multi = server.channel.unary_stream if "Watch" in path else server.channel.unary_unary
        call = multi(f"/connectors.v1.{path}", bytes, bytes)
        assert (await ended(call(b"\xff\xff", timeout=20))).reason == "API_KEY_MISSING"
        key = server.sidecar.key if "Watch" in path else server.admin.key
        answer = await ended(call(b"\xff\xff", metadata=bearer(key), timeout=20))
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Mapping[str, object]] = asyncio.Queue()

    def info(self, event: str, **pairs: object) -> None:
        """One line."""
        self.lines.put_nowait({"event": event, **pairs})


async def test_each_call_leaves_one_log_line_with_who_and_why(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The boundary writes it: for streams, refusals and callers that leave, too."""
    lines, watch = Lines(), by_name("WatchLeases")
    keys = [await server.admin.create_key([role], ["*"]) for role in (access.ROLE_ADMIN, access.ROLE_SIDECAR)]
    admin, sidecar = map(bearer, keys)
    names = {key.split("_")[1]: name for key, name in zip(keys, ("admin", "sidecar"), strict=True)}
    monkeypatch.setattr(boundary, "log", lines)
    await ask(server.channel, by_name("ListTenants"), tenants.ListTenantsRequest(), admin)
    await ask(server.channel, watch, watch.request(), admin)
    await ask(server.channel, watch, watch.request(), sidecar)
    said: list[Mapping[str, object]] = []
    async with asyncio.timeout(60):
        while len(said) < 3:
            line = await lines.lines.get()
            said += [line] if line["caller"] in names else []  # what other tests began may end now
    assert [(str(line["rpc"]).rpartition("/")[2], names[str(line["caller"])], line["reason"]) for line in said] == [
        ("ListTenants", "admin", "OK"),
        ("WatchLeases", "admin", "PERMISSION_DENIED"),
        ("WatchLeases", "sidecar", "CANCELLED"),
    ]


def by_name(name: str) -> Rpc:
    """One RPC."""
    return next(rpc for rpc in RPCS if rpc.name == name)
