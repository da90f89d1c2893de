"""Ending a grant at the provider: a failure is recorded and tried again; a shared grant is left alone (attack 30)."""

from __future__ import annotations

from pathlib import Path

from connectors_grpc import app
from connectors_grpc.credentials.revoking import FIRST_PAUSE, GIVE_UP_AFTER
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.metrics import Metrics
from connectors_grpc.settings import ServerSettings, load
from connectors_grpc.simulator.misbehaviour import Endpoint, Misbehaviour, Queued
from connectors_grpc.vault import VaultSettings, connect
from tests.worlds import World

Result = pb.RevokeCredentialResponse


async def revoke(world: World) -> pb.RevokeCredentialResponse:
    """RevokeCredential."""
    request = pb.RevokeCredentialRequest(tenant=world.tenant, integration=world.integration)
    answer: pb.RevokeCredentialResponse = await world.admin.call("RevokeCredential", request)
    return answer


async def retry(world: World, vault: VaultSettings, scratch: Path) -> int:
    """What a replica does now and then, done now."""
    settings = load(ServerSettings, {"state_dir": scratch})
    async with connect(vault) as client, app.platform(settings, client, world.clock, Metrics()) as built:
        return await built.revoking.retry()


async def test_a_grant_that_could_not_be_ended_is_ended_later(
    world: World, timed_vault: VaultSettings, tmp_path: Path
) -> None:
    """The provider is down when somebody revokes: the record says so until it has worked."""
    await world.connect()
    world.sim.next_replies.append(Queued(Misbehaviour.UNAVAILABLE, world.client_id, Endpoint.REVOKE))
    first = await revoke(world)
    assert first.provider_result == Result.PROVIDER_RESULT_FAILED
    assert first.credential.state_detail == "revocation_pending"
    assert await world.whoami_refused() == "CREDENTIAL_REVOKED"
    assert await retry(world, timed_vault, tmp_path / "a") == 0
    world.pass_time(FIRST_PAUSE.total_seconds() + 1)
    assert await retry(world, timed_vault, tmp_path / "a") == 1
    assert (await world.credential()).state_detail == ""
    assert await retry(world, timed_vault, tmp_path / "a") == 0


async def test_after_a_week_it_is_given_up_and_said(world: World, timed_vault: VaultSettings, tmp_path: Path) -> None:
    """Nothing is hidden: the record says that the grant may live on."""
    await world.connect()
    failure = Queued(Misbehaviour.UNAVAILABLE, world.client_id, Endpoint.REVOKE)
    world.sim.next_replies.append(failure)
    await revoke(world)
    world.sim.next_replies.append(failure)
    world.pass_time(GIVE_UP_AFTER.total_seconds() + 1)
    assert await retry(world, timed_vault, tmp_path / "a") == 0
    assert (await world.credential()).state_detail == "revocation_failed"


async def test_a_grant_that_another_credential_shares_is_left_alone(world: World) -> None:
    """Many providers end all tokens of an account at once."""
    await world.know_accounts()
    await world.connect()
    await world.connect(credential="second")
    assert (await world.credential()).account == (await world.credential("second")).account != ""
    before = len(world.sim.record.on("/revoke"))
    first = await revoke(world)
    assert first.provider_result == Result.PROVIDER_RESULT_SHARED
    assert len(world.sim.record.on("/revoke")) == before
    assert await world.whoami("second") == 200
