"""What differs in one environment, laid over what holds in all. Places stay with the values that won."""

from __future__ import annotations

from collections.abc import Mapping

from connectors_grpc.configuration.tree import Member, Node


def merge(base: Node, patch: Node) -> Node:
    """`base` with the patch applied: objects are merged, null takes out, all else replaces.  Source: RFC 7396 section 2."""
    if not isinstance(patch.value, Mapping):
        return patch
    merged = dict(base.value) if isinstance(base.value, Mapping) else {}
    for name, member in patch.value.items():
        if member.node.value is None:
            merged.pop(name, None)
            continue
        there = merged.get(name)
        nothing = Node(member.node.at, {})
        merged[name] = Member(member.at, merge(there.node if there else nothing, member.node))
    at = base.at if isinstance(base.value, Mapping) else patch.at
    return Node(at, merged)
