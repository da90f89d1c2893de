"""REST described: the OpenAPI document, and a page for people made of it. Both need a key, whichever role it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Any

from google.protobuf.empty_pb2 import Empty
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from connectors_grpc.boundary import Boundary, translate
from connectors_grpc.http.rest import HEADERS, key_of, refusal

Json = dict[str, Any]

DOCUMENT, PAGE = "/openapi.json", "/reference"
DESCRIBED = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
"""What gRPC's reflection is there, these two are here: the same rule lets callers in."""
PAGE_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430}"
    "code,pre{font:.9em ui-monospace,monospace}h1,h2,h3{line-height:1.25}h2{margin-top:3rem;border-bottom:1px solid #d8dee8}"
    "h3{margin-top:2.2rem}h3 code{font-size:1em}.verb{display:inline-block;min-width:4.5rem;color:#1c5fd4;font-weight:600}"
    "table{border-collapse:collapse;width:100%;margin:.6rem 0}td,th{text-align:left;vertical-align:top;padding:.3rem .8rem "
    ".3rem 0;border-top:1px solid #e6eaf0}.note{color:#5b6675;font-size:.9rem}nav ul{list-style:none;padding:0}"
)


def routes(boundary: Boundary) -> list[Route]:
    """The two of them."""
    text = (files("connectors_grpc.gen") / "openapi.json").read_text()
    found = page(json.loads(text))
    return [
        Route(DOCUMENT, _answered(boundary, text, "application/json", HEADERS), methods=["GET"]),
        Route(PAGE, _answered(boundary, found, "text/html", PAGE_HEADERS), methods=["GET"]),
    ]


def _answered(boundary: Boundary, text: str, kind: str, headers: dict[str, str]) -> Any:
    async def asked() -> str:
        return text

    async def endpoint(request: Request) -> Response:
        try:
            content = await boundary.run(DESCRIBED, key_of(request), Empty(), None, asked)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            return refusal(translate(error, DESCRIBED))
        return Response(content, 200, headers=headers, media_type=kind)

    return endpoint


def page(document: Json) -> str:
    """The whole document as HTML. Nothing is loaded from anywhere, and nothing runs."""
    title = f"{document['info']['title']}: REST"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><main>'
        f"<h1>{escape(title)}</h1>{_prose(document['info']['description'])}{''.join(_contents(document))}"
        f"{''.join(_services(document))}<h2>Shapes</h2>{''.join(_schemas(document))}</main></body></html>\n"
    )


def _operations(document: Json, tag: str) -> Iterator[tuple[str, str, Json]]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            if tag in operation.get("tags", [""]):
                yield verb.upper(), path, operation


def _tags(document: Json) -> list[Json]:
    return [{"name": "", "description": ""}, *document["tags"]]


def _contents(document: Json) -> Iterator[str]:
    yield "<nav>"
    for tag in _tags(document):
        yield f"<h3>{escape(tag['name'] or 'Open')}</h3><ul>"
        for verb, path, operation in _operations(document, tag["name"]):
            link = f'<a href="#{escape(operation["operationId"])}">{escape(path)}</a>'
            yield f'<li><code><span class="verb">{verb}</span> {link}</code></li>'
        yield "</ul>"
    yield "</nav>"


def _services(document: Json) -> Iterator[str]:
    for tag in _tags(document):
        yield f"<h2>{escape(tag['name'] or 'Open')}</h2>{_prose(tag['description'])}"
        for verb, path, operation in _operations(document, tag["name"]):
            yield f'<h3 id="{escape(operation["operationId"])}"><code>{verb} {escape(path)}</code></h3>'
            yield f'<p class="note">{escape(operation["operationId"])}</p>'
            yield _prose(str(operation.get("description", operation["summary"])))
            yield "".join(_parameters(operation))
            yield "".join(_body(operation))
            yield "".join(_responses(operation))


def _parameters(operation: Json) -> Iterator[str]:
    if "parameters" in operation:
        rows = (
            (
                f"<code>{escape(each['name'])}</code>",
                _kind(each["schema"]),
                each["in"],
                _inline(each.get("description", "")),
            )
            for each in operation["parameters"]
        )
        yield _table(("parameter", "type", "in", ""), rows)


def _body(operation: Json) -> Iterator[str]:
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        if "$ref" in schema:
            yield f"<p>Body: {_kind(schema)}</p>"
        elif schema["properties"]:
            yield "<p>Body:</p>"
            yield _members(schema)


def _responses(operation: Json) -> Iterator[str]:
    rows = []
    for status, response in operation["responses"].items():
        schema = next(iter(response["content"].values()))["schema"]
        kind = _kind(schema) if "$ref" in schema and status[0] == "2" else ""
        rows.append((f"<code>{status}</code>", kind, _prose(response["description"])))
    yield _table(("status", "", ""), iter(rows))


def _schemas(document: Json) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f'<h3 id="shape-{escape(name)}"><code>{escape(name)}</code></h3>{_prose(schema.get("description", ""))}'
        if schema.get("properties"):
            yield _members(schema)


def _members(schema: Json) -> str:
    required = schema.get("required", ())

    def row(name: str, member: Json) -> tuple[str, str, str, str]:
        notes = [
            *(["required"] if name in required and not member.get("readOnly") else []),
            *(["only in answers"] if member.get("readOnly") else []),
            *(["only sent"] if member.get("writeOnly") else []),
        ]
        return f"<code>{escape(name)}</code>", _kind(member), ", ".join(notes), _inline(member.get("description", ""))

    return _table(("member", "type", "", ""), (row(name, member) for name, member in schema["properties"].items()))


def _kind(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#shape-{escape(name)}">{escape(name)}</a>'
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"object of {_kind(inner)}" if isinstance(inner, dict) else "object"
    return escape(f"{schema.get('type', '')} {schema.get('format', '')}".strip())


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + f"</tr>{lines}</table>"


def _prose(text: str) -> str:
    """Paragraphs and lists, of the little Markdown that the comments have."""
    found = []
    for block in text.split("\n\n"):
        lines = block.strip().split("\n")
        items = [line for line in lines if line.startswith("- ")]
        plain = _inline(" ".join(line for line in lines if not line.startswith("- ")))
        found.append(f"<p>{plain}</p>" if plain else "")
        found.append("<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in items) + "</ul>" if items else "")
    return "".join(found)


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
