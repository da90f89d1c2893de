"""CredentialService: parse, one use case, answer."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from connectors_grpc.boundary import caller
from connectors_grpc.credentials.checks import check_enabled
from connectors_grpc.credentials.connecting import Connecting
from connectors_grpc.credentials.devices import DeviceStarted
from connectors_grpc.credentials.importing import Imported, Importing, Wanted
from connectors_grpc.credentials.leasing import Leasing
from connectors_grpc.credentials.managing import Managing
from connectors_grpc.credentials.refreshing import Refreshing
from connectors_grpc.credentials.revoking import ProviderResult
from connectors_grpc.credentials.seeding import Seeding
from connectors_grpc.credentials.vouching import vouched
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.credential_service_pb2_grpc import CredentialServiceServicer
from connectors_grpc.integrations import Integrations
from connectors_grpc.proxying import Proxying
from connectors_grpc.rpc import convert, parse
from connectors_grpc.rpc.importing import Imports, asked
from connectors_grpc.rpc.material import inputs, material, seeded
from connectors_grpc.tailoring import read_values, tailored
from connectors_grpc.tenants import Tenants

LONGEST_MIN_TTL = timedelta(minutes=10)
RESULT = {
    ProviderResult.REVOKED: pb.RevokeCredentialResponse.PROVIDER_RESULT_REVOKED,
    ProviderResult.NOT_SUPPORTED: pb.RevokeCredentialResponse.PROVIDER_RESULT_NOT_SUPPORTED,
    ProviderResult.FAILED: pb.RevokeCredentialResponse.PROVIDER_RESULT_FAILED,
    ProviderResult.SHARED: pb.RevokeCredentialResponse.PROVIDER_RESULT_SHARED,
}


class CredentialServicer(CredentialServiceServicer):
    """One for the server."""

    def __init__(
        self,
        tenants: Tenants,
        integrations: Integrations,
        connecting: Connecting,
        managing: Managing,
        refreshing: Refreshing,
        leasing: Leasing,
        proxying: Proxying,
        importing: Importing,
        imports: Imports,
        seeding: Seeding,
    ) -> None:
        self._tenants = tenants
        self._integrations = integrations
        self._connecting = connecting
        self._managing = managing
        self._refreshing = refreshing
        self._leasing = leasing
        self._proxying = proxying
        self._importing = importing
        self._imports = imports
        self._seeding = seeding

    async def StartAuthorization(
        self, request: pb.StartAuthorizationRequest, _context: Any
    ) -> pb.StartAuthorizationResponse:
        """See the contract."""
        started = await self._connecting.start(
            caller(),
            parse.tenant_id(request.tenant),
            parse.integration_id(request.integration),
            parse.credential_id(request.credential) if request.credential else None,
            scopes=tuple(request.scopes),
            redirect_uri=request.redirect_uri,
            device=request.device,
            allow_account_change=request.allow_account_change,
            inputs=inputs(request.inputs),
        )
        answer = pb.StartAuthorizationResponse(
            connect_url=started.url, expire_time=convert.time_of(started.expire_time), credential=started.credential
        )
        if started.device is not None:
            answer.state = started.device.state
            answer.device.CopyFrom(_device(started.device))
        return answer

    async def CompleteAuthorization(
        self, request: pb.CompleteAuthorizationRequest, _context: Any
    ) -> pb.CompleteAuthorizationResponse:
        """See the contract."""
        given = {name: getattr(request, name) for name in ("state", "code", "iss", "error")}
        parameters = {name: (value,) for name, value in given.items() if value}
        credential = await self._connecting.complete(caller(), parameters)
        return pb.CompleteAuthorizationResponse(credential=convert.credential(credential))

    async def StoreCredential(self, request: pb.StoreCredentialRequest, _context: Any) -> pb.StoreCredentialResponse:
        """See the contract."""
        wanted = await self._wanted(request, fresh=True)
        stored = await self._managing.store(
            wanted.tenant,
            wanted.integration,
            wanted.credential,
            wanted.new,
            caller=caller().id,
            labels=wanted.labels,
            roles=caller().roles,
            version=wanted.version,
        )
        return pb.StoreCredentialResponse(credential=convert.credential(stored))

    async def _wanted(self, request: pb.StoreCredentialRequest, *, fresh: bool) -> Wanted:
        tenant_id = parse.tenant_id(request.tenant)
        integration_id = parse.integration_id(request.integration)
        credential_id = parse.credential_id(request.credential) if request.credential else CredentialId(integration_id)
        new = None if request.WhichOneof("material") == "vault" else material(request)
        labels = parse.labels(request.labels, "labels")
        version = parse.version(request.etag)
        tenant = await self._tenants.usable(caller(), tenant_id)
        check_enabled(tenant, integration_id)
        if new is None:
            new = seeded(await self._seeding.read(tenant, credential_id, request.vault.path))
        integration = await self._integrations.get(integration_id, fresh=fresh)
        values = read_values(integration, inputs(request.inputs), found=True)
        integration, new = tailored(integration, values), replace(new, values=values)
        new = await vouched(self._integrations, caller(), tenant, integration, new)
        return Wanted(tenant, integration, credential_id, new, labels, version)

    async def ImportCredentials(
        self, requests: AsyncIterable[pb.ImportCredentialsRequest], context: Any
    ) -> AsyncIterator[pb.ImportCredentialsResponse]:
        """See the contract."""

        async def store(request: pb.ImportCredentialsRequest) -> Imported:
            wanted = await self._wanted(asked(request), fresh=False)
            wanted = replace(wanted, staged=request.HasField("stage"), compare_only=request.HasField("compare"))
            return await self._importing.store(caller(), wanted)

        async for answer in self._imports.answers(requests, store, context.time_remaining()):
            yield answer

    async def GetCredential(self, request: pb.GetCredentialRequest, _context: Any) -> pb.GetCredentialResponse:
        """See the contract."""
        credential = await self._managing.get(
            caller(), parse.tenant_id(request.tenant), parse.credential_id(request.credential)
        )
        return pb.GetCredentialResponse(credential=convert.credential(credential))

    async def ListCredentials(self, request: pb.ListCredentialsRequest, _context: Any) -> pb.ListCredentialsResponse:
        """See the contract."""
        after, limit = parse.page(request.page_size, request.page_token)
        page = await self._managing.list(caller(), parse.tenant_id(request.tenant), after=after, limit=limit)
        found = map(convert.credential, page.credentials)
        return pb.ListCredentialsResponse(credentials=found, next_page_token=page.next)

    async def UpdateCredential(self, request: pb.UpdateCredentialRequest, _context: Any) -> pb.UpdateCredentialResponse:
        """See the contract."""
        wanted = request.credential
        changes = parse.mask(request.update_mask, wanted, ("labels", "enabled"))
        labels = parse.labels(wanted.labels, "credential.labels")
        credential = await self._managing.update(
            caller(),
            parse.tenant_id(wanted.tenant, "credential.tenant"),
            parse.credential_id(wanted.id, "credential.id"),
            version=parse.version(wanted.etag),
            labels=labels if "labels" in changes else None,
            enabled=wanted.enabled if "enabled" in changes else None,
        )
        return pb.UpdateCredentialResponse(credential=convert.credential(credential))

    async def VerifyCredential(self, request: pb.VerifyCredentialRequest, _context: Any) -> pb.VerifyCredentialResponse:
        """See the contract."""
        identity = await self._proxying.verify(
            caller(), parse.tenant_id(request.tenant), parse.credential_id(request.credential)
        )
        return pb.VerifyCredentialResponse(accepted=identity.accepted, http_status=identity.status)

    async def RefreshCredential(
        self, request: pb.RefreshCredentialRequest, _context: Any
    ) -> pb.RefreshCredentialResponse:
        """See the contract."""
        tenant = await self._tenants.usable(caller(), parse.tenant_id(request.tenant))
        held = await self._refreshing.refresh(tenant, parse.credential_id(request.credential))
        return pb.RefreshCredentialResponse(credential=convert.credential(held.credential))

    async def RevokeCredential(self, request: pb.RevokeCredentialRequest, _context: Any) -> pb.RevokeCredentialResponse:
        """See the contract."""
        integration_id = parse.integration_id(request.integration) if request.integration else None
        credential, result = await self._managing.revoke(
            caller(),
            parse.tenant_id(request.tenant),
            parse.credential_id(request.credential or request.integration),
            integration_id,
        )
        return pb.RevokeCredentialResponse(credential=convert.credential(credential), provider_result=RESULT[result])

    async def ForgetCredential(self, request: pb.ForgetCredentialRequest, _context: Any) -> pb.ForgetCredentialResponse:
        """See the contract."""
        credential = await self._managing.forget(
            caller(),
            parse.tenant_id(request.tenant),
            parse.credential_id(request.credential),
            version=parse.version(request.etag),
        )
        return pb.ForgetCredentialResponse(credential=convert.credential(credential))

    async def FetchAccessToken(self, request: pb.FetchAccessTokenRequest, _context: Any) -> pb.FetchAccessTokenResponse:
        """See the contract."""
        min_ttl = parse.length(request.min_ttl, "min_ttl", LONGEST_MIN_TTL) if request.HasField("min_ttl") else None
        held, token, token_type = await self._leasing.fetch_token(
            caller(), parse.tenant_id(request.tenant), parse.credential_id(request.credential), min_ttl
        )
        return pb.FetchAccessTokenResponse(
            access_token=token.reveal(),
            token_type=token_type,
            expire_time=convert.time_of(held.credential.expire_time),
            generation=held.credential.generation,
            scopes=held.credential.granted_scopes,
        )


def _device(started: DeviceStarted) -> pb.DeviceAuthorization:
    return pb.DeviceAuthorization(
        user_code=started.user_code,
        verification_uri=started.verification_uri,
        verification_uri_complete=started.verification_uri_complete,
        poll_interval=convert.duration_of(started.interval),
    )
