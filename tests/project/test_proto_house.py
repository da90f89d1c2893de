"""The contract's house rules, held against the descriptors and the .proto files: secrets, errors, field behaviour."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2, field_behavior_pb2

from connectors_grpc.errors import MEANING, Reason
from connectors_grpc.gen.connectors.v1 import error_reason_pb2
from tests.raw_calls import RPCS, Rpc

PROTO = Path(__file__).parent.parent.parent / "proto" / "connectors" / "v1"
BEHAVIOUR = field_behavior_pb2.FieldBehavior

HANDS_OUT: Mapping[str, frozenset[str]] = {
    "FetchAccessToken": frozenset({"access_token"}),
    "Lease": frozenset({"lease.headers.value", "lease.query.value"}),
    "CreateApiKey": frozenset({"secret"}),
    "StartAuthorization": frozenset({"state"}),
}
"""The replies that carry material, and where in them. None other may."""

SECRET_NAMES = re.compile(r"(^|_)(secret|password|token|code|state|api_key|sha256|username)$")
NOT_SECRET = frozenset(
    {
        # Names that sound like secrets and are none.
        "Tenant.state", "Credential.state", "ListTenantsRequest.page_token", "ListIntegrationsRequest.page_token",
        "ListCredentialsRequest.page_token", "ListApiKeysRequest.page_token", "ListTenantsResponse.next_page_token",
        "ListIntegrationsResponse.next_page_token", "ListCredentialsResponse.next_page_token",
        "ListApiKeysResponse.next_page_token", "OAuth.refresh_ends_access_token", "BasicPlacement.username",
        "BasicPlacement.password", "Integration.state", "Operation.state", "DeviceAuthorization.user_code", "Input.secret",
        "ListTenantStatusesRequest.page_token", "ListTenantStatusesResponse.next_page_token",
    }
)  # fmt: skip


def secrets_of(message: Any, prefix: str = "", within: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted paths of a message's `debug_redact` fields."""
    for field in message.fields:
        path = f"{prefix}{field.name}"
        if field.GetOptions().debug_redact:
            yield path
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("connectors.") and inner.full_name not in within:
            yield from secrets_of(inner, f"{path}.", (*within, inner.full_name))


def messages() -> Iterator[Any]:
    """Every message that a method takes or gives, and those within."""
    seen: set[str] = set()
    waiting = [side for rpc in RPCS for side in (rpc.descriptor.input_type, rpc.descriptor.output_type)]
    while waiting:
        message = waiting.pop()
        if message.full_name in seen or not message.full_name.startswith("connectors."):
            continue
        seen.add(message.full_name)
        yield message
        waiting += [field.message_type for field in message.fields if field.message_type is not None]


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.name)
def test_only_listed_replies_carry_material(rpc: Rpc) -> None:
    """AIP-147: a resource's reply never does; the few that must are named here."""
    carried = set(secrets_of(rpc.descriptor.output_type))
    input_only = {path for path in carried if _behaviour_of(rpc.descriptor.output_type, path) & {BEHAVIOUR.INPUT_ONLY}}
    assert carried - input_only == HANDS_OUT.get(rpc.name, frozenset())


def _behaviour_of(message: Any, path: str) -> set[int]:
    field = None
    for name in path.split("."):
        field = message.fields_by_name[name]
        message = field.message_type
    assert field is not None
    return set(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def test_whatever_sounds_like_a_secret_is_redacted_or_known_to_be_none() -> None:
    """A new field `client_token` without `debug_redact` ends here."""
    for message in messages():
        for field in message.fields:
            name = f"{message.name}.{field.name}"
            if field.message_type is None and SECRET_NAMES.search(field.name) and name not in NOT_SECRET:
                assert field.GetOptions().debug_redact, name


def test_every_request_field_says_how_it_behaves() -> None:
    """AIP-203: the boundary reads REQUIRED at run time."""
    for message in messages():
        if message.name.endswith("Request") and message.name != "CallStreamRequest":
            for field in message.fields:
                in_oneof = field.containing_oneof is not None
                assert in_oneof or _behaviour_of(message, field.name), f"{message.name}.{field.name}"


def test_the_codes_reasons_are_the_contracts() -> None:
    """One for one, each with a meaning."""
    numbers = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    contract = {name.removeprefix("ERROR_REASON_") for name in numbers} - {"UNSPECIFIED"}
    assert contract == {reason.value for reason in Reason} == {reason.value for reason in MEANING}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_documented_with_its_code_and_an_example(reason: Reason) -> None:
    """Errors are an API that can be looked up."""
    text = (PROTO / "error_reason.proto").read_text()
    match = re.search(rf"((?:  //[^\n]*\n)+)  ERROR_REASON_{reason.value} = \d+;", text)
    assert match is not None
    comment = match[1]
    assert re.search(r"// Example: \S", comment)
    code = MEANING[reason].code.value
    assert f"// {code}." in comment or "// Only over HTTP, " in comment
    for status in re.findall(r"Only over HTTP, (\d{3})", comment):
        assert MEANING[reason].http == int(status)


def test_every_rpcs_comment_says_caller_errors_and_retry_and_names_reasons_that_exist() -> None:
    """The three lines that a caller needs."""
    for path in PROTO.glob("*_service.proto"):
        for comment, name in re.findall(r"((?:  //[^\n]*\n)+)  rpc (\w+)", path.read_text()):
            assert "// Caller: " in comment, name
            assert "// Errors: " in comment, name
            assert "Retry: " in comment, name
            errors = comment[comment.index("Errors: ") : comment.index("Retry: ")]
            assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", errors)) <= {reason.value for reason in Reason}, name


def test_every_unary_rpc_but_those_of_sidecars_has_a_rest_path() -> None:
    """The transcoder serves what is annotated."""
    for rpc in RPCS:
        rule = rpc.descriptor.GetOptions().Extensions[annotations_pb2.http]
        streams = rpc.descriptor.client_streaming or rpc.descriptor.server_streaming
        assert bool(rule.WhichOneof("pattern")) == (not streams and rpc.name not in ("Lease", "YieldLease")), rpc.name
