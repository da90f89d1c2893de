"""From the old layout to the new, over real Vaults: nothing is lost, nothing is used too early, and all can be undone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.migration.checking import check
from connectors_grpc.migration.copying import copy
from connectors_grpc.migration.cutting import cut_over
from connectors_grpc.migration.finishing import finish
from connectors_grpc.migration.items import Item
from connectors_grpc.migration.journal import Journal, JournalUnusable, Step
from connectors_grpc.migration.opening import Source
from connectors_grpc.migration.planning import plan
from connectors_grpc.migration.policies import policy
from connectors_grpc.migration.work import Migration
from connectors_grpc.vault.old_layout import OldVaultRefuses
from tests.migrating import API, OldBao, OldPlace, migrated, place_of, results, secret
from tests.running import Client, Server, fresh_id, refused

LATER = (datetime.now(UTC) + timedelta(hours=6)).replace(microsecond=0)

SOON = int(LATER.timestamp())


@dataclass
class Three:
    """Integrations of each kind, on one server."""

    oauth: str
    key: str
    basic: str


async def three(client: Client) -> Three:
    """New ones."""
    header = {"headers": {"x-key": "{api_key}"}}
    basic = {"basic": {"username": "{username}", "password": "{password}"}}
    return Three(
        (await client.create_integration(fresh_id("notes"), api=API)).id,
        (await client.create_integration(fresh_id("keys"), api={**API, "placement": header})).id,
        (await client.create_integration(fresh_id("basic"), api={**API, "placement": basic})).id,
    )


async def fill(place: OldPlace, kinds: Three, tenant: str, *, sealed: bool) -> None:
    """A tenant of the old layout with one record of each kind, plain or sealed field by field."""

    async def text(integration: str, value: str) -> str:
        return await place.seal(tenant, integration, value) if sealed else value

    await place.write(
        tenant, kinds.oauth,
        access_token=await text(kinds.oauth, secret("at")), refresh_token=await text(kinds.oauth, secret("rt")),
        expires_at=int(LATER.timestamp()), token_type="bearer", scope="read write", created_at="2020",
    )  # fmt: skip
    await place.write(tenant, kinds.key, api_key=await text(kinds.key, secret("key")))
    await place.write(tenant, kinds.basic, username="me", password=await text(kinds.basic, secret("pw")))


async def token_of(server: Server, tenant: str, credential: str) -> pb.FetchAccessTokenResponse:
    """FetchAccessToken, by a token-reader of the tenant."""
    reader = await server.app(tenant, role=access.ROLE_TOKEN_READER)
    got: pb.FetchAccessTokenResponse = await reader.call(
        "FetchAccessToken", pb.FetchAccessTokenRequest(tenant=tenant, credential=credential)
    )
    return got


async def credential(server: Server, tenant: str, name: str) -> pb.Credential:
    """GetCredential."""
    found: pb.Credential = (
        await server.admin.call("GetCredential", pb.GetCredentialRequest(tenant=tenant, credential=name))
    ).credential
    return found


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize("fresh", [False, True], ids=["in-place", "fresh"])
async def test_every_credential_arrives_as_it_was(
    placed: Server, server: Server, old_place: OldPlace, tmp_path: Path, sealed: bool, fresh: bool
) -> None:
    """Plain or sealed, KV 1 or 2, in place or fresh: copied, compared, cut over; the old records are as they were."""
    target = server if fresh else placed
    kinds, journal, tenant = await three(target.admin), tmp_path / "j", fresh_id("acme")
    await fill(old_place, kinds, tenant, sealed=sealed)
    before = [await old_place.read(tenant, each) for each in (kinds.oauth, kinds.key, kinds.basic)]
    source = await old_place.source()
    names = [f"{tenant}/{each}" for each in (kinds.oauth, kinds.key, kinds.basic)]
    assert set(results(await migrated(source, target, journal, plan)).values()) == {
        "to migrate: oauth", "to migrate: api_key", "to migrate: basic",
    }  # fmt: skip
    assert results(await migrated(source, target, journal, copy)) == dict.fromkeys(names, "verified")
    staged = await credential(target, tenant, kinds.oauth)
    assert (staged.enabled, staged.state_detail, staged.refreshable) == (False, "staged", True)
    assert list(staged.granted_scopes) == ["read", "write"]
    assert staged.expire_time.ToDatetime(UTC) == LATER
    with refused("CREDENTIAL_DISABLED"):
        await token_of(target, tenant, kinds.oauth)
    assert results(await migrated(source, target, journal, cut_over)) == dict.fromkeys(names, "cut over")
    token = (await token_of(target, tenant, kinds.oauth)).access_token
    assert token == old_place.planted[0]
    assert results(await migrated(source, target, journal, check)) == dict.fromkeys(names, "in use")
    assert [await old_place.read(tenant, each) for each in (kinds.oauth, kinds.key, kinds.basic)] == before
    journal_text = journal.read_text()
    assert not [each for each in old_place.planted if each in journal_text]
    assert journal.stat().st_mode & 0o777 == 0o600


async def test_a_record_sealed_as_a_whole_is_taken_too(server: Server, old_place: OldPlace, tmp_path: Path) -> None:
    """One ciphertext of an object; what is not of that form is left alone, and said."""
    kinds, tenant = await three(server.admin), fresh_id("acme")
    inside = json.dumps({"access_token": secret(), "expires_in": 3600, "obtained_at": LATER.isoformat()})
    await old_place.write(tenant, kinds.oauth, ciphertext=await old_place.seal(tenant, kinds.oauth, inside))
    await old_place.write(tenant, kinds.key, ciphertext="not sealed at all")
    await old_place.write(tenant, kinds.basic, username="me", password="p", pin="1234")
    source = await old_place.source()
    told = await migrated(source, server, tmp_path / "j", copy)
    assert results(told) == {
        f"{tenant}/{kinds.oauth}": "verified", f"{tenant}/{kinds.key}": "left alone",
        f"{tenant}/{kinds.basic}": "left alone",
    }  # fmt: skip
    assert "ciphertext" in told[f"{tenant}/{kinds.key}"].problem
    assert "pin" in told[f"{tenant}/{kinds.basic}"].problem
    told = await migrated(source, server, tmp_path / "j", copy, ignore=frozenset(("pin",)))
    assert told[f"{tenant}/{kinds.basic}"].result == "verified"


async def test_names_that_do_not_fit_are_mapped_and_never_guessed(
    placed: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """What the new layout can't take is left alone with a proposal; so is what would lie on something old."""
    kinds, own = await three(placed.admin), fresh_id("own")
    odd = f"ACME Corp & Söhne {own}"
    for tenant in (odd, "tenants" if old_place.version == 2 else own, f"{kinds.key}-{own}x", own + "x"):
        await old_place.write(tenant, kinds.key, api_key=secret())
    await old_place.write(own + "x", "Not A Label", api_key=secret())
    await old_place.write(own + "x", "unknown-" + own, api_key=secret())
    folder = old_place.folder if old_place.version == 2 else ""
    if folder:
        await old_place.write(folder, kinds.key, api_key=secret())
    source = await old_place.source()
    told = await migrated(source, placed, tmp_path / "j", copy)
    assert "--map" in told[f"{odd}/{kinds.key}"].problem
    assert f"{own}x".removesuffix("x") in told[f"{odd}/{kinds.key}"].problem
    assert "an old key has the name" in told[f"{kinds.key}-{own}x/{kinds.key}"].problem
    assert "no lower-case DNS label" in told[f"{own}x/Not A Label"].problem
    assert "connectors integration create" in told[f"{own}x/unknown-{own}"].problem
    if folder:
        assert "old layout's own folder" in told[f"{folder}/{kinds.key}"].problem
    assert told[f"{own}x/{kinds.key}"].result == "verified"
    told = await migrated(source, placed, tmp_path / "j", copy, {odd: f"{own}-odd"})
    assert told[f"{odd}/{kinds.key}"].result == "verified"
    made = (await placed.admin.call("GetTenant", tenants.GetTenantRequest(tenant=f"{own}-odd"))).tenant
    assert made.display_name == odd


async def test_what_was_deleted_is_no_problem_and_what_can_not_be_asked_for_is(
    server: Server, old_bao: OldBao, tmp_path: Path
) -> None:
    """KV 2 goes on listing what is deleted; a name of more than 128 characters is no segment of a path."""
    place, kinds, tenant, long = place_of(old_bao), await three(server.admin), fresh_id("acme"), "x" * 129
    await place.write(tenant, kinds.key, api_key=secret())
    await old_bao.call("DELETE", place.url(tenant, kinds.key))
    await place.write(long, kinds.key, api_key=secret())
    source = await place.source()
    for step in (plan, copy, check, cut_over):
        told = await migrated(source, server, tmp_path / "j", step)
        assert (told[f"{tenant}/{kinds.key}"].result, told[f"{tenant}/{kinds.key}"].problem) == ("deleted", "")
        assert "can't be asked for" in told[f"{long}/"].problem


async def test_a_policy_that_is_too_small_is_said(server: Server, old_place: OldPlace, tmp_path: Path) -> None:
    """And names what prints the right one."""
    source = await old_place.source()
    with pytest.raises(OldVaultRefuses, match="KV mount"):
        await migrated(source.__class__(source.vault, "nowhere/at-all"), server, tmp_path / "j", plan)
    beside = source.__class__(source.vault, f"{old_place.mount}/other")
    with pytest.raises(OldVaultRefuses, match="connectors migrate policy"):
        await migrated(beside, server, tmp_path / "k", plan)


async def test_what_was_there_before_stays_whatever_it_is(server: Server, old_place: OldPlace, tmp_path: Path) -> None:
    """The same is counted as present, and in use; another is not replaced. Neither is rolled back or relabelled."""
    kinds, tenant, key = await three(server.admin), fresh_id("acme"), secret()
    await server.admin.create_tenant(tenant)
    await server.admin.store(tenant, kinds.key, api_key=pb.ApiKeyMaterial(api_key=key))
    await server.admin.store(tenant, kinds.oauth, oauth=pb.OAuthMaterial(access_token=secret()))
    await old_place.write(tenant, kinds.key, api_key=key)
    await old_place.write(tenant, kinds.oauth, access_token=secret())
    told = await migrated(await old_place.source(), server, tmp_path / "j", copy)
    assert told[f"{tenant}/{kinds.key}"].result == "present"
    assert "ALREADY_EXISTS" in told[f"{tenant}/{kinds.oauth}"].problem
    told = await migrated(await old_place.source(), server, tmp_path / "j", cut_over)
    assert told[f"{tenant}/{kinds.key}"].result == "present"
    assert told[f"{tenant}/{kinds.oauth}"].result == "conflict"
    assert not (await credential(server, tenant, kinds.key)).labels


async def test_what_the_old_system_changes_before_the_cutover_is_taken(
    server: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """Verify says so; the cut-over itself takes the newer token, before anything is in use."""
    kinds, tenant, journal = await three(server.admin), fresh_id("acme"), tmp_path / "j"
    await old_place.write(tenant, kinds.oauth, access_token=secret(), refresh_token=secret(), expires_at=SOON)
    source, name = await old_place.source(), f"{tenant}/{kinds.oauth}"
    await migrated(source, server, journal, copy)
    await old_place.write(
        tenant, kinds.oauth, access_token=(newer := secret()), refresh_token=secret(), expires_at=SOON
    )
    told = await migrated(source, server, journal, check)
    assert (told[name].result, bool(told[name].problem)) == ("changed", True)
    assert results(await migrated(source, server, journal, cut_over)) == {name: "cut over"}
    assert (await token_of(server, tenant, kinds.oauth)).access_token == newer


async def test_what_the_old_system_writes_after_the_cutover_is_noticed(
    server: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """While the new side has not written, the old is the newer one and is taken; when both have, nobody guesses."""
    kinds, tenant, journal = await three(server.admin), fresh_id("acme"), tmp_path / "j"
    await old_place.write(tenant, kinds.oauth, access_token=secret(), refresh_token=secret(), expires_at=SOON)
    source, name = await old_place.source(), f"{tenant}/{kinds.oauth}"
    await migrated(source, server, journal, copy)
    await migrated(source, server, journal, cut_over)
    await old_place.write(
        tenant, kinds.oauth, access_token=(newer := secret()), refresh_token=secret(), expires_at=SOON
    )
    assert results(await migrated(source, server, journal, check)) == {name: "old is newer"}
    assert results(await migrated(source, server, journal, cut_over)) == {name: "cut over"}
    assert (await token_of(server, tenant, kinds.oauth)).access_token == newer
    await old_place.write(tenant, kinds.oauth, access_token=secret(), refresh_token=secret(), expires_at=SOON)
    await server.admin.store(tenant, kinds.oauth, oauth=pb.OAuthMaterial(access_token=(mine := secret())))
    for step in (check, cut_over):
        told = await migrated(source, server, journal, step)
        assert (told[name].result, bool(told[name].problem)) == ("conflict", True)
    assert (await token_of(server, tenant, kinds.oauth)).access_token == mine


async def test_what_the_old_system_writes_in_the_moment_of_the_cutover_is_taken(
    server: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """Between the comparison and the switch it refreshed once more: the new side has that token before it is told of."""
    kinds, tenant, journal = await three(server.admin), fresh_id("acme"), tmp_path / "j"
    await old_place.write(tenant, kinds.oauth, access_token=secret(), refresh_token=secret(), expires_at=SOON)
    source, newer = await old_place.source(), secret()
    await migrated(source, server, journal, copy)

    async def step(migration: Migration) -> None:
        inner = migration.new

        class Late(type(inner)):  # type: ignore[misc]
            """Switches on just after the old system wrote."""

            async def switch(self, item: Item, etag: str, *, enabled: bool) -> Any:
                await old_place.write(tenant, kinds.oauth, access_token=newer, refresh_token=secret(), expires_at=SOON)
                return await inner.switch(item, etag, enabled=enabled)

        migration.new = Late(inner.channel, inner.key, inner.timeout, inner.path)
        await cut_over(migration)

    assert results(await migrated(source, server, journal, step)) == {f"{tenant}/{kinds.oauth}": "cut over"}
    assert (await token_of(server, tenant, kinds.oauth)).access_token == newer


async def test_a_token_that_is_about_to_be_refreshed_is_left_to_the_old_system(
    server: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """Within the window, unless that has stopped; what nobody refreshes has no window."""
    kinds, tenant, journal = await three(server.admin), fresh_id("acme"), tmp_path / "j"
    soon = int((datetime.now(UTC) + timedelta(minutes=5)).timestamp())
    await old_place.write(tenant, kinds.oauth, access_token=secret(), refresh_token=secret(), expires_at=soon)
    await old_place.write(tenant, kinds.key, api_key=secret())
    endless = fresh_id("endless")
    await old_place.write(endless, kinds.oauth, access_token=secret(), refresh_token=secret("rt"))
    source, name = await old_place.source(), f"{tenant}/{kinds.oauth}"
    await migrated(source, server, journal, copy)
    told = await migrated(source, server, journal, cut_over)
    assert (told[name].result, told[f"{tenant}/{kinds.key}"].result) == ("due", "cut over")
    assert "refresh window" in told[name].problem
    assert "does not say when" in told[f"{endless}/{kinds.oauth}"].problem
    assert not (await credential(server, tenant, kinds.oauth)).enabled
    told = await migrated(source, server, journal, cut_over, old_stopped=True)
    assert told[name].result == "cut over"


async def test_a_lost_journal_costs_time_and_nothing_else(server: Server, old_place: OldPlace, tmp_path: Path) -> None:
    """Another machine begins with an empty one, and comes to the same."""
    kinds, tenant = await three(server.admin), fresh_id("acme")
    await fill(old_place, kinds, tenant, sealed=False)
    source = await old_place.source()
    await migrated(source, server, tmp_path / "one", copy)
    assert set(results(await migrated(source, server, tmp_path / "two", copy)).values()) == {"verified"}
    assert set(results(await migrated(source, server, tmp_path / "three", cut_over)).values()) == {"cut over"}
    assert set(results(await migrated(source, server, tmp_path / "four", copy)).values()) == {"cut over"}
    assert (await credential(server, tenant, kinds.key)).generation == 1


async def test_finishing_deletes_what_is_in_use_and_nothing_else(
    placed: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """What is not cut over stays; KV 2 can undo it, unless it is destroyed with its key. Tenants' keys never are."""
    kinds, tenant, journal = await three(placed.admin), fresh_id("acme"), tmp_path / "j"
    await fill(old_place, kinds, tenant, sealed=True)
    source = await old_place.source("finish")
    await migrated(source, placed, journal, copy)
    told = await migrated(source, placed, journal, lambda migration: finish(migration, destroy=True))
    assert {outcome.result for outcome in told.values()} == {"left alone"}
    assert all("cut over" in outcome.problem for outcome in told.values())
    await migrated(source, placed, journal, cut_over)
    destroy = old_place.version == 1
    told = await migrated(source, placed, journal, lambda migration: finish(migration, destroy=destroy))
    assert {outcome.result for outcome in told.values()} == {"finished"}
    assert await old_place.read(tenant, kinds.oauth) == {}
    key = await old_place.bao.call("GET", f"transit/keys/{kinds.oauth}-{tenant}")
    assert bool(key.get("data")) is not destroy
    if old_place.version == 2:
        await old_place.bao.call("POST", old_place.url(tenant, kinds.oauth, "undelete"), {"versions": [1]})
        assert (await old_place.read(tenant, kinds.oauth))["access_token"].startswith("vault:v1:")
    assert (await old_place.bao.call("GET", f"transit/keys/{tenant}"))["data"]["derived"] is True
    assert (await token_of(placed, tenant, kinds.oauth)).access_token == old_place.planted[0]


async def test_an_old_key_of_two_names_is_destroyed_with_the_last_of_them(
    placed: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """`x-a` of `b` and `x` of `a-b` lie under one key: while either record is there, it can be opened."""
    kinds, tenant, journal = await three(placed.admin), fresh_id("acme"), tmp_path / "j"
    longer, other, kept = f"{kinds.key}-a", f"a-{tenant}", secret()
    await old_place.write(other, kinds.key, api_key=await old_place.seal(other, kinds.key, secret()))
    await old_place.write(tenant, longer, api_key=await old_place.seal(tenant, longer, kept))
    source = await old_place.source("finish")
    for step in (copy, cut_over):
        await migrated(source, placed, journal, step)
    told = await migrated(source, placed, journal, lambda migration: finish(migration, destroy=True))
    assert results(told) == {f"{other}/{kinds.key}": "finished", f"{tenant}/{longer}": "left alone"}
    assert await old_place.open(tenant, longer, (await old_place.read(tenant, longer))["api_key"]) == kept
    header = {"headers": {"x-key": "{api_key}"}}
    await placed.admin.create_integration(longer, api={**API, "placement": header})
    for step in (copy, cut_over, lambda migration: finish(migration, destroy=True)):
        told = await migrated(source, placed, journal, step)
    assert results(told) == {f"{other}/{kinds.key}": "finished", f"{tenant}/{longer}": "finished"}
    assert not (await old_place.bao.call("GET", f"transit/keys/{longer}-{tenant}")).get("data")


async def killed_while_finishing(placed: Server, old_place: OldPlace, path: Path) -> tuple[Source, Item]:
    """A sealed key that is cut over, and a journal that says that its old record is about to be deleted."""
    kinds, tenant = await three(placed.admin), fresh_id("acme")
    await old_place.write(tenant, kinds.key, api_key=await old_place.seal(tenant, kinds.key, secret()))
    source, item = await old_place.source("finish"), Item(tenant, kinds.key, tenant)
    await migrated(source, placed, path, copy)
    await migrated(source, placed, path, cut_over)
    with Journal(path, source.name) as journal:
        journal.note([item], Step.FINISHING)
    return source, item


async def test_a_finish_that_was_killed_is_finished_by_the_next(
    placed: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """The record is gone and its key is not yet: the journal knows."""
    path = tmp_path / "j"
    source, item = await killed_while_finishing(placed, old_place, path)
    inner = "metadata" if old_place.version == 2 else ""
    await old_place.bao.call("DELETE", old_place.url(item.tenant, item.integration, inner))
    told = await migrated(source, placed, path, lambda migration: finish(migration, destroy=True))
    assert results(told) == {f"{item.tenant}/{item.integration}": "finished"}
    assert not (await old_place.bao.call("GET", f"transit/keys/{item.integration}-{item.tenant}")).get("data")


async def test_what_was_written_anew_since_a_finish_was_killed_keeps_its_key(
    placed: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """A record that can't be read is not one that is gone."""
    path = tmp_path / "j"
    source, item = await killed_while_finishing(placed, old_place, path)
    sealed = await old_place.seal(item.tenant, item.integration, secret())
    await old_place.write(item.tenant, item.integration, api_key=sealed, odd="field")
    told = await migrated(source, placed, path, lambda migration: finish(migration, destroy=True))
    assert results(told) == {f"{item.tenant}/{item.integration}": "left alone"}
    assert (await old_place.bao.call("GET", f"transit/keys/{item.integration}-{item.tenant}")).get("data")


class TestJournal:
    """What is on the disk counts; what is half there does not."""

    item = Item("Old Corp", "notes", "old")

    def test_a_line_that_was_cut_off_is_dropped(self, tmp_path: Path) -> None:
        """Nothing was built upon it."""
        path = tmp_path / "deep" / "j"
        with Journal(path, "here") as journal:
            journal.note([self.item], Step.VERIFIED, {self.item: 3})
        with path.open("ab") as stream:
            stream.write(b'{"old":"Old Corp","integration":"no')
        with Journal(path, "here") as journal:
            mark = journal.of(self.item)
            assert mark is not None
            assert (mark.step, mark.generation) == (Step.VERIFIED, 3)
            journal.note([self.item], Step.CUT_OVER)
        with Journal(path, "here") as journal:
            assert journal.step(self.item) is Step.CUT_OVER

    @pytest.mark.parametrize("content", [b"no json\n", b"[]\n", b'{"journal":1,"source":"here"}\n{"old":1}\n'])
    def test_what_is_no_journal_is_refused(self, tmp_path: Path, content: bytes) -> None:
        """And left as it is."""
        path = tmp_path / "j"
        path.write_bytes(content)
        with pytest.raises(JournalUnusable), Journal(path, "here"):
            pass
        assert path.read_bytes() == content

    def test_it_is_of_one_source_and_one_process(self, tmp_path: Path) -> None:
        """Two at once would tell each other's story."""
        path = tmp_path / "j"
        with Journal(path, "here"), pytest.raises(JournalUnusable, match="Another process"), Journal(path, "here"):
            pass
        with pytest.raises(JournalUnusable, match="elsewhere"), Journal(path, "there"):
            pass


class TestPolicies:
    """What the tool's token may do, step by step."""

    def test_they_name_the_places_that_are_given(self) -> None:
        """And the new layout's own, which nobody gives another name."""
        text = policy("rollback", "kv/customers", "old-transit")
        paths = [line.split('"')[1] for line in text.splitlines() if line.startswith("path")]
        assert paths == [
            "kv/data/customers/+/+", "kv/customers/*", "old-transit/encrypt/+", "secret/data/+/+", "connectors/data/tenants/+",
            "transit/decrypt/+",
        ]  # fmt: skip
        assert "tenants" not in policy("finish", "kv/customers").replace("tenants' keys", "")

    async def test_the_first_reads_old_records_and_can_do_nothing_else(self, old_place: OldPlace) -> None:
        """Neither write nor delete them, nor read what is the platform's."""
        tenant, integration = fresh_id("acme"), "notes"
        await old_place.write(tenant, integration, api_key=secret())
        source = await old_place.source()
        assert source.vault.token_file is not None
        headers = {"X-Vault-Token": source.vault.token_file.read_text()}

        async def status(method: str, path: str, body: object = None) -> int:
            reply = await old_place.bao.http.request(
                method, f"{old_place.bao.address}/v1/{path}", json=body, headers=headers
            )
            return reply.status_code

        record = old_place.url(tenant, integration)
        assert await status("GET", record) == 200
        for method, path in (
            ("POST", record), ("DELETE", record), ("DELETE", old_place.url(tenant, integration, "metadata")),
            ("GET", "secret/data/acme/notes"), ("GET", "connectors/data/tenants/acme"), ("GET", "transit/keys/notes-acme"),
            ("POST", "transit/encrypt/notes-acme"), ("DELETE", "transit/keys/notes-acme"),
        ):  # fmt: skip
            assert await status(method, path, {}) == 403, path
