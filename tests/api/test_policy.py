"""Who may do what, decided without a server: scopes within scopes, uids, and every combination of role and scope."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc import policy
from connectors_grpc.domain.ids import CredentialId, KeyId, TenantId, TenantUid
from connectors_grpc.domain.records import ApiKey, Role, Scope, Tenant, TenantState
from connectors_grpc.errors import ConnectorsError, Reason

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TENANTS = [TenantId(name) for name in "abc"]
tenants = st.none() | st.dictionaries(
    st.sampled_from(TENANTS), st.sampled_from([TenantUid("1"), TenantUid("2")]), min_size=1
)
credentials = st.none() | st.frozensets(st.sampled_from([CredentialId("x"), CredentialId("y")]))
scopes = st.builds(Scope, tenants, credentials)
roles = st.frozensets(st.sampled_from(Role), min_size=1)


def key(held: frozenset[Role], scope: Scope) -> ApiKey:
    """A key of those roles and that scope."""
    return ApiKey(KeyId("k"), "", held, scope, "00" * 32, NOW)


def covered(scope: Scope) -> set[tuple[str, str, str]]:
    """All that a scope covers, of a small world, one by one; `*` stands for what nobody has named."""
    uids, names = ("1", "2"), ("x", "y", "*")
    return {
        (tenant, uid, name)
        for tenant in ("a", "b", "c", "*")
        for uid in uids
        for name in names
        if (scope.tenants is None or scope.tenants.get(TenantId(tenant)) == uid)
        and (scope.credentials is None or name in scope.credentials)
    }


@given(scopes, scopes)
def test_a_scope_lies_within_another_if_nothing_of_it_lies_outside(inner: Scope, outer: Scope) -> None:
    """Against the definition, spelled out. A scope of nothing is refused where its names are not the outer's."""
    if policy.within(inner, outer):
        assert covered(inner) <= covered(outer)
    elif covered(inner):
        assert not covered(inner) <= covered(outer)


@given(roles, scopes, roles, scopes)
def test_nobody_hands_out_more_than_they_have(
    mine: frozenset[Role], own: Scope, new: frozenset[Role], asked: Scope
) -> None:
    """Admins any role within their scope, operators `app` alone, others nothing."""
    if policy.may_create_key(key(mine, own), new, asked):
        assert policy.within(asked, own)
        assert Role.ADMIN in mine or (Role.OPERATOR in mine and new == {Role.APP})


@given(
    roles,
    scopes,
    st.sampled_from(sorted(policy.RULES)),
    st.sampled_from(["a", "b", "nobody", ""]),
    st.sampled_from(["x", "z", ""]),
)
def test_whatever_is_authorised_lies_in_the_keys_roles_and_scope(
    held: frozenset[Role], scope: Scope, method: str, tenant: str, credential: str
) -> None:
    """No combination gets around any of them."""
    rule, refusal = policy.RULES[method], None
    try:
        policy.authorize(key(held, scope), rule, tenant, credential)
    except ConnectorsError as error:
        refusal = (error.reason, error.metadata)
    if refusal is not None:
        assert refusal == (Reason.PERMISSION_DENIED, {})
        return
    assert held & rule.roles
    if rule.tenant and tenant:
        assert scope.tenants is None or tenant in scope.tenants
    if rule.credential:
        assert scope.credentials is None or credential in scope.credentials
    if rule.platform:
        assert (scope.tenants, scope.credentials) == (None, None)
    if rule.whole:
        assert scope.credentials is None


def test_a_key_is_bound_to_the_tenants_uid() -> None:
    """Attack 38: the next tenant of that name is another."""
    tenant = Tenant(TENANTS[0], TenantUid("1"), "", TenantState.ACTIVE, {}, NOW, NOW)
    scope = Scope({TENANTS[0]: TenantUid("1")})
    assert policy.bound_to(scope, tenant)
    assert not policy.bound_to(scope, replace(tenant, uid=TenantUid("2")))
    assert not policy.bound_to(Scope({}), tenant)
    assert policy.bound_to(Scope(None), tenant)


@pytest.mark.parametrize(
    ("expires", "revoked", "works"),
    [(None, None, True), (1, None, True), (0, None, False), (-1, None, False), (None, -1, False), (1, 0, False)],
)
def test_a_key_works_until_it_expires_or_is_revoked(expires: int | None, revoked: int | None, works: bool) -> None:
    """At its very end it works no more; a revocation counts whatever the clocks say."""

    def at(seconds: int | None) -> datetime | None:
        return None if seconds is None else NOW + timedelta(seconds=seconds)

    held = replace(key(frozenset({Role.APP}), Scope(None)), expire_time=at(expires), revoke_time=at(revoked))
    assert policy.live(held, NOW) is works


def test_roles_that_hand_out_secrets_stand_alone() -> None:
    """Lease, FetchAccessToken and Call have one role each, which is not admin's."""
    for method, role in (
        ("ProxyService/Lease", Role.SIDECAR),
        ("ProxyService/WatchLeases", Role.SIDECAR),
        ("CredentialService/FetchAccessToken", Role.TOKEN_READER),
        ("ProxyService/Call", Role.APP),
    ):
        assert policy.RULES[f"/connectors.v1.{method}"].roles == {role}
