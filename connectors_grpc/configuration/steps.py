"""What a plan is made from, and of: what a server said, and the steps in the order in which they must be done. Shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum

from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants


class Phase(IntEnum):
    """What comes before what: all of one is done before the next begins."""

    INTEGRATION = 0
    TENANT = 1
    RESUME = 2
    CLIENT = 3
    CREDENTIAL = 4
    SETTING = 5
    SUSPEND = 6
    REVOKE = 7
    DELETE = 8


class Action(StrEnum):
    """What becomes of the thing."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"


class Match(Enum):
    """What the server said of a secret that the file has."""

    EQUAL = "it is the one that is stored"
    DIFFERENT = "another one is stored"
    ENDED = "it was, and the provider refused it since, or it expired"
    ABSENT = "nothing is stored"
    UNKNOWN = "it could not be asked yet: what the plan does first is needed for it"


@dataclass(frozen=True, slots=True)
class Stored:
    """A credential at the server, and how the file's material matches. `refused`: why the server would not take it."""

    match: Match
    credential: pb.Credential | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server said: only of what the file names, and with `prune` of all that carries its owner's mark."""

    tenants: Mapping[str, tenants.Tenant] = field(default_factory=dict)
    integrations: Mapping[str, Match] = field(default_factory=dict)
    clients: Mapping[tuple[str, str], Match] = field(default_factory=dict)
    credentials: Mapping[tuple[str, str], Stored] = field(default_factory=dict)
    others: tuple[pb.Credential, ...] = ()
    """With `prune`: the credentials of the file's tenants."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `what` says it for people; `fields` are the parts of a record that change."""

    phase: Phase
    action: Action
    tenant: str
    name: str = ""
    integration: str = ""
    what: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def thing(self) -> str:
        """What it is about, for people: `tenant acme`, `credential acme/notion`."""
        if self.phase in (Phase.TENANT, Phase.RESUME, Phase.SUSPEND, Phase.DELETE):
            return f"tenant {self.tenant}"
        if self.phase is Phase.INTEGRATION:
            return f"integration {self.name}"
        kind = "OAuth client" if self.phase is Phase.CLIENT else "credential"
        return f"{kind} {self.tenant}/{self.name}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order. `notes` ask a person to do something; `refusals` are what can't be done as the file has it."""

    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    unchanged: int = 0

    def count(self, action: Action) -> int:
        """How many things are created, changed or deleted."""
        return sum(step.action is action for step in self.steps)
