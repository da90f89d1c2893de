"""A tree into the model, and what one value asks of another. Every problem at once, each with its place and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import ParseDict, ParseError
from pydantic import ValidationError

from connectors_grpc.configuration.model import Configuration, Credential, Hidden, OAuthClient, Tenant
from connectors_grpc.configuration.tree import Invalid, Node, Path, Problem, dotted
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.grammar import SEGMENT
from connectors_grpc.policy import OWNER_LABEL, RESERVED_LABELS

MOUNT = "secret/data/"
MATERIALS = ("api_key", "basic", "oauth", "grant", "vault")
_VISIBLE = re.compile(r"[\x20-\x7e]{1,16384}")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]*")
_LABEL = "a lower-case DNS label is wanted: a-z, 0-9 and inner hyphens, 1 to 63 characters"
_SAID: Mapping[str, str] = {
    "extra_forbidden": "there is no such field; `connectors config schema` shows those that there are",
    "missing": "it is missing",
    "string_type": "a text is wanted",
    "int_type": "a whole number is wanted",
    "int_parsing": "a whole number is wanted",
    "int_from_float": "a whole number is wanted",
    "bool_type": "true or false is wanted",
    "bool_parsing": "true or false is wanted",
    "dict_type": "an object is wanted",
    "model_type": "an object is wanted",
    "model_attributes_type": "an object is wanted",
    "list_type": "a list is wanted",
    "string_pattern_mismatch": _LABEL,
}
"""What is wanted, by pydantic's kind of error. Its own words come for the rest: none of them holds what stands there."""

Found = Iterator[tuple[Path, str]]


def check(root: Node, *, literal_secrets: bool = False) -> Configuration:
    """The configuration. Raises: Invalid."""
    try:
        found = Configuration.model_validate(root.plain(), context={"literal_secrets": literal_secrets})
    except ValidationError as error:
        raise Invalid(_problem(root, *_said(each)) for each in error.errors(include_input=False)) from None
    problems = [_problem(root, path, text) for path, text in _asked(found)]
    if problems:
        raise Invalid(problems)
    return found


def _problem(root: Node, path: Path, text: str) -> Problem:
    return Problem(root.find(path), dotted(path), text)


def _said(error: Any) -> tuple[Path, str]:
    path = tuple(step for step in error["loc"] if step != "[key]")
    return path, _SAID.get(error["type"], error["msg"])


def _asked(found: Configuration) -> Found:
    """What one value asks of another."""
    for name, platform in found.integrations.items():
        path: Path = ("integrations", name)
        if platform.oauth_client is not None:
            yield from _client((*path, "oauth_client"), platform.oauth_client)
        for part, shape in (("oauth", integrations.OAuth), ("api", integrations.Api)):
            given = getattr(platform, part)
            if given is not None:
                yield from _shape((*path, part), given, shape)
    for name, tenant in found.tenants.items():
        yield from _tenant(("tenants", name), name, tenant)


def _tenant(path: Path, name: str, tenant: Tenant) -> Found:
    if _PRINTABLE.fullmatch(tenant.display_name) is None:
        yield (*path, "display_name"), "printable characters are wanted"
    yield from _labels(path, tenant.labels)
    stands: dict[str, str] = {}
    for integration, part in (tenant.integrations or {}).items():
        where: Path = (*path, "integrations", integration)
        if part.oauth_client is not None:
            yield from _client((*where, "oauth_client"), part.oauth_client)
        for credential, wanted in part.credentials.items():
            inside = (*where, "credentials", credential)
            if credential in stands:
                yield inside, f"{stands[credential]} has a credential of that id too: each of a tenant's needs its own"
            stands[credential] = integration
            yield from _credential(inside, name, credential, wanted)


def _labels(path: Path, labels: Mapping[str, str]) -> Found:
    for name, value in labels.items():
        if name in RESERVED_LABELS:
            by = "`owner`" if name == OWNER_LABEL else "a migration"
            yield (*path, "labels", name), f"it is set by {by}: take it out"
        if _PRINTABLE.fullmatch(name + value) is None:
            yield (*path, "labels", name), "printable characters are wanted"


def _credential(path: Path, tenant: str, name: str, credential: Credential) -> Found:
    yield from _labels(path, credential.labels)
    given = [material for material in MATERIALS if getattr(credential, material) is not None]
    if len(given) > 1:
        yield (*path, given[1]), f"at most one of {', '.join(MATERIALS)} is taken: {given[0]} is there already"
    if credential.fields and credential.api_key is None:
        yield (*path, "fields"), "they go with api_key"
    if credential.inputs and not given:
        yield (*path, "inputs"), f"they go with one of {', '.join(MATERIALS)}: who connects it by hand gives them there"
    for inside, hidden in _secrets(credential):
        text = hidden.secret.reveal()
        if _VISIBLE.fullmatch(text) is None or text != text.strip():
            wanted = "up to 16,384 visible ASCII characters are wanted on one line, without surrounding white space"
            yield (*path, *inside), f"what {hidden.source} gives is no such secret: {wanted}"
    if credential.basic is not None and ":" in credential.basic.username:
        yield (*path, "basic", "username"), "no colon is possible in a Basic user name"
    if credential.vault is not None and (text := _vault(tenant, name, credential.vault)):
        yield (*path, "vault"), text


def _secrets(credential: Credential) -> Iterator[tuple[Path, Hidden]]:
    """Every secret text of a credential, and where it is."""
    for name in ("api_key", "basic", "oauth", "grant"):
        value = getattr(credential, name)
        if isinstance(value, Hidden):
            yield (name,), value
        elif value is not None:
            yield from (((name, inner), one) for inner, one in value if isinstance(one, Hidden))
    yield from ((("fields", name), one) for name, one in credential.fields.items())


def _vault(tenant: str, credential: str, path: str) -> str:
    """What is wrong with a path of the Vault; empty if nothing is."""
    folder, _, name = path.removeprefix(MOUNT).partition("/")
    if not path.startswith(MOUNT) or SEGMENT.fullmatch(name) is None:
        return f"a path of the form {MOUNT}{tenant}/NAME is wanted, NAME of a-z, 0-9, dot, hyphen and underscore"
    if folder != tenant:
        return f"it is another tenant's path: only {MOUNT}{tenant}/ is this tenant's own"
    if name == credential:
        return "the credential itself is stored there: give the document another name"
    return ""


def _client(path: Path, client: OAuthClient) -> Found:
    if not 1 <= len(client.client_id) <= 512:
        yield (*path, "client_id"), "1 to 512 characters are wanted"
    if client.further_secrets and client.client_secret is None:
        yield (*path, "further_secrets"), "they go with client_secret"


def _shape(path: Path, given: Mapping[str, Any], shape: type[integrations.OAuth] | type[integrations.Api]) -> Found:
    unknown = _unknown(given, shape.DESCRIPTOR)
    if unknown:
        yield (*path, *unknown), f"{shape.DESCRIPTOR.full_name} has no such field"
        return
    try:
        ParseDict(dict(given), shape())
    except (ParseError, RecursionError):
        yield path, f"a field has another type than {shape.DESCRIPTOR.full_name} says"


def _unknown(given: Mapping[str, Any], descriptor: Descriptor) -> Path:
    """The way to the first name that the message does not have; empty if it has all."""
    fields = {name: field for field in descriptor.fields for name in (field.name, field.json_name)}
    for name, value in given.items():
        if name not in fields:
            return (name,)
        message = fields[name].message_type
        if message is None or message.GetOptions().map_entry or not isinstance(value, dict):
            continue
        if found := _unknown(value, message):
            return (name, *found)
    return ()
