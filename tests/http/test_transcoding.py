"""HTTP into messages and back: the pure part of REST."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.errors import ConnectorsError
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.http.transcoding import Binding, bindings, problem, read_request, write_response
from connectors_grpc.rpc.server import DESCRIPTORS

ALL = tuple(bindings(DESCRIPTORS))


def binding(verb: str, template: str) -> Binding:
    """The one of that verb and template."""
    return next(each for each in ALL if (each.verb, each.template) == (verb, template))


def violated(caught: pytest.ExceptionInfo[ConnectorsError]) -> list[str]:
    """Names of the fields that were refused."""
    return [violation.field for violation in caught.value.fields]


def test_every_template_names_fields_that_exist() -> None:
    """A typing slip in an annotation would make a route that can't work."""
    for each in ALL:
        for path in each.parameters:
            descriptor: Any = each.request
            for name in path.split("."):
                field = descriptor.fields_by_name[name]
                descriptor = field.message_type


def test_path_query_and_body_make_one_message() -> None:
    """The path has the last word."""
    found = read_request(binding("GET", "/tenants"), {}, [("page_size", "3"), ("pageToken", "acme")], b"")
    assert found == tenants.ListTenantsRequest(page_size=3, page_token="acme")
    stored = read_request(
        binding("POST", "/tenants/{tenant}/integrations/{integration}/credentials"),
        {"tenant": "acme", "integration": "notion"},
        [],
        b'{"tenant": "other", "apiKey": {"apiKey": "k"}}',
    )
    assert stored == credentials.StoreCredentialRequest(
        tenant="acme", integration="notion", api_key=credentials.ApiKeyMaterial(api_key="k")
    )


def test_a_patch_changes_what_its_body_names_even_to_nothing() -> None:
    """The mask follows from the body unless one is given."""
    patch = binding("PATCH", "/tenants/{tenant.id}")
    found = read_request(patch, {"tenant.id": "acme"}, [], b'{"displayName": ""}')
    assert isinstance(found, tenants.UpdateTenantRequest)
    assert list(found.update_mask.paths) == ["display_name"]
    assert found.tenant.id == "acme"
    masked = read_request(patch, {"tenant.id": "acme"}, [("update_mask", "labels")], b'{"displayName": "x"}')
    assert isinstance(masked, tenants.UpdateTenantRequest)
    assert list(masked.update_mask.paths) == ["labels"]


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ([("nope", "1")], b"", "nope"),
        ([("page_size", "many")], b"", "page_size"),
        ([("page_size", "1"), ("page_size", "2")], b"", "page_size"),
        ([("page_size", "1"), ("pageSize", "2")], b"", "pageSize"),
        ([("page_size.x", "1")], b"", "page_size.x"),
        ([("a b<script>", "1")], b"", "query"),
        ([], b"{}", "body"),
    ],
)
def test_what_does_not_fit_is_named(query: list[tuple[str, str]], body: bytes, field: str) -> None:
    """By its field, and what came is not repeated."""
    with pytest.raises(ConnectorsError) as caught:
        read_request(binding("GET", "/tenants"), {}, query, body)
    assert violated(caught) == [field]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"nonsense",
        b'{"a": 1, "a": 2}',
        b'{"tenantId": 5}',
        b'{"tenantId": {"x": 1}}',
        b"\xff",
        b"[" * 9999,
        '{"tenantId": "x"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"validateOnly": NaN}',
        b'{"tenantId": "\\ud800"}',
        b'{"tenantId": "a", "tenant_id": "b"}',
        b'{"tenantId": "a", "tenant": {"displayName": "x", "display_name": "y"}}',
        b'{"tenantId": "a"} {}',
        b"null",
        b'{"tenant": "x"}',
        b'{"tenant": {"createTime": "9" * 99}}',
    ],
)
def test_a_body_that_is_not_the_contracts_json_is_refused(body: bytes) -> None:
    """Whatever it is instead."""
    with pytest.raises(ConnectorsError):
        read_request(binding("POST", "/tenants"), {}, [], body)


def test_a_refusal_never_repeats_a_secret() -> None:
    """The parser's own text quotes values."""
    body = json.dumps({"apiKey": {"apiKey": ["canary-7731"]}}).encode()
    with pytest.raises(ConnectorsError) as caught:
        read_request(
            binding("POST", "/tenants/{tenant}/integrations/{integration}/credentials"),
            {"tenant": "acme", "integration": "x"},
            [],
            body,
        )
    assert "canary" not in json.dumps(problem(caught.value))


def test_answers_leave_out_what_only_goes_in() -> None:
    """No empty client secret to wonder about."""
    answer = integrations.GetIntegrationResponse(
        integration=integrations.Integration(
            id="notion", oauth_client=integrations.OAuthClient(client_id="c", client_secret_set=True)
        )
    )
    document = write_response(binding("GET", "/integrations/{integration}"), answer)
    client = document["oauthClient"]
    assert (client["clientId"], client["clientSecretSet"]) == ("c", True)
    assert not {"clientSecret", "clientSecrets"} & client.keys()


@given(st.binary(max_size=200), st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=4))
def test_any_request_is_a_message_or_a_refusal(body: bytes, query: list[tuple[str, str]]) -> None:
    """And nothing else."""
    for each in ALL:
        try:
            read_request(each, dict.fromkeys(each.parameters, "x"), query, body)
        except ConnectorsError as error:
            assert error.fields  # noqa: PT017
