"""What the pages about definitions say, from the catalogue's files and the contract's comments: one text for each field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from connectors_grpc.catalogue import DefinitionFile, load_catalogue
from connectors_grpc.domain.definition import Integration, OAuth, RefreshRotation

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = ROOT / "connectors_grpc" / "catalogue" / "entries"
FIXTURES = ROOT / "tests" / "catalogue" / "fixtures"
SCHEMA = ROOT / "connectors_grpc" / "catalogue" / "definition.schema.json"
PROTO = ROOT / "proto" / "connectors" / "v1" / "integration_service.proto"
MESSAGES = {
    "DefinitionFile": "Integration",
    "InputFile": "Input",
    "OAuthFile": "OAuth",
    "DiscoveryFile": "Discovery",
    "RevocationFile": "Revocation",
    "ApiFile": "Api",
    "PlacementFile": "Placement",
    "BasicFile": "BasicPlacement",
    "RetryFile": "Retry",
}
"""Parts of a file, in the page's order, and the contract's messages for them."""
TITLES = {
    "DefinitionFile": "The file",
    "InputFile": "`inputs`: what a tenant must say",
    "OAuthFile": "`oauth`: how tokens come",
    "DiscoveryFile": "`oauth.discovery`: what is looked up after consent",
    "RevocationFile": "`oauth.revocation`: how a grant is ended",
    "ApiFile": "`api`: where calls go",
    "PlacementFile": "`api.placement`: where the credential stands",
    "BasicFile": "`api.placement.basic`",
    "RetryFile": "`api.retry`: how calls are limited",
}
LABEL = re.compile(r"(Get one|Scopes|Quirks|Not re-checked): ")
"""What the comment at the beginning of an entry is sorted by."""
OWN = {
    ("DefinitionFile", "verified"): "Every fact in the file was checked against the vendor's documentation.",
    (
        "OAuthFile",
        "pkce",
    ): "The provider takes PKCE (RFC 7636); S256 is sent. Unset: true. In the contract: `pkce_disabled`.",
    (
        "OAuthFile",
        "client_authentication",
    ): "How the client proves itself. In a file it is always said: no two providers agree.",
}
"""What a file has otherwise than the contract."""


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# --- catalogue.md


def entries() -> str:
    """Every entry that ships."""
    every = load_catalogue().values()
    consent = [entry for entry in every if entry.oauth is not None]
    keys = [entry for entry in every if entry.oauth is None]
    verified = sum(entry.verified for entry in every)
    return "\n\n".join(
        (
            f"{len(consent)} by OAuth, {len(keys)} by API key; {verified} of {len(consent) + len(keys)} verified.",
            "## By OAuth",
            table(
                ("id", "name", "verified", "refresh tokens", "asks for", "held to"),
                (
                    (f"`{e.id}`", e.display_name, _yes(e.verified), _rotation(e), _inputs(e), _contract(e.id))
                    for e in consent
                ),
            ),
            "## By API key",
            table(
                ("id", "name", "verified", "asks for", "held to"),
                ((f"`{e.id}`", e.display_name, _yes(e.verified), _inputs(e), _contract(e.id)) for e in keys),
            ),
            "## One by one",
            *(f"### {e.display_name}\n\n{_notes(e)}" for e in every),
        )
    )


def _notes(entry: Integration) -> str:
    """What the file says at its beginning; what a label begins is an item of a list."""
    paragraphs: list[str] = []
    for line in (ENTRIES / f"{entry.id}.yaml").read_text().splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        if label := LABEL.match(text):
            paragraphs.append(f"- **{label[1]}**: {text[label.end() :]}")
        elif paragraphs:
            paragraphs[-1] += f" {text}"
        else:
            paragraphs.append(text)
    about, *items = paragraphs
    about = f"`{entry.id}`" + ("" if about.rstrip(".") == entry.display_name else f": {about}")
    return about + ("\n\n" if items else "") + "\n".join(items)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _rotation(entry: Integration) -> str:
    oauth = entry.oauth
    assert oauth is not None
    if not oauth.authorization_endpoint:
        return "minted"
    fixture = _fixture(entry.id)
    if fixture is not None and "refresh" not in fixture:
        return "none"
    word = {
        RefreshRotation.STATIC: "static",
        RefreshRotation.WITH_GRACE: "grace",
        RefreshRotation.AT_ONCE: "at once",
    }[oauth.refresh_rotation]
    return word + (" + ends token" if oauth.refresh_ends_access_token else "") + _life(oauth)


def _life(oauth: OAuth) -> str:
    ttl = oauth.refresh_token_idle_ttl
    return "" if ttl is None else f", {ttl.days} days unused"


def _inputs(entry: Integration) -> str:
    return ", ".join(f"[{one.id}]" if one.optional or one.default else one.id for one in entry.inputs)


def _fixture(name: str) -> Mapping[str, Any] | None:
    path = FIXTURES / f"{name}.yaml"
    found: Mapping[str, Any] | None = yaml.safe_load(path.read_text()) if path.exists() else None
    return found


def _contract(name: str) -> str:
    fixture = _fixture(name)
    if fixture is None:
        return "minting, in `tests/oauth/test_grants_flows.py`"
    names = {
        "authorize": "consent",
        "token": "code",
        "mint": "minting",
        "discovery": "look-up",
        "refresh": "refresh",
        "revoke": "revocation",
    }
    parts = [word for part, word in names.items() if part in fixture]
    parts += ["call", *(["identity"] if "identity" in fixture else [])]
    refused = len(fixture.get("refused", ()))
    parts += [f"{refused} refusal{'s' * (refused > 1)}"] if refused else []
    return f"[{', '.join(parts)}]({fixture['source']})"


# --- definition.md, and the JSON Schema


def comments() -> Mapping[tuple[str, str], str]:
    """What the contract says of each field and enum value, by message or enum and name."""
    found: dict[tuple[str, str], str] = {}
    comment: list[str] = []
    within: list[str] = []
    for line in PROTO.read_text().splitlines():
        stripped = line.strip()
        if stripped.startswith("//"):
            comment.append(stripped.removeprefix("//").strip())
            continue
        if stripped.endswith("{"):
            match = re.match(r"(?:message|enum) (\w+)", stripped)
            within.append(match[1] if match else "")
            found[within[-1], ""] = " ".join(comment)
        elif stripped.startswith("}"):
            within.pop()
        elif match := re.match(r"(?:[\w.<>, ]+ )?(\w+) = \d+", stripped):
            found[within[-1], match[1]] = " ".join(comment)
        comment = []
    return found


def told() -> Iterator[tuple[str, str, str]]:
    """Every field of every part of a file, with what is said of it."""
    said = comments()
    for part, schema in _parts().items():
        for name in schema["properties"]:
            yield part, name, OWN.get((part, name)) or said[MESSAGES[part], name]


def _parts() -> Mapping[str, Any]:
    whole = DefinitionFile.model_json_schema()
    parts = {"DefinitionFile": whole, **whole["$defs"]}
    return {name: parts[name] for name in MESSAGES}


def definition_schema() -> str:
    """The JSON Schema of a file (draft 2020-12), with the contract's texts."""
    whole = DefinitionFile.model_json_schema()
    parts = {"DefinitionFile": whole, **whole["$defs"]}
    for part, name, text in told():
        parts[part]["properties"][name]["description"] = text
    for part in parts.values():
        for one in part.get("properties", {}).values():
            one.pop("title", None)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An integration's definition"}
    return json.dumps({**head, **{k: v for k, v in whole.items() if k != "title"}}, indent=2) + "\n"


def fields() -> str:
    """Every field."""
    said = comments()
    texts = {(part, name): text for part, name, text in told()}
    sections = []
    for part, schema in _parts().items():
        needed = set(schema.get("required", ()))
        rows = (
            (f"`{name}`{' **needed**' if name in needed else ''}", _type(one), texts[part, name])
            for name, one in schema["properties"].items()
        )
        about = said[MESSAGES[part], ""]
        sections.append(f"## {TITLES[part]}\n\n{about}\n\n{table(('field', 'type', 'what it is'), rows)}")
    return "\n\n".join(sections)


def _type(one: Mapping[str, Any]) -> str:
    if "anyOf" in one:
        return next(_type(each) for each in one["anyOf"] if each.get("type") != "null")
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        values = DefinitionFile.model_json_schema()["$defs"][name].get("enum")
        return ", ".join(f"`{value}`" for value in values) if values else "object"
    match one.get("type"):
        case "array":
            return f"list of {_plural(_type(one['items']))}"
        case "object":
            return "map of texts"
        case "string" if "pattern" in one:
            return "length of time"
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case kind:
            return str(kind)


def _plural(word: str) -> str:
    return {"text": "texts", "object": "objects", "integer": "numbers"}.get(word, word)
