"""Two writers, one credential: which of them stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from connectors_grpc.credentials.settling import settle
from connectors_grpc.domain.definition import RefreshRotation
from connectors_grpc.domain.records import Credential, CredentialState
from tests.refresh.records import NOTION, NOW

READ = replace(NOTION, generation=4, parent="grandparent", version=9)
OURS = replace(READ, generation=5, parent="parent", issue_time=NOW)
AT_ONCE, GRACE, STATIC = RefreshRotation.AT_ONCE, RefreshRotation.WITH_GRACE, RefreshRotation.STATIC


@pytest.mark.parametrize("rotation", list(RefreshRotation))
def test_labels_changed_beside_a_refresh_and_both_survive(rotation: RefreshRotation) -> None:
    """The new token goes in over the new labels."""
    current = replace(READ, version=10, labels={"team": "blue"}, enabled=False)
    settled = settle(current, OURS, READ.generation, rotation)
    assert settled is not None
    assert (settled.version, settled.labels, settled.enabled, settled.generation) == (10, {"team": "blue"}, False, 5)


@pytest.mark.parametrize("rotation", list(RefreshRotation))
def test_a_rivals_needs_reauth_gives_way_to_the_token_we_hold(rotation: RefreshRotation) -> None:
    """It asked with the parent that we had used up: what we hold is the only good one (attack 27)."""
    current = replace(
        READ, version=10, state=CredentialState.NEEDS_REAUTH, reason="NEEDS_REAUTH", detail="invalid_grant"
    )
    settled = settle(current, OURS, READ.generation, rotation)
    assert settled is not None
    assert (settled.state, settled.reason, settled.detail) == (CredentialState.ACTIVE, "", "")


@pytest.mark.parametrize("rotation", list(RefreshRotation))
@pytest.mark.parametrize(
    "current",
    [
        None,
        replace(READ, version=10, state=CredentialState.REVOKED),
        replace(READ, version=10, generation=5, parent="", issue_time=NOW - timedelta(seconds=5)),
        replace(READ, version=10, generation=6, parent="other", issue_time=NOW - timedelta(seconds=5)),
    ],
    ids=["purged", "revoked", "connected again", "refreshed twice"],
)
def test_what_a_person_or_a_later_refresh_did_stays(current: Credential | None, rotation: RefreshRotation) -> None:
    """Revoking and reconnecting are somebody's will."""
    assert settle(current, OURS, READ.generation, rotation) is None


@pytest.mark.parametrize(
    ("rotation", "theirs", "stays"),
    [
        (AT_ONCE, NOW - timedelta(seconds=5), False),
        (AT_ONCE, NOW + timedelta(seconds=5), True),
        (GRACE, NOW - timedelta(seconds=5), True),
        (STATIC, NOW - timedelta(seconds=5), True),
    ],
)
def test_two_answers_of_one_parent_settle_by_class(rotation: RefreshRotation, theirs: datetime, stays: bool) -> None:
    """Where a used token dies at once the later answer is the good one; else what is stored is good too."""
    current = replace(READ, version=10, generation=5, parent="parent", issue_time=theirs)
    settled = settle(current, OURS, READ.generation, rotation)
    assert (settled is None) == stays
    if settled is not None:
        assert (settled.generation, settled.version) == (6, 10)
