"""What has to be done so that a server is as the file says: a pure comparison of the two, in the order in which it must be done.

It knows no server: `Seen` is what one said. A secret is never compared here; the server says whether it holds the one that is
wanted. Nothing that a step shows is a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from connectors_grpc.configuration.model import Configuration, Credential, Tenant
from connectors_grpc.configuration.steps import Action, Match, Phase, Plan, Seen, Step, Stored
from connectors_grpc.configuration.wanted import fields_of, owned, source_of, tenant_message
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.policy import OWNER_LABEL

STAGED = "staged"


def plan(wanted: Configuration, seen: Seen, *, prune: bool = False, adopt: bool = False) -> Plan:
    """The plan. Deletes only with `prune`, and only what carries the file's mark; takes over another's only with `adopt`."""
    made = _Making(wanted, seen, adopt)
    made.all()
    if prune:
        made.prune()
    steps = sorted(made.steps, key=lambda step: step.phase)
    return Plan(tuple(steps), tuple(made.notes), tuple(made.refusals), made.unchanged)


class _Making:
    def __init__(self, wanted: Configuration, seen: Seen, adopt: bool) -> None:
        self._wanted = wanted
        self._seen = seen
        self._adopt = adopt
        self.steps: list[Step] = []
        self.notes: list[str] = []
        self.refusals: list[str] = []
        self.unchanged = 0

    def all(self) -> None:
        """Everything that the file names."""
        for name, part in self._wanted.integrations.items():
            match = self._seen.integrations[name]
            self._note_match(match, Step(Phase.INTEGRATION, _action(match), "", name, what=tuple(fields_of(part))))
        for name, tenant in self._wanted.tenants.items():
            self._tenant(name, tenant)

    def _note_match(self, match: Match, step: Step) -> None:
        if match is Match.EQUAL:
            self.unchanged += 1
        else:
            self.steps.append(step)

    # --- a tenant

    def _tenant(self, name: str, part: Tenant) -> None:
        there = self._seen.tenants.get(name)
        record = tenant_message(name, part, self._wanted.owner)
        if there is None:
            self.steps.append(Step(Phase.TENANT, Action.CREATE, name, what=tuple(_shown(record))))
        elif there.state == tenants.Tenant.STATE_DELETING:
            self.refusals.append(f"tenant {name}: it is being deleted; apply again once it is gone")
            return
        else:
            other = there.labels.get(OWNER_LABEL, self._wanted.owner)
            if other != self._wanted.owner and not self._adopt:
                self.refusals.append(
                    f"tenant {name}: another file manages it, owner {other}; say --adopt to take it over"
                )
                return
            self._changed_tenant(name, record, there)
        self._state(name, part, there)
        if there is not None and is_frozen(part, there):
            if part.integrations:
                self.notes.append(f"tenant {name}: it is suspended; its credentials are left as they are")
            return
        for integration, inside in (part.integrations or {}).items():
            if not inside.enabled:
                continue
            if inside.oauth_client is not None:
                match = self._seen.clients.get((name, integration), Match.UNKNOWN if there else Match.ABSENT)
                said = (f"client_id {inside.oauth_client.client_id}",)
                self._note_match(match, Step(Phase.CLIENT, _action(match), name, integration, integration, said))
            for credential, wanted in inside.credentials.items():
                self._credential(name, integration, credential, wanted, new=there is None)

    def _changed_tenant(self, name: str, record: tenants.Tenant, there: tenants.Tenant) -> None:
        fields = tuple(
            field
            for field in ("display_name", "labels", "quota", "allowed_integrations")
            if getattr(record, field) != getattr(there, field) or _is_set(record, field) != _is_set(there, field)
        )
        if not fields:
            self.unchanged += 1
            return
        said = tuple(f"{field}: {_one(there, field)} -> {_one(record, field)}" for field in fields)
        self.steps.append(Step(Phase.TENANT, Action.CHANGE, name, what=said, fields=fields))

    def _state(self, name: str, part: Tenant, there: tenants.Tenant | None) -> None:
        is_so = there is not None and there.state == tenants.Tenant.STATE_SUSPENDED
        if part.suspended is None or part.suspended == is_so:
            return
        phase, said = (Phase.SUSPEND, "suspend") if part.suspended else (Phase.RESUME, "resume")
        self.steps.append(Step(phase, Action.CHANGE, name, what=(said,)))

    # --- a credential

    def _credential(self, tenant: str, integration: str, name: str, part: Credential, *, new: bool) -> None:
        thing = f"credential {tenant}/{name}"
        by_person = not any((part.api_key, part.basic, part.oauth, part.grant, part.vault))
        default = Stored(Match.ABSENT if new else Match.UNKNOWN)
        seen = self._seen.credentials.get((tenant, name), default)
        there = seen.credential
        if seen.refused:
            self.refusals.append(f"{thing}: {seen.refused}")
        elif there is not None and (left := _left_alone(there)):
            self.notes.append(f"{thing}: {left}")
        elif seen.match is Match.ENDED:
            told = "what the file has was stored, and is of no use any more"
            self.notes.append(
                f"{thing}: {told}{_state_said(there)}: put newer into the file, or let a person connect it"
            )
        elif there is None and by_person:
            where = f"{tenant} {integration}" + ("" if name == integration else f" --credential {name}")
            self.notes.append(f"{thing}: a person connects it: connectors credential connect {where}")
        elif by_person or seen.match is Match.EQUAL:
            self._settings(tenant, integration, name, part, there)
        else:
            said = source_of(part)
            if seen.match is Match.DIFFERENT:
                said = f"other material than {said} is stored" + _state_said(there)
            elif seen.match is Match.UNKNOWN:
                said += ", if it is not stored yet"
            step = Step(Phase.CREDENTIAL, _action(seen.match), tenant, name, integration, (said,))
            self.steps.append(step)
            if (part.enabled is False) if there is None else (there.enabled != part.enabled):
                self.steps.append(self._switch(tenant, integration, name, part))

    def _settings(
        self, tenant: str, integration: str, name: str, part: Credential, there: pb.Credential | None
    ) -> None:
        if there is None:
            return
        fields, said = [], []
        labels = owned(part.labels, self._wanted.owner)
        if dict(there.labels) != labels:
            fields.append("labels")
            said.append(f"labels: {_labels(there.labels)} -> {_labels(labels)}")
        if there.enabled != part.enabled:
            fields.append("enabled")
            said.append("enable" if part.enabled else "disable")
        if not fields:
            self.unchanged += 1
            return
        step = Step(Phase.SETTING, Action.CHANGE, tenant, name, integration, tuple(said), tuple(fields))
        self.steps.append(step)

    @staticmethod
    def _switch(tenant: str, integration: str, name: str, part: Credential) -> Step:
        said = "enable" if part.enabled else "disable"
        return Step(Phase.SETTING, Action.CHANGE, tenant, name, integration, (said,), ("enabled",))

    # --- what the file no longer names

    def prune(self) -> None:
        """What carries the file's mark and is not in it."""
        named = {
            (tenant, credential)
            for tenant, part in self._wanted.tenants.items()
            for integration in (part.integrations or {}).values()
            for credential in integration.credentials
        }
        for there in self._seen.others:
            gone = (there.tenant, there.id) not in named and there.labels.get(OWNER_LABEL) == self._wanted.owner
            if gone and there.state != pb.Credential.STATE_REVOKED:
                said = "revoke it, at the provider too where that can be"
                step = Step(Phase.REVOKE, Action.DELETE, there.tenant, there.id, there.integration, (said,))
                self.steps.append(step)
        for name, tenant in self._seen.tenants.items():
            gone = name not in self._wanted.tenants and tenant.labels.get(OWNER_LABEL) == self._wanted.owner
            if gone and tenant.state != tenants.Tenant.STATE_DELETING:
                said = "delete it, with all its credentials and its key"
                self.steps.append(Step(Phase.DELETE, Action.DELETE, name, what=(said,)))


def is_frozen(part: Tenant, there: tenants.Tenant) -> bool:
    """Whether the tenant is suspended, and stays so."""
    return there.state == tenants.Tenant.STATE_SUSPENDED and part.suspended is not False


def _action(match: Match) -> Action:
    return Action.CREATE if match is Match.ABSENT else Action.CHANGE


def _left_alone(there: pb.Credential) -> str:
    """Why a credential is not touched; empty if it may be."""
    if there.state == pb.Credential.STATE_REVOKED:
        return (
            "it was revoked, and is left so: store it anew by `connectors credential set`, or take it out of the file"
        )
    if there.state_detail == STAGED:
        return "a migration has staged it, and it is left so until its cut-over"
    return ""


def _state_said(there: pb.Credential | None) -> str:
    if there is None or there.state == pb.Credential.STATE_ACTIVE:
        return ""
    return f"; it is {pb.Credential.State.Name(there.state).removeprefix('STATE_').lower()}"


def _is_set(record: tenants.Tenant, name: str) -> bool:
    return name in ("display_name", "labels") or record.HasField(name)  # type: ignore[arg-type]


def _shown(record: tenants.Tenant) -> Iterator[str]:
    for name in ("display_name", "labels", "quota", "allowed_integrations"):
        if _is_set(record, name):
            yield f"{name}: {_one(record, name)}"


def _one(record: tenants.Tenant, name: str) -> str:
    """One field of a tenant, for people."""
    if not _is_set(record, name):
        return "no bound" if name == "quota" else "all"
    if name == "quota":
        return ", ".join(f"{bound.name} {value}" for bound, value in record.quota.ListFields())
    if name == "allowed_integrations":
        return ", ".join(record.allowed_integrations.integrations) or "none"
    return _labels(record.labels) if name == "labels" else record.display_name


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items())) or "none"
