"""The OpenAPI 3.1 document of REST, from compiled protos with their comments. Runs when code is generated, not in the server.

Source: OpenAPI 3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from connectors_grpc.errors import MEANING, Reason
from connectors_grpc.http.openapi_schemas import LABEL, WELL_KNOWN, Behaviour, Json, Schemas, behaviours
from connectors_grpc.http.transcoding import PARAMETER, Binding, bindings, shape

FILE = "openapi.json"
INTRODUCTION = """\
Multi-tenant access to third-party APIs. Every path is an RPC of the gRPC contract `connectors.v1`, through the same checks.

Each call but `/health` brings an API key: `Authorization: Bearer KEY`. Bodies are JSON in UTF-8 by the protobuf mapping, up to
8 MiB, not compressed; unknown and repeated names are refused. A refusal is a problem document (RFC 9457) whose `reason` says why,
in the header `X-Connectors-Error` too."""
ALWAYS = frozenset((Reason.API_KEY_MISSING, Reason.API_KEY_INVALID, Reason.PERMISSION_DENIED, Reason.INVALID_FIELD))
ALWAYS |= {Reason.LIMIT_EXCEEDED, Reason.VAULT_UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.INTERNAL}
WITH_BODY = (Reason.MALFORMED_REQUEST, Reason.BODY_TOO_LARGE, Reason.UNSUPPORTED_MEDIA_TYPE)


def document(files: FileDescriptorSet, services: Sequence[str]) -> Json:
    """The document of these services. The files must be in order of their imports, with source info."""
    pool = DescriptorPool()
    comments: dict[str, str] = {}
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
        comments |= _comments(file)
    found = [pool.FindServiceByName(name) for name in services]
    built = tuple(bindings(found))
    writer = _Writer(comments, built)
    paths: Json = {"/health": {"get": HEALTH}}
    seen: dict[str, int] = {}
    for binding in built:
        seen[binding.rpc] = seen.get(binding.rpc, 0) + 1
        path = next((path for path in paths if shape(path) == shape(binding.template)), _path(binding.template))
        paths.setdefault(path, {})[binding.verb.lower()] = writer.operation(binding, path, seen[binding.rpc])
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Connectors",
            "version": "v1",
            "description": INTRODUCTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": each.name, "description": comments.get(each.full_name, "")} for each in found],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, `cnk_...`."}
            },
            "schemas": {"Problem": PROBLEM, **dict(sorted(writer.schemas.found.items()))},
        },
    }


PROBLEM: Json = {
    "type": "object",
    "description": "Why a call was refused (RFC 9457).",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What to do next; the same text for each reason."},
        "reason": {"type": "string", "enum": [reason.value for reason in Reason], "description": "Why."},
        "metadata": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "What varies: a limit, an id of the caller's own, an incident's number.",
        },
        "violations": {
            "type": "array",
            "description": "With INVALID_FIELD: each field, and what is wanted there.",
            "items": {
                "type": "object",
                "required": ["field", "description"],
                "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
            },
        },
        "retryAfterSeconds": {"type": "number", "description": "As Retry-After, to the millisecond."},
    },
}
HEALTH: Json = {
    "operationId": "Health",
    "summary": "Whether this replica can work.",
    "security": [],
    "responses": {
        status: {
            "description": told,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["status"],
                        "properties": {"status": {"type": "string", "enum": ["ok", "unavailable"]}},
                    }
                }
            },
        }
        for status, told in (("200", "It can."), ("503", "Its Vault is away or sealed."))
    },
}


def _path(template: str) -> str:
    """The template with plain names: `{credential.id}` is `{credential}`, `{credential.tenant}` is `{tenant}`."""
    return PARAMETER.sub(lambda match: "{" + match[1].removesuffix(".id").rpartition(".")[2] + "}", template)


def _comments(file: FileDescriptorProto) -> dict[str, str]:
    """Leading comments by full name, for services, methods, messages, fields, enums and their values."""
    found = {}
    for location in file.source_code_info.location:
        name = _named(file, location.path)
        if name and location.leading_comments:
            lines = (line.removeprefix(" ") for line in location.leading_comments.rstrip("\n").split("\n"))
            found[f"{file.package}.{name}"] = "\n".join(lines)
    return found


def _named(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """What a source location is of; empty for what has no name of its own.  Source: descriptor.proto, SourceCodeInfo."""
    names, node = [], file
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = type(node).DESCRIPTOR.fields_by_number[number]
        if not field.is_repeated or field.message_type is None:
            return ""
        node = getattr(node, field.name)[index]
        if not hasattr(node, "name"):
            return ""
        names.append(node.name)
    return ".".join(names) if len(path) % 2 == 0 else ""


class _Writer:
    """Operations, and the schemas that they came by."""

    def __init__(self, comments: Mapping[str, str], built: Sequence[Binding]) -> None:
        self._comments = comments
        self.schemas = Schemas(comments, built)

    def operation(self, binding: Binding, path: str, number: int) -> Json:
        """One operation; `number` tells those of one RPC apart."""
        service, _, name = binding.rpc.strip("/").rpartition("/")
        summary, description, reasons = _told(self._comments[f"{service}.{name}"])
        found: Json = {
            "operationId": name if number == 1 else f"{name}_{number}",
            "tags": [service.rpartition(".")[2]],
            "summary": summary,
            "description": description,
        }
        parameters = [*self._path_parameters(binding, path), *self._query_parameters(binding)]
        if parameters:
            found["parameters"] = parameters
        if binding.body:
            schema = self._body(binding)
            content = {"application/json": {"schema": schema}}
            found["requestBody"] = {"required": bool(schema.get("required")) or binding.body != "*", "content": content}
        extra = WITH_BODY if binding.body else ()
        found["responses"] = {"200": self._answer(binding), **_refusals({*ALWAYS, *extra, *reasons})}
        return found

    def _path_parameters(self, binding: Binding, path: str) -> Iterator[Json]:
        for name, field_path in zip(PARAMETER.findall(path), binding.parameters, strict=True):
            field, message = None, binding.request
            for step in field_path.split("."):
                field = message.fields_by_name[step]
                message = field.message_type
            assert field is not None
            yield {"name": name, "in": "path", "required": True, **self.schemas.told_of(field), "schema": LABEL}

    def _query_parameters(self, binding: Binding) -> Iterator[Json]:
        if binding.body == "*":
            return
        for field in binding.request.fields:
            if field.name in (binding.body, *(path.split(".")[0] for path in binding.parameters)):
                continue
            inner = field.message_type
            assert inner is None or inner.full_name in WELL_KNOWN, f"{field.full_name} can't stand in a query"
            schema = self.schemas.field(field)
            told = self.schemas.told_of(field)
            required = Behaviour.REQUIRED in behaviours(field)
            yield {"name": field.json_name, "in": "query", "required": required, **told, "schema": schema}

    def _body(self, binding: Binding) -> Json:
        if binding.body != "*":
            return self.schemas.reference(binding.request.fields_by_name[binding.body].message_type)
        elsewhere = {path for path in binding.parameters if "." not in path}
        return self.schemas.message(binding.request, elsewhere)

    def _answer(self, binding: Binding) -> Json:
        message = binding.response
        if binding.response_body:
            message = message.fields_by_name[binding.response_body].message_type
        schema = self.schemas.reference(message)
        told = self._comments.get(message.full_name, "") or "Done."
        return {"description": told, "content": {"application/json": {"schema": schema}}}


def _told(comment: str) -> tuple[str, str, set[Reason]]:
    """An RPC's comment: its first sentence, all of it as Markdown, and the reasons that it names."""
    prose, _, rest = comment.partition("\nCaller: ")
    prose = " ".join(prose.split("\n\n")[0].split()) + "".join(
        "\n\n" + " ".join(part.split()) for part in prose.split("\n\n")[1:] if part.strip()
    )
    caller, _, rest = " ".join(rest.split()).partition(" Errors: ")
    errors, _, retry = rest.partition(" Retry: ")
    reasons = {Reason(word) for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", errors) if word in Reason.__members__}
    reasons |= {Reason.CONFLICT} if re.search(r"\bCONFLICT\b", errors) else set()
    summary = re.split(r"(?<=[a-z)`])[.:;] ", prose.partition("\n")[0], maxsplit=1)[0].rstrip(".") + "."
    return summary, f"{prose.strip()}\n\n**Caller:** {caller}\n\n**Retry:** {retry}", reasons


def _refusals(reasons: set[Reason]) -> Json:
    """Responses by status, each saying its reasons; then whatever else may be."""
    found: Json = {}
    by_status = sorted(reasons, key=lambda reason: (MEANING[reason].http, reason.value))
    for reason in by_status:
        told = f"- `{reason.value}`: {MEANING[reason].text}"
        response = found.setdefault(str(MEANING[reason].http), _refusal(""))
        response["description"] = f"{response['description']}\n{told}".strip()
        if reason in (Reason.LIMIT_EXCEEDED, Reason.VAULT_UNAVAILABLE, Reason.AUTHORIZATION_PENDING):
            response["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
            }
    return {**found, "4XX": _refusal("Any other refusal."), "5XX": _refusal("Any other failure.")}


def _refusal(description: str) -> Json:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}
