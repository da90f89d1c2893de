"""Idle credentials are kept alive, once, whoever sweeps and whoever dies."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.credentials import sweeping
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.sweeping import SHARDS, Sweeping, idle_due, shard_of, spread
from connectors_grpc.domain.definition import Api, Integration, OAuth
from connectors_grpc.domain.ids import CredentialId, IntegrationId, TenantId
from connectors_grpc.domain.records import CredentialKind, CredentialState
from connectors_grpc.secret import Secret
from tests.clock import ManualClock
from tests.oauth.test_tailoring import staged
from tests.refresh.records import NOTION, NOW
from tests.upstream import UpstreamRequest

IDLE = timedelta(days=90)
CREDENTIAL = replace(NOTION, issue_time=NOW, expire_time=NOW + timedelta(hours=1))


def test_an_idle_credential_is_due_before_its_refresh_token_dies() -> None:
    """Not at its access token's end, which nobody needs, but at 80 to 85 % of the idle life."""
    assert not idle_due(CREDENTIAL, NOW + timedelta(days=1), IDLE)
    assert not idle_due(CREDENTIAL, NOW + IDLE * 0.79, IDLE)
    assert idle_due(CREDENTIAL, NOW + IDLE * 0.86, IDLE)


@pytest.mark.parametrize(
    "changed",
    [{"refreshable": False}, {"enabled": False}, {"state": CredentialState.NEEDS_REAUTH}],
    ids=["no refresh token", "switched off", "needs a person"],
)
def test_what_cannot_or_may_not_be_refreshed_is_left_alone(changed: dict[str, object]) -> None:
    """A sweep wakes nothing up."""
    assert not idle_due(replace(CREDENTIAL, **changed), NOW + IDLE, IDLE)  # type: ignore[arg-type]


def test_a_provider_without_a_known_idle_life_is_left_alone() -> None:
    """Nothing is refreshed on a guess."""
    assert not idle_due(CREDENTIAL, NOW + timedelta(days=3650), None)


def test_credentials_connected_together_are_spread() -> None:
    """A thousand of one minute come due over days."""
    places = [spread(replace(CREDENTIAL, tenant=TenantId(f"t{n}"))) for n in range(1000)]
    assert max(Counter(int(place * 10) for place in places).values()) < 200
    assert all(0 <= place < 1 for place in places)


@given(st.text(min_size=1, max_size=63))
def test_every_tenant_is_in_one_shard_of_all(tenant: str) -> None:
    """And always in the same."""
    assert 0 <= shard_of(tenant) < SHARDS
    assert shard_of(tenant) == shard_of(tenant)


async def test_a_tenant_whose_providers_fail_leaves_the_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many of its credentials are tried in a round, others the next time; another tenant's is kept alive."""
    monkeypatch.setattr(sweeping, "MOST_FAILED", 2)
    monkeypatch.setattr(sweeping, "PAUSE", 0.0)
    clock = ManualClock()
    oauth = OAuth("https://a.example/a", "https://a.example/token", refresh_token_idle_ttl=IDLE)
    definition = Integration(IntegrationId("notes"), oauth=oauth, api=Api("https://a.example"))
    async with staged(definition, clock=clock) as (stage, upstream):
        other = await stage.tenants.create(
            stage.caller, TenantId("z"), display_name="", labels={}, request_id="", validate_only=False
        )
        for tenant, name in [*((stage.tenant, f"slow{each}") for each in range(4)), (other, "well")]:
            new = NewMaterial(CredentialKind.OAUTH, {"access_token": Secret("at")}, Secret(f"rt-{name}-"))
            await stage.managing.store(tenant, definition, CredentialId(name), new, caller="check")
        asked: Counter[str] = Counter()

        def reply(request: UpstreamRequest) -> bytes:
            name = request.body.partition(b"rt-")[2].partition(b"-")[0].decode()
            asked[name] += 1
            body = b"{}" if name != "well" else b'{"access_token": "newer", "token_type": "bearer"}'
            status = b"503 X" if name != "well" else b"200 OK"
            return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)

        upstream.reply = reply
        clock.advance(IDLE * 0.86)
        sweeper = Sweeping(
            stage.records, stage.tenants, stage.integrations, stage.keeper, stage.refreshing, clock, "me"
        )
        assert await sweeper.round() == 1
        assert (asked["well"], asked.total()) == (1, 3)
