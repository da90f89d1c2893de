"""A tenant's grants end before its key does: tried a few times where the provider fails, and named where that was for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from connectors_grpc.checking.stage import Stage
from connectors_grpc.credentials import purging, revoking
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.purging import Purging, Receipt
from connectors_grpc.credentials.revoking import FIRST_PAUSE
from connectors_grpc.domain.definition import Api, Integration, OAuth
from connectors_grpc.domain.ids import CredentialId, IntegrationId, TenantUid
from connectors_grpc.domain.records import CredentialKind
from connectors_grpc.secret import Secret
from tests.clock import ManualClock
from tests.oauth.test_tailoring import staged
from tests.upstream import RecordingUpstream, UpstreamRequest

OAUTH = OAuth("https://a.example/authorize", "https://a.example/token", revocation_endpoint="https://a.example/revoke")
NOTES = Integration(IntegrationId("notes"), oauth=OAUTH, api=Api("https://a.example"))


async def store(stage: Stage, *names: str) -> None:
    """Grants by these names, each with a token that says whose it is."""
    for name in names:
        stage.credential = CredentialId(name)
        await stage.store(NewMaterial(CredentialKind.OAUTH, {"access_token": Secret(f"at-{name}")}))


def failing(upstream: RecordingUpstream, times: Mapping[str, int]) -> Counter[str]:
    """The provider fails so often for each name; how often it was asked."""
    asked: Counter[str] = Counter()

    def reply(request: UpstreamRequest) -> bytes:
        (name,) = [one for one in times if f"token=at-{one}&".encode() in request.body + b"&"]
        asked[name] += 1
        status = b"503 X" if asked[name] <= times[name] else b"200 OK"
        return b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"

    upstream.reply = reply
    return asked


async def purge(stage: Stage, so_far: Receipt | None = None) -> tuple[Receipt, list[Receipt]]:
    """What came of it, and what was told on the way."""
    told: list[Receipt] = []
    ended = await Purging(stage.integrations, stage.keeper, stage.revoking, (0.0, 0.0)).purge(
        stage.tenant, so_far or Receipt(), told.append
    )
    assert await stage.keeper.names(stage.tenant) == []
    return ended, told


async def test_a_grant_that_can_not_be_ended_is_tried_again_and_then_named() -> None:
    """Three times at most; the others wait for nothing."""
    async with staged(NOTES) as (stage, upstream):
        times = {"well": 0, "once": 1, "twice": 2, "never": 99}
        await store(stage, *times)
        asked = failing(upstream, times)
        ended, told = await purge(stage)
        assert ended == told[-1] == Receipt(4, (CredentialId("never"),))
        assert told[0] == Receipt(1)
        assert asked == {"well": 1, "once": 2, "twice": 3, "never": 3}


async def test_no_more_than_so_many_wait_for_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is down holds up nobody's deletion for long."""
    monkeypatch.setattr(purging, "MOST_LATE", 2)
    async with staged(NOTES) as (stage, upstream):
        times = dict.fromkeys((f"n{number}" for number in range(5)), 99)
        await store(stage, *times)
        asked = failing(upstream, times)
        ended, _ = await purge(stage)
        assert (ended.purged, set(ended.revocations_failed)) == (5, set(times))
        assert sorted(asked.values()) == [1, 1, 1, 3, 3]


async def test_a_receipt_names_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to fit into a document: a tenant can't stop its own deletion by what it has stored."""
    monkeypatch.setattr(purging, "MOST_NAMED", 2)
    async with staged(NOTES) as (stage, upstream):
        times = dict.fromkeys((f"n{number}" for number in range(4)), 99)
        await store(stage, *times)
        failing(upstream, times)
        await stage.managing.revoke(stage.caller, stage.tenant.id, CredentialId("n0"), None)
        ended, _ = await purge(stage)
        assert (ended.purged, len(ended.revocations_failed)) == (4, 2)


async def test_of_what_was_to_be_tried_later_so_much_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is named with what failed; a damaged record goes unnamed, and stops nothing."""
    monkeypatch.setattr(revoking, "MOST_LAST", 1)
    async with staged(NOTES) as (stage, upstream):
        times = {"one": 1, "two": 1}
        await store(stage, *times)
        asked = failing(upstream, times)
        for name in times:
            await stage.managing.revoke(stage.caller, stage.tenant.id, CredentialId(name), None)
        await stage.records.write(f"revocations/{stage.tenant.id}.zero.1", {"tenant": 7}, cas=0)
        (left,) = await stage.revoking.last_tries(stage.tenant)
        assert sorted(asked.values()) == [1, 2]
        assert asked[left] == 1
        assert (await stage.records.list("revocations")).names == ()


async def test_a_tenants_failures_leave_the_next_tenant_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one tenant only so many are tried in a round; what failed comes later, so that the others' turn comes too."""
    monkeypatch.setattr(revoking, "MOST_FAILED", 2)
    clock = ManualClock()
    async with staged(NOTES, clock=clock) as (stage, upstream):
        times = dict.fromkeys(("a", "b", "c"), 2)
        await store(stage, *times)
        asked = failing(upstream, times)
        for name in times:
            await stage.managing.revoke(stage.caller, stage.tenant.id, CredentialId(name), None)
        clock.advance(FIRST_PAUSE)
        assert await stage.revoking.retry() == 0
        assert sorted(asked.values()) == [1, 2, 2]
        assert await stage.revoking.retry() == 0
        assert sorted(asked.values()) == [2, 2, 2]
        clock.advance(FIRST_PAUSE * 3)
        assert await stage.revoking.retry() == 3


async def test_what_was_to_be_tried_later_is_tried_before_the_key_goes() -> None:
    """A revocation that failed before the deletion; the receipt of an earlier run is kept."""
    async with staged(NOTES) as (stage, upstream):
        times = {"early": 1, "lost": 2}
        await store(stage, *times)
        asked = failing(upstream, times)
        for name in times:
            await stage.managing.revoke(stage.caller, stage.tenant.id, CredentialId(name), None)
        other = replace(stage.tenant, uid=TenantUid(stage.tenant.uid[::-1]))
        assert await stage.revoking.last_tries(other) == ()
        assert asked == {"early": 1, "lost": 1}
        ended, _ = await purge(stage, Receipt(7, (CredentialId("before"),)))
        assert ended == Receipt(9, (CredentialId("before"), CredentialId("lost")))
        assert asked == {"early": 2, "lost": 2}
        assert await stage.revoking.last_tries(stage.tenant) == ()
