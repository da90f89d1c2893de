"""The OpenAPI document: valid, complete, current, and true of the server that serves it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from connectors_grpc.errors import MEANING, Reason
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.http import reference
from connectors_grpc.http.transcoding import bindings, shape
from connectors_grpc.rpc.server import DESCRIPTORS
from tests.openbao import OpenBao
from tests.providers import recording_upstream
from tests.running import Server, fresh_id, running_server

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent.parent / "connectors_grpc" / "gen" / "openapi.json").read_text()
)
OPERATIONS = [
    pytest.param(path, verb, operation, id=operation["operationId"])
    for path, verbs in DOCUMENT["paths"].items()
    for verb, operation in verbs.items()
]
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
EXAMPLES = 6
"""Of each operation, whole and broken each. Sixty take two minutes, and found nothing more."""


def references(node: object) -> Iterator[str]:
    """Every `$ref` within."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == "$ref")
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_document_is_valid_openapi() -> None:
    """3.1, by the specification's own schema."""
    assert not list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors())


def test_every_binding_of_the_contract_is_there_and_nothing_else() -> None:
    """But health, which is no RPC."""
    wanted = {(shape(each.template), each.verb.lower()) for each in bindings(DESCRIPTORS)}
    found = {(re.sub(r"\{\w+\}", "{}", path), verb) for path, verbs in DOCUMENT["paths"].items() for verb in verbs}
    assert found == wanted | {("/health", "get")}


def test_every_shape_is_used_and_told() -> None:
    """By reference from somewhere, with the comment of the contract."""
    schemas = DOCUMENT["components"]["schemas"]
    used = {each.removeprefix("#/components/schemas/") for each in references(DOCUMENT)}
    assert used == set(schemas)
    for name, schema in schemas.items():
        assert schema["description"], name
        for member, inner in schema.get("properties", {}).items():
            assert name == "Problem" or inner.get("description"), f"{name}.{member}"


@pytest.mark.parametrize(("path", "verb", "operation"), OPERATIONS)
def test_an_operation_says_who_may_what_may_go_wrong_and_whether_to_retry(
    path: str, verb: str, operation: dict[str, Any]
) -> None:
    """Reasons stand under the status that they come with."""
    if path == "/health":
        assert operation["security"] == []
        return
    assert "security" not in operation
    assert "**Caller:** " in operation["description"]
    assert "**Retry:** " in operation["description"]
    assert operation["summary"].endswith(".")
    assert [each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"] == re.findall(
        r"\{(\w+)\}", path
    )
    told = set()
    for status, response in operation["responses"].items():
        for name in re.findall(r"- `([A-Z_]+)`:", response["description"]):
            assert str(MEANING[Reason(name)].http) == status
            told.add(name)
    assert {"API_KEY_MISSING", "PERMISSION_DENIED", "VAULT_UNAVAILABLE"} <= told
    assert verb != "get" or "requestBody" not in operation


def test_secrets_only_go_in() -> None:
    """Write-only as annotated; 64-bit numbers are strings, as JSON has no others."""
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["ApiKeyMaterial"]["properties"]["apiKey"]["writeOnly"]
    assert schemas["ApiKeyMaterial"]["required"] == ["apiKey"]
    assert schemas["OAuthClient"]["properties"]["clientSecret"]["writeOnly"]
    assert schemas["Credential"]["properties"]["generation"] | {"description": ""} == {
        "type": "string",
        "format": "int64",
        "pattern": "^-?[0-9]{1,19}$",
        "description": "",
        "readOnly": True,
    }
    assert schemas["Credential"]["properties"]["expireTime"]["format"] == "date-time"


async def test_document_and_page_are_for_any_key_and_for_nobody_else(server: Server) -> None:
    """As gRPC's reflection. The page loads nothing and runs nothing."""
    tenant = (await server.admin.create_tenant()).id
    for role in (access.ROLE_OPERATOR, access.ROLE_APP, access.ROLE_TOKEN_READER):
        key = await server.admin.create_key([role], [tenant])
        headers = {"Authorization": f"Bearer {key}", "Origin": "https://evil.example"}
        async with httpx2.AsyncClient(base_url=server.http_url, headers=headers) as rest:
            found, page = await rest.get("/openapi.json"), await rest.get("/reference")
        assert found.json() == DOCUMENT
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert not re.search(r"<script|\bsrc=|https?://|@import|url\(", page.text)
        for answer in (found, page):
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    async with httpx2.AsyncClient(base_url=server.http_url) as stranger:
        for path in ("/openapi.json", "/reference", "/openapi.json?x=/health"):
            assert (await stranger.get(path)).json()["reason"] == "API_KEY_MISSING"


def test_the_page_tells_of_every_operation_and_escapes_what_it_tells() -> None:
    """Links within it lead somewhere, and its tags close."""
    page = reference.page(DOCUMENT)
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert {each["operationId"] for verbs in DOCUMENT["paths"].values() for each in verbs.values()} <= anchors
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors
    for tag in ("table", "p", "ul", "h3", "code"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    hostile = json.loads(json.dumps(DOCUMENT))
    hostile["info"]["description"] = hostile["tags"][0]["description"] = "<script>alert(1)</script>"
    assert "<script" not in reference.page(hostile)


def fuzzed(
    server: Server, known: dict[str, str], operation: Any, mode: schemathesis.GenerationMode
) -> Callable[[], Any]:
    """Some examples of one operation, half of them about a tenant that there is."""
    # Of a batch, each item is refused by itself, within an answer.
    unfit = {"negative_data_rejection"} if ":batch" in operation.path else set()
    checks = CHECKS.get_by_names([name for name in CHECKED if name not in unfit])
    path = {name: known[name] for name in re.findall(r"\{(\w+)\}", operation.path) if name in known}
    strategy = operation.as_strategy(generation_mode=mode)
    if path and mode is schemathesis.GenerationMode.POSITIVE:
        strategy |= operation.as_strategy(generation_mode=mode, path_parameters=path)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(case: Any) -> None:
        case.call_and_validate(
            base_url=server.http_url, headers={"Authorization": f"Bearer {server.admin.key}"}, checks=checks
        )

    return cast("Callable[[], Any]", run)


# Hypothesis runs in a thread here, and takes the server's own use of `random` meanwhile for one of the strategy's.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
async def test_the_server_does_what_the_document_says(
    private_openbao: OpenBao, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whole and broken requests for every operation: no 500, answers of the shapes that are told, broken ones refused."""
    load_all_checks()
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    async with (
        recording_upstream() as upstream,
        running_server(private_openbao, tmp_path_factory.mktemp("fuzz")) as server,
    ):
        tenant, integration = (await server.admin.create_tenant()).id, fresh_id("api")
        await server.admin.create_integration(
            integration,
            api={"base_url": upstream.url, "placement": {"headers": {"X-Api-Key": "{api_key}"}}},
            allow_private_addresses=True,
        )
        await server.admin.store(tenant, integration, api_key={"api_key": "k"})
        known = {"tenant": tenant, "integration": integration, "credential": integration}
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            for found in schema.get_all_operations():
                assert isinstance(found, Ok), found
                operation = found.ok()
                if operation.path == "/health" and mode is schemathesis.GenerationMode.NEGATIVE:
                    continue
                await asyncio.to_thread(fuzzed(server, known, operation, mode))
