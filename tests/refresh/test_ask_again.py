"""How soon a sidecar asks for its lease again: in time for the new token, and never as a hammer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from connectors_grpc.credentials.leasing import LATEST, LEASE_TTL, SOONEST, ask_again
from connectors_grpc.domain.definition import OAuth
from connectors_grpc.domain.records import Credential
from tests.refresh.records import NOTION, NOW

GENTLE = OAuth("https://p.example/authorize", "https://p.example/token")
KILLING = replace(GENTLE, refresh_ends_access_token=True)


def token(lifetime: float, refreshable: bool = True) -> Credential:
    """A credential whose token was issued now."""
    return replace(NOTION, issue_time=NOW, expire_time=NOW + timedelta(seconds=lifetime), refreshable=refreshable)


@pytest.mark.parametrize(
    ("credential", "oauth", "after", "expected"),
    [
        (token(3600), GENTLE, 0, LEASE_TTL.total_seconds()),
        (token(3600), GENTLE, 3290, 10),
        (token(3), GENTLE, 0, 2.4),
        (token(3), GENTLE, 2.5, 0.125),
        (token(3), GENTLE, 2.99, SOONEST.total_seconds()),
        (token(3600), GENTLE, 3400, LATEST.total_seconds()),
        (token(3600), KILLING, 3400, LEASE_TTL.total_seconds()),
        (token(3600, refreshable=False), GENTLE, 3590, LEASE_TTL.total_seconds()),
        (token(3600), None, 9999, SOONEST.total_seconds()),
    ],
)
def test_it_asks_when_a_refresh_is_due_and_a_few_times_after(
    credential: Credential, oauth: OAuth | None, after: float, expected: float
) -> None:
    """A provider whose refresh kills the old token is left alone until the end is near."""
    asked = ask_again(credential, oauth, NOW + timedelta(seconds=after))
    assert asked.total_seconds() == pytest.approx(expected)
