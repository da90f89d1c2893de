"""While a migration runs, apps ask the platform alone: what is not cut over is read where it was, and never refreshed there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.legacy import request_id
from connectors_grpc.migration.copying import copy
from connectors_grpc.migration.cutting import cut_over
from connectors_grpc.migration.policies import policy
from tests.migrating import OldBao, OldPlace, migrated, place_of, secret, server_at
from tests.migration.test_migration import Three, three, token_of
from tests.providers import recording_upstream
from tests.running import Client, Server, fresh_id, refused


@asynccontextmanager
async def reading(place: OldPlace, directory: Path, *, allowed: bool = True, **settings: Any) -> AsyncIterator[Server]:
    """A server that looks into the old place too, if the Vault lets it."""
    texts = (policy("read", place.path),) if allowed else ()
    async with server_at(place.bao, directory, *texts, legacy_reads=place.path, **settings) as server:
        yield server


async def lease(server: Server, tenant: str, credential: str) -> proxy.Lease:
    """What a sidecar gets."""
    request = proxy.LeaseRequest(tenant=tenant, credential=credential)
    found: proxy.Lease = (await server.sidecar.call("Lease", request)).lease
    return found


async def made(server: Server, place: OldPlace, tenant: str) -> None:
    """A tenant as the migration makes it."""
    await server.admin.create_tenant(tenant, request_id=request_id(place.path, tenant))


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
async def test_from_the_first_tenant_to_the_cutover_no_call_fails(
    old_place: OldPlace, tmp_path: Path, sealed: bool
) -> None:
    """Not copied, staged, staged and older than the old record, in use: each time the token that is good at that moment."""
    async with reading(old_place, tmp_path) as server:
        kinds, tenant, journal = await three(server.admin), fresh_id("acme"), tmp_path / "j"

        async def write(token: str) -> None:
            kept = await old_place.seal(tenant, kinds.oauth, token) if sealed else token
            await old_place.write(tenant, kinds.oauth, access_token=kept, refresh_token="r-" + token)

        await write(first := secret())
        await made(server, old_place, tenant)
        assert (await token_of(server, tenant, kinds.oauth)).access_token == first
        early = await lease(server, tenant, kinds.oauth)
        assert (early.generation, early.refreshable) == (0, False)
        assert early.refresh_after_ttl.ToTimedelta() <= timedelta(seconds=5)
        source = await old_place.source()
        await migrated(source, server, journal, copy)
        assert (await token_of(server, tenant, kinds.oauth)).access_token == first
        await write(second := secret())
        assert (await token_of(server, tenant, kinds.oauth)).access_token == second
        await migrated(source, server, journal, cut_over, old_stopped=True)
        await write(secret())
        assert (await token_of(server, tenant, kinds.oauth)).access_token == second
        late = await lease(server, tenant, kinds.oauth)
        assert (late.generation > early.generation, late.refreshable) == (True, True)


async def test_what_has_ended_in_the_old_layout_is_not_refreshed_there(old_bao: OldBao, tmp_path: Path) -> None:
    """That is the old system's; here it is expired, and the record stays as it is."""
    place = place_of(old_bao)
    async with reading(place, tmp_path) as server:
        kinds, tenant = await three(server.admin), fresh_id("acme")
        past = int((datetime.now(UTC) - timedelta(minutes=1)).timestamp())
        await place.write(tenant, kinds.oauth, access_token=secret(), refresh_token=secret(), expires_at=past)
        before = await place.read(tenant, kinds.oauth)
        await made(server, place, tenant)
        with refused("CREDENTIAL_EXPIRED"):
            await token_of(server, tenant, kinds.oauth)
        with refused("CREDENTIAL_EXPIRED"):
            await refresh(server, tenant, kinds.oauth)
        assert await place.read(tenant, kinds.oauth) == before


async def refresh(server: Server, tenant: str, credential: str) -> None:
    """RefreshCredential."""
    request = pb.RefreshCredentialRequest(tenant=tenant, credential=credential)
    await server.admin.call("RefreshCredential", request)


async def test_what_the_platform_is_in_charge_of_is_never_read_there(old_bao: OldBao, tmp_path: Path) -> None:
    """Switched off, revoked, or the tenant suspended: the old record does not bring it back."""
    place = place_of(old_bao)
    async with reading(place, tmp_path) as server:
        kinds, tenant, journal = await three(server.admin), fresh_id("acme"), tmp_path / "j"
        await place.write(tenant, kinds.oauth, access_token=secret())
        source = await place.source()
        await migrated(source, server, journal, copy)
        await migrated(source, server, journal, cut_over, old_stopped=True)
        await switch_off(server.admin, tenant, kinds.oauth)
        with refused("CREDENTIAL_DISABLED"):
            await token_of(server, tenant, kinds.oauth)
        revoke = pb.ForgetCredentialRequest(tenant=tenant, credential=kinds.oauth)
        await server.admin.call("ForgetCredential", revoke)
        with refused("CREDENTIAL_DISABLED"):
            await token_of(server, tenant, kinds.oauth)
        other = fresh_id("other")
        await place.write(other, kinds.oauth, access_token=secret())
        await made(server, place, other)
        await server.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=other))
        with refused("TENANT_SUSPENDED"):
            await token_of(server, other, kinds.oauth)


@pytest.mark.parametrize("copied", [False, True], ids=["not copied", "staged"])
async def test_what_is_read_there_can_be_revoked(old_bao: OldBao, tmp_path: Path, copied: bool) -> None:
    """With the tokens that are good there, at the provider too; here it is refused from then on, whatever is copied later."""
    place = place_of(old_bao)
    async with reading(place, tmp_path) as server, recording_upstream() as provider:
        oauth = {f"{name}_endpoint": f"{provider.url}/{name}" for name in ("authorization", "token", "revocation")}
        api = {"base_url": provider.url}
        client = {"client_id": "c", "client_secret": secret()}
        notes = (
            await server.admin.create_integration(
                fresh_id("notes"), api=api, oauth=oauth, oauth_client=client, allow_private_addresses=True
            )
        ).id
        tenant, journal, source = fresh_id("acme"), tmp_path / "j", await place.source()
        await place.write(tenant, notes, access_token=secret(), refresh_token=secret())
        await made(server, place, tenant)
        if copied:
            await migrated(source, server, journal, copy)
        await place.write(tenant, notes, access_token=(token := secret()), refresh_token=(newest := secret()))
        assert (await token_of(server, tenant, notes)).access_token == token
        operator = await server.app(tenant, role=access.ROLE_OPERATOR)
        with refused("CREDENTIAL_STAGED", credential=notes):
            await switch_off(operator, tenant, notes)
        request = pb.RevokeCredentialRequest(tenant=tenant, credential=notes)
        answer = await operator.call("RevokeCredential", request)
        assert answer.provider_result == pb.RevokeCredentialResponse.PROVIDER_RESULT_REVOKED
        assert answer.credential.state == pb.Credential.STATE_REVOKED
        assert [f"token={newest}&" in each.body.decode() for each in provider.requests] == [True]
        await migrated(source, server, journal, copy)
        await migrated(source, server, journal, cut_over, old_stopped=True)
        with refused("CREDENTIAL_REVOKED"):
            await token_of(server, tenant, notes)
        with refused("CREDENTIAL_REVOKED"):
            await lease(server, tenant, notes)
        again = await operator.call("RevokeCredential", request)
        assert again.credential == answer.credential
        assert len(provider.requests) == 1


async def test_a_suspension_holds_for_what_is_read_there(old_bao: OldBao, tmp_path: Path) -> None:
    """Leases, calls and tokens alike; resumed, it is read again."""
    place = place_of(old_bao)
    async with reading(place, tmp_path) as server:
        kinds, tenant = await three(server.admin), fresh_id("acme")
        await place.write(tenant, kinds.oauth, access_token=(token := secret()))
        await made(server, place, tenant)
        app = await server.app(tenant)
        assert (await lease(server, tenant, kinds.oauth)).generation == 0
        await server.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=tenant))
        with refused("TENANT_SUSPENDED"):
            await lease(server, tenant, kinds.oauth)
        with refused("TENANT_SUSPENDED"):
            await token_of(server, tenant, kinds.oauth)
        with refused("TENANT_SUSPENDED"):
            await app.proxied(tenant, kinds.oauth, "/v1/x")
        await server.admin.call("ResumeTenant", tenants.ResumeTenantRequest(tenant=tenant))
        assert (await token_of(server, tenant, kinds.oauth)).access_token == token


async def switch_off(client: Client, tenant: str, credential: str) -> None:
    """UpdateCredential."""
    off = pb.UpdateCredentialRequest(credential=pb.Credential(tenant=tenant, id=credential, enabled=False))
    off.update_mask.paths.append("enabled")
    await client.call("UpdateCredential", off)


async def test_only_tenants_of_the_migration_read_there(old_bao: OldBao, tmp_path: Path) -> None:
    """One of the same id that somebody made, before or after, is not that old tenant; the map says who is."""
    place = place_of(old_bao)
    odd, mapped, taken = f"Odd Corp {fresh_id()}", fresh_id("mapped"), fresh_id("taken")
    (tmp_path / "ids.csv").write_text(f"old,new\n{odd},{mapped}\n{taken},{mapped}-2\n")
    async with reading(place, tmp_path, legacy_map=tmp_path / "ids.csv") as server:
        kinds, plain = await three(server.admin), fresh_id("plain")
        for tenant in (odd, taken, plain):
            await place.write(tenant, kinds.oauth, access_token=secret())
        await server.admin.create_tenant(plain)
        await made(server, place, mapped)
        await made(server, place, taken)
        assert (await token_of(server, mapped, kinds.oauth)).access_token == place.planted[0]
        for tenant in (plain, taken):
            with refused("CREDENTIAL_NOT_FOUND"):
                await token_of(server, tenant, kinds.oauth)


async def test_it_fails_closed(old_bao: OldBao, placed: Server, tmp_path: Path) -> None:
    """Without the setting nothing is read there; without the policy, or in a form that is not known, nothing is handed out."""
    place = place_of(old_bao)
    kinds, tenant = await three(placed.admin), fresh_id("acme")
    await place.write(tenant, kinds.oauth, access_token=secret())
    await place.write(tenant, kinds.key, api_key=secret(), unknown="field")
    await made(placed, place, tenant)
    with refused("CREDENTIAL_NOT_FOUND"):
        await token_of(placed, tenant, kinds.oauth)
    async with reading(place, tmp_path, allowed=False) as server:
        with refused("VAULT_UNAVAILABLE"):
            await lease_refused(server, tenant, kinds)
    (tmp_path / "again").mkdir()
    async with reading(place, tmp_path / "again") as server:
        for name in (kinds.key, kinds.basic, "no-such-integration"):
            with refused("CREDENTIAL_NOT_FOUND"):
                await lease(server, tenant, name)


async def lease_refused(server: Server, tenant: str, kinds: Three) -> None:
    """A lease that is soon given up: a Vault that refuses is waited for."""
    request = proxy.LeaseRequest(tenant=tenant, credential=kinds.oauth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connectors_grpc.boundary.LONGEST_WAIT", 1.0)
        await server.sidecar.call("Lease", request)
