"""A definition tried from one end to the other, step by step: each says what was found, and the first that fails ends it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from connectors_grpc.checking.stage import REDIRECT_URI, Stage
from connectors_grpc.checking.vendor import Vendor
from connectors_grpc.credentials.discovering import taken
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.revoking import ProviderResult
from connectors_grpc.domain.definition import (
    ClientAuthentication,
    Grant,
    Input,
    Integration,
    OAuth,
    OAuthClient,
    RefreshRotation,
)
from connectors_grpc.domain.records import CredentialKind
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.outbound import HttpOutbound
from connectors_grpc.rules.definition import validate_definition
from connectors_grpc.secret import Secret
from connectors_grpc.simulator import (
    Account,
    Client,
    Misbehaviour,
    Queued,
    RotatingAtOnce,
    RotatingWithGrace,
    Rotation,
    SimulatorSettings,
    Static,
)
from connectors_grpc.simulator.server import running
from connectors_grpc.simulator.settings import SCOPES
from connectors_grpc.tailoring import tailored

SIMULATED = (Grant.AUTHORIZATION_CODE, Grant.CLIENT_CREDENTIALS)
"""Grants that the simulator has."""
STAND_IN = "x1"
"""What fills an input that has no example."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `text` holds no secret."""

    name: str
    good: bool
    text: str


def lint(definition: Integration) -> list[Step]:
    """Whether a definition keeps to the rules: a step for each fault, or one that all is well."""
    faults = validate_definition(replace(definition, client=None))
    steps = [Step("definition", False, f"{fault.field}: {fault.description}") for fault in faults]
    return steps or [Step("definition", True, "keeps to the rules")]


async def rehearse(definition: Integration) -> AsyncIterator[Step]:
    """Lint a definition; then, if it is a good one, run it against the simulator in the shape that it describes."""
    steps = lint(definition)
    for step in steps:
        yield step
    if not all(step.good for step in steps):
        return
    missing = [one.id for one in definition.inputs if not one.secret and not _example(one)]
    missing += [one.id for one in (definition.oauth.discovery if definition.oauth else ()) if not one.example]
    if missing:
        yield Step("examples", False, f"give an `example` of {', '.join(missing)}, to be tried with")
        return
    if definition.api is None:
        yield Step("call", False, "there is no `api`: calls would have nowhere to go")
    elif definition.oauth is not None and definition.oauth.grant not in SIMULATED:
        yield Step("grant", True, f"{definition.oauth.grant.value} is not simulated: connect a real account to try it")
    else:
        async for step in _run(definition):
            yield step
            if not step.good:
                return


def _example(one: Input) -> str:
    return (
        one.example
        or one.default
        or next(iter(one.choices), "")
        or ("" if one.pattern and not one.optional else STAND_IN)
    )


async def _run(definition: Integration) -> AsyncIterator[Step]:
    oauth = definition.oauth
    secret = secrets.token_hex(16)
    public = oauth is not None and oauth.client_authentication is ClientAuthentication.NONE
    client = _simulated(oauth, None if public else secret)
    settings = SimulatorSettings((client,), accounts=(Account("alice"),), auto_consent=True)
    async with running(settings) as simulator:
        http = HttpOutbound()
        try:
            given = {one.id: _example(one) for one in definition.inputs if not one.secret and _given(one)}
            found = {one.id: one.example for one in (oauth.discovery if oauth else ())}
            values = {**given, **{one.id: "secret-input-1" for one in definition.inputs if one.secret}}
            whole = _tailored(definition, {**values, **found})
            vendor = Vendor(http, simulator.url, whole, client, given)
            own = OAuthClient(client.client_id, None if public else Secret(secret)) if oauth else None
            async with Stage(definition, own, vendor, own=True) as stage:
                if oauth is None:
                    steps = _with_key(stage, values)
                elif oauth.grant is Grant.CLIENT_CREDENTIALS:
                    steps = _minted(stage)
                else:
                    steps = _by_person(stage, vendor, given)
                async for step in _guarded(steps):
                    yield step
                if oauth is not None and oauth.grant is Grant.AUTHORIZATION_CODE:
                    simulator.next_replies.append(Queued(Misbehaviour.INVALID_GRANT_400, client.client_id))
                    async for step in _guarded(_ended(stage, vendor, given)):
                        yield step
        finally:
            await http.aclose()


def _given(one: Input) -> bool:
    return not one.optional or bool(one.example)


def _tailored(definition: Integration, values: Mapping[str, str]) -> Integration:
    """With discoveries as they are found: what the pattern takes of the example."""
    oauth = definition.oauth
    found = {one.id: taken(values[one.id], one) for one in (oauth.discovery if oauth else ())}
    return tailored(definition, {name: Secret(value) for name, value in {**values, **found}.items()})


def _simulated(oauth: OAuth | None, secret: str | None) -> Client:
    """The simulator's treatment of the client, as the definition has it."""
    rotation = _rotation(oauth.refresh_rotation) if oauth else Static()
    return Client(
        "check-client", secret, (REDIRECT_URI,),
        scopes=(oauth.scopes if oauth else ()) or SCOPES,
        rotation=rotation,
        refresh_kills_access_token=bool(oauth and oauth.refresh_ends_access_token),
        require_pkce=bool(oauth and oauth.pkce),
        omit_refresh_token_on_refresh=isinstance(rotation, Static),
    )  # fmt: skip


def _rotation(rotation: RefreshRotation) -> Rotation:
    match rotation:
        case RefreshRotation.STATIC:
            return Static()
        case RefreshRotation.WITH_GRACE:
            return RotatingWithGrace()
        case RefreshRotation.AT_ONCE:
            return RotatingAtOnce()
        case _:
            assert_never(rotation)


async def _guarded(steps: AsyncIterator[Step]) -> AsyncIterator[Step]:
    """A refusal is a step that failed."""
    try:
        async for step in steps:
            yield step
    except ConnectorsError as error:
        details = ", ".join(f"{name}={value}" for name, value in sorted(error.metadata.items()))
        fields = "; ".join(f"{one.field}: {one.description}" for one in error.fields)
        yield Step("refused", False, " ".join(text for text in (error.reason.value, details, fields) if text))
    except ValueError as error:
        yield Step("consent", False, f"the provider would not take the authorization request: {error}")


async def _by_person(stage: Stage, vendor: Vendor, given: Mapping[str, str]) -> AsyncIterator[Step]:
    url = await stage.begin(given)
    yield Step("authorization", True, url.partition("?")[0])
    credential = await stage.finish(url, await vendor.consent(url))
    yield Step("token", True, _sent(vendor, "token"))
    for name, value in sorted(credential.values.items()):
        if name not in given:
            yield Step("discovery", True, f"{name}={value}")
    yield Step("hosts", True, ", ".join(credential.hosts))
    async for step in _called(stage, vendor):
        yield step
    if not credential.refreshable:
        return
    before = vendor.tokens[-1]
    await stage.refresh()
    yield Step("refresh", vendor.tokens[-1] != before, _sent(vendor, "token"))
    async for step in _called(stage, vendor):
        yield step


async def _called(stage: Stage, vendor: Vendor | None) -> AsyncIterator[Step]:
    api = stage.definition.api
    assert api is not None
    if api.identity_path:
        identity = await stage.verify()
        account = f", account {identity.account}" if identity.account else ""
        yield Step(
            "identity", identity.accepted, f"{'POST' if api.identity_body else 'GET'} {api.identity_path}{account}"
        )
    reply = await stage.call("GET", "/check")
    where = vendor.seen.last("api") if vendor else None
    yield Step("call", reply.status == 200, f"GET {where.url if where else '/check'}: {reply.status}")


async def _with_key(stage: Stage, values: Mapping[str, str]) -> AsyncIterator[Step]:
    """The credential stored as a person would paste it; which kind, the placement says."""
    api = stage.definition.api
    assert api is not None
    basic = api.placement.basic
    texts = [
        *api.placement.headers.values(),
        *api.placement.query.values(),
        *((basic.username, basic.password) if basic else ()),
    ]
    named = {name for text in texts for name in PLACEHOLDER.findall(text)} - {one.id for one in stage.definition.inputs}
    kind = CredentialKind.BASIC if named <= {"username", "password"} else CredentialKind.API_KEY
    fields = {name: Secret(secrets.token_hex(12)) for name in sorted(named)}
    credential = await stage.store(NewMaterial(kind, fields), values)
    yield Step("stored", True, f"as {kind.value.replace('_', ' ')}")
    yield Step("hosts", True, ", ".join(credential.hosts))
    async for step in _called(stage, None):
        yield step


async def _minted(stage: Stage) -> AsyncIterator[Step]:
    await stage.store(NewMaterial(CredentialKind.OAUTH, {}, inputs={}))
    async for step in _called(stage, None):
        yield step


async def _ended(stage: Stage, vendor: Vendor, given: Mapping[str, str]) -> AsyncIterator[Step]:
    """What a refused refresh comes to, and how a grant is ended; the first reply is `invalid_grant`."""
    credential = (await stage.use()).held.credential
    if credential.refreshable:
        try:
            await stage.refresh()
        except ConnectorsError as error:
            yield Step("refused refresh", error.reason is Reason.NEEDS_REAUTH, error.reason.value)
        else:
            yield Step("refused refresh", False, "invalid_grant was not noticed")
        url = await stage.begin(given)
        await stage.finish(url, await vendor.consent(url))
        yield Step("reconnected", True, "with the same inputs")
    result = await stage.revoke()
    role = vendor.seen.last("own revocation") or vendor.seen.last("revocation")
    text = f"{role.method} {role.url}" if role else "the definition has none"
    yield Step(
        "revocation", result in (ProviderResult.REVOKED, ProviderResult.NOT_SUPPORTED), f"{text}: {result.value}"
    )


def _sent(vendor: Vendor, role: str) -> str:
    request = vendor.seen.last(role)
    return "" if request is None else f"{request.method} {request.url}"
