"""Reads a folder of definition files. Errors name the file, the field and what is wanted there, all of them at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from connectors_grpc.catalogue.schema import DefinitionFile
from connectors_grpc.domain.definition import Integration
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.rules.definition import validate_definition

LARGEST_FILE = 64 * 1024


class CatalogueError(Exception):
    """What is wrong with definition files, a line for each fault: `file: field: what is wanted`."""


def load_catalogue(folder: Path | None = None) -> Mapping[IntegrationId, Integration]:
    """The definitions of a folder by id, those that ship with the server if none is given. Raises: CatalogueError."""
    root = files("connectors_grpc.catalogue") / "entries" if folder is None else folder
    found: dict[IntegrationId, Integration] = {}
    faults: list[str] = []
    for entry in sorted(root.iterdir(), key=lambda each: each.name):
        if entry.name.endswith(".yaml"):
            try:
                one = parse_definition(entry.name, entry.read_bytes())
            except CatalogueError as error:
                faults.append(str(error))
            else:
                found[one.id] = one
    if faults:
        raise CatalogueError("\n".join(faults))
    return found


def catalogue(own: Path | None = None) -> Mapping[IntegrationId, Integration]:
    """What ships with the server, with an operator's own files in front. Raises: CatalogueError."""
    if own is None:
        return load_catalogue()
    if not own.is_dir():
        raise CatalogueError(f"{own}: a folder of definitions is wanted")
    return {**load_catalogue(), **load_catalogue(own)}


def parse_definition(name: str, content: bytes) -> Integration:
    """One file's definition; its id is the file's name without `.yaml`. Raises: CatalogueError."""
    faults: list[str] = []
    try:
        if len(content) > LARGEST_FILE:
            raise yaml.YAMLError(f"a file of up to {LARGEST_FILE} bytes")
        document = yaml.load(content, Loader=_Loader)  # noqa: S506 - a SafeLoader
        integration = DefinitionFile.model_validate(document).to_domain(IntegrationId(name.removesuffix(".yaml")))
    except ValidationError as error:
        faults = [f"{name}: {field}: {wanted}" for field, wanted in _wanted(error)]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        faults = [f"{name}: not YAML: {' '.join(str(error).split())}"]
    else:
        faults = [f"{name}: {fault.field}: {fault.description}" for fault in validate_definition(integration)]
    if faults:
        raise CatalogueError("\n".join(faults))
    return integration


def _wanted(error: ValidationError) -> Iterator[tuple[str, str]]:
    for fault in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in fault["loc"]) or "the file"
        if fault["type"] == "extra_forbidden":
            yield field, "no such field; take it out, or correct its name"
        elif fault["type"] == "string_type":
            yield field, "a text; put it in quotes"
        else:
            yield field, fault["msg"]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As usual, after a look at the keys."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
