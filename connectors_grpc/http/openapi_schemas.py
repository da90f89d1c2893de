"""Messages of the contract as JSON Schemas, with the comments that they have in their protos.

Source: the protobuf JSON mapping, AIP-203 (which fields are required, read-only or write-only).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.api import field_behavior_pb2

from connectors_grpc.http.transcoding import Binding

Json = dict[str, Any]
Behaviour = field_behavior_pb2.FieldBehavior

PACKAGE = "connectors.v1"
LABEL: Json = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "minLength": 1, "maxLength": 63}
LABELS = re.compile(r"(tenant|integration|credential|key|operation)(_id)?")
"""Names of fields that hold identifiers, where they are sent."""
WELL_KNOWN: Mapping[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$", "examples": ["3.5s"]},
    "google.protobuf.FieldMask": {"type": "string", "description": "Names of fields, with commas between."},
}


class Schemas:
    """The schemas that the bindings need, by name; filled as they are asked for."""

    def __init__(self, comments: Mapping[str, str], built: Sequence[Binding]) -> None:
        self._comments = comments
        self._sent = _reach(binding.request for binding in built)
        self._answered = _reach(binding.response for binding in built)
        self.found: dict[str, Json] = {}

    def reference(self, kind: Any) -> Json:
        """By reference; the schema itself is written once."""
        name = kind.full_name.removeprefix(f"{PACKAGE}.")
        if name not in self.found:
            self.found[name] = {}  # or a message within itself would never end
            self.found[name] = self.message(kind, set()) if hasattr(kind, "fields") else self._enum(kind)
        return {"$ref": f"#/components/schemas/{name}"}

    def _enum(self, enum: Any) -> Json:
        told = [self._comments.get(enum.full_name, "")]
        told += [f"- `{v.name}`: {self._comments.get(f'{enum.full_name}.{v.name}', '')}" for v in enum.values]
        return {"type": "string", "enum": [value.name for value in enum.values], "description": "\n".join(told)}

    def message(self, message: Any, elsewhere: set[str]) -> Json:
        """In full, but for the fields that stand elsewhere."""
        fields = [field for field in message.fields if field.name not in elsewhere]
        found: Json = {"type": "object", "properties": {field.json_name: self._property(field) for field in fields}}
        told = [self._comments.get(message.full_name, "")]
        for choice in message.oneofs:
            told += ["At most one of " + ", ".join(f"`{field.json_name}`" for field in choice.fields) + "."]
        found["description"] = "\n\n".join(part for part in told if part)
        required = [field.json_name for field in fields if self._is_required(field)]
        if required:
            found["required"] = required
        if message.full_name not in self._answered:
            found["additionalProperties"] = False
        return found

    def _is_required(self, field: Any) -> bool:
        """In what is sent: as annotated. In answers: what is always written, with read-only members of what goes both ways."""
        marks, name = behaviours(field), field.containing_type.full_name
        if Behaviour.REQUIRED in marks:
            return True
        written = field.is_repeated or not field.has_presence
        return written and (name not in self._sent or bool(marks & {Behaviour.OUTPUT_ONLY, Behaviour.IDENTIFIER}))

    def _property(self, field: Any) -> Json:
        found = {**self.field(field), **self.told_of(field)}
        marks, name = behaviours(field), field.containing_type.full_name
        if name in self._sent and marks & {Behaviour.OUTPUT_ONLY, Behaviour.IDENTIFIER}:
            found["readOnly"] = True
        if Behaviour.INPUT_ONLY in marks:
            found["writeOnly"] = True
        return found

    def field(self, field: Any) -> Json:
        """What a field may be."""
        inner, required = field.message_type, Behaviour.REQUIRED in behaviours(field)
        if inner is not None and inner.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._single(inner.fields_by_name["value"])}
        if field.is_repeated:
            return {"type": "array", "items": self._single(field), **({"minItems": 1} if required else {})}
        return {**self._single(field), **_grammar(field, required)}

    def _single(self, field: Any) -> Json:
        if field.message_type is not None:
            known = WELL_KNOWN.get(field.message_type.full_name)
            return dict(known) if known is not None else self.reference(field.message_type)
        if field.enum_type is not None:
            return self.reference(field.enum_type)
        match field.type:
            case field.TYPE_STRING:
                return {"type": "string"}
            case field.TYPE_BYTES:
                return {"type": "string", "contentEncoding": "base64", "format": "byte"}
            case field.TYPE_BOOL:
                return {"type": "boolean"}
            case field.TYPE_INT32:
                return {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
            case field.TYPE_INT64:
                return {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
        raise ValueError(f"{field.full_name} has a type that nothing here has yet")

    def told_of(self, field: Any) -> Json:
        """A field's comment, where it has one."""
        comment = self._comments.get(field.full_name, "")
        return {"description": comment} if comment else {}


def behaviours(field: Any) -> set[int]:
    """What AIP-203 has to say of a field."""
    return set(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def _grammar(field: Any, needed: bool) -> Json:
    """What the door wants of a field that is sent, as far as its annotations and name say it."""
    if field.name == "page_size":
        return {"minimum": 0}
    if field.type != field.TYPE_STRING or not (needed or Behaviour.OPTIONAL in behaviours(field)):
        return {}
    if not LABELS.fullmatch(field.name):
        return {"minLength": 1} if needed else {}
    return LABEL if needed else {"pattern": f"{LABEL['pattern']}|^$", "maxLength": 63}


def _reach(messages: Iterator[Any]) -> set[str]:
    """Full names of the messages, and of all within."""
    seen: set[str] = set()
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message is not None and message.full_name not in seen:
            seen.add(message.full_name)
            waiting += [field.message_type for field in message.fields]
    return seen
