"""What a migration asks of the server: credentials that wait for their cut-over, comparisons, and forgetting without revoking."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.simulator.misbehaviour import Misbehaviour
from tests.api.test_import import _import_tokens_of_the_simulator, _item_of, imported, item, place, reason
from tests.running import Client, Server, fresh_id, refused
from tests.worlds import Timed, World, gated, make_world


async def asked(
    client: Client, wanted: pb.ImportCredentialsRequest, how: str = "credential"
) -> pb.ImportCredentialsResponse:
    """The answer to one item, staged or compared."""
    one = pb.ImportCredentialsRequest(item="it", **{how: wanted.credential})
    return (await imported(client, one))["it"]


async def enable(client: Client, tenant: str, credential: str, *, enabled: bool = True) -> pb.Credential:
    """UpdateCredential."""
    wanted = pb.Credential(tenant=tenant, id=credential, enabled=enabled)
    request = pb.UpdateCredentialRequest(credential=wanted, update_mask=FieldMask(paths=["enabled"]))
    found: pb.Credential = (await client.call("UpdateCredential", request)).credential
    return found


async def test_what_is_staged_is_used_by_nobody_before_it_is_enabled(world: World) -> None:
    """No call, no refresh; then it is a credential like any other, and the mark is gone."""
    await _import_tokens_of_the_simulator(world)
    await world.admin.call("ForgetCredential", pb.ForgetCredentialRequest(tenant=world.tenant, credential="imported"))
    staged = await asked(world.admin, _item_of(world), "stage")
    assert not staged.unchanged
    assert (staged.credential.enabled, staged.credential.state_detail) == (False, "staged")
    assert "cutover" in staged.credential.next_step
    assert await world.whoami_refused("imported") == "CREDENTIAL_DISABLED"
    with refused("CREDENTIAL_DISABLED"):
        await world.refresh("imported")
    assert (await asked(world.admin, _item_of(world), "stage")).unchanged
    live = await enable(world.admin, world.tenant, "imported")
    assert (live.enabled, live.state_detail) == (True, "")
    assert (await world.refresh("imported")).generation == live.generation + 1


async def test_what_is_staged_never_takes_the_place_of_what_is_in_use(server: Server) -> None:
    """The same is unchanged, and stays in use; another is refused. Over what is staged, the newer goes."""
    (tenant,), notes = await place(server.admin)
    live = (await imported(server.admin, item("live", tenant, notes)))["live"].credential
    same = await asked(server.admin, item("it", tenant, notes, labels={"n": "1"}), "stage")
    assert (same.unchanged, same.credential.enabled, same.credential.etag) == (True, True, live.etag)
    assert reason(await asked(server.admin, item("it", tenant, notes, key="other"), "stage")) == "ALREADY_EXISTS"
    for generation, key in ((1, "one"), (2, "two")):
        waiting = item("it", tenant, notes, key=key, credential="waiting")
        assert (await asked(server.admin, waiting, "stage")).credential.generation == generation
    await enable(server.admin, tenant, "waiting", enabled=False)
    waiting = item("it", tenant, notes, key="three", credential="waiting")
    assert reason(await asked(server.admin, waiting, "stage")) == "ALREADY_EXISTS"


async def test_only_an_admin_switches_on_what_is_staged(server: Server) -> None:
    """Two systems would refresh one token. Nor off: that would end its staging, and then it could be switched on."""
    (tenant,), notes = await place(server.admin)
    operator = await server.app(tenant, role=access.ROLE_OPERATOR)
    there = (await asked(server.admin, item("it", tenant, notes), "stage")).credential
    for enabled in (True, False):
        with refused("CREDENTIAL_STAGED", tenant=tenant, credential=notes):
            await enable(operator, tenant, notes, enabled=enabled)
    labels = pb.Credential(tenant=tenant, id=notes, labels={"a": "b"})
    update = pb.UpdateCredentialRequest(credential=labels, update_mask=FieldMask(paths=["labels"]))
    changed = (await operator.call("UpdateCredential", update)).credential
    assert (changed.enabled, changed.state_detail, changed.generation) == (False, "staged", there.generation)
    assert (await enable(server.admin, tenant, notes)).enabled
    assert not (await enable(operator, tenant, notes, enabled=False)).enabled


async def test_no_migration_brings_back_what_was_revoked(server: Server) -> None:
    """What was forgotten it does: that is what its own rollback does."""
    (tenant,), notes = await place(server.admin)
    wanted = item("it", tenant, notes)
    await asked(server.admin, wanted, "stage")
    await server.admin.call("ForgetCredential", pb.ForgetCredentialRequest(tenant=tenant, credential=notes))
    assert (await asked(server.admin, wanted, "stage")).credential.state_detail == "staged"
    await server.admin.call("RevokeCredential", pb.RevokeCredentialRequest(tenant=tenant, credential=notes))
    assert reason(await asked(server.admin, wanted, "stage")) == "CREDENTIAL_REVOKED"
    stored = await server.admin.store(tenant, notes, api_key=pb.ApiKeyMaterial(api_key="newer"))
    assert (stored.enabled, stored.state) == (True, pb.Credential.STATE_ACTIVE)


async def test_a_new_grant_over_what_is_staged_is_in_use_at_once(server: Server) -> None:
    """A tenant that connects anew meanwhile does not wait for a cut-over of what it gave up."""
    (tenant,), notes = await place(server.admin)
    await asked(server.admin, item("it", tenant, notes), "stage")
    stored = await server.admin.store(tenant, notes, api_key=pb.ApiKeyMaterial(api_key="newer"))
    assert (stored.enabled, stored.state_detail) == (True, "")
    other = await asked(server.admin, item("it", tenant, notes, credential="off"), "stage")
    assert other.credential.state_detail == "staged"


MATERIALS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "api_key",
        {"api_key": pb.ApiKeyMaterial(api_key="k", fields={"more": "x"})},
        {"api_key": pb.ApiKeyMaterial(api_key="k")},
    ),
    (
        "password",
        {"basic": pb.BasicMaterial(username="u", password="p")},
        {"basic": pb.BasicMaterial(username="u", password="P")},
    ),
    (
        "access_token",
        {"oauth": pb.OAuthMaterial(access_token="a", refresh_token="r")},
        {"oauth": pb.OAuthMaterial(access_token="a", refresh_token="R")},
    ),
    ("access_token", {"oauth": pb.OAuthMaterial(access_token="a")}, {"oauth": pb.OAuthMaterial(access_token="A")}),
]


@pytest.mark.parametrize(("field", "stored", "other"), MATERIALS)
async def test_a_comparison_sees_every_part_and_changes_nothing(
    server: Server, field: str, stored: dict[str, Any], other: dict[str, Any]
) -> None:
    """Keys and their further fields, passwords, access and refresh tokens. The etag stays."""
    tenant = (await server.admin.create_tenant()).id
    placement = {"headers": {"x-any": "{" + field + "}"}}
    api = {"base_url": "https://api.notes.example", "placement": placement}
    notes = (await server.admin.create_integration(fresh_id("any"), api=api)).id

    def one(given: dict[str, Any]) -> pb.ImportCredentialsRequest:
        wanted = pb.StoreCredentialRequest(tenant=tenant, integration=notes, **given)
        return pb.ImportCredentialsRequest(credential=wanted)

    assert reason(await asked(server.admin, one(stored), "compare")) == "CREDENTIAL_NOT_FOUND"
    made = (await asked(server.admin, one(stored), "stage")).credential
    same = await asked(server.admin, one(stored), "compare")
    assert (same.unchanged, same.renewed, same.credential.etag) == (True, False, made.etag)
    differs = await asked(server.admin, one(other), "compare")
    assert (reason(differs), differs.unchanged, differs.credential.etag) == ("", False, made.etag)


async def test_staging_and_comparing_are_for_admins(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator of the tenant may import, and no more; each comparison is told to the audit, with its result."""
    (tenant,), notes = await place(server.admin)
    operator = await server.app(tenant, role=access.ROLE_OPERATOR)
    wanted = item("it", tenant, notes)
    for how in ("stage", "compare"):
        assert reason(await asked(operator, wanted, how)) == "PERMISSION_DENIED"
    assert not reason(await asked(operator, wanted))
    capsys.readouterr()
    await asked(server.admin, item("it", tenant, notes, key="guess"), "compare")
    told = capsys.readouterr().out
    (line,) = [each for each in told.splitlines() if "CompareCredential" in each]
    assert "different" in line
    assert "compared 1" in told
    assert "guess" not in told


async def test_a_comparison_says_what_was_renewed_from_what_is_given(world: World) -> None:
    """The refresh token that was given may be dead by now; the one that replaced it came of it."""
    await _import_tokens_of_the_simulator(world)
    await world.refresh("imported")
    found = await asked(world.admin, _item_of(world), "compare")
    assert (found.unchanged, found.renewed, found.credential.generation) == (True, True, 2)


async def test_a_comparison_says_what_is_of_no_use_any_more(world: World) -> None:
    """What is given was refused by the provider since: it is no change, and storing it again would mend nothing."""
    await _import_tokens_of_the_simulator(world)
    world.next(Misbehaviour.INVALID_GRANT_400)
    with refused("NEEDS_REAUTH"):
        await world.refresh("imported")
    found = await asked(world.admin, _item_of(world), "compare")
    assert (found.ended, found.unchanged) == (True, False)
    assert found.credential.state == pb.Credential.STATE_NEEDS_REAUTH
    assert not (await asked(world.admin, _item_of(world))).unchanged, (
        "an import stores it: who asks for that may know why"
    )


async def test_what_is_forgotten_lives_on_at_the_provider(world: World) -> None:
    """Nothing is sent there; the record says revoked, and the old tokens still work elsewhere."""
    await _import_tokens_of_the_simulator(world)
    there = await world.credential("imported")
    request = pb.ForgetCredentialRequest(tenant=world.tenant, credential="imported", etag="77")
    with refused("CONFLICT"):
        await world.admin.call("ForgetCredential", request)
    request.etag = there.etag
    answer = await world.admin.call("ForgetCredential", request)
    assert answer.credential.state == pb.Credential.STATE_REVOKED
    assert [seen for seen in world.sim.record.on("/revoke") if seen.client_id == world.client_id] == []
    assert reason(await asked(world.admin, _item_of(world), "compare")) == ""
    await asked(world.admin, _item_of(world), "stage")
    await enable(world.admin, world.tenant, "imported")
    assert (await world.refresh("imported")).state == pb.Credential.STATE_ACTIVE


async def test_nothing_is_forgotten_while_its_refresh_is_under_way(timed: Timed) -> None:
    """The answer would have no place to go: the one good refresh token would be lost."""
    async with gated(timed.sim) as gate:
        world = await make_world(timed.server, timed.sim, timed.clock, token_endpoint=f"{gate.url}/token")
        await _import_tokens_of_the_simulator(world)
        gate.shut()
        refreshing = asyncio.create_task(world.refresh("imported"))
        await gate.reached(1)
        request = pb.ForgetCredentialRequest(tenant=world.tenant, credential="imported")
        with refused("CONFLICT", problem="refresh_under_way"):
            await world.admin.call("ForgetCredential", request)
        gate.open.set()
        assert (await refreshing).generation == 2

        answer = await world.admin.call("ForgetCredential", request)
        assert answer.credential.state == pb.Credential.STATE_REVOKED
