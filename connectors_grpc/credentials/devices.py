"""Connecting by device authorization (RFC 8628): the person types a code at the provider; whoever began asks how it went.

One call asks the provider at most once, and never sooner than it wants to be asked: how long to wait comes with the refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from connectors_grpc.credentials.asking import Asking
from connectors_grpc.credentials.checks import check_enabled, not_configured
from connectors_grpc.credentials.flows import FLOW_TTL, Flow, Flows, Stage, digest, given, new_handle, tenant_of
from connectors_grpc.credentials.granting import Granting
from connectors_grpc.domain.definition import Integration, OAuth
from connectors_grpc.domain.records import ApiKey, Credential, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, Reason
from connectors_grpc.integrations import Integrations
from connectors_grpc.oauth2 import device
from connectors_grpc.oauth2.errors import Malformed, RequestRefused, TokenError, Transient, connectors_error
from connectors_grpc.oauth2.token_reply import parse_token_reply
from connectors_grpc.ports import Ciphers, Clock
from connectors_grpc.sealed_clients import PLATFORM_KEY
from connectors_grpc.secret import Secret
from connectors_grpc.tailoring import consenting
from connectors_grpc.tenants import Tenants


@dataclass(frozen=True, slots=True)
class DeviceStarted:
    """What to show the person, and `state`, which asks how it went."""

    state: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    interval: timedelta
    flow: Flow


class Devices:
    """The use cases of connections by device."""

    def __init__(
        self,
        flows: Flows,
        tenants: Tenants,
        integrations: Integrations,
        granting: Granting,
        ciphers: Ciphers,
        asking: Asking,
        clock: Clock,
    ) -> None:
        self._flows = flows
        self._tenants = tenants
        self._integrations = integrations
        self._granting = granting
        self._ciphers = ciphers
        self._asking = asking
        self._clock = clock

    async def start(self, flow: Flow, tenant: Tenant, integration: Integration, oauth: OAuth) -> DeviceStarted:
        """Ask the provider for a code. Raises: INTEGRATION_NOT_CONFIGURED, OAUTH_CLIENT_REFUSED, PROVIDER_UNAVAILABLE."""
        if not oauth.device_authorization_endpoint:
            raise not_configured(integration.id, "oauth.device_authorization_endpoint")
        client = await self._integrations.client_for(integration, tenant)
        try:
            granted, sent = await self._asking.ask(
                tenant.id,
                client,
                lambda one, stamp: device.device_authorization(
                    oauth,
                    one,
                    scopes=flow.scopes,
                    stamp=stamp,
                    allow_private_addresses=integration.allow_private_addresses,
                ),
                device.parse_device_authorization,
            )
        except TokenError as error:
            raise connectors_error(error) from None
        state = new_handle()
        sealed = await self._ciphers.encrypt(
            PLATFORM_KEY, digest(state).encode(), granted.device_code.reveal().encode()
        )
        kept = replace(
            flow,
            stage=Stage.DEVICE,
            binding=flow.started_by,
            verifier=sealed,
            expire_time=sent + min(granted.expires_in, FLOW_TTL),
            poll_time=sent + granted.interval,
            interval=granted.interval,
        )
        await self._flows.put(state, kept)
        return DeviceStarted(
            state,
            granted.user_code,
            granted.verification_uri,
            granted.verification_uri_complete,
            granted.interval,
            kept,
        )

    async def poll(self, caller: ApiKey, state: str) -> Credential:
        """The credential, once the person has consented. Run it in a flight: what the provider answers comes once.

        Raises: FLOW_NOT_FOUND, AUTHORIZATION_PENDING, AUTHORIZATION_REFUSED, and as `start` and `Granting.keep`.
        """
        flow, version = await self._flows.look(state, Stage.DEVICE, binding=caller.id)
        tenant = await tenant_of(flow, self._tenants)
        check_enabled(tenant, flow.integration)
        now = self._clock.now()
        if flow.poll_time is not None and now < flow.poll_time:
            raise _pending(flow.poll_time - now)
        claimed = replace(flow, poll_time=now + flow.interval)
        try:
            version = await self._flows.rewrite(state, claimed, version)
        except Conflict:
            raise _pending(flow.interval) from None
        try:
            credential = await self._ask(state, claimed, tenant)
        except RequestRefused as error:
            if error.oauth_error == "authorization_pending":
                raise _pending(flow.interval) from None
            raise await self._ended(state, error) from None
        except Transient as error:
            if error.oauth_error != "slow_down":
                raise connectors_error(error) from None
            raise _pending(await self._slower(state, claimed, version)) from None
        except Malformed as error:
            raise connectors_error(error) from None
        except TokenError as error:
            raise await self._ended(state, error) from None
        await self._flows.drop(state)
        return credential

    async def _ask(self, state: str, flow: Flow, tenant: Tenant) -> Credential:
        integration = consenting(await self._integrations.get(flow.integration, fresh=True), given(flow))
        oauth = integration.oauth
        if oauth is None:
            raise ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "oauth"})
        client = await self._integrations.client_for(integration, tenant)
        prepared = await self._granting.prepare(flow, tenant)
        code = Secret((await self._ciphers.decrypt(PLATFORM_KEY, digest(state).encode(), flow.verifier)).decode())
        answered = await self._asking.ask(
            tenant.id,
            client,
            lambda one, stamp: device.device_token(
                oauth,
                one,
                device_code=code,
                stamp=stamp,
                allow_private_addresses=integration.allow_private_addresses,
            ),
            lambda answer, now: parse_token_reply(answer, oauth, now),
        )
        try:
            return await self._granting.keep(flow, tenant, integration, oauth, answered, prepared)
        except ConnectorsError:
            await self._flows.drop(state)  # the code is used up
            raise

    async def _ended(self, state: str, error: TokenError) -> ConnectorsError:
        await self._flows.drop(state)
        return connectors_error(error)

    async def _slower(self, state: str, flow: Flow, version: int) -> timedelta:
        interval = min(flow.interval + device.SLOWER, device.LONGEST_INTERVAL)
        slower = replace(flow, interval=interval, poll_time=self._clock.now() + interval)
        try:
            await self._flows.rewrite(state, slower, version)
        except Conflict:
            return interval
        return interval


def _pending(wait: timedelta) -> ConnectorsError:
    return ConnectorsError(Reason.AUTHORIZATION_PENDING, retry_after=max(wait.total_seconds(), 0.001))
