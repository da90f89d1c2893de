"""The house rules that code can hold: who opens secrets, docstrings, sizes, imports, no mocks of our own."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HARD_LINES = 450
"""Above this a module has more than one idea, whatever it says. The soft size is 250."""
MAY_REVEAL: Mapping[str, str] = {
    "connectors_grpc/access.py": "a key's text is hashed",
    "connectors_grpc/bootstrap.py": "the first keys are written to their files",
    "connectors_grpc/cli/connection.py": "the key is sent with each call",
    "connectors_grpc/cli/secrets.py": "a new key is shown, once",
    "connectors_grpc/cli/integration.py": "a client secret is sent to be stored",
    "connectors_grpc/cli/inputs.py": "an input that is secret is sent to be stored",
    "connectors_grpc/cli/material.py": "material is sent to be stored",
    "connectors_grpc/configuration/checking.py": "a secret of the file is checked for what HTTP can carry",
    "connectors_grpc/configuration/wanted.py": "secrets of the file are sent to be stored",
    "connectors_grpc/credentials/asking.py": "a client's secrets are fingerprinted",
    "connectors_grpc/credentials/devices.py": "a device code is sealed",
    "connectors_grpc/credentials/keeping.py": "material is sealed",
    "connectors_grpc/credentials/answer.py": "a refresh token is fingerprinted",
    "connectors_grpc/http/app.py": "a person's browser gets its flow's cookie",
    "connectors_grpc/rules/clients.py": "a client secret is checked for what HTTP can carry",
    "connectors_grpc/inject/plan.py": "the credential is put into a request",
    "connectors_grpc/inject/templates.py": "templates are filled",
    "connectors_grpc/legacy.py": "newer tokens go back into the form of an old record",
    "connectors_grpc/migration/server.py": "what is migrated is sent to be stored or compared, with the key",
    "connectors_grpc/oauth2/authorize.py": "state and challenge go into the URL",
    "connectors_grpc/oauth2/assertions.py": "a private key signs, a client secret is a MAC key",
    "connectors_grpc/oauth2/device.py": "a device code is sent to the provider",
    "connectors_grpc/oauth2/minting.py": "what an app proves itself by is sent to the provider",
    "connectors_grpc/oauth2/token_request.py": "tokens and client secrets are sent to the provider",
    "connectors_grpc/provisioning/calls.py": "an operator's token is shown to the Vault",
    "connectors_grpc/tailoring.py": "what a tenant gave fills its definition's URLs",
    "connectors_grpc/credentials/granting.py": "a token reply is looked into for what a definition wants to know",
    "connectors_grpc/rpc/access_service.py": "a new key is answered, once",
    "connectors_grpc/rpc/credential_service.py": "a token-reader gets its token",
    "connectors_grpc/rpc/material.py": "material from a document of the Vault is read as if it had been sent",
    "connectors_grpc/rpc/proxy_service.py": "a sidecar gets its lease",
    "connectors_grpc/sealed_clients.py": "a client secret is sealed",
    "sidecar/server.py": "the sidecar's own key is sent",
}
"""Who may call `Secret.reveal()`, and why."""


def sources(*folders: str) -> Iterator[tuple[str, Path]]:
    """Every module but the generated ones, by its path from the root."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/gen/" not in name and "node_modules" not in name:
                yield name, path


MODULES = dict(sources("connectors_grpc", "sidecar"))


def test_only_listed_modules_open_secrets() -> None:
    """Each with its reason. A new caller of `reveal` is a decision, made here."""
    callers = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }
    assert callers == set(MAY_REVEAL)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_class_and_public_function_says_what_it_is(name: str) -> None:
    """A docstring, of a sentence."""
    tree = ast.parse(MODULES[name].read_text())
    assert ast.get_docstring(tree), name
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}:{node.lineno} {node.name}"


def test_no_module_has_grown_beyond_one_idea() -> None:
    """The soft size is a smell, this is the end of patience; both are shown by `pytest -s`."""
    sizes = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    for name, lines in sorted(sizes.items(), key=lambda pair: -pair[1]):
        if lines > 250:
            print(f"{lines} {name}")
    assert {name: lines for name, lines in sizes.items() if lines > HARD_LINES} == {}


def test_every_test_says_in_one_line_what_it_holds() -> None:
    """A name that is a sentence, and a docstring."""
    for name, path in sources("tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{name}:{node.lineno}"
                assert node.name.count("_") >= 3, f"{name}:{node.lineno} {node.name}"


def test_no_test_mocks_our_own_ports() -> None:
    """Adapters in memory obey the laws; a mock obeys whoever wrote it."""
    for name, path in sources("tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not imported.startswith("unittest.mock"), name


def test_no_dataclass_is_spilled_by_asdict() -> None:
    """`dataclasses.asdict` copies into what it finds: secrets too."""
    for name, path in MODULES.items():
        # The command line's tables and the simulator's notes are for people's eyes anyway.
        harmless = name.startswith(("connectors_grpc/secret.py", "connectors_grpc/cli/", "connectors_grpc/simulator/"))
        assert harmless or "asdict" not in path.read_text(), name


def test_the_sidecar_may_reach_no_module_of_the_server_that_is_not_said() -> None:
    """Whoever adds one says whether it is the sidecar's too: in pyproject.toml, or here."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (forbidden,) = (each["forbidden_modules"] for each in contracts if each.get("source_modules") == ["sidecar"])
    names = {Path(name).parts[1].removesuffix(".py") for name in MODULES if name.startswith("connectors_grpc/")}
    shared = {"certificates", "domain", "inject", "logs", "quota", "resolving", "secret"}
    assert {f"connectors_grpc.{name}" for name in names - shared - {"__init__"}} == set(forbidden)


def test_imports_point_down() -> None:
    """The layers of pyproject.toml, by import-linter."""
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-logo"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
