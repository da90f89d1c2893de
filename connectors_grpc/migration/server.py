"""The platform's side, by its own API: tenants made, credentials staged, compared, switched on, and forgotten again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from connectors_grpc.cli.errors import CallFailed, read
from connectors_grpc.domain.records import CredentialKind
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.gen.connectors.v1.credential_service_pb2_grpc import CredentialServiceStub
from connectors_grpc.gen.connectors.v1.integration_service_pb2_grpc import IntegrationServiceStub
from connectors_grpc.gen.connectors.v1.tenant_service_pb2_grpc import TenantServiceStub
from connectors_grpc.legacy import OldCredential, request_id
from connectors_grpc.migration.items import Item
from connectors_grpc.policy import MIGRATED_LABEL
from connectors_grpc.secret import Secret

LONGEST_LABEL: Final = 200
STAGED: Final = "staged"
PAGE: Final = 500
POLL: Final = 0.2
BATCH_SECONDS: Final = 600.0
"""A batch waits for a Vault that is away, item by item; then for nothing."""


@dataclass(frozen=True, slots=True)
class NewSide:
    """The server; `path` is where the old records lie. Every method raises CallFailed, with an exit code."""

    channel: grpc.aio.Channel
    key: Secret = field(repr=False)
    timeout: float
    path: str

    async def integrations(self) -> set[str]:
        """Ids of all integrations."""
        found, token, stub = set[str](), "", IntegrationServiceStub(self.channel)
        while True:
            request = integrations.ListIntegrationsRequest(page_size=PAGE, page_token=token)
            page = await self._call(stub.ListIntegrations, request)
            found.update(each.id for each in page.integrations)
            token = page.next_page_token
            if not token:
                return found

    async def create_tenant(self, tenant: str, old: str, *, validate_only: bool = False) -> bool:
        """Make the tenant, or find it there; whether it is a migration's own."""
        request = tenants.CreateTenantRequest(
            tenant_id=tenant,
            tenant=tenants.Tenant(display_name=old[:LONGEST_LABEL], labels={MIGRATED_LABEL: old[:LONGEST_LABEL]}),
            request_id=request_id(self.path, tenant),
            validate_only=validate_only,
        )
        try:
            await self._call(TenantServiceStub(self.channel).CreateTenant, request)
        except CallFailed as failed:
            if failed.refusal.reason != "ALREADY_EXISTS":
                raise
            return False
        return True

    async def delete_tenant(self, tenant: str) -> bool:
        """Delete a tenant whose credentials are all gone; False if some are not."""
        stub, token = CredentialServiceStub(self.channel), ""
        while True:
            request = pb.ListCredentialsRequest(tenant=tenant, page_size=PAGE, page_token=token)
            try:
                page = await self._call(stub.ListCredentials, request)
            except CallFailed as failed:
                if failed.refusal.reason == "TENANT_NOT_FOUND":
                    return True
                raise
            if any(each.state != pb.Credential.STATE_REVOKED for each in page.credentials):
                return False
            token = page.next_page_token
            if not token:
                break
        service = TenantServiceStub(self.channel)
        operation = (
            await self._call(service.DeleteTenant, tenants.DeleteTenantRequest(tenant=tenant, force=True))
        ).operation
        while not operation.done:
            await asyncio.sleep(POLL)
            asked = tenants.GetOperationRequest(operation=operation.id)
            operation = (await self._call(service.GetOperation, asked)).operation
        return not operation.error_reason

    async def send(
        self, wanted: Mapping[Item, OldCredential], *, compare_only: bool = False
    ) -> dict[Item, pb.ImportCredentialsResponse]:
        """Stage them, or compare them with what is there; an answer for each, by one stream."""
        numbered = dict(enumerate(wanted))

        async def requests() -> AsyncIterator[pb.ImportCredentialsRequest]:
            for number, item in numbered.items():
                one = request_of(item, wanted[item])
                if compare_only:
                    yield pb.ImportCredentialsRequest(item=str(number), compare=one)
                else:
                    yield pb.ImportCredentialsRequest(item=str(number), stage=one)

        stub = CredentialServiceStub(self.channel)
        found: dict[Item, pb.ImportCredentialsResponse] = {}
        try:
            call: Any = stub.ImportCredentials(requests(), timeout=BATCH_SECONDS, metadata=self._metadata())
            async for answer in call:
                found[numbered[int(answer.item)]] = answer
        except grpc.RpcError as error:
            raise CallFailed(read(cast(grpc.Call, error))) from None
        return found

    async def switch(self, item: Item, etag: str, *, enabled: bool) -> pb.Credential:
        """Switch the credential on, which ends its staging, or off."""
        wanted = pb.Credential(tenant=item.tenant, id=item.integration, enabled=enabled, etag=etag)
        request = pb.UpdateCredentialRequest(credential=wanted, update_mask=FieldMask(paths=["enabled"]))
        answer = await self._call(CredentialServiceStub(self.channel).UpdateCredential, request)
        return cast(pb.Credential, answer.credential)

    async def replace(self, item: Item, credential: OldCredential, etag: str) -> pb.Credential:
        """Store newer material over what is in use, if that is still what was seen."""
        request = request_of(item, credential)
        request.etag = etag
        answer = await self._call(CredentialServiceStub(self.channel).StoreCredential, request)
        return cast(pb.Credential, answer.credential)

    async def forget(self, item: Item, etag: str) -> None:
        """Purge the material here; the provider is told nothing."""
        request = pb.ForgetCredentialRequest(tenant=item.tenant, credential=item.integration, etag=etag)
        await self._call(CredentialServiceStub(self.channel).ForgetCredential, request)

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self.timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            raise CallFailed(read(cast(grpc.Call, error))) from None

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key.reveal()}"),)


def request_of(item: Item, credential: OldCredential) -> pb.StoreCredentialRequest:
    """What the server is to store."""
    fields = {name: value.reveal() for name, value in credential.fields.items()}
    request = pb.StoreCredentialRequest(
        tenant=item.tenant, integration=item.integration, labels={MIGRATED_LABEL: item.name[:LONGEST_LABEL]}
    )
    match credential.kind:
        case CredentialKind.API_KEY:
            request.api_key.api_key = fields["api_key"]
        case CredentialKind.BASIC:
            request.basic.username, request.basic.password = fields["username"], fields["password"]
        case CredentialKind.OAUTH:
            request.oauth.access_token = fields["access_token"]
            request.oauth.scopes.extend(credential.scopes)
            if credential.refresh_token is not None:
                request.oauth.refresh_token = credential.refresh_token.reveal()
            if credential.expire_time is not None:
                request.oauth.expire_time.FromDatetime(credential.expire_time)
    return request


def is_staged(credential: pb.Credential) -> bool:
    """Whether it waits for its cut-over."""
    return credential.state_detail == STAGED and not credential.enabled


def is_ours(item: Item, credential: pb.Credential) -> bool:
    """Whether a migration of this very record made it. A label tells no more than that: nothing is granted by it."""
    return credential.labels.get(MIGRATED_LABEL) == item.name[:LONGEST_LABEL]


def said(refusal: pb.ImportRefusal, reasons: Any) -> str:
    """Why an item was refused, in one line."""
    fields: Iterable[str] = (f" {each.field}: {each.description}." for each in refusal.field_violations)
    return f"{reasons.Name(refusal.reason).removeprefix('ERROR_REASON_')}: {refusal.message}{''.join(fields)}"
