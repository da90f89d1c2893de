"""Write the generated pages and regions under docs/, or check that they are current (`--check`).

Whole pages: settings.md, errors.md, api.md. Regions, between `<!-- generated: NAME -->` and `<!-- end -->`: a credential's
life in concepts.md, the sidecar's bounds in sidecar.md, the entries in catalogue.md, the fields in definition.md. And the
JSON Schemas of definitions and of the configuration file. What they say comes from the code and proto/ alone.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from catalogue_docs import SCHEMA, definition_schema, entries, fields

from connectors_grpc import policy
from connectors_grpc.cli.main import root
from connectors_grpc.cli.reference import ELSEWHERE, options_of
from connectors_grpc.configuration.model import json_schema
from connectors_grpc.domain.records import Role
from connectors_grpc.errors import MEANING, Reason
from connectors_grpc.lifecycle import NEXT
from connectors_grpc.rpc.access_service import AccessServicer
from connectors_grpc.rpc.credential_service import CredentialServicer
from connectors_grpc.rpc.integration_service import IntegrationServicer
from connectors_grpc.rpc.proxy_service import ProxyServicer
from connectors_grpc.rpc.tenant_service import TenantServicer
from connectors_grpc.settings import describe
from sidecar.command import command as sidecar_command
from sidecar.problem import TEXT

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
TENANTS_SCHEMA = ROOT / "connectors_grpc" / "configuration" / "tenants.schema.json"
PROTO = ROOT / "proto" / "connectors" / "v1"
PACKAGE = "connectors.v1"
SERVICERS = {
    "TenantService": TenantServicer,
    "IntegrationService": IntegrationServicer,
    "CredentialService": CredentialServicer,
    "ProxyService": ProxyServicer,
    "AccessService": AccessServicer,
}
SETTINGS = """\
A flag wins over the environment, and that over the file of `--config` (TOML or YAML; names as the flags', with `_` for
`-`: `grpc_listen = "127.0.0.1:50051"`). Only `serve` and `up` read that file. No setting is a secret: secrets lie in files that
settings name. A value that can't be used, or an unknown name in the file, is refused at start, with the setting's name.
`connectors settings` prints this list."""
ERRORS = """\
Every refusal has one reason, the same word everywhere: over gRPC as the `reason` of the one `google.rpc.ErrorInfo` (domain
`connectors`) in the status details, over HTTP as `reason` of the problem document (RFC 9457), from the sidecar in the header
`X-Connectors-Error` too. What varies is in `metadata`; the text is constant and never holds a secret. Field errors come as
`google.rpc.BadRequest`, waiting times as `google.rpc.RetryInfo`.

The gRPC code says what to do: `INVALID_ARGUMENT` fix the request, `FAILED_PRECONDITION` a person must act, `UNAVAILABLE`
wait and retry, `ABORTED` read again and retry, `INTERNAL` report a bug. Where the last column is empty, the sidecar never says
it. The sidecar answers a bad app key with 403, not 401: to an SDK, 401 would say that the provider refused the tenant."""
API = """\
Package `connectors.v1`; the contract, with every field, bound and error, is `proto/connectors/v1/`. The server has
reflection, so `grpcurl` needs no files. Each call brings an API key as metadata `authorization: Bearer KEY`; only health
(`grpc.health.v1`) needs none. The key must have one of the roles named, and its scope must cover what the request is
about: see [keys and roles](concepts.md#keys-and-roles). Why a call is refused: [errors](errors.md)."""
NO_REST = """ The `google.api.http`
annotations in `proto/` are the plan for REST; no listener serves them yet."""
REST = """\
REST is the same RPCs by their `google.api.http` annotations: `Authorization: Bearer KEY`, JSON by the protobuf mapping in and
out, errors as problem documents. What is not in path or body goes into the query.

"""
NOTE = "<!-- Written by `make docs` from the code; not edited. -->"


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Text as code; nothing for nothing."""
    return f"`{text}`" if text else ""


# --- settings.md


def settings_page() -> str:
    """Every setting of every process."""
    rows = [
        *ELSEWHERE,
        *(asdict(item) for item in describe()),
        *options_of(root, "commands"),
        *options_of(sidecar_command, "sidecar"),
    ]
    parts = (
        ("The server, and all that `connectors up` runs", ("serve, up",)),
        ("Only `connectors up`", ("up",)),
        ("The sidecar (`connectors sidecar`)", ("sidecar",)),
        ("The commands (`connectors tenant`, `credential`, ...)", ("commands",)),
    )
    sections = [
        f"## {title}\n\n"
        + table(
            ("flag", "environment variable", "default", "what it is"),
            (
                (code(row["flag"]), code(row["variable"]), code(row["default"]), row["description"])
                for row in rows
                if row["process"] in processes
            ),
        )
        for title, processes in parts
    ]
    left = {row["process"] for row in rows} - {name for _, names in parts for name in names}
    assert not left, f"no section for {left}"
    return "\n\n".join(
        (
            "# Settings",
            NOTE,
            SETTINGS,
            *sections,
        )
    )


# --- errors.md


class Documented(NamedTuple):
    """What error_reason.proto says of a reason."""

    name: str
    text: str
    example: str


def documented_reasons() -> Iterator[Documented]:
    """The reasons of error_reason.proto, in its order."""
    comment: list[str] = []
    for line in (PROTO / "error_reason.proto").read_text().splitlines():
        stripped = line.strip()
        if stripped.startswith("//"):
            comment.append(stripped.removeprefix("//").strip())
            continue
        match = re.match(r"ERROR_REASON_([A-Z_]+) = ([0-9]+);", stripped)
        if match and match[1] != "UNSPECIFIED":
            text, _, example = " ".join(comment).partition(" Example: ")
            yield Documented(match[1], text, example)
        comment = []


def errors_page() -> str:
    """Every reason: what it is over gRPC, HTTP and the sidecar, an example, and what to do."""
    found = list(documented_reasons())
    overview = table(
        ("reason", "gRPC", "HTTP", "sidecar"),
        (
            (
                f"[{item.name}](#{item.name.lower()})",
                code(MEANING[Reason(item.name)].code.value),
                str(MEANING[Reason(item.name)].http),
                str(TEXT[item.name][0]) if item.name in TEXT else "",
            )
            for item in found
        ),
    )
    return "\n\n".join(
        (
            "# Errors",
            NOTE,
            ERRORS,
            overview,
            *(_reason(item) for item in found),
        )
    )


def _reason(item: Documented) -> str:
    meaning = MEANING[Reason(item.name)]
    lines = [f"## {item.name}", item.text]
    if item.example:
        lines.append(f"Example: {item.example}")
    told = [f"- The server says: {meaning.text}"]
    if item.name in TEXT and TEXT[item.name][1] != meaning.text:
        told.append(f"- The sidecar says: {TEXT[item.name][1]}")
    return "\n\n".join((*lines, "\n".join(told)))


# --- api.md


class Rpc(NamedTuple):
    """What a proto file says of an RPC."""

    name: str
    summary: str
    retry: str
    rest: tuple[str, ...]


def rpcs(service: str) -> Iterator[Rpc]:
    """The RPCs of a service, in the file's order."""
    path = PROTO / f"{re.sub('(?<!^)(?=[A-Z])', '_', service).lower()}.proto"
    comment: list[str] = []
    text = path.read_text()
    body = text[text.index(f"service {service} {{") :]
    body = body[: body.index("\n}\n")]
    lines = body.splitlines()
    for number, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith("//"):
            comment.append(stripped.removeprefix("//").strip())
            continue
        if match := re.match(r"rpc (\w+)\(", stripped):
            said = "\n".join(comment)
            summary = " ".join(said.partition("\n\n")[0].split())
            retry = re.search(r"Retry: (.+)", " ".join(said.split()))
            end = next(
                (at for at in range(number + 1, len(lines)) if lines[at].strip().startswith(("rpc ", "//"))), len(lines)
            )
            options = re.findall(r'\b(get|post|put|patch|delete): "([^"]+)"', "\n".join(lines[number:end]))
            yield Rpc(
                match[1],
                summary,
                retry[1] if retry else "",
                tuple(f"{verb.upper()} {where}" for verb, where in options),
            )
        comment = []


def implemented(service: str, rpc: str) -> bool:
    """Whether the server's method does anything but refuse."""
    return "NOT_IMPLEMENTED" not in inspect.getsource(getattr(SERVICERS[service], rpc))


def rest_served() -> bool:
    """Whether the composition root serves the google.api.http annotations."""
    return "connectors_grpc.http.rest" in (ROOT / "connectors_grpc" / "app.py").read_text()


ROLE_ORDER = (Role.ADMIN, Role.OPERATOR, Role.APP, Role.SIDECAR, Role.TOKEN_READER)


def _roles(rule: policy.Rule) -> str:
    return ", ".join(code(role.value.replace("_", "-")) for role in ROLE_ORDER if role in rule.roles)


def _about(rule: policy.Rule) -> str:
    if rule.platform:
        return "the platform: a key for all tenants"
    if rule.credential:
        return "one credential"
    if rule.whole:
        return (
            "a tenant as a whole"
            if rule.unnamed is not policy.Unnamed.PLATFORM
            else "the platform, or a tenant as a whole"
        )
    return "one tenant" if rule.tenant else "what lies in the key's scope"


def api_page() -> str:
    """The services in tables, roles from policy.RULES."""
    assert set(SERVICERS) == {
        path.split("/")[1].removeprefix(f"{PACKAGE}.") for path in policy.RULES if PACKAGE in path
    }
    rest = rest_served()
    head = ("RPC", "what it does", "roles", "about", *(("REST",) if rest else ()))
    sections = []
    for service in SERVICERS:
        rows = []
        for rpc in rpcs(service):
            rule = policy.RULES[f"/{PACKAGE}.{service}/{rpc.name}"]
            ready = implemented(service, rpc.name)
            told = rpc.summary if ready else f"**Not there yet** (`NOT_IMPLEMENTED`). {rpc.summary}"
            where = "<br>".join(code(each) for each in rpc.rest)
            rows.append((code(rpc.name), told, _roles(rule), _about(rule), *((where,) if rest else ())))
        sections.append(f"## {service}\n\n{table(head, iter(rows))}")
    return "\n\n".join(
        (
            "# The API",
            NOTE,
            API if rest else API + NO_REST,
            *sections,
            f"## Over HTTP\n\n{REST if rest else ''}On the HTTP port, {'besides, ' if rest else ''}and without a key:\n\n"
            + table(("method", "path", "what it does"), iter(sorted(http_routes()))),
        )
    )


def http_routes() -> Iterator[tuple[str, str, str]]:
    """The routes of the HTTP edge, as they stand in its source; what each does is its handler's first sentence."""
    for path in sorted((ROOT / "connectors_grpc" / "http").rglob("*.py")):
        tree = ast.parse(path.read_text())
        told = {
            node.name: (ast.get_docstring(node) or "").partition(". ")[0].partition("\n")[0].rstrip(".")
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Route"):
                continue
            where, handler = node.args[0], node.args[1]
            methods = next((word.value for word in node.keywords if word.arg == "methods"), None)
            if isinstance(where, ast.Constant) and isinstance(handler, ast.Attribute) and isinstance(methods, ast.List):
                verbs = ", ".join(str(each.value) for each in methods.elts if isinstance(each, ast.Constant))
                yield verbs, code(str(where.value)), f"{told.get(handler.attr, '')}."


# --- regions


def life() -> str:
    """The diagram of a credential's life, drawn from lifecycle.NEXT."""
    moves: dict[tuple[str, str], list[str]] = {}
    for (state, event), target in NEXT.items():
        moves.setdefault((state.name, target.name), []).append(event.value)
    arrows = [f"    {before} --> {after}: {', '.join(events)}" for (before, after), events in moves.items()]
    return "\n".join(("```mermaid", "stateDiagram-v2", "    [*] --> PENDING", *arrows, "```"))


def limits() -> str:
    """The sidecar's bounds, from sidecar/limits.py."""
    tree = ast.parse((ROOT / "sidecar" / "limits.py").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    rows = []
    for field, told in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and field.value is not None and isinstance(told, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(told.value, ast.Constant)
            rows.append((code(field.target.id), _value(field), str(told.value.value)))
    return table(("bound", "value", "of what"), iter(rows))


def _value(field: ast.AnnAssign) -> str:
    assert field.value is not None
    number = eval(compile(ast.Expression(field.value), "limits.py", "eval"), {"__builtins__": {}})  # noqa: S307 - our own file
    if isinstance(number, float):
        return f"{number:g} s"
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number % size == 0 and number >= 64 * (1 << 10):
            return f"{number // size} {unit}"
    return f"{number:,}"


PAGES: dict[str, Callable[[], str]] = {"settings.md": settings_page, "errors.md": errors_page, "api.md": api_page}
REGIONS: dict[tuple[str, str], Callable[[], str]] = {
    ("concepts.md", "life"): life,
    ("sidecar.md", "limits"): limits,
    ("catalogue.md", "entries"): entries,
    ("definition.md", "fields"): fields,
}


def with_region(text: str, name: str, content: str) -> str:
    """The page with its region written anew.  Raises: ValueError if it has no such region."""
    before, start, rest = text.partition(f"<!-- generated: {name} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not start or not end:
        raise ValueError(f"there is no region {name}")
    return f"{before}{start}{content}\n{end}{after}"


def wanted() -> dict[Path, str]:
    """Every file that has generated text, as it should be."""
    files = {DOCS / name: make() + "\n" for name, make in PAGES.items()}
    files[SCHEMA] = definition_schema()
    files[TENANTS_SCHEMA] = json.dumps(json_schema(), indent=2) + "\n"
    for (name, region), make in REGIONS.items():
        path = DOCS / name
        files[path] = with_region(files.get(path) or path.read_text(), region, make())
    return files


def main() -> None:
    """Write, or compare."""
    stale = [path for path, text in wanted().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        if stale:
            raise SystemExit("stale, run `make docs`: " + ", ".join(str(path.relative_to(ROOT)) for path in stale))
        return
    for path in stale:
        path.write_text(wanted()[path])


if __name__ == "__main__":
    main()
