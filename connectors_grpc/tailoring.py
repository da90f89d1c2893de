"""A definition made one tenant's: what it gave, and what was found out, put in for placeholders. Pure.

Values are read once, at the door (`read_values`), and sealed with the credential; whatever uses a definition takes it from
`tailored`, so that URLs, hosts and endpoints with placeholders never get any further.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from connectors_grpc.domain.definition import Api, Input, Integration, OAuth
from connectors_grpc.errors import ConnectorsError, FieldViolation, Reason
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.rules.definition import validate_definition
from connectors_grpc.rules.inputs import ENDPOINTS, accepts, chosen_hosts, known_in
from connectors_grpc.rules.urls import Known, fits, names_in
from connectors_grpc.secret import Secret

Values = Mapping[str, Secret]


def read_values(integration: Integration, given: Mapping[str, str], *, found: bool) -> Values:
    """What a tenant gave, with defaults for what it left out.

    `found`: nothing will be found out any more, so that what URLs name of that is given too.
    Raises: INVALID_FIELD, naming each input by its id.
    """
    inputs = {one.id for one in integration.inputs}
    later = known_in(integration).keys() - inputs
    known = inputs | later if found else inputs
    violations = [FieldViolation(f"inputs.{name}", "asked for by nobody") for name in given if name not in known]
    violations += _missing(integration, given)
    values = {one.id: one.default for one in integration.inputs if one.default} | {k: v for k, v in given.items() if v}
    if found and integration.api is not None:
        needed = _named(integration.api, known_in(integration)) & later
        violations += [FieldViolation(f"inputs.{name}", "needed") for name in sorted(needed - values.keys())]
    violations = violations or list(_unfit(integration, values, found))
    if violations:
        raise ConnectorsError(Reason.INVALID_FIELD, fields=tuple(violations))
    return {name: Secret(value) for name, value in values.items()}


def _missing(integration: Integration, given: Mapping[str, str]) -> Iterator[FieldViolation]:
    for one in integration.inputs:
        value = given.get(one.id, "")
        if value and not accepts(one, value):
            yield FieldViolation(f"inputs.{one.id}", _wanted(one))
        if not (value or one.default or one.optional):
            yield FieldViolation(f"inputs.{one.id}", f"needed: {_wanted(one)}")


def _wanted(one: Input) -> str:
    """What an input must be, in the definition's words."""
    if one.choices:
        return f"one of {', '.join(sorted(one.choices))}"
    example = f", as `{one.example}`" if one.example else ""
    return f"{one.title or one.id}{example}"


def _unfit(integration: Integration, values: Mapping[str, str], found: bool) -> Iterator[FieldViolation]:
    """Whether the definition is a good one with these values."""
    secrets = {name: Secret(value) for name, value in values.items()}
    try:
        whole = tailored(integration, secrets) if found else consenting(integration, secrets)
    except ConnectorsError as error:
        yield FieldViolation(f"inputs.{error.metadata.get('field', '')}", "it does not fit into the integration's URLs")
        return
    if not found and whole.oauth is not None:  # what waits for discoveries is judged when they are there
        whole = replace(whole, api=None, oauth=replace(whole.oauth, discovery=(), revocation=None))
    if validate_definition(replace(whole, client=None)):
        yield FieldViolation("inputs", "the integration's URLs are none with these")


def consenting(integration: Integration, values: Values) -> Integration:
    """The definition while a person consents: its OAuth side is the tenant's; `api` waits for what is found out then.

    A host of the tenant's choice never lies in the platform's network, though what was stored before may say that it may.
    Raises: PLACEHOLDER_UNRESOLVED.
    """
    if not integration.inputs:
        return integration
    chosen = _chosen_host(integration, values)
    return replace(
        integration,
        oauth=None if integration.oauth is None else _oauth(integration.oauth, integration, values),
        own_client=integration.own_client or chosen,
        allow_private_addresses=integration.allow_private_addresses and not chosen,
    )


def tailored(integration: Integration, values: Values) -> Integration:
    """The definition with these values. It has no placeholders left but those of templates.

    Raises: PLACEHOLDER_UNRESOLVED, naming the value that is missing, or does not fit where it stands.
    """
    whole = consenting(integration, values)
    if whole.api is None or not known_in(integration):
        return whole
    return replace(whole, api=_api(whole.api, integration, values))


def shown(integration: Integration, values: Values) -> Mapping[str, str]:
    """Those that are no secret."""
    secret = {one.id for one in integration.inputs if one.secret}
    return {name: value.reveal() for name, value in values.items() if name not in secret}


def fields_with(integration: Integration, fields: Values, values: Values) -> Values:
    """What templates name: a credential's fields and the definition's values. No reply of a provider replaces the latter."""
    return {**fields, **{name: Secret(text) for name, text in _texts(integration, values).items()}}


def _oauth(oauth: OAuth, integration: Integration, values: Values) -> OAuth:
    texts, known = _texts(integration, values), known_in(integration)
    changed: dict[str, Any] = {name: _filled(getattr(oauth, name), known, texts) for name in ENDPOINTS}
    discovery = tuple(replace(one, url=_filled(one.url, known, texts)) for one in oauth.discovery)
    revocation = oauth.revocation
    if revocation is not None and not _open(revocation.url, known, texts):
        revocation = replace(revocation, url=_filled(revocation.url, known, texts))
    return replace(oauth, **changed, discovery=discovery, revocation=revocation)


def _open(url: str, known: Known, texts: Mapping[str, str]) -> bool:
    """Whether a URL waits for what is not known yet."""
    return any(name not in texts for name in names_in(url, known))


def _api(api: Api, integration: Integration, values: Values) -> Api:
    texts, known = _texts(integration, values), known_in(integration)
    hosts = tuple(_filled(f"https://{host}", known, texts).removeprefix("https://") for host in api.allowed_hosts)
    return replace(api, base_url=_filled(api.base_url, known, texts), allowed_hosts=hosts)


def _texts(integration: Integration, values: Values) -> dict[str, str]:
    """What fills each placeholder: a choice's text, or the value itself."""
    choices = {one.id: one.choices for one in integration.inputs if one.choices}
    texts = {}
    for name, value in values.items():
        text = value.reveal()
        if name not in choices:
            texts[name] = text
        elif text in choices[name]:
            texts[name] = choices[name][text]
    return texts


def _filled(url: str, known: Known, texts: Mapping[str, str]) -> str:
    names = names_in(url, known)
    if not names:
        return url
    for name in names:
        one = known[name]
        chosen = isinstance(one, Input) and one.choices
        if name not in texts or not (chosen or fits(url, name, texts[name])):
            raise ConnectorsError(Reason.PLACEHOLDER_UNRESOLVED, {"field": name})
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    # Names of hosts are written in lower case here, whatever a vendor's console shows.
    lower = {name: text.lower() for name, text in texts.items()}
    return f"{scheme}://{_put(host, known, lower)}{slash}{_put(path, known, texts)}"


def _put(template: str, known: Known, texts: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: texts[match[1]] if match[1] in known else match[0], template)


def _named(api: Api, known: Known) -> set[str]:
    return {name for text in (api.base_url, *api.allowed_hosts) for name in names_in(text, known)}


def _chosen_host(integration: Integration, values: Values) -> bool:
    """Whether the tenant chose a whole host, and not the vendor's own (attack 37)."""
    return any(one.id in values and values[one.id].reveal() != one.default for one in chosen_hosts(integration))
