"""What a definition may say of what is not the same for all tenants: inputs, discoveries, and a revocation of its own. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from connectors_grpc.domain.definition import Api, Discovery, Grant, Input, Integration, OAuth, Revocation
from connectors_grpc.errors import FieldViolation
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.rules import Violations
from connectors_grpc.rules.patterns import pattern_problem, taken
from connectors_grpc.rules.texts import is_pointer
from connectors_grpc.rules.urls import Known, authority_of, is_host, names_in, url_violations, whole_host

MOST_INPUTS = 16
MOST_CHOICES = 32
MOST_DISCOVERIES = 8
LONGEST_TEXT = 200
ANYTHING = r"[A-Za-z0-9._:-]{1,128}"
"""What a discovery gives, unless its definition says otherwise."""
RESERVED = frozenset(
    (
        "access_token", "api_key", "client", "client_id", "client_secret", "id_token", "installation_id", "password",
        "refresh_token", "scope", "state", "subject", "subject_token", "username",
    )
)  # fmt: skip
"""Names of a credential's own fields."""
ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "refresh_endpoint",
    "revocation_endpoint",
    "device_authorization_endpoint",
    "pushed_authorization_request_endpoint",
    "introspection_endpoint",
    "issuer",
)
"""URLs of the OAuth side that an input may stand in."""
METHODS = ("GET", "POST", "DELETE")

_ID = re.compile(r"[a-z][a-z0-9_]{0,62}")
_CHOICE = re.compile(r"[a-z0-9.-]{0,100}")
_CHOICE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def known_in(integration: Integration) -> Known:
    """All that may stand in `api`, by id."""
    known: dict[str, Input | Discovery] = {one.id: one for one in integration.inputs}
    return known | {one.id: one for one in _discoveries(integration)}


def _discoveries(integration: Integration) -> tuple[Discovery, ...]:
    return integration.oauth.discovery if integration.oauth else ()


def chosen_hosts(integration: Integration) -> tuple[Input, ...]:
    """The inputs by which a tenant chooses a whole host."""
    oauth = integration.oauth
    urls = [] if oauth is None else [getattr(oauth, name) for name in ENDPOINTS]
    if oauth is not None and oauth.revocation is not None:
        urls.append(oauth.revocation.url)
    if integration.api is not None:
        urls += [integration.api.base_url, *(f"https://{host}" for host in integration.api.allowed_hosts)]
    free = {name for url in urls if (name := whole_host(url))}
    return tuple(one for one in integration.inputs if one.id in free and not one.choices)


def input_violations(integration: Integration) -> Violations:
    """What is wrong with the inputs. `field` is `inputs`, since they have no names but their own."""
    inputs = integration.inputs
    if len(inputs) > MOST_INPUTS:
        yield FieldViolation("inputs", f"up to {MOST_INPUTS}")
    ids = [*(one.id for one in inputs), *(one.id for one in _discoveries(integration))]
    if len(set(ids)) < len(ids) or any(not is_id(name) for name in ids):
        yield FieldViolation("inputs", "ids of a-z, 0-9 and `_`, each once, and none that a credential's own field has")
    for one in inputs[:MOST_INPUTS]:
        yield from _input(one)
    if integration.allow_private_addresses and chosen_hosts(integration):
        yield FieldViolation(
            "allow_private_addresses", "not where a tenant chooses a whole host: it would reach into this network"
        )
    consent = integration.oauth is not None and integration.oauth.grant is Grant.AUTHORIZATION_CODE
    if consent and any(one.secret for one in inputs):
        yield FieldViolation("inputs", "`secret` only where no person consents")


def _input(one: Input) -> Violations:
    field = "inputs"
    texts = (one.title, one.example, one.default)
    if any(len(text) > LONGEST_TEXT or not text.isprintable() for text in texts):
        yield FieldViolation(field, f"title, example and default of up to {LONGEST_TEXT} printable characters")
    if bool(one.pattern) == bool(one.choices):
        yield FieldViolation(field, "either `pattern` or `choices`")
        return
    if len(one.choices) > MOST_CHOICES or not all(
        _CHOICE_NAME.fullmatch(name) and _CHOICE.fullmatch(text) for name, text in one.choices.items()
    ):
        yield FieldViolation(field, f"up to {MOST_CHOICES} choices: names, and texts of a-z, 0-9, dots and hyphens")
    if one.pattern and (problem := pattern_problem(one.pattern)):
        yield FieldViolation(field, problem)
    elif any(text and not accepts(one, text) for text in (one.example, one.default)):
        yield FieldViolation(field, "example and default are what may be given")
    if one.secret and (one.default or one.choices):
        yield FieldViolation(field, "no default and no choices for a secret")


def is_id(name: str) -> bool:
    """Whether an input or a discovery may be called so."""
    return _ID.fullmatch(name) is not None and name not in RESERVED


def accepts(one: Input, value: str) -> bool:
    """Whether a value may be given for an input whose definition is good."""
    if one.choices:
        return value in one.choices
    return taken(one.pattern, value) is not None


def discovery_violations(oauth: OAuth, api: Api | None, inputs: Iterable[Input], private: bool) -> Violations:
    """What is wrong with what is found out after consent."""
    field, known = "oauth.discovery", {one.id: one for one in inputs}
    if len(oauth.discovery) > MOST_DISCOVERIES:
        yield FieldViolation(field, f"up to {MOST_DISCOVERIES}")
    if oauth.discovery and oauth.grant is not Grant.AUTHORIZATION_CODE:
        yield FieldViolation(field, "only where a person consents: `grant` is authorization_code")
    for one in oauth.discovery[:MOST_DISCOVERIES]:
        pointers = (one.pointer, *([one.match_pointer] if one.match_pointer else ()))
        if not all(map(is_pointer, pointers)):
            yield FieldViolation(field, "JSON pointers (RFC 6901), as `/0/id`")
        if one.pattern and (problem := pattern_problem(one.pattern)):
            yield FieldViolation(field, f"`pattern`: {problem}")
        elif one.example and (len(one.example) > LONGEST_TEXT or taken(one.pattern or ANYTHING, one.example) is None):
            yield FieldViolation(field, "`example` is what `pattern` takes")
        if one.url:
            yield from url_violations(field, one.url, private, known)
            yield from _at_sealed_host(field, one.url, api)
        yield from _matching(field, one, known)


def _at_sealed_host(field: str, url: str, api: Api | None) -> Violations:
    hosts = () if api is None else (authority_of(api.base_url), *api.allowed_hosts)
    if authority_of(url) not in hosts:
        yield FieldViolation(field, "`url` at the base URL's host or an allowed one: the token goes there")


def _matching(field: str, one: Discovery, known: Mapping[str, Input]) -> Violations:
    if bool(one.match) != bool(one.match_pointer):
        yield FieldViolation(field, "`match` and `match_pointer` go together")
    named = PLACEHOLDER.findall(one.match)
    if one.match and (not named or not set(named) <= known.keys() or len(one.match) > LONGEST_TEXT):
        yield FieldViolation(field, f"`match` is a template of inputs, of up to {LONGEST_TEXT} characters")


def revocation_violations(revocation: Revocation, known: Known, private: bool) -> Violations:
    """What is wrong with a revocation of its own kind, its placement apart."""
    field = "oauth.revocation"
    with_client = {**known, "client_id": Discovery("client_id", "")}
    yield from url_violations(f"{field}.url", revocation.url, private, with_client)
    if names_in(authority_of(revocation.url), {"client_id": Discovery("client_id", "")}):
        yield FieldViolation(f"{field}.url", "no `{client_id}` in the host")
    if revocation.method not in METHODS:
        yield FieldViolation(f"{field}.method", "GET, POST or DELETE")
    if revocation.method == "GET" and revocation.parameters:
        yield FieldViolation(f"{field}.parameters", "not for GET: tokens do not stand in URLs")


def host_violations(api: Api, known: Known, private: bool) -> Violations:
    """What is wrong with further hosts."""
    if any(not is_host(host, private, known) for host in api.allowed_hosts):
        yield FieldViolation(
            "api.allowed_hosts", "exact names in lower case (`uploads.example.com`, with `:port` if need be)"
        )
