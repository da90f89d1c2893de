"""The definitions that ship with the server: one YAML file each under `entries/`, its name being the integration's id.

`schema` says what a file may hold and turns it into the domain's words; `loader` reads the folder.
"""

from connectors_grpc.catalogue.loader import CatalogueError, catalogue, load_catalogue, parse_definition
from connectors_grpc.catalogue.schema import DefinitionFile

__all__ = ["CatalogueError", "DefinitionFile", "catalogue", "load_catalogue", "parse_definition"]
