"""Two writers, one credential: what becomes of a refreshed token that finds somebody else's write in its way. Pure.

The one rule: what may be the only good refresh token is never thrown away.
"""

from __future__ import annotations

from dataclasses import replace

from connectors_grpc import lifecycle
from connectors_grpc.domain.definition import RefreshRotation
from connectors_grpc.domain.records import Credential


def settle(
    current: Credential | None, ours: Credential, base_generation: int, rotation: RefreshRotation
) -> Credential | None:
    """The record to write over `current`; None if what is there is to stay.

    - Purged, revoked or connected again meanwhile: that was a person's will, and it stays.
    - Same material as we refreshed from (labels, or a rival's NEEDS_REAUTH after we had rotated): ours goes in over it.
    - Refreshed by a rival from the same parent token: where a used token is dead at once, the answer that was asked for later
      is the good one; in the gentler classes both are good, and what is stored stays.
    """
    if current is None:
        return None
    rival = current.generation != base_generation
    if rival and not (
        current.parent == ours.parent != ""
        and rotation is RefreshRotation.AT_ONCE
        and ours.issue_time is not None
        and current.issue_time is not None
        and ours.issue_time > current.issue_time
    ):
        return None
    try:
        state = lifecycle.next_state(current.state, lifecycle.Event.REFRESHED)
    except lifecycle.IllegalMove:
        return None
    return replace(
        ours,
        version=current.version,
        generation=current.generation + 1,
        labels=current.labels,
        enabled=current.enabled,
        state=state,
        reason="",
        detail="",
    )
