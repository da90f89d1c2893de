"""Does what a plan says through a server's API, several at a time. What is refused is told, and stops only what rests on it.

What was done stays done: applied again after a break, a new plan holds only the rest.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from connectors_grpc.configuration.api import LONGEST, Api, Explain, each
from connectors_grpc.configuration.asking import refusal_text
from connectors_grpc.configuration.model import Configuration
from connectors_grpc.configuration.steps import Action, Phase, Plan, Step
from connectors_grpc.configuration.wanted import (
    client_message,
    fields_of,
    integration_message,
    material_request,
    owned,
    tenant_message,
)
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.gen.connectors.v1.error_reason_pb2 import ErrorReason

BATCH = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step. `failed` says why not; empty if it was done."""

    step: Step
    failed: str = ""
    unchanged: bool = False


@dataclass(slots=True)
class Applied:
    """All outcomes so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    stopped: bool = False

    @property
    def failed(self) -> int:
        """How many were not done."""
        return sum(bool(outcome.failed) for outcome in self.outcomes)


class Applying:
    """One plan's way into a server. `tell` hears of each outcome; once `stop` is set, nothing more is begun."""

    def __init__(
        self,
        api: Api,
        wanted: Configuration,
        explain: Explain,
        tell: Callable[[Outcome], None],
        stop: Event | None = None,
    ) -> None:
        self._api = api
        self._wanted = wanted
        self._explain = explain
        self._tell = tell
        self._stop = stop or Event()
        self._unmade: set[str] = set()

    def apply(self, plan: Plan) -> Applied:
        """Do it, phase by phase."""
        done = Applied()
        for phase in Phase:
            if self._stop.is_set():
                done.stopped = True
                break
            steps = [step for step in plan.steps if step.phase is phase]
            for outcome in self._phase(phase, steps) if steps else ():
                done.outcomes.append(outcome)
                self._tell(outcome)
                if outcome.failed and outcome.step.phase is Phase.TENANT and outcome.step.action is Action.CREATE:
                    self._unmade.add(outcome.step.tenant)
        return done

    def _phase(self, phase: Phase, steps: Sequence[Step]) -> Iterator[Outcome]:
        ready = [step for step in steps if step.tenant not in self._unmade]
        yield from (Outcome(step, "its tenant could not be created") for step in steps if step.tenant in self._unmade)
        match phase:
            case Phase.TENANT:
                yield from self._create([step for step in ready if step.action is Action.CREATE])
                yield from self._each(self._update_tenant, [step for step in ready if step.action is Action.CHANGE])
            case Phase.CREDENTIAL:
                yield from self._import(ready)
            case Phase.DELETE:
                yield from self._delete(ready)
            case _:
                yield from self._each(self._one, ready)

    def _each(self, work: Callable[[Step], None], steps: Iterable[Step]) -> Iterator[Outcome]:
        def tried(step: Step) -> Outcome:
            if self._stop.is_set():
                return Outcome(step, "stopped before it")
            try:
                work(step)
            except grpc.RpcError as error:
                return Outcome(step, self._explain(error))
            return Outcome(step)

        yield from (outcome for _, outcome in each(tried, steps))

    def _one(self, step: Step) -> None:
        match step.phase:
            case Phase.INTEGRATION:
                self._set_integration(step)
            case Phase.CLIENT:
                self._set_client(step)
            case Phase.SETTING:
                self._set_credential(step)
            case Phase.RESUME:
                self._api.tenants.ResumeTenant(tenants.ResumeTenantRequest(tenant=step.tenant))
            case Phase.SUSPEND:
                self._api.tenants.SuspendTenant(tenants.SuspendTenantRequest(tenant=step.tenant))
            case _:
                self._api.credentials.RevokeCredential(
                    pb.RevokeCredentialRequest(tenant=step.tenant, credential=step.name, integration=step.integration)
                )

    # --- tenants

    def _create(self, steps: Sequence[Step]) -> Iterator[Outcome]:
        def batch(some: Sequence[Step]) -> list[Outcome]:
            requests = [
                tenants.CreateTenantRequest(
                    tenant_id=step.tenant,
                    tenant=tenant_message(step.tenant, self._wanted.tenants[step.tenant], self._wanted.owner),
                    request_id=str(uuid.uuid4()),
                )
                for step in some
            ]
            if self._stop.is_set():
                return [Outcome(step, "stopped before it") for step in some]
            try:
                answer = self._api.tenants.BatchCreateTenants(tenants.BatchCreateTenantsRequest(requests=requests))
            except grpc.RpcError as error:
                return [Outcome(step, self._explain(error)) for step in some]
            return [
                Outcome(step, f"{result.error_reason}: {result.error_message}" if result.error_reason else "")
                for step, result in zip(some, answer.results, strict=True)
            ]

        batches = [steps[start : start + BATCH] for start in range(0, len(steps), BATCH)]
        for _, outcomes in each(batch, batches):
            yield from outcomes

    def _update_tenant(self, step: Step) -> None:
        message = tenant_message(step.tenant, self._wanted.tenants[step.tenant], self._wanted.owner)
        request = tenants.UpdateTenantRequest(tenant=message, update_mask=FieldMask(paths=step.fields))
        self._api.tenants.UpdateTenant(request)

    def _delete(self, steps: Sequence[Step]) -> Iterator[Outcome]:
        """Nothing is given out for them once it returns; the rest goes on by itself."""
        for start in range(0, len(steps), BATCH):
            some = steps[start : start + BATCH]
            request = tenants.BatchDeleteTenantsRequest(tenants=[step.tenant for step in some], force=True)
            try:
                receipt = self._api.tenants.BatchDeleteTenants(request).operation.batch_delete_tenants
            except grpc.RpcError as error:
                yield from (Outcome(step, self._explain(error)) for step in some)
                continue
            refused = {
                one.tenant: f"{one.error_reason}: {one.error_message}" for one in receipt.results if one.error_reason
            }
            yield from (Outcome(step, refused.get(step.tenant, "")) for step in some)

    # --- integrations and their clients

    def _set_integration(self, step: Step) -> None:
        part = self._wanted.integrations[step.name]
        message = integration_message(step.name, part)
        if step.action is Action.CREATE:
            request = integrations.CreateIntegrationRequest(
                integration_id=step.name, integration=message, request_id=str(uuid.uuid4())
            )
            self._api.integrations.CreateIntegration(request)
            return
        self._api.integrations.UpdateIntegration(
            integrations.UpdateIntegrationRequest(integration=message, update_mask=FieldMask(paths=fields_of(part)))
        )

    def _set_client(self, step: Step) -> None:
        part = (self._wanted.tenants[step.tenant].integrations or {})[step.integration]
        assert part.oauth_client is not None
        message = integrations.Integration(id=step.integration, oauth_client=client_message(part.oauth_client))
        self._api.integrations.UpdateIntegration(
            integrations.UpdateIntegrationRequest(
                integration=message, tenant=step.tenant, update_mask=FieldMask(paths=["oauth_client"])
            )
        )

    # --- credentials

    def _import(self, steps: Sequence[Step]) -> Iterator[Outcome]:
        left = dict(enumerate(steps))

        def requests() -> Iterator[pb.ImportCredentialsRequest]:
            for number, step in enumerate(steps):
                if self._stop.is_set():
                    return
                part = (self._wanted.tenants[step.tenant].integrations or {})[step.integration]
                wanted = part.credentials[step.name]
                request = material_request(step.tenant, step.integration, step.name, wanted, self._wanted.owner)
                yield pb.ImportCredentialsRequest(item=str(number), credential=request)

        why = "stopped before it"
        try:
            for answer in self._api.credentials.ImportCredentials(requests(), timeout=LONGEST) if steps else ():
                yield _imported(left.pop(int(answer.item)), answer)
        except grpc.RpcError as error:
            why = self._explain(error)
        yield from (Outcome(step, why) for step in left.values())

    def _set_credential(self, step: Step) -> None:
        part = (self._wanted.tenants[step.tenant].integrations or {})[step.integration].credentials[step.name]
        message = pb.Credential(
            tenant=step.tenant, id=step.name, enabled=part.enabled, labels=owned(part.labels, self._wanted.owner)
        )
        request = pb.UpdateCredentialRequest(credential=message, update_mask=FieldMask(paths=step.fields))
        self._api.credentials.UpdateCredential(request)


def _imported(step: Step, answer: pb.ImportCredentialsResponse) -> Outcome:
    if answer.HasField("refusal"):
        reason = ErrorReason.Name(answer.refusal.reason).removeprefix("ERROR_REASON_")
        return Outcome(step, refusal_text(reason, answer.refusal))
    return Outcome(step, unchanged=answer.unchanged)
