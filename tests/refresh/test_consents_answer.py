"""What a provider answered to a person's consent, while the Vault is away: laid by, sealed, and stored by a later life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from connectors_grpc.changes import ChangeFeed
from connectors_grpc.checking.stage import Silent, Stage
from connectors_grpc.clock import SystemClock
from connectors_grpc.credentials import insisting
from connectors_grpc.credentials.answer import Answer
from connectors_grpc.credentials.flows import Flow
from connectors_grpc.credentials.flows import Stage as Step
from connectors_grpc.credentials.granting import Granting, Prepared
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.storing import Storing
from connectors_grpc.domain.definition import Api, Integration, OAuth
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.domain.records import Credential, CredentialKind, CredentialState, Material
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.memory import Outage
from connectors_grpc.oauth2.token_reply import TokenReply
from connectors_grpc.secret import Secret
from connectors_grpc.spill import SpillDirectory
from tests.catalogue.vendor import raw
from tests.oauth.test_tailoring import staged
from tests.redirected import Redirected
from tests.upstream import RecordingUpstream
from tests.worlds import until

OAUTH = OAuth("https://a.example/authorize", "https://a.example/token", revocation_endpoint="https://a.example/revoke")
NOTES = Integration(IntegrationId("notes"), oauth=OAUTH, api=Api("https://a.example"))
WHOSE = replace(NOTES, api=Api("https://a.example", identity_path="/me", account_pointer="/id"))


class Refusing(Outage):
    """Counts what it refuses."""

    refused = 0

    def check(self) -> None:
        """See Outage."""
        self.refused += self.down
        super().check()


@dataclass
class Life:
    """One life of a process with that directory."""

    stage: Stage
    spill: SpillDirectory
    storing: Storing
    granting: Granting
    outage: Refusing = field(default_factory=Refusing)

    async def keep(self, prepared: Prepared) -> Credential:
        """The provider has answered."""
        reply = TokenReply(Secret("at-canary"), Secret("rt-canary"), None, None, "Bearer", {})
        assert self.stage.definition.oauth is not None
        return await self.granting.keep(
            self.flow,
            self.stage.tenant,
            self.stage.definition,
            self.stage.definition.oauth,
            (reply, SystemClock().now()),
            prepared,
        )

    @property
    def flow(self) -> Flow:
        """A consent for the stage's credential."""
        tenant, now = self.stage.tenant, SystemClock().now()
        return Flow(Step.BEGUN, tenant.id, tenant.uid, NOTES.id, self.stage.credential, (), self.stage.caller.id, now)

    @asynccontextmanager
    async def without_vault(self) -> AsyncIterator[asyncio.Task[Credential]]:
        """The Vault goes away once the provider was asked; the block has the answer in hand, and the Vault back at its end."""
        prepared = await self.granting.prepare(self.flow, self.stage.tenant)
        self.stage.secrets.outage = self.outage
        self.outage.down = True
        keeping = asyncio.create_task(self.keep(prepared))
        try:
            yield keeping
        finally:
            self.outage.down = False

    async def laid_by(self) -> None:
        """Until something lies on the disk."""

        async def lies() -> bool:
            return bool(self.spill.names())

        await until(lies)

    async def waits(self) -> bool:
        """Whether storing failed, and was tried again."""
        return self.outage.refused > 1

    async def die(self, keeping: asyncio.Task[Credential]) -> None:
        """With the answer in hand."""
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        self.spill.close()


@asynccontextmanager
async def living(stage: Stage, upstream: RecordingUpstream, directory: Path) -> AsyncIterator[Life]:
    """A life, with what an earlier one left."""
    spill, outbound, audit, clock = SpillDirectory(directory), Redirected(upstream.url), Silent(), SystemClock()
    storing = Storing(stage.keeper, stage.tenants, stage.integrations, spill, ChangeFeed(), audit, clock)
    try:
        yield Life(stage, spill, storing, Granting(stage.managing, stage.keeper, storing, outbound, audit, clock))
    finally:
        spill.close()
        await outbound.aclose()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insisting, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(insisting, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(insisting, "ATTEMPTS", 10_000)


async def old(stage: Stage, account: str = "") -> Credential:
    """A credential that is connected already."""
    material = {"access_token": Secret("at-old")}
    return await stage.store(NewMaterial(CredentialKind.OAUTH, material, Secret("rt-old"), account=account))


@pytest.mark.parametrize("connected", [False, True], ids=["new", "over an old one"])
async def test_a_later_life_stores_what_an_earlier_one_laid_by(tmp_path: Path, connected: bool) -> None:
    """Nothing of it lies there in the clear; it is used at once, and gone from the disk."""
    async with staged(NOTES) as (stage, upstream):
        before = (await old(stage)).generation if connected else 0
        async with living(stage, upstream, tmp_path) as life, life.without_vault() as keeping:
            await life.laid_by()
            (name,) = life.spill.names()
            assert b"canary" not in life.spill.read(name)
            await life.die(keeping)
        async with living(stage, upstream, tmp_path) as later:
            await later.storing.recover()
            use = await stage.use()
            assert use.material.fields["access_token"] == Secret("at-canary")
            assert (use.held.credential.generation, use.held.credential.refreshable) == (before + 1, True)
            assert later.spill.names() == []


async def test_a_vault_that_comes_back_in_time_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    """It is stored as if nothing had been; a file would be a second truth."""
    async with staged(NOTES) as (stage, upstream), living(stage, upstream, tmp_path) as life:
        async with life.without_vault() as keeping:
            await life.laid_by()
        assert (await keeping).state is CredentialState.ACTIVE
        assert life.spill.names() == []


async def test_a_vault_that_stays_away_is_waited_for_by_the_next_that_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same life stores it before it refreshes anything, without a restart."""
    monkeypatch.setattr(insisting, "ATTEMPTS", 3)
    async with staged(NOTES) as (stage, upstream), living(stage, upstream, tmp_path) as life:
        async with life.without_vault() as keeping:
            with pytest.raises(ConnectorsError) as caught:
                await keeping
            assert caught.value.reason is Reason.VAULT_UNAVAILABLE
            await life.storing.recover()
            assert len(life.spill.names()) == 1
        await life.storing.recover()
        assert (await stage.use()).material.fields["access_token"] == Secret("at-canary")
        assert life.spill.names() == []


@pytest.mark.parametrize("meanwhile", ["connected anew", "revoked"])
async def test_what_a_person_did_meanwhile_stays(tmp_path: Path, meanwhile: str) -> None:
    """At another replica, while this one was down: its answer comes too late, and goes."""
    async with staged(NOTES) as (stage, upstream):
        await old(stage)
        async with living(stage, upstream, tmp_path) as life, life.without_vault() as keeping:
            await life.laid_by()
            await life.die(keeping)
        await (stage.revoke() if meanwhile == "revoked" else old(stage))
        there = await stage.managing.find(stage.tenant, stage.credential)
        async with living(stage, upstream, tmp_path) as later:
            await later.storing.recover()
            assert await stage.managing.find(stage.tenant, stage.credential) == there
            assert later.spill.names() == []


async def test_what_may_not_stand_there_is_not_laid_by(tmp_path: Path) -> None:
    """Another's account does not take a credential's place by way of the disk."""
    async with staged(WHOSE) as (stage, upstream), living(stage, upstream, tmp_path) as life:
        await old(stage, account="alice")
        upstream.reply = raw(200, {"id": "eve"})
        async with life.without_vault() as keeping:
            await until(life.waits)
            assert life.spill.names() == []
        with pytest.raises(ConnectorsError) as caught:
            await keeping
        assert caught.value.reason is Reason.ACCOUNT_MISMATCH


async def test_a_refreshs_answer_and_a_consents_lie_side_by_side(tmp_path: Path) -> None:
    """Of one generation: neither goes in the other's place."""
    async with staged(NOTES) as (stage, upstream), living(stage, upstream, tmp_path) as life:
        consented = await old(stage)
        key = await stage.keeper.data_key(stage.tenant, stage.credential)
        material = Material(NOTES.id, {"access_token": Secret("at")}, ("a.example",))
        for record in (consented, replace(consented, refresh_time=consented.issue_time)):
            await life.storing.lay_by(Answer(stage.tenant.id, stage.tenant.uid, record, material, 0), key)
        assert len(life.spill.names()) == 2
