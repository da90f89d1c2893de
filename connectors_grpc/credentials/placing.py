"""Whether new material may take a credential's place, and the record that it then gets. Pure: no clock, no I/O.

What could never be put into a request is refused when it is stored, not when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from connectors_grpc import lifecycle
from connectors_grpc.credentials.answer import fingerprint
from connectors_grpc.credentials.checks import FORGOTTEN, is_staged
from connectors_grpc.domain.definition import Grant, Integration
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Credential, CredentialKind, CredentialState, Material, Tenant
from connectors_grpc.errors import ConnectorsError, FieldViolation, Reason, invalid
from connectors_grpc.hosts import sealed_hosts
from connectors_grpc.inject import FieldRefused, PlaceholderUnresolved, resolve
from connectors_grpc.oauth2.minting import input_problems
from connectors_grpc.secret import Secret
from connectors_grpc.tailoring import fields_with, shown


@dataclass(frozen=True, slots=True)
class NewMaterial:
    """What is to be stored. Holds secrets. With `inputs`, tokens are minted from them, and none is here yet. `values` are the
    tenant's for its definition's placeholders.
    """

    kind: CredentialKind
    fields: Mapping[str, Secret]
    refresh_token: Secret | None = None
    expire_time: datetime | None = None
    scopes: tuple[str, ...] = ()
    requested_scopes: tuple[str, ...] = ()
    issue_time: datetime | None = None
    token_type: str = "Bearer"
    inputs: Mapping[str, Secret] | None = None
    account: str = ""
    values: Mapping[str, Secret] = field(default_factory=dict)
    refresh_expire_time: datetime | None = None


def check_fills(integration: Integration, new: NewMaterial) -> None:
    """A credential that could never be put in is refused when it is stored, not when it is used (attacks 19, 23)."""
    assert integration.api is not None
    fields = new.fields
    if new.inputs is not None:
        _check_inputs(integration, new.inputs)
        fields = {"access_token": Secret("minted"), **fields}
    try:
        resolve(integration.api.placement, fields_with(integration, fields, new.values))
    except PlaceholderUnresolved as error:
        raise invalid("material", f"the integration's templates need the field {error.args[0]}") from None
    except FieldRefused as error:
        raise invalid(
            "material", f"what fills {error.args[0]} must be visible ASCII, a Basic user name without colon"
        ) from None


def _check_inputs(integration: Integration, inputs: Mapping[str, Secret]) -> None:
    """Exactly what the definition's grant needs. Raises: INVALID_FIELD."""
    if integration.oauth is None or integration.oauth.grant is Grant.AUTHORIZATION_CODE:
        raise invalid("material", "a person grants this integration: StartAuthorization gives a link")
    violations = tuple(
        FieldViolation(f"grant.{name}", text) for name, text in input_problems(integration.oauth, inputs)
    )
    if violations:
        raise ConnectorsError(Reason.INVALID_FIELD, fields=violations)


def check_place(
    integration: Integration, credential_id: CredentialId, old: Credential | None, version: int, *, staged: bool
) -> None:
    """Whether this integration's credential may stand where `old` does. No migration brings back what was revoked.

    Raises: ALREADY_EXISTS, CONFLICT, CREDENTIAL_REVOKED.
    """
    if old is not None and staged and old.state is CredentialState.REVOKED and old.detail != FORGOTTEN:
        raise ConnectorsError(Reason.CREDENTIAL_REVOKED, {"credential": credential_id, "integration": old.integration})
    foreign = old is not None and (old.integration != integration.id or (staged and not is_staged(old)))
    if old is not None and foreign and old.state is not CredentialState.REVOKED:
        raise ConnectorsError(Reason.ALREADY_EXISTS, {"credential": credential_id, "integration": old.integration})
    if version not in (0, 0 if old is None else old.version):
        raise ConnectorsError(Reason.CONFLICT)


def check_account(integration: Integration, old: Credential, new: NewMaterial) -> None:
    """Another's account does not take this one's place unnoticed. Raises: ACCOUNT_MISMATCH."""
    known = old.account if integration.api is not None and integration.api.account_pointer else ""
    if known and new.account != known:
        problem = "another_account" if new.account else "account_unknown"
        raise ConnectorsError(Reason.ACCOUNT_MISMATCH, {"credential": old.id, "problem": problem})


def granted(
    tenant: Tenant,
    integration: Integration,
    credential_id: CredentialId,
    new: NewMaterial,
    old: Credential | None,
    *,
    now: datetime,
    labels: Mapping[str, str] | None,
    version: int,
) -> Credential:
    """The record of what is stored, over `old`."""
    assert integration.api is not None
    minted = new.inputs is not None
    state = CredentialState.PENDING if old is None else old.state
    return Credential(
        tenant=tenant.id,
        id=credential_id,
        integration=integration.id,
        kind=new.kind,
        state=lifecycle.next_state(state, lifecycle.Event.GRANTED),
        generation=1 if old is None else old.generation + 1,
        create_time=now if old is None else old.create_time,
        update_time=now,
        enabled=old is None or old.enabled or is_staged(old),
        granted_scopes=new.scopes,
        requested_scopes=new.requested_scopes or _default_scopes(integration, minted),
        hosts=sealed_hosts(integration.api),
        issue_time=new.issue_time or now,
        # What is minted has ended before it began: it is due at its first use.
        expire_time=now if minted else new.expire_time or _default_end(integration, new, now),
        refreshable=minted or new.refresh_token is not None,
        origin="" if new.refresh_token is None else fingerprint(new.refresh_token),
        account=new.account,
        minted=minted,
        labels=dict(labels) if labels else (old.labels if old else {}),
        version=version,
        values=shown(integration, new.values),
        refresh_expire_time=new.refresh_expire_time,
    )


def _default_end(integration: Integration, new: NewMaterial, now: datetime) -> datetime | None:
    """When a token ends of which nobody said it; None if the definition does not either."""
    ttl = None if integration.oauth is None else integration.oauth.default_access_token_ttl
    if new.kind is not CredentialKind.OAUTH or ttl is None:
        return None
    return (new.issue_time or now) + ttl


def _default_scopes(integration: Integration, minted: bool) -> tuple[str, ...]:
    return integration.oauth.scopes if minted and integration.oauth is not None else ()


def material_of(integration: Integration, new: NewMaterial) -> Material:
    """What is to be sealed, with the hosts of the definition as it is now."""
    assert integration.api is not None
    hosts, inputs = sealed_hosts(integration.api), _inputs(integration, new)
    return Material(integration.id, new.fields, hosts, new.refresh_token, new.token_type, inputs, new.values)


def _inputs(integration: Integration, new: NewMaterial) -> Mapping[str, Secret] | None:
    """What to mint from, with the scopes to ask for if they are not the definition's."""
    if new.inputs is None or integration.oauth is None or not new.requested_scopes:
        return new.inputs
    return {**new.inputs, "scope": Secret(integration.oauth.scope_separator.join(new.requested_scopes))}
