"""A vendor as its documentation has it: a fixture in words of its own, and a server that answers nothing else.

Fixtures are written from what vendors publish, never from the catalogue: a wrong URL, method, header or body in an entry meets a
404 here, as it would there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml

from tests.redirected import MEANT_FOR
from tests.upstream import UpstreamRequest

FOLDER = Path(__file__).parent / "fixtures"
CLIENT_ID, CLIENT_SECRET = "client-7f3a", "cs-31d0c8e2"
CODE = "code-5b1e"
SAID = ("method", "url", "form", "parameters", "authorization")
"""What a fixture says of a request; the rest is of its answer."""
BASIC = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()


@dataclass(frozen=True)
class Fixture:
    """One vendor. `source` is where its facts were read; the parts are as the file has them."""

    id: str
    source: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    material: Mapping[str, str] = field(default_factory=dict)
    authorize: Mapping[str, Any] | None = None
    token: Mapping[str, Any] | None = None
    discovery: Mapping[str, Any] | None = None
    refresh: Mapping[str, Any] | None = None
    mint: Mapping[str, Any] | None = None
    revoke: Mapping[str, Any] | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] | None = None
    refused: tuple[Mapping[str, Any], ...] = ()
    hosts: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    retry: Mapping[str, Any] | None = None


def load(path: Path) -> Fixture:
    """One file."""
    document = yaml.safe_load(path.read_text())
    for name in ("refused", "hosts"):
        document[name] = tuple(document.get(name, ()))
    return Fixture(path.stem, **document)


FIXTURES = {path.stem: load(path) for path in sorted(FOLDER.glob("*.yaml"))}


def parameters(body: bytes, form: str) -> Mapping[str, Any]:
    """A body's parameters, if it is of that form; a sign of the mistake if not."""
    if form == "json":
        document: Mapping[str, Any] = json.loads(body or b"null")
        return document
    return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body)))


def sent(request: UpstreamRequest) -> dict[str, Any]:
    """A request in a fixture's words."""
    content_type = (request.header("content-type") or [""])[0]
    form = "json" if content_type == "application/json" else "form"
    found: dict[str, Any] = {
        "method": request.method,
        "url": f"{request.header(MEANT_FOR)[0]}{request.target}",
        "form": form if request.body else "none",
        "parameters": parameters(request.body, form),
    }
    authorization = request.header("authorization")
    if authorization:
        found["authorization"] = authorization[0]
    return found


def expected(wanted: Mapping[str, Any], **texts: str) -> dict[str, Any]:
    """What a fixture says of a request, with this run's texts put in; headers apart."""
    filled = filled_in({name: value for name, value in wanted.items() if name in SAID}, texts)
    return {"method": "POST", "form": "form", "parameters": {}, **filled}


def filled_in(value: Any, texts: Mapping[str, str]) -> Any:
    """`$name` by this run's text, at any depth."""
    if isinstance(value, str):
        for name, text in texts.items():
            value = value.replace(f"${name}", text)
        return value
    if isinstance(value, Mapping):
        return {name: filled_in(item, texts) for name, item in value.items()}
    return value


def raw(status: int, document: Any = None) -> bytes:
    """An answer."""
    body = b"" if document is None else json.dumps(document).encode()
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
