"""One refresh, over all replicas: wait for the turn, ask the provider once, and store what it answered, come what may.

1. Read; a newer generation is the answer. 2. Take the lease by compare-and-set, and read again under it. 3. See that the time
left on it covers the provider's time-out, just before the token is sent. 4. Write over the version that was read: it is the
fencing token. 5. Losers wait and read. 6. `invalid_grant` counts only if nobody else wrote. 7. An answer that can't be written
is kept, sealed on disk, and written again until the store takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, replace
from datetime import datetime

from connectors_grpc import lifecycle, logs
from connectors_grpc.circuit import Circuits
from connectors_grpc.credentials.answer import answer_of
from connectors_grpc.credentials.asking import Asking
from connectors_grpc.credentials.backoff import Backoff
from connectors_grpc.credentials.checks import check_state, needs_reauth, not_found
from connectors_grpc.credentials.holding import FEED, Holding
from connectors_grpc.credentials.inflight import LONGEST
from connectors_grpc.credentials.keeping import Held, Keeper, MaterialLost
from connectors_grpc.credentials.obtaining import Way, way_to_token
from connectors_grpc.credentials.refresh_lease import TTL, Grip, RefreshLeases, Watched
from connectors_grpc.credentials.storing import Storing, audit_refresh
from connectors_grpc.domain.definition import Integration, OAuth, OAuthClient
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Credential, Material, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, KeyMissing, Reason, VaultUnavailable
from connectors_grpc.integrations import Integrations
from connectors_grpc.oauth2.assertions import Stamp
from connectors_grpc.oauth2.errors import InvalidGrant, Malformed, RequestRefused, TokenError, connectors_error
from connectors_grpc.oauth2.token_reply import TokenReply
from connectors_grpc.oauth2.token_request import TIMEOUT
from connectors_grpc.ports import Audit, Change, Changes, Clock, DataKey, HttpRequest, Outbound
from connectors_grpc.tailoring import consenting

POLL = 0.1
"""Seconds between two looks of somebody who waits for another's refresh."""
LOOKS = 20
"""How often one looks for a version that must be there."""
LONGEST_WAIT = 2 * TTL
MARGIN = 2.0
"""Seconds that must be left on the lease beyond the provider's time-out."""
SLACK = 1.0
"""Seconds of it for what lies between waiting for calls and sending the token."""
CIRCUIT_OPEN = "circuit_open"
PROVIDERS = frozenset((Reason.PROVIDER_UNAVAILABLE, Reason.OAUTH_CLIENT_REFUSED))
"""Failures after which the provider is left alone for a while, as far as this credential goes."""

log = logs.get("refresh")


@dataclass(slots=True)
class _Turn:
    """What a refresh holds while it is its turn. `key` seals the answer if the Vault goes away.

    `unstored`: there is an answer that the Vault has not. The lease is not given back then, so that others wait, and know why.
    `version`: what we wrote, which the next holder must not miss.
    """

    grip: Grip
    held: Held
    key: DataKey
    unstored: bool = False
    version: int = 0


class Renewing:
    """Refreshes; who wants one, and when, is for `Refreshing`."""

    def __init__(
        self,
        keeper: Keeper,
        integrations: Integrations,
        outbound: Outbound,
        leases: RefreshLeases,
        storing: Storing,
        changes: Changes,
        audit: Audit,
        clock: Clock,
        holding: Holding,
    ) -> None:
        self._holding = holding
        self._keeper = keeper
        self._integrations = integrations
        self._asking = Asking(outbound, clock)
        self._leases = leases
        self._storing = storing
        self._changes = changes
        self._audit = audit
        self._clock = clock
        self._circuits = Circuits()
        self.backoff: Backoff[tuple[str, CredentialId, int]] = Backoff(clock)

    async def renew(self, tenant: Tenant, credential_id: CredentialId, seen: int) -> Held:
        """A generation later than `seen`: ours, or another replica's.

        Raises: what `check_state` raises, NEEDS_REAUTH, OAUTH_CLIENT_REFUSED, PROVIDER_UNAVAILABLE, VAULT_UNAVAILABLE.
        """
        await self._storing.recover()
        self._storing.check_recovered(tenant, credential_id)
        turn = await self._turn(tenant, credential_id, seen)
        if isinstance(turn, Held):
            return turn
        try:
            return await self._refresh(tenant, turn)
        finally:
            if not turn.unstored:
                await self._release(turn.grip, turn.version)

    async def _release(self, grip: Grip, version: int = 0) -> None:
        with contextlib.suppress(VaultUnavailable):
            await self._leases.release(grip, version)

    async def _current(self, tenant: Tenant, credential_id: CredentialId) -> Held:
        held = await self._keeper.read(tenant, credential_id)
        if held is None:
            raise not_found(tenant.id, credential_id)
        check_state(held.credential)
        return held

    async def _turn(self, tenant: Tenant, credential_id: CredentialId, seen: int) -> _Turn | Held:
        """The lease, with the credential read again under it; or what another replica made meanwhile."""
        watched, began = Watched(), self._clock.monotonic()
        while self._clock.monotonic() - began < LONGEST_WAIT:
            held = await self._current(tenant, credential_id)
            if held.credential.generation != seen:
                return held
            self._check_circuit(self._circuits.closed_for(_provider(held.credential), self._clock.monotonic()))
            grip = await self._leases.acquire(tenant, credential_id, held.credential.version, watched)
            if grip is not None:
                return await self._under(grip, tenant, credential_id, seen)
            await asyncio.sleep(POLL * (1 + random.random()))  # noqa: S311 - spreads load, guards nothing
        raise ConnectorsError(Reason.PROVIDER_UNAVAILABLE, {"problem": "refresh_under_way"}, retry_after=1.0)

    async def _under(self, grip: Grip, tenant: Tenant, credential_id: CredentialId, seen: int) -> _Turn | Held:
        try:
            held, key = await asyncio.gather(
                self._at_least(tenant, credential_id, grip.least), self._keeper.data_key(tenant, credential_id)
            )
        except KeyMissing:
            await self._release(grip)
            raise not_found(tenant.id, credential_id) from None
        except BaseException:
            await self._release(grip)
            raise
        if held.credential.generation != seen:
            await self._release(grip)
            return held
        return _Turn(grip, held, key)

    async def _at_least(self, tenant: Tenant, credential_id: CredentialId, version: int) -> Held:
        """The credential at that version or a later one: a standby's answer may be older. Raises: VaultUnavailable."""
        for _ in range(LOOKS):
            held = await self._current(tenant, credential_id)
            if held.credential.version >= version:
                return held
            await asyncio.sleep(POLL)
        raise VaultUnavailable

    async def _refresh(self, tenant: Tenant, turn: _Turn) -> Held:
        credential = turn.held.credential
        try:
            material = await self._keeper.open(tenant, turn.held)
        except MaterialLost:
            raise needs_reauth(credential) from None
        integration = consenting(await self._integrations.get(credential.integration), material.values)
        oauth = integration.oauth
        if oauth is None:
            raise ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "oauth"})
        async with self._calls_ended(tenant, turn) if oauth.refresh_ends_access_token else contextlib.nullcontext():
            renewed = await self._ask_and_store(tenant, turn, integration, oauth, material)
        return renewed or await self._current(tenant, credential.id)

    def _calls_ended(self, tenant: Tenant, turn: _Turn) -> contextlib.AbstractAsyncContextManager[None]:
        """Calls with the old token end first; never so long that the lease runs short."""
        spare = self._leases.time_left(turn.grip) - TIMEOUT - MARGIN - SLACK
        return self._holding.held(tenant, turn.held.credential, min(LONGEST + FEED, spare))

    async def _ask_and_store(
        self, tenant: Tenant, turn: _Turn, integration: Integration, oauth: OAuth, material: Material
    ) -> Held | None:
        """What is stored in the end, if it is known."""
        credential, way = turn.held.credential, way_to_token(integration, oauth, material)
        try:
            reply, sent = await self._ask(tenant, credential, integration, way, turn.grip)
        except InvalidGrant:
            return await self._refused(tenant, turn)
        except (TokenError, ConnectorsError) as error:
            raise self._failed(tenant, credential, error) from None
        self._circuits.passed(_provider(credential))
        self.backoff.succeeded((tenant.uid, credential.id, credential.generation))
        answer = answer_of(tenant, credential, material, reply, oauth, sent)
        turn.unstored = True
        written = await self._storing.store(tenant, answer, oauth.refresh_rotation, turn.key)
        turn.unstored, turn.version = False, written.credential.version if written else 0
        return written

    async def _ask(
        self, tenant: Tenant, credential: Credential, integration: Integration, way: Way, grip: Grip
    ) -> tuple[TokenReply, datetime]:
        client = await self._integrations.client_for(integration, tenant)

        def build(one: OAuthClient, stamp: Stamp) -> HttpRequest:
            request = way.build(one, stamp)
            if self._leases.time_left(grip) < request.timeout + MARGIN:
                raise ConnectorsError(Reason.VAULT_UNAVAILABLE, {"problem": "lease_too_short"}, retry_after=1.0)
            return request

        self._check_circuit(self._circuits.wait(_provider(credential), self._clock.monotonic()))
        return await self._asking.ask(tenant.id, client, build, way.read)

    @staticmethod
    def _check_circuit(pause: float) -> None:
        """Raises: PROVIDER_UNAVAILABLE while others' failures are answer enough."""
        if pause:
            raise ConnectorsError(Reason.PROVIDER_UNAVAILABLE, {"problem": CIRCUIT_OPEN}, retry_after=pause)

    def _failed(self, tenant: Tenant, credential: Credential, error: TokenError | ConnectorsError) -> ConnectorsError:
        """What callers are told; the provider's circuit and the credential's pause take note."""
        failure = error if isinstance(error, ConnectorsError) else connectors_error(error, refreshing=True)
        failure.metadata.setdefault("integration", credential.integration)
        if failure.metadata.get("problem") == CIRCUIT_OPEN:
            return failure  # nobody was asked, so nothing failed
        if failure.reason is Reason.PROVIDER_UNAVAILABLE and not isinstance(error, RequestRefused | Malformed):
            self._circuits.failed(_provider(credential), self._clock.monotonic(), failure.retry_after)
        else:
            # The Vault's doing, the client's, or this one request's: no word on whether the provider is well for others.
            self._circuits.left(_provider(credential))
        if failure.reason in PROVIDERS:
            self.backoff.failed((tenant.uid, credential.id, credential.generation), failure)
        audit_refresh(self._audit, credential, failure.reason)
        return failure

    async def _refused(self, tenant: Tenant, turn: _Turn) -> Held:
        """`invalid_grant` is terminal only if nobody else wrote meanwhile.  Source: RFC 6749 section 5.2."""
        self._circuits.passed(_provider(turn.held.credential))
        detail = "refresh_interrupted" if turn.grip.follows_crash else "invalid_grant"
        while True:
            current = await self._current(tenant, turn.held.credential.id)
            if current.credential.generation != turn.held.credential.generation:
                return current
            state = lifecycle.next_state(current.credential.state, lifecycle.Event.REFUSED)
            ended = replace(current.credential, state=state, reason=Reason.NEEDS_REAUTH.value, detail=detail)
            try:
                written = await self._keeper.write(tenant, Held(ended, current.ciphertext))
            except Conflict:
                continue
            audit_refresh(self._audit, written.credential, Reason.NEEDS_REAUTH)
            self._changes.publish(Change(tenant=tenant.id, credential=ended.id))
            raise needs_reauth(written.credential)


def _provider(credential: Credential) -> str:
    """Names the circuit: one for an integration, and where tenants have hosts of their own, one for each. A tenant's host that is
    down, or never was, holds up nobody else.
    """
    return f"{credential.integration} {' '.join(credential.hosts)}"
