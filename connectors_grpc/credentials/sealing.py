"""An answer sealed without the Vault: by a data key that came with the refresh lease, so that it can be spilled while the Vault
is down. Only the Vault can open it again: the data key itself is kept wrapped under the tenant's key.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connectors_grpc.codec import RecordMalformed, dump, load
from connectors_grpc.credentials.answer import Answer
from connectors_grpc.credentials.keeping import MaterialLost, parse_material, serialise_material
from connectors_grpc.domain.ids import CredentialId, TenantId, TenantUid
from connectors_grpc.domain.records import Credential
from connectors_grpc.grammar import SEGMENT
from connectors_grpc.ports import DataKey

NONCE = 12
VERSION = 1


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is on disk. `wrapped` opens by the tenant's key only; `sealed` by the data key, and only with these very names."""

    version: int
    tenant: TenantId
    tenant_uid: TenantUid
    credential: CredentialId
    wrapped: str
    nonce: str
    sealed: str


def seal(answer: Answer, key: DataKey) -> bytes:
    """Bytes for the disk. Needs no Vault."""
    nonce = os.urandom(NONCE)
    inside = json.dumps(
        {
            "record": dump(answer.record),
            "material": base64.b64encode(serialise_material(answer.material)).decode(),
            "base_generation": answer.base_generation,
        }
    ).encode()
    sealed = AESGCM(key.plaintext).encrypt(nonce, inside, _names(answer.tenant, answer.tenant_uid, answer.record.id))
    envelope = Envelope(
        version=VERSION,
        tenant=answer.tenant,
        tenant_uid=answer.tenant_uid,
        credential=answer.record.id,
        wrapped=key.wrapped,
        nonce=base64.b64encode(nonce).decode(),
        sealed=base64.b64encode(sealed).decode(),
    )
    return json.dumps(dump(envelope)).encode()


def read_envelope(content: bytes) -> Envelope:
    """What lies on disk, whose data key is still to be unwrapped. Raises: MaterialLost."""
    try:
        envelope = load(Envelope, json.loads(content))
    except (ValueError, RecursionError, RecordMalformed):
        raise MaterialLost from None
    if not (SEGMENT.fullmatch(envelope.tenant) and SEGMENT.fullmatch(envelope.credential)):
        raise MaterialLost
    return envelope


def open_envelope(envelope: Envelope, key: bytes) -> Answer:
    """The answer. Raises: MaterialLost."""
    names = _names(envelope.tenant, envelope.tenant_uid, envelope.credential)
    try:
        inside = json.loads(
            AESGCM(key).decrypt(base64.b64decode(envelope.nonce), base64.b64decode(envelope.sealed), names)
        )
        return Answer(
            tenant=envelope.tenant,
            tenant_uid=envelope.tenant_uid,
            record=load(Credential, inside["record"]),
            material=parse_material(base64.b64decode(inside["material"])),
            base_generation=int(inside["base_generation"]),
        )
    except (InvalidTag, binascii.Error, ValueError, KeyError, TypeError, RecordMalformed):
        raise MaterialLost from None


def _names(tenant: TenantId, uid: TenantUid, credential: CredentialId) -> bytes:
    return f"{tenant}/{uid}/{credential}".encode()
