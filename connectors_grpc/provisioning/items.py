"""What must be in a Vault, one thing after the other, and whether what is there is that. Pure: reads and writes nothing."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors_grpc.embedded.setup import (
    TENANT_POLICY,
    Step,
    access_steps,
    mount_steps,
    tenant_policy,
)

Found = Mapping[str, Any]
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_DURATION: Final = re.compile(r"(\d+)([smh])")


class State(enum.Enum):
    """How something stands to what is wanted."""

    MISSING = "missing"
    SAME = "already so"
    DIFFERS = "differs"
    FOREIGN = "is something else"
    """It can't be made what is wanted without losing what is in it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`detail` says what is there in place of what is wanted; it holds no secret."""

    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing. `read` is where it stands, and `inside` the name in a list that is read."""

    what: str
    step: Step
    read: str
    inside: str = ""

    def judge(self, found: Found | None) -> Verdict:
        """What is found under `read`, None for nothing."""
        if found is not None and self.inside:
            found = found.get(self.inside)
        if found is None:
            return Verdict(State.MISSING)
        if "policy" in self.step.data:
            same = str(found.get("policy", "")).strip() == str(self.step.data["policy"]).strip()
            return Verdict(State.SAME) if same else Verdict(State.DIFFERS, "its text is another")
        return _compared(self.step, found)


def items(tenants_by: str | None = None) -> tuple[Item, ...]:
    """Everything, in the order in which it is made.

    `tenants_by` is the accessor of the auth method of tenants' own tokens.
    """
    steps = [*mount_steps(), *access_steps()]
    if tenants_by:
        policy = {"policy": tenant_policy(tenants_by)}
        steps.append(Step("tenant_policy", "Tenants' own tokens.", f"sys/policies/acl/{TENANT_POLICY}", policy))
    return tuple(_item(step) for step in steps)


def _item(step: Step) -> Item:
    match step.path.split("/"):
        case ["sys", "mounts", name]:
            return Item(f"mount {name}/", step, "sys/mounts", f"{name}/")
        case ["sys", "auth", name]:
            return Item(f"auth method {name}/", step, "sys/auth", f"{name}/")
        case ["sys", "policies", "acl", name]:
            return Item(f"policy {name}", step, step.path)
        case [mount, "config", "keys"]:
            return Item(f"no upsert in {mount}/", step, step.path)
        case [mount, "keys", name]:
            return Item(f"key {mount}/{name}", step, step.path)
        case ["auth", mount, "role", name]:
            return Item(f"role {mount}/{name}", step, step.path)
        case _:
            raise AssertionError(step.path)


def _compared(step: Step, found: Found) -> Verdict:
    """Each field that is wanted, beside the one that is there."""
    others = [
        f"{name} is {_shown(found.get(name))}, not {_shown(wanted)}"
        for name, wanted in step.data.items()
        if not _same(wanted, found.get(name))
    ]
    if not others:
        return Verdict(State.SAME)
    changeable = step.path.endswith("/config/keys") or "/role/" in step.path
    return Verdict(State.DIFFERS if changeable else State.FOREIGN, "; ".join(others))


def _same(wanted: object, there: object) -> bool:
    match wanted, there:
        case str(), int() if (parsed := _DURATION.fullmatch(wanted)) and not isinstance(there, bool):
            return int(parsed[1]) * _UNITS[parsed[2]] == there
        case Mapping(), Mapping():
            return all(there.get(name) == value for name, value in wanted.items())
        case _:
            return wanted == there


def _shown(value: object) -> str:
    match value:
        case None:
            return "unset"
        case bool():
            return str(value).lower()
        case Mapping():
            return ", ".join(f"{name}={item}" for name, item in value.items()) or "unset"
        case _:
            return str(value)[:80]
