"""Connecting an account by the authorization code grant (RFC 6749 section 4.1), with PKCE (RFC 7636) wherever it is taken.

start gives a one-time link; show says what it is for; begin binds it to the browser and sends that to the provider; finish
takes what the provider sent back. With a `redirect_uri` of the platform's own, start begins at once, bound to the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from connectors_grpc.credentials.asking import Asking
from connectors_grpc.credentials.checks import check_enabled, not_configured
from connectors_grpc.credentials.devices import Devices, DeviceStarted
from connectors_grpc.credentials.flows import (
    FLOW_TTL,
    Flow,
    Flows,
    Stage,
    digest,
    given,
    new_handle,
    tenant_of,
    unknown,
)
from connectors_grpc.credentials.granting import Granting
from connectors_grpc.credentials.managing import Managing
from connectors_grpc.credentials.terms import check_redirect_uri, check_scopes, extended, with_known
from connectors_grpc.domain.definition import Grant, Integration, OAuth
from connectors_grpc.domain.ids import CredentialId, IntegrationId, TenantId
from connectors_grpc.domain.records import ApiKey, Credential, CredentialState, Tenant
from connectors_grpc.errors import ConnectorsError, Reason, invalid
from connectors_grpc.flight import SingleFlight
from connectors_grpc.integrations import Integrations
from connectors_grpc.oauth2 import authorize, token_request
from connectors_grpc.oauth2.errors import OAuthError, connectors_error
from connectors_grpc.oauth2.pushed import pushed_request, pushed_url
from connectors_grpc.oauth2.token_reply import parse_token_reply
from connectors_grpc.ports import Audit, Ciphers, Clock, Outbound
from connectors_grpc.sealed_clients import PLATFORM_KEY
from connectors_grpc.secret import Secret
from connectors_grpc.tailoring import consenting, read_values, shown
from connectors_grpc.tenants import Tenants

CallbackParameters = Mapping[str, Sequence[str]]
"""Every value of every parameter: that one comes twice is for the protocol to refuse."""


@dataclass(frozen=True, slots=True)
class Started:
    """A link for a person's browser; `device` besides, where they type a code."""

    url: str
    expire_time: datetime
    credential: CredentialId
    device: DeviceStarted | None = None


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the connect page shows before anything else: who asks for what (attack 32)."""

    tenant: str
    integration: str
    scopes: tuple[str, ...]
    values: Mapping[str, str]
    """What the tenant said of the account, by the inputs' titles."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Where to send the browser, and what to bind it by. `flow` names the cookie; it is no secret."""

    authorization_url: str
    flow: str
    cookie: Secret
    max_age: int


class Connecting:
    """The use cases of the connect link. `public_url` is a setting, never taken from a Host header.

    Owns its flights: close it after the servers.
    """

    def __init__(
        self,
        flows: Flows,
        tenants: Tenants,
        integrations: Integrations,
        managing: Managing,
        granting: Granting,
        ciphers: Ciphers,
        outbound: Outbound,
        audit: Audit,
        clock: Clock,
        public_url: str,
    ) -> None:
        self._flows = flows
        self._tenants = tenants
        self._integrations = integrations
        self._managing = managing
        self._ciphers = ciphers
        self._asking = Asking(outbound, clock)
        self._granting = granting
        self._devices = Devices(flows, tenants, integrations, granting, ciphers, self._asking, clock)
        self._audit = audit
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self.flights: SingleFlight[str, Credential] = SingleFlight()

    async def start(
        self,
        caller: ApiKey,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        credential_id: CredentialId | None,
        *,
        scopes: tuple[str, ...],
        redirect_uri: str,
        device: bool = False,
        allow_account_change: bool = False,
        inputs: Mapping[str, str] | None = None,
    ) -> Started:
        """A one-time link, or a device's code.

        Raises: INTEGRATION_NOT_CONFIGURED, INTEGRATION_NOT_ENABLED, TENANT_SUSPENDED, INVALID_FIELD; with `redirect_uri` or
        `device` what the provider's refusal comes to, too.
        """
        tenant = await self._tenants.usable(caller, tenant_id)
        check_enabled(tenant, integration_id)
        integration = await self._integrations.get(integration_id)
        _oauth(integration)
        check_scopes(scopes)
        credential_id = credential_id or CredentialId(integration_id)
        there = await self._there(tenant, integration, credential_id)
        values = read_values(integration, with_known(integration, there, inputs or {}), found=False)
        integration = consenting(integration, values)
        oauth = _oauth(integration)
        await self._integrations.client_for(integration, tenant)
        flow = Flow(
            stage=Stage.LINK,
            tenant=tenant.id,
            tenant_uid=tenant.uid,
            integration=integration_id,
            credential=credential_id,
            scopes=extended(there, scopes or oauth.scopes),
            started_by=caller.id,
            expire_time=self._clock.now() + FLOW_TTL,
            allow_account_change=allow_account_change,
            values=shown(integration, values),
        )
        if device and redirect_uri:
            raise invalid("redirect_uri", "not with `device`")
        if device:
            typed = await self._devices.start(flow, tenant, integration, oauth)
            link = typed.verification_uri_complete or typed.verification_uri
            started = Started(link, typed.flow.expire_time, flow.credential, typed)
        else:
            url = await self._link(flow, tenant, integration, redirect_uri)
            started = Started(url, flow.expire_time, flow.credential)
        self._record(flow, "StartAuthorization", "started")
        return started

    async def _link(self, flow: Flow, tenant: Tenant, integration: Integration, redirect_uri: str) -> str:
        """To our own page; with a redirect URI of the platform's, to the provider at once."""
        if not _oauth(integration).authorization_endpoint:
            raise not_configured(integration.id, "oauth.authorization_endpoint")
        if redirect_uri:
            check_redirect_uri(redirect_uri)
            begun = replace(flow, redirect_uri=redirect_uri, binding=flow.started_by)
            return (await self._begin(begun, tenant, integration))[0]
        handle = new_handle()
        await self._flows.put(handle, flow)
        return f"{self._public_url}/connect/{handle}"

    async def _there(self, tenant: Tenant, integration: Integration, credential_id: CredentialId) -> Credential | None:
        """What is connected again; None if nothing is, or nothing that counts."""
        there = await self._managing.find(tenant, credential_id)
        if there is None or there.integration != integration.id or there.state is CredentialState.REVOKED:
            return None
        return there

    async def show(self, handle: str) -> Invitation:
        """What a link is for. Looking uses nothing up: link previews look too. Raises: FLOW_NOT_FOUND."""
        flow = await self._flows.peek(handle, Stage.LINK)
        tenant = await tenant_of(flow, self._tenants)
        integration = await self._integrations.get(flow.integration)
        titles = {one.id: one.title or one.id for one in integration.inputs}
        values = {titles[name]: value for name, value in flow.values.items() if name in titles}
        return Invitation(tenant.display_name, integration.display_name or integration.id, flow.scopes, values)

    async def begin(self, handle: str) -> Begun:
        """Use the link up and bind the flow to this browser. Raises: FLOW_NOT_FOUND, INTEGRATION_NOT_CONFIGURED."""
        flow = await self._flows.take(handle, Stage.LINK)
        tenant = await tenant_of(flow, self._tenants)
        cookie = new_handle()
        redirect_uri = f"{self._public_url}/oauth/callback/{flow.integration}"
        begun = replace(flow, redirect_uri=redirect_uri, binding=digest(cookie))
        try:
            url, state = await self._begin(begun, tenant, await self._integrations.get(flow.integration))
        except ConnectorsError as error:
            if error.reason is Reason.PROVIDER_UNAVAILABLE:
                await self._flows.put(handle, flow)  # nothing has happened yet: the person may press again
            raise
        age = int((flow.expire_time - self._clock.now()).total_seconds())
        return Begun(url, cookie_suffix(state), Secret(cookie), max(age, 1))

    async def _begin(self, flow: Flow, tenant: Tenant, integration: Integration) -> tuple[str, str]:
        check_enabled(tenant, integration.id)
        integration = consenting(integration, given(flow))
        oauth = _oauth(integration)
        client = await self._integrations.client_for(integration, tenant)
        state, verifier = new_handle(), new_handle()
        sealed = await self._ciphers.encrypt(PLATFORM_KEY, digest(state).encode(), verifier.encode())
        await self._flows.put(state, replace(flow, stage=Stage.BEGUN, verifier=sealed))
        challenge = authorize.code_challenge(Secret(verifier)) if oauth.pkce else None
        wanted = authorize.authorization_request(
            oauth,
            client_id=client.client_id,
            redirect_uri=flow.redirect_uri,
            state=state,
            challenge=challenge,
            scopes=flow.scopes,
        )
        if not oauth.pushed_authorization_request_endpoint:
            return authorize.with_query(oauth.authorization_endpoint, wanted), state
        try:
            url, _ = await self._asking.ask(
                tenant.id,
                client,
                lambda one, stamp: pushed_request(
                    oauth, one, wanted, stamp=stamp, allow_private_addresses=integration.allow_private_addresses
                ),
                lambda reply, now: pushed_url(reply, oauth, client.client_id, now),
            )
        except OAuthError as error:
            raise connectors_error(error) from None
        return url, state

    async def finish(
        self, integration_id: IntegrationId, parameters: CallbackParameters, cookies: dict[str, str]
    ) -> Credential:
        """What the provider sent to our callback: `state` and the browser's cookie must both be this flow's (attack 28).

        Raises: FLOW_NOT_FOUND, AUTHORIZATION_REFUSED, OAUTH_CLIENT_REFUSED, PROVIDER_UNAVAILABLE.
        """
        state = _state(parameters)
        cookie = cookies.get(cookie_suffix(state), "")
        flow = await self._flows.take(state, Stage.BEGUN, binding=digest(cookie))
        if flow.integration != integration_id:
            raise unknown()
        return await self._finish(flow, state, parameters)

    async def complete(self, caller: ApiKey, parameters: CallbackParameters) -> Credential:
        """What the provider sent to the platform's own page, or a device's `state` alone, by the key that began it.

        Raises: as `finish`; AUTHORIZATION_PENDING.
        """
        state = _state(parameters)
        if parameters.keys() == {"state"} and await self._flows.is_at(state, Stage.DEVICE):
            return await self.flights.run(state, lambda: self._devices.poll(caller, state))
        flow = await self._flows.take(state, Stage.BEGUN, binding=caller.id)
        oauth = _oauth(await self._integrations.get(flow.integration))
        # The contract calls it `code`, whatever the provider does.
        named = {oauth.code_parameter if name == "code" else name: value for name, value in parameters.items()}
        return await self._finish(flow, state, named)

    async def _finish(self, flow: Flow, state: str, parameters: CallbackParameters) -> Credential:
        tenant = await tenant_of(flow, self._tenants)
        check_enabled(tenant, flow.integration)
        integration = await self._integrations.get(flow.integration, fresh=True)
        try:
            integration = consenting(integration, given(flow))
            code = authorize.check_callback(parameters, _oauth(integration))
            # From here on nobody's leaving stops it: the code is used up, and what it gave is stored.
            return await self.flights.run(state, lambda: self._exchange(flow, state, tenant, integration, code))
        except OAuthError as error:
            failure = connectors_error(error)
            self._record(flow, "CompleteAuthorization", failure.reason)
            raise failure from None

    async def _exchange(
        self, flow: Flow, state: str, tenant: Tenant, integration: Integration, code: Secret
    ) -> Credential:
        oauth = _oauth(integration)
        client = await self._integrations.client_for(integration, tenant)
        verifier = await self._ciphers.decrypt(PLATFORM_KEY, digest(state).encode(), flow.verifier)
        proof = Secret(verifier.decode()) if oauth.pkce else None
        prepared = await self._granting.prepare(flow, tenant)
        answered = await self._asking.ask(
            tenant.id,
            client,
            lambda one, stamp: token_request.code_exchange(
                oauth,
                one,
                code=code,
                redirect_uri=flow.redirect_uri,
                verifier=proof,
                allow_private_addresses=integration.allow_private_addresses,
                stamp=stamp,
            ),
            lambda answer, now: parse_token_reply(answer, oauth, now),
        )
        return await self._granting.keep(flow, tenant, integration, oauth, answered, prepared)

    def _record(self, flow: Flow, action: str, result: str) -> None:
        self._audit.record(action, caller=flow.started_by, tenant=flow.tenant, target=flow.credential, result=result)


def cookie_suffix(state: str) -> str:
    """Names a flow's cookie, so that two flows in one browser do not meet."""
    return digest(state)[:16]


def _state(parameters: CallbackParameters) -> str:
    """The one `state`. Raises: FLOW_NOT_FOUND."""
    values = parameters.get("state", ())
    if len(values) != 1:
        raise unknown()
    return values[0]


def _oauth(integration: Integration) -> OAuth:
    """The OAuth side, where a person is to consent. Raises: INTEGRATION_NOT_CONFIGURED."""
    if integration.oauth is None:
        raise not_configured(integration.id, "oauth")
    if integration.oauth.grant is not Grant.AUTHORIZATION_CODE:
        raise not_configured(integration.id, "oauth.authorization_endpoint")
    return integration.oauth
