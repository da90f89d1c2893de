"""HTTP requests into messages of the contract and back, by its `google.api.http` annotations. Pure: knows no RPC by name.

Source: google/api/http.proto, AIP-127, and the protobuf JSON mapping.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from connectors_grpc.errors import ConnectorsError, invalid

PARAMETER = re.compile(r"\{([a-z_.]+)\}")
NUMBER = re.compile(r"-?[0-9]{1,19}")
BAD_FIELD = re.compile(r"(?:no field named \"|Failed to parse )([A-Za-z_.\[\]0-9]{1,100})")
MOST_PARAMETERS = 100
FIXED = {field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER, field_behavior_pb2.IMMUTABLE}
WELL_KNOWN = "google.protobuf."
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Binding:
    """One annotation of one RPC. `rpc` is its full path, `/connectors.v1.TenantService/GetTenant`."""

    rpc: str
    verb: str
    template: str
    body: str
    response_body: str
    request: Any
    response: Any

    @property
    def parameters(self) -> tuple[str, ...]:
        """Field paths that stand in the URL's path."""
        return tuple(PARAMETER.findall(self.template))


def bindings(services: Iterable[Any]) -> Iterator[Binding]:
    """Every annotation of the services (descriptors), additional ones too."""
    for service in services:
        for method in service.methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            for each in (rule, *rule.additional_bindings):
                if each.WhichOneof("pattern"):
                    yield _binding(f"/{service.full_name}/{method.name}", method, each)


def shape(template: str) -> str:
    """The template without its parameters' names: two of one shape are one path."""
    return PARAMETER.sub("{}", template)


def _binding(rpc: str, method: Any, rule: http_pb2.HttpRule) -> Binding:
    verb = rule.WhichOneof("pattern")
    return Binding(
        rpc, verb.upper(), getattr(rule, verb), rule.body, rule.response_body, method.input_type, method.output_type
    )


def read_request(binding: Binding, path: Mapping[str, str], query: Sequence[tuple[str, str]], body: bytes) -> Message:
    """The request that path, query and body say together; the path, by the template's names, has the last word.

    Raises: INVALID_FIELD, naming the field. What came is never repeated.
    """
    given: Json = {}
    if binding.body == "*":
        given = read_json(body)
    elif binding.body:
        part = read_json(body)
        given = {binding.body: part}
        if binding.verb == "PATCH" and "update_mask" in binding.request.fields_by_name and part:
            given["update_mask"] = ",".join(_changing(binding.request.fields_by_name[binding.body].message_type, part))
    elif body:
        raise invalid("body", "this call takes no body")
    if binding.body != "*":
        _put_query(binding, given, query)
    elif query:
        raise invalid("query", "everything goes into the body here")
    for name, value in path.items():
        _put(given, name.split("."), value)
    return _parse(binding, given)


def _changing(resource: Any, part: Json) -> Iterator[str]:
    """What a PATCH's body means to change: a resource that was read, edited and sent back whole is fine (AIP-134)."""
    for name in part:
        field = resource.fields_by_camelcase_name.get(name) or resource.fields_by_name.get(name)
        behaviours = [] if field is None else field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if name != "etag" and not FIXED & set(behaviours):
            yield name if field is None else field.camelcase_name


def read_json(body: bytes) -> Json:
    """A JSON object; empty for an empty body. Raises: INVALID_FIELD."""
    if not body:
        return {}
    try:
        found = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise invalid("body", "a JSON object in UTF-8 is wanted, each name once") from None
    if not isinstance(found, dict):
        raise invalid("body", "a JSON object is wanted")
    return found


def _once(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(_text: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")


def _put_query(binding: Binding, given: Json, query: Sequence[tuple[str, str]]) -> None:
    """Query parameters by field path; each scalar once, repeated ones as often as they like."""
    if len(query) > MOST_PARAMETERS:
        raise invalid("query", f"at most {MOST_PARAMETERS} parameters")
    seen = set()
    for name, text in query:
        field, path = _field(binding.request, name)
        if field is None or path[0] == binding.body:
            raise invalid(_shown(name), "there is no such parameter")
        value = _scalar(field, name, text)
        if field.is_repeated:
            _put(given, path, [*_got(given, path), value])
            continue
        if path in seen:
            raise invalid(name, "once is enough")
        seen.add(path)
        _put(given, path, value)


def _shown(name: str) -> str:
    """A parameter's name, if it can be shown."""
    return name if re.fullmatch(r"[A-Za-z0-9_.]{1,64}", name) else "query"


def _field(descriptor: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """The field that a query parameter names in either spelling, and its path in the contract's; None if there is none.

    Scalars, lists of them, and well-known types that JSON writes as a string.
    """
    field, path = None, []
    for part in name.split("."):
        if descriptor is None:
            return None, ()
        field = descriptor.fields_by_name.get(part) or descriptor.fields_by_camelcase_name.get(part)
        if field is None:
            return None, ()
        path.append(field.name)
        descriptor = field.message_type
    if descriptor is not None and not descriptor.full_name.startswith(WELL_KNOWN):
        return None, ()
    return field, tuple(path)


def _scalar(field: Any, name: str, text: str) -> Any:
    if field.cpp_type == field.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            raise invalid(name, "true or false is wanted")
        return text == "true"
    if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64) and NUMBER.fullmatch(text) is None:
        raise invalid(name, "a whole number is wanted")
    return text


def _got(given: Json, path: Sequence[str]) -> list[Any]:
    value: Any = given
    for name in path:
        value = value.get(name, {}) if isinstance(value, dict) else {}
    return value if isinstance(value, list) else []


def _put(given: Json, path: Sequence[str], value: Any) -> None:
    """Set a nested member, in place of what was there under either of its two names. Raises: INVALID_FIELD."""
    *parents, last = path
    for name in parents:
        inner = given.setdefault(_camel(name) if _camel(name) in given else name, {})
        if not isinstance(inner, dict):
            raise invalid(name, "a JSON object is wanted")
        given = inner
    given.pop(_camel(last), None)
    given[last] = value


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _check_spellings(given: Any, descriptor: Any) -> None:
    """The parser takes the last of two spellings of one name; whoever checked the first was fooled. Raises: INVALID_FIELD."""
    if isinstance(given, list):
        for each in given:
            _check_spellings(each, descriptor)
    elif isinstance(given, dict) and descriptor is not None:
        for field in descriptor.fields:
            if field.name != field.json_name and field.name in given and field.json_name in given:
                raise invalid(field.json_name, "once is enough")
            if field.message_type is None or not field.message_type.GetOptions().map_entry:
                _check_spellings(given.get(field.json_name, given.get(field.name)), field.message_type)


def _parse(binding: Binding, given: Json) -> Message:
    message: Message = GetMessageClass(binding.request)()
    _check_spellings(given, binding.request)
    try:
        json_format.ParseDict(given, message, max_recursion_depth=20)
    except (json_format.ParseError, TypeError, ValueError, OverflowError, AttributeError) as error:
        # The parser's text quotes values: only a field's name is taken from it.
        match = BAD_FIELD.search(str(error))
        raise invalid(match[1] if match else "body", "not what the contract's JSON has there") from None
    return message


def write_response(binding: Binding, message: Message) -> Any:
    """The answer's JSON: the annotated part, or all of it. Fields that only go in are left out."""
    document = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    descriptor = binding.response
    if binding.response_body:
        field = descriptor.fields_by_name[binding.response_body]
        document, descriptor = document.get(field.json_name, {}), field.message_type
    _drop_inputs(document, descriptor)
    return document


def _drop_inputs(document: Any, descriptor: Any) -> None:
    for field in descriptor.fields:
        behaviours = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if field_behavior_pb2.INPUT_ONLY in behaviours:
            document.pop(field.json_name, None)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            inner = document.get(field.json_name)
            for each in inner if isinstance(inner, list) else [inner]:
                if isinstance(each, dict) and field.message_type.full_name.startswith("connectors."):
                    _drop_inputs(each, field.message_type)


def problem(error: ConnectorsError) -> Json:
    """The error as a problem document.  Source: RFC 9457."""
    document: Json = {
        "type": "about:blank",
        "title": error.reason.value.replace("_", " ").capitalize(),
        "status": error.meaning.http,
        "detail": error.meaning.text,
        "reason": error.reason.value,
    }
    if error.metadata:
        document["metadata"] = error.metadata
    if error.fields:
        document["violations"] = [{"field": each.field, "description": each.description} for each in error.fields]
    if error.retry_after is not None:
        document["retryAfterSeconds"] = round(error.retry_after, 3)
    return document
