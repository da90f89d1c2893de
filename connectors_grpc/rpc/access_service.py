"""AccessService: parse, one use case, answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors_grpc import policy
from connectors_grpc.access import Access, NewKey
from connectors_grpc.boundary import caller
from connectors_grpc.domain.ids import TenantId, TenantUid
from connectors_grpc.domain.records import CallRule
from connectors_grpc.errors import invalid
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.access_service_pb2_grpc import AccessServiceServicer
from connectors_grpc.inject import RuleRefused, Rules
from connectors_grpc.inject.rules import MOST_RULES
from connectors_grpc.rpc import convert, parse
from connectors_grpc.tenants import Tenants

MOST_SCOPED = 100


class AccessServicer(AccessServiceServicer):
    """One for the server."""

    def __init__(self, access: Access, tenants: Tenants) -> None:
        self._access = access
        self._tenants = tenants

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, _context: Any) -> pb.CreateApiKeyResponse:
        """See the contract."""
        wanted = request.api_key
        roles = {convert.ROLE_OF.get(number) for number in wanted.roles}
        if None in roles:
            raise invalid("api_key.roles", "roles of connectors.v1.Role are wanted")
        key, text = await self._access.create(
            caller(),
            NewKey(
                id=parse.key_id(request.key_id, "key_id") if request.key_id else None,
                display_name=parse.display_name(wanted.display_name, "api_key.display_name"),
                roles=frozenset(role for role in roles if role is not None),
                tenants=await self._tenant_scope(list(wanted.tenants)),
                credentials=_credential_scope(list(wanted.credentials)),
                expire_time=(
                    parse.moment(wanted.expire_time, "api_key.expire_time") if wanted.HasField("expire_time") else None
                ),
                rules=_rules(wanted),
            ),
        )
        return pb.CreateApiKeyResponse(api_key=convert.api_key(key), secret=text.reveal())

    async def _tenant_scope(self, names: list[str]) -> Mapping[TenantId, TenantUid] | None:
        """Each tenant by its uid of now. Raises: INVALID_FIELD, TENANT_NOT_FOUND, PERMISSION_DENIED."""
        if names == ["*"]:
            return None
        if not 1 <= len(names) <= MOST_SCOPED:
            raise invalid("api_key.tenants", f"1 to {MOST_SCOPED} tenant ids are wanted, or `*` alone")
        bound = {}
        for name in names:
            tenant_id = parse.tenant_id(name, "api_key.tenants")
            if not policy.covers_tenant(caller().scope, tenant_id):
                raise policy.denied()
            bound[tenant_id] = (await self._tenants.get(caller(), tenant_id, fresh=True)).uid
        return bound

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, _context: Any) -> pb.ListApiKeysResponse:
        """See the contract."""
        after, limit = parse.page(request.page_size, request.page_token)
        page = await self._access.list(caller(), after=after, limit=limit)
        return pb.ListApiKeysResponse(api_keys=map(convert.api_key, page.keys), next_page_token=page.next)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, _context: Any) -> pb.RevokeApiKeyResponse:
        """See the contract."""
        key = await self._access.revoke(caller(), parse.key_id(request.key))
        return pb.RevokeApiKeyResponse(api_key=convert.api_key(key))


def _rules(wanted: pb.ApiKey) -> tuple[CallRule, ...]:
    """Raises: INVALID_FIELD."""
    found = []
    for index, rule in enumerate(wanted.rules):
        where = f"api_key.rules[{index}].credentials"
        credentials = tuple(parse.credential_id(name, where) for name in rule.credentials)
        found.append(CallRule(tuple(rule.methods), rule.path, credentials))
        try:
            Rules.of([(rule.methods, rule.path, credentials)])
        except RuleRefused as error:
            raise invalid(f"api_key.rules[{index}]", str(error.args[0])) from None
    if len(found) > MOST_RULES:
        raise invalid("api_key.rules", f"at most {MOST_RULES} rules are wanted")
    return tuple(found)


def _credential_scope(names: list[str]) -> frozenset[str] | None:
    if names in ([], ["*"]):
        return None
    if len(names) > MOST_SCOPED:
        raise invalid("api_key.credentials", f"at most {MOST_SCOPED} credential ids are wanted, or `*` alone")
    return frozenset(parse.credential_id(name, "api_key.credentials") for name in names)
