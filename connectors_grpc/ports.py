"""What the use cases need from outside, in our own words. Adapters hold to these; tests/laws/ says it in full."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from connectors_grpc.domain.ids import CredentialId, IntegrationId, KeyId, TenantId, TenantUid
from connectors_grpc.legacy import OldDocument

Json = Mapping[str, "JsonValue"]
JsonValue = str | int | float | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


@dataclass(frozen=True, slots=True)
class Document:
    """One stored version. `version` counts from 1."""

    data: Json
    version: int


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """Names in ascending order. `more` says that names follow after the last."""

    names: tuple[str, ...]
    more: bool


class Documents(Protocol):
    """Versioned JSON documents with compare-and-set: one KV v2 mount.

    Paths are `folder/name` or deeper, of segments that matched `[a-z0-9._-]{1,128}` before they came here.
    Raises: VaultUnavailable from every method, after the caller's deadline or the adapter's own (5 s).
    """

    async def read(self, path: str) -> Document | None:
        """The newest version; None if there is none, or it was deleted."""

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        """Write a new version if the current one is `cas`; 0 means that none may exist. Returns the new version.

        `cas=None` is not offered to use cases that can race; it means create or replace, whatever is there.
        Raises: Conflict if another version is current (a deleted document counts as version 0 exactly once purged).
        """

    async def replace(self, path: str, data: Json, *, cas: int) -> int:
        """As `write`, and no older version can be read from then on. Versions count on: a stale writer still loses."""

    async def purge(self, path: str) -> None:
        """Remove every version and all metadata. Purging what is absent is no error."""

    async def list(self, folder: str, *, after: str = "", limit: int = 1000) -> DocumentPage:
        """Names of documents directly under `folder` (not sub-folders), those greater than `after` first."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key for sealing outside the Vault. `plaintext` is kept in memory only."""

    plaintext: bytes = field(repr=False)
    wrapped: str


class Spill(Protocol):
    """A durable place of this replica's own, for what the Vault can't take now. Synchronous: it is the last resort."""

    replica: str

    def names(self) -> list[str]:
        """What lies here."""

    def read(self, name: str) -> bytes:
        """One of them. Raises: OSError."""

    def put(self, name: str, sealed: bytes) -> bool:
        """Keep it durably; False if it can't be."""

    def remove(self, name: str) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext, and the context that it opens in."""

    context: bytes
    ciphertext: str


@dataclass(frozen=True, slots=True)
class KeyVersions:
    """Which versions a key has, from 1: what is sealed now gets `latest`; below `readable` nothing opens."""

    latest: int
    readable: int


class Ciphers(Protocol):
    """Named encryption keys that never leave the Vault: one transit mount.

    `context` binds a ciphertext: another context can't open it. A ciphertext says the key's version that sealed it
    (`grammar.sealed_version`).  Units: plaintexts up to 64 KiB.
    Raises: VaultUnavailable from every method.
    """

    async def create_key(self, name: str) -> None:
        """Create a derived key. An existing one is kept as it is: the caller checks for that first."""

    async def encrypt(self, name: str, context: bytes, plaintext: bytes) -> str:
        """Ciphertext under the newest version of the key. Raises: KeyMissing."""

    async def decrypt(self, name: str, context: bytes, ciphertext: str) -> bytes:
        """The plaintext. Raises: KeyMissing, Undecipherable (another key, another context, or damaged)."""

    async def data_key(self, name: str, context: bytes) -> DataKey:
        """A fresh 256-bit key, and itself wrapped under `name` and `context`: `decrypt` gives it back. Raises: KeyMissing."""

    async def shred_key(self, name: str) -> None:
        """Delete the key for good. Shredding what is absent is no error."""

    async def key_versions(self, name: str) -> KeyVersions:
        """The key's versions. Raises: KeyMissing."""

    async def rotate(self, name: str) -> None:
        """Add a version, which seals from now on; what older ones sealed still opens. Raises: KeyMissing."""

    async def rewrap(self, name: str, items: Sequence[Sealed]) -> Sequence[str | None]:
        """The same under the latest version, in the same order; None for one that does not open.

        Bounds: 100 items, 512 KiB of ciphertext.  Raises: KeyMissing, and ValueError above the bounds.
        """

    async def retire(self, name: str, version: int) -> None:
        """Have nothing that a version below `version` sealed ever open again. Doing it twice, or lower, changes nothing.

        Raises: KeyMissing, and ValueError for a version above the latest.
        """


@dataclass(frozen=True, slots=True)
class OldRecord:
    """What an older layout has of a credential, opened. `version` is the KV version, 0 where the engine counts none."""

    document: OldDocument
    version: int


class OldLayout(Protocol):
    """Credentials of an older layout, to be read while they are migrated.

    Raises: VaultUnavailable.
    """

    async def read(self, tenant: str, integration: str) -> OldRecord | None:
        """The newest, by the names of the old layout; None if there is none. Raises: FormUnknown."""


class Clock(Protocol):
    """Time. Wall time for records, monotonic for waiting."""

    def now(self) -> datetime:
        """Aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to a third party. `headers` and `body` may hold secrets: `repr` hides them."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    allow_private_addresses: bool
    timeout: float
    max_body: int
    integration: str = ""
    """Whose client certificate is shown, if it has one."""
    tenant: str = ""
    """Whose share of the connections it takes."""

    def __repr__(self) -> str:
        return f"HttpRequest({self.method})"


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The answer, whole. `body` may hold secrets: `repr` hides it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        return f"HttpReply({self.status})"

    def header(self, name: str) -> str:
        """The first header of that name, case-insensitively; empty if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


class Outbound(Protocol):
    """HTTP to third parties: no redirects, no cookies kept, bounded, the address checked is the one dialled.

    Raises: ADDRESS_NOT_ALLOWED, PROVIDER_UNAVAILABLE (unreachable, TLS, protocol, time-out), BODY_TOO_LARGE, LIMIT_EXCEEDED
    (the tenant has its share of the connections; nothing was sent).
    """

    async def send(self, request: HttpRequest) -> HttpReply:
        """Send once; never retried here. Content codings are left as they came unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class HttpStream:
    """The answer's head, and its body as it comes. `body` raises PROVIDER_UNAVAILABLE if it ends before its end.

    `trailers` is what came behind the body; filled once it ended.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: AsyncIterator[bytes]
    trailers: Sequence[tuple[bytes, bytes]] = ()

    def __repr__(self) -> str:
        return f"HttpStream({self.status})"


class StreamingOutbound(Protocol):
    """As Outbound, with bodies that stream both ways under backpressure; one piece of each is held at a time."""

    def stream(
        self,
        request: HttpRequest,
        body: AsyncIterator[bytes] | None,
        length: int | None,
        trailers: Callable[[], list[tuple[bytes, bytes]]] = list,
    ) -> AbstractAsyncContextManager[HttpStream]:
        """Send once. The request's own `body` and `max_body` count for nothing; its `timeout` (seconds) is for the answer's
        head, counted from the body's end, and for each further piece. `length` None with a body means chunks, which may have
        trailers behind them: they are asked for at the body's end.

        Raises: ADDRESS_NOT_ALLOWED, PROVIDER_UNAVAILABLE, INVALID_FIELD, and whatever `body` raises.
        """


@dataclass(frozen=True, slots=True)
class Change:
    """Something that leases depend on changed: exactly one of a credential, a whole tenant, a key, or an integration."""

    tenant: TenantId | None = None
    credential: CredentialId | None = None
    key: KeyId | None = None
    integration: IntegrationId | None = None


class Changes(Protocol):
    """The feed of changes, for caches to drop what they hold."""

    def publish(self, change: Change) -> None:
        """Tell all subscribers of this process at once, and those of other replicas soon. Never blocks, never raises."""

    def subscribe(self) -> Subscription:
        """Changes from now on; None where some were dropped or missed: read everything again."""

    def hears(self) -> bool:
        """Whether other replicas' changes reach this one. While they do not, nobody may rely on being told."""


@dataclass(frozen=True, slots=True)
class Hold:
    """While it stands, no call begins with that generation of a credential: a refresh is about to end its access token.

    `id` is random, and this refresh's alone.
    """

    id: str
    tenant: TenantId
    uid: TenantUid
    credential: CredentialId
    generation: int


@dataclass(frozen=True, slots=True)
class Told:
    """A hold as one subscriber is told of it. By `hold_id`, which no other has, it answers that its calls have ended.

    Units: `left` is seconds, after which the hold is over by itself; 0 says that it is over now.
    """

    hold: Hold
    hold_id: str
    left: float


class Subscription(Protocol):
    """One subscriber's changes, in order, and what it alone is told between them."""

    def __aiter__(self) -> AsyncIterator[Change | Told | None]:
        """Itself."""

    async def __anext__(self) -> Change | Told | None:
        """The next."""

    def put(self, item: Change | Told | None) -> None:
        """Tell this subscriber alone, behind what waits for it. Never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a replica says of holds just now: its own refreshes' ones, and the ids of others' with which it has no call left."""

    holds: tuple[Hold, ...] = ()
    yielded: tuple[str, ...] = ()


NOTHING: Final = Said()


class Replicas(Protocol):
    """The other replicas, as far as they can be heard. What they say is a state, not a log: what is missed is made up for."""

    def others(self) -> Mapping[str, Said]:
        """Those that were alive lately, by name, and what each says."""

    def say(self, said: Said) -> None:
        """From now on this replica says that, in place of what it said. Never blocks, never raises."""

    def on_heard(self, heard: Callable[[], None]) -> None:
        """Call that whenever `others` may have changed, after the changes that came with it were told. Must not raise."""


class Audit(Protocol):
    """One line for each administrative act and each hand-out of a credential."""

    def record(
        self,
        action: str,
        *,
        caller: str,
        result: str,
        tenant: str = "",
        target: str = "",
        generation: int = 0,
    ) -> None:
        """Never raises; never given a secret."""
