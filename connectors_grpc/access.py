"""API keys: who calls. Makes, checks, lists and revokes them; what a caller may do is connectors_grpc.policy's."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from connectors_grpc import codec, policy
from connectors_grpc.domain.ids import KeyId, TenantId, TenantUid
from connectors_grpc.domain.records import ApiKey, CallRule, Role, Scope
from connectors_grpc.errors import Conflict, ConnectorsError, Reason, invalid
from connectors_grpc.ports import Audit, Change, Changes, Clock, Documents
from connectors_grpc.recent import Recent
from connectors_grpc.secret import Secret
from connectors_grpc.several import several

KEY = re.compile(r"cnk_([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)_([A-Za-z0-9_-]{43})")
"""`cnk_{id}_{256 random bits, base64url}`: the id finds the record, the whole is hashed."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a caller asks for. `tenants` None means all."""

    id: KeyId | None
    display_name: str
    roles: frozenset[Role]
    tenants: Mapping[TenantId, TenantUid] | None
    credentials: frozenset[str] | None
    expire_time: datetime | None
    rules: tuple[CallRule, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Keys by id. `next` is empty at the end."""

    keys: Sequence[ApiKey]
    next: str


class Access:
    """The use cases of API keys over `keys/{id}` documents."""

    def __init__(self, documents: Documents, changes: Changes, audit: Audit, clock: Clock) -> None:
        self._documents = documents
        self._changes = changes
        self._audit = audit
        self._clock = clock
        self._recent: Recent[KeyId, ApiKey | None] = Recent(clock)

    def forget(self, change: Change | None) -> None:
        """Drop what a change, perhaps of another replica, made old; None: everything."""
        if change is None:
            self._recent.clear()
        elif change.key is not None:
            self._recent.drop(change.key)

    async def authenticate(self, text: Secret) -> ApiKey:
        """The key that `text` is. Raises: API_KEY_INVALID, VAULT_UNAVAILABLE."""
        match = KEY.fullmatch(text.reveal())
        if match is None:
            raise ConnectorsError(Reason.API_KEY_INVALID)
        return await self.prove(KeyId(match[1]), hashlib.sha256(text.reveal().encode()).digest())

    async def prove(self, key_id: KeyId, sha256: bytes) -> ApiKey:
        """The key of that id, if `sha256` is the digest of its text and it is live. Raises: API_KEY_INVALID."""
        key = await self._recent.get(key_id, self._read)
        expected = bytes.fromhex(key.sha256) if key is not None else bytes(32)
        # Compared even where there is no such key: the answer's time says nothing of what exists.
        if not hmac.compare_digest(expected, sha256) or key is None or not policy.live(key, self._clock.now()):
            raise ConnectorsError(Reason.API_KEY_INVALID)
        return key

    async def _read(self, key_id: KeyId) -> ApiKey | None:
        document = await self._documents.read(f"keys/{key_id}")
        return None if document is None else replace(codec.load(ApiKey, document.data), version=document.version)

    async def create(self, caller: ApiKey, new: NewKey) -> tuple[ApiKey, Secret]:
        """A new key, and its text, which is kept nowhere.

        Raises: PERMISSION_DENIED, ALREADY_EXISTS (only to who may see that key, AIP-133).
        """
        scope = Scope(new.tenants, frozenset(new.credentials) if new.credentials is not None else None)  # type: ignore[arg-type]
        if not policy.may_create_key(caller, new.roles, scope):
            raise policy.denied()
        if not new.roles:
            raise invalid("api_key.roles", "at least one role is wanted")
        if caller.expire_time is not None and (new.expire_time is None or new.expire_time > caller.expire_time):
            raise invalid("api_key.expire_time", "no later than the end of the key that asks")
        if new.rules and new.roles != {Role.APP}:
            raise invalid("api_key.rules", "rules are for keys whose only role is `app`: no other is held to them")
        key_id = new.id or KeyId(f"k{secrets.token_hex(8)}")
        text = self.new_text(key_id)
        try:
            key = await self._create(new, scope, key_id, text)
        except ConnectorsError as error:
            if error.reason is Reason.ALREADY_EXISTS and not await self._may_see(caller, key_id):
                raise policy.denied() from None
            raise
        self._audit.record("CreateApiKey", caller=caller.id, target=key.id, result="created")
        return key, text

    async def _may_see(self, caller: ApiKey, key_id: KeyId) -> bool:
        key = await self._read(key_id)
        return key is not None and policy.within(key.scope, caller.scope)

    @staticmethod
    def new_text(key_id: KeyId) -> Secret:
        """A key's text."""
        return Secret(f"cnk_{key_id}_{secrets.token_urlsafe(32)}")

    async def bootstrap(self, key_id: KeyId, role: Role, text: Secret) -> bool:
        """A key for everything, made by the platform itself at its first start; False if there is one of that id."""
        new = NewKey(key_id, f"{role} key of the first start", frozenset((role,)), None, None, None)
        try:
            await self._create(new, Scope(None), key_id, text)
        except ConnectorsError as error:
            if error.reason is Reason.ALREADY_EXISTS:
                return False
            raise
        self._audit.record("CreateApiKey", caller="bootstrap", target=key_id, result="created")
        return True

    async def _create(self, new: NewKey, scope: Scope, key_id: KeyId, text: Secret) -> ApiKey:
        key = ApiKey(
            id=key_id,
            display_name=new.display_name,
            roles=new.roles,
            scope=scope,
            sha256=hashlib.sha256(text.reveal().encode()).hexdigest(),
            create_time=self._clock.now(),
            expire_time=new.expire_time,
            rules=new.rules,
        )
        try:
            version = await self._documents.write(f"keys/{key_id}", codec.dump(key), cas=0)
        except Conflict:
            raise ConnectorsError(Reason.ALREADY_EXISTS, {"key": key_id}) from None
        self._recent.drop(key_id)
        return replace(key, version=version)

    async def list(self, caller: ApiKey, *, after: str, limit: int) -> KeyPage:
        """Keys that lie within the caller's scope, by id. Looks at every key to find them, several at once."""
        keys: list[ApiKey] = []
        while True:
            page = await self._documents.list("keys", after=after, limit=limit)
            for name, key in zip(page.names, await several(self._read, map(KeyId, page.names)), strict=True):
                after = name
                if key is not None and policy.within(key.scope, caller.scope):
                    keys.append(key)
                    if len(keys) == limit:
                        return KeyPage(keys, after if page.more or name != page.names[-1] else "")
            if not page.more or not page.names:
                return KeyPage(keys, "")

    async def revoke(self, caller: ApiKey, key_id: KeyId) -> ApiKey:
        """End a key for good. Revoking a revoked one changes nothing. Raises: API_KEY_NOT_FOUND, PERMISSION_DENIED, CONFLICT."""
        key = await self._read(key_id)
        if key is None or not policy.within(key.scope, caller.scope):
            if caller.scope.tenants is None:
                raise ConnectorsError(Reason.API_KEY_NOT_FOUND, {"key": key_id})
            raise policy.denied()
        if Role.ADMIN not in caller.roles and key.roles != {Role.APP}:
            raise policy.denied()
        if key.revoke_time is None:
            key = replace(key, revoke_time=self._clock.now())
            try:
                version = await self._documents.write(f"keys/{key_id}", codec.dump(key), cas=key.version)
            except Conflict:
                raise ConnectorsError(Reason.CONFLICT) from None
            key = replace(key, version=version)
        self._recent.drop(key_id)
        self._changes.publish(Change(key=key_id))
        self._audit.record("RevokeApiKey", caller=caller.id, target=key_id, result="revoked")
        return key
