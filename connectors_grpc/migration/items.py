"""What there is to migrate, and under which names. Pure: names in, items out; nothing is read or written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connectors_grpc.domain.ids import is_label
from connectors_grpc.vault.old_layout import Place, key_name

NOT_LABEL: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One credential: its old names, and the tenant that it will be of. A `problem` keeps it from being migrated."""

    old_tenant: str
    integration: str
    tenant: str
    problem: str = ""

    @property
    def name(self) -> str:
        """What it is called in reports and labels."""
        return f"{self.old_tenant}/{self.integration}"


def items_of(
    found: Mapping[str, Sequence[str]], names: Mapping[str, str], *, place: Place, fresh: bool, known: Collection[str]
) -> list[Item]:
    """Every credential of the old layout, by its old names. `found`: integrations by old tenant; `known`: the server's.

    `fresh` means that the server has another Vault. In place, a tenant may not have the name of the old folder or of an old
    key: both layouts share the mounts, and finishing would delete what is new.
    """
    tenants = {old: names.get(old, old if is_label(old) else "") for old in found}
    shared = {new for new, count in Counter(new for new in tenants.values() if new).items() if count > 1}
    taken = set() if fresh else {key_name(old, each) for old, integrations in found.items() for each in integrations}
    folder = "" if fresh or place.mount != "secret" else place.folder.split("/")[0]
    return [
        Item(old, each, tenants[old], _problem(old, each, tenants[old], shared, taken, folder, known))
        for old, integrations in sorted(found.items())
        for each in sorted(integrations)
    ]


def _problem(
    old: str, integration: str, new: str, shared: set[str], taken: set[str], folder: str, known: Collection[str]
) -> str:
    if not new:
        return f"the tenant needs a line in --map, as {proposed(old)!r}"
    if new in shared:
        return f"two old tenants would be {new!r}: give them lines in --map"
    if new == folder:
        return f"a tenant {new!r} would lie in the old layout's own folder: give it another id by --map"
    if new in taken:
        return f"an old key has the name {new!r}, which the tenant's key would have: give it another id by --map"
    if not is_label(integration):
        return "the integration's name is no lower-case DNS label: move the record to the id that it has here"
    if integration not in known:
        return f"the server has no integration {integration!r}: connectors integration create {integration}"
    return ""


def proposed(old: str) -> str:
    """A tenant id like the old one; empty if nothing of it is left."""
    return NOT_LABEL.sub("-", old.lower()).strip("-")[:63].strip("-")


def proposals(items: Iterable[Item]) -> list[tuple[str, str]]:
    """Lines for --map, for the tenants that need one. Where two would be the same, a number tells them apart."""
    taken = {item.tenant for item in items if item.tenant}
    lines = []
    for old in sorted({item.old_tenant for item in items if not item.tenant}):
        base = proposed(old) or "tenant"
        new, number = base, 2
        while new in taken:
            new, number = f"{base[:58].rstrip('-')}-{number}", number + 1
        taken.add(new)
        lines.append((old, new))
    return lines
