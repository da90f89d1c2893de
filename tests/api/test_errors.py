"""Failures as callers see them: one Status, one ErrorInfo, no word of ours that they may not have."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from connectors_grpc import errors, logs
from connectors_grpc.access import Access
from connectors_grpc.boundary import Boundary, translate
from connectors_grpc.changes import ChangeFeed
from connectors_grpc.domain.ids import KeyId
from connectors_grpc.domain.records import Role
from connectors_grpc.errors import MEANING, Code, ConnectorsError, FieldViolation, Reason, VaultUnavailable
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from connectors_grpc.memory import MemoryDocuments, Outage
from connectors_grpc.ports import Audit
from connectors_grpc.rpc.interceptor import BoundaryInterceptor, key_of
from connectors_grpc.rpc.status import code_of, status_of
from connectors_grpc.secret import Secret
from tests.canary import Session, planted
from tests.clock import ManualClock
from tests.openbao import OpenBao
from tests.raw_calls import bearer, ended
from tests.running import Refused, Server, fresh_id, running_server

pytestmark = pytest.mark.usefixtures("heard")
GET = "/connectors.v1.TenantService/GetTenant"


class Silent:
    """`ports.Audit` that nobody reads."""

    def record(self, action: str, **_rest: object) -> None:
        """Nothing."""


async def door() -> tuple[Boundary, Secret, Outage]:
    """A boundary over a store in memory, an admin's and sidecar's key, and the store's switch."""
    outage = Outage()
    audit: Audit = Silent()
    access = Access(MemoryDocuments(outage), ChangeFeed(), audit, ManualClock())
    text = access.new_text(KeyId("admin"))
    await access.bootstrap(KeyId("admin"), Role.ADMIN, text)
    return Boundary(access), text, outage


class Broken:
    """Handlers with a bug whose text quotes a secret; as one RPC, and as a stream."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    async def unary(self, _request: Any, _context: Any) -> pb.GetTenantResponse:
        """Fails."""
        raise ValueError(f"could not parse {self.secret!r}") from KeyError(self.secret)

    async def stream(self, _request: Any, _context: Any) -> AsyncIterator[pb.GetTenantResponse]:
        """Fails after its first answer."""
        yield pb.GetTenantResponse()
        raise RuntimeError(self.secret)


async def test_attack_25_a_bugs_text_never_reaches_the_caller_nor_a_log(listening: Session) -> None:
    """The production interceptor before handlers that fail: INTERNAL, an incident's number, and nothing else."""
    boundary, key, _ = await door()
    secret = planted()
    broken = Broken(secret)
    server = grpc.aio.server(interceptors=(BoundaryInterceptor(boundary),))
    handlers: dict[str, Any] = {
        "GetTenant": grpc.unary_unary_rpc_method_handler(
            broken.unary, pb.GetTenantRequest.FromString, pb.GetTenantResponse.SerializeToString
        ),
        "ListTenants": grpc.unary_stream_rpc_method_handler(
            broken.stream, pb.ListTenantsRequest.FromString, pb.GetTenantResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("connectors.v1.TenantService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            request = pb.GetTenantRequest(tenant="a").SerializeToString()
            answer = await ended(channel.unary_unary(GET, bytes, bytes)(request, metadata=bearer(key.reveal())))
            stream = channel.unary_stream(GET.replace("Get", "List") + "s", bytes, bytes)
            cut = stream(b"", metadata=bearer(key.reveal()))
            assert await cut.read() == b""
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await cut.read()
    finally:
        await server.stop(None)
    assert (answer.code, answer.reason, answer.text) == (
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        MEANING[Reason.INTERNAL].text,
    )
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    said = f"{answer.raw!r} {answer.text} {caught.value.details()} {caught.value.trailing_metadata()}"
    assert secret not in said
    listening.hear(said)


def test_every_reason_becomes_one_status_with_one_error_info() -> None:
    """The code, the constant text, the metadata; fields and waiting only where there are some."""
    for reason in Reason:
        status = status_of(ConnectorsError(reason, {"a": "b"}))
        assert len(status.details) == 1
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain, dict(info.metadata)) == (reason.value, "connectors", {"a": "b"})
        assert status.message == MEANING[reason].text
        assert status.code == code_of(ConnectorsError(reason)).value[0]
    assert {code.value for code in Code} <= {code.name for code in grpc.StatusCode}


def test_every_reason_is_raised_by_somebody() -> None:
    """What the contract documents can happen: a reason that no code names is a promise that nobody keeps."""
    root = Path(errors.__file__).parent
    sources = [path for folder in (root, root.parent / "sidecar") for path in folder.rglob("*.py")]
    words = {
        word
        for path in sources
        if path != Path(errors.__file__) and "gen" not in path.parts
        for word in re.findall(r"[A-Z][A-Z_]+", path.read_text())
    }
    assert {reason.value for reason in Reason} <= words


def test_fields_and_waiting_are_details_of_their_own() -> None:
    """BadRequest names each field, RetryInfo says when."""
    fields = (FieldViolation("a.b", "x"), FieldViolation("c", "y"))
    status = status_of(ConnectorsError(Reason.INVALID_FIELD, fields=fields, retry_after=1.5))
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(bad)
    assert status.details[2].Unpack(retry)
    assert [(v.field, v.description) for v in bad.field_violations] == [("a.b", "x"), ("c", "y")]
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_every_text_says_what_to_do_and_none_has_room_for_a_value() -> None:
    """Constants: what varies is metadata."""
    for reason, meaning in MEANING.items():
        assert meaning.text.endswith("."), reason
        assert "{" not in meaning.text, reason
        assert 400 <= meaning.http < 600, reason


def test_cancellation_is_no_failure() -> None:
    """It goes on up, and so does whatever is no Exception."""
    with pytest.raises(asyncio.CancelledError):
        translate(asyncio.CancelledError(), GET)
    with pytest.raises(KeyboardInterrupt):
        translate(KeyboardInterrupt(), GET)
    assert translate(TimeoutError(), GET).reason is Reason.DEADLINE_EXCEEDED
    assert translate(ConnectorsError(Reason.CONFLICT), GET).reason is Reason.CONFLICT


async def test_work_that_outlasts_the_callers_deadline_ends_with_it() -> None:
    """DEADLINE_EXCEEDED in our words, and the work is cancelled."""
    boundary, key, _ = await door()
    ended_by: list[type[BaseException]] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended_by.append(type(error))
            raise

    with pytest.raises(ConnectorsError) as caught:
        await boundary.run(GET, key, pb.GetTenantRequest(tenant="a"), 0.5, hang)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert ended_by == [asyncio.CancelledError]


async def test_a_vault_that_is_down_is_said_before_anything_else_can_be() -> None:
    """Without it nobody is known: not API_KEY_INVALID, which would have people change their keys."""
    boundary, key, outage = await door()
    outage.down = True
    with pytest.raises(VaultUnavailable):
        await boundary.run(GET, key, pb.GetTenantRequest(tenant="a"), 1, asyncio.Event().wait)


async def test_a_vault_that_dies_is_vault_unavailable_with_a_time_to_retry(
    private_openbao: OpenBao, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call says so, once it has been waited for."""
    monkeypatch.setattr("connectors_grpc.boundary.LONGEST_WAIT", 1.0)
    async with running_server(private_openbao, tmp_path_factory.mktemp("dead")) as server:
        tenant = (await server.admin.create_tenant()).id
        await private_openbao.kill()
        for rpc, request in (
            ("GetTenant", pb.GetTenantRequest(tenant=tenant)),
            ("CreateTenant", pb.CreateTenantRequest(tenant_id=fresh_id())),
            ("ListTenants", pb.ListTenantsRequest()),
        ):
            with pytest.raises(Refused) as caught:
                await server.admin.call(rpc, request)
            assert caught.value.reason == "VAULT_UNAVAILABLE"
            assert (caught.value.retry_after or 0) > 0


async def test_required_fields_are_named_all_at_once(server: Server) -> None:
    """By `field_behavior`, within messages too."""
    wanted: dict[str, Any] = {"oauth": {"issuer": "x"}, "api": {"placement": {"basic": {}}}, "oauth_client": {}}
    with pytest.raises(Refused) as caught:
        await server.admin.create_integration("", **wanted)
    assert caught.value.reason == "INVALID_FIELD"
    assert caught.value.fields == [
        "integration_id",
        "integration.oauth.token_endpoint",
        "integration.api.base_url",
        "integration.api.placement.basic.username",
        "integration.oauth_client.client_id",
    ]


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ((), None),
        ((("authorization", "Bearer a"),), "a"),
        ((("authorization", "bearer   a"),), "a"),
        ((("authorization", "Bearer a b"),), ""),
        ((("authorization", "a"),), ""),
        ((("x-api-key", "a"),), "a"),
        ((("authorization", "Bearer a"), ("authorization", "Bearer a")), None),
        ((("authorization", "Bearer a"), ("x-api-key", "b")), None),
        ((("x-other", "a"),), None),
    ],
)
def test_exactly_one_key_is_looked_for(metadata: Any, found: str | None) -> None:
    """Two are none; what is no key is an empty one, which is refused as invalid."""
    key = key_of(metadata)
    assert (None if key is None else key.reveal()) == found


def test_the_canary_hears_what_is_printed_and_logged(capfd: pytest.CaptureFixture[str]) -> None:
    """Raw and as base64 at any alignment; or its silence would say nothing."""
    session, secret = Session(), "sk-of-this-very-test-0123456789"
    session.plant(secret)
    logs.get("canary").info("rpc", rpc=secret)
    printed = capfd.readouterr()
    session.hear(printed.out + printed.err)
    assert session.seen()
    for lead in ("", "a", "ab"):
        other = Session()
        other.plant(secret)
        other.hear(base64.b64encode(f"{lead}{secret}:x".encode()).decode())
        assert other.seen(), lead
