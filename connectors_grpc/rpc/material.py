"""What a credential is made of, from requests and from documents of the Vault. Refusals name fields, never what came."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from google.protobuf.message import Message

from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.seeding import unfit
from connectors_grpc.domain.records import CredentialKind
from connectors_grpc.errors import ConnectorsError, Reason, invalid
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.rpc import parse
from connectors_grpc.rules.definition import scope_violations
from connectors_grpc.secret import Secret

FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
MOST_FIELDS = 16


def material(request: pb.StoreCredentialRequest) -> NewMaterial:
    """The one material of the request, parsed. Raises: INVALID_FIELD."""
    match request.WhichOneof("material"):
        case "api_key":
            given = request.api_key
            fields = {"api_key": Secret(parse.secret_text(given.api_key, "api_key.api_key"))}
            if len(given.fields) > MOST_FIELDS or not all(FIELD_NAME.fullmatch(name) for name in given.fields):
                raise invalid("api_key.fields", f"at most {MOST_FIELDS} fields named [a-z][a-z0-9_]* are wanted")
            for name, value in given.fields.items():
                fields.setdefault(name, Secret(parse.secret_text(value, "api_key.fields")))
            return NewMaterial(CredentialKind.API_KEY, fields)
        case "basic":
            username = parse.secret_text(request.basic.username, "basic.username")
            password = parse.secret_text(request.basic.password, "basic.password", empty=True)
            if ":" in username:
                raise invalid("basic.username", "no colon is possible in a Basic user name")
            return NewMaterial(CredentialKind.BASIC, {"username": Secret(username), "password": Secret(password)})
        case "oauth":
            token = request.oauth
            renewal = parse.secret_text(token.refresh_token, "oauth.refresh_token", empty=True)
            return NewMaterial(
                CredentialKind.OAUTH,
                {"access_token": Secret(parse.secret_text(token.access_token, "oauth.access_token"))},
                refresh_token=Secret(renewal) if renewal else None,
                expire_time=parse.moment(token.expire_time, "oauth.expire_time")
                if token.HasField("expire_time")
                else None,
                scopes=_scopes(token.scopes, "oauth.scopes"),
            )
        case "grant":
            return _grant(request.grant)
        case _:
            raise invalid("material", "one of api_key, basic, oauth, grant or vault is wanted")


def inputs(given: Mapping[str, str]) -> Mapping[str, str]:
    """Inputs by id; whether the integration asks for them is for the use case. Raises: INVALID_FIELD."""
    if len(given) > MOST_FIELDS or not all(FIELD_NAME.fullmatch(name) for name in given):
        raise invalid("inputs", f"at most {MOST_FIELDS} inputs named [a-z][a-z0-9_]* are wanted")
    return {name: parse.secret_text(value, f"inputs.{name}", empty=True) for name, value in given.items()}


def _grant(given: pb.GrantMaterial) -> NewMaterial:
    """What tokens are minted from; whether the integration takes it is for the use case. Raises: INVALID_FIELD."""
    texts = {name: getattr(given, name) for name in ("installation_id", "subject", "subject_token")}
    inputs = {name: Secret(parse.secret_text(text, f"grant.{name}")) for name, text in texts.items() if text}
    return NewMaterial(CredentialKind.OAUTH, {}, inputs=inputs, requested_scopes=_scopes(given.scopes, "grant.scopes"))


def _scopes(given: Iterable[str], field: str) -> tuple[str, ...]:
    scopes = tuple(given)
    violations = tuple(scope_violations(field, scopes, " "))
    if violations:
        raise ConnectorsError(Reason.INVALID_FIELD, fields=violations)
    return scopes


def seeded(texts: Mapping[str, Secret]) -> NewMaterial:
    """The material in a document of the Vault, by the names of its fields. Raises: INVALID_FIELD."""
    opened = {name: text.reveal() for name, text in texts.items()}
    request = pb.StoreCredentialRequest()
    try:
        if "api_key" in opened:
            request.api_key.api_key = opened.pop("api_key")
            request.api_key.fields.update(opened)
        elif "access_token" in opened:
            _fill(request.oauth, opened)
        elif "username" in opened:
            _fill(request.basic, opened)
        else:
            _fill(request.grant, opened)
        return material(request)
    except (AttributeError, ValueError, ConnectorsError):
        raise unfit() from None


def _fill(message: Message, texts: Mapping[str, str]) -> None:
    """Raises: AttributeError for a name that the message does not have, ValueError for a time that is none."""
    for name, text in texts.items():
        if name == "scopes":
            getattr(message, name).extend(text.split())
        elif name == "expire_time":
            getattr(message, name).FromJsonString(text)
        else:
            setattr(message, name, text)
