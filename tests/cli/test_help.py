"""Every command explains itself, with an example; and the list of commands needs none of them imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from connectors_grpc.cli.errors import EXIT_CODES
from connectors_grpc.cli.main import root


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group below `group`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


COMMANDS = dict(every_command(root))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    """`--help` of each command ends well and shows how the command is used."""
    result = CliRunner().invoke(root, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert "Examples:" in result.output
    assert "connectors" in result.output.partition("Examples:")[2]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_command_takes_a_secret_as_an_argument(path: tuple[str, ...]) -> None:
    """What is called a secret, key, password or token names a file, or is a switch."""
    for parameter in COMMANDS[path].params:
        name = parameter.name or ""
        if not isinstance(parameter, click.Option) or parameter.is_flag:
            continue
        if any(word in name for word in ("secret", "password", "token", "api_key")):
            assert name.endswith(("_file", "_endpoint")), f"--{name}"


def test_the_root_documents_exit_codes() -> None:
    """Scripts rely on them, so `--help` says each."""
    shown = CliRunner().invoke(root, ["--help"]).output
    for code, meaning in EXIT_CODES:
        assert f"{code:<3}  {meaning}" in shown


def test_the_list_of_commands_imports_none_of_them() -> None:
    """`connectors --help` starts fast and works without the server's packages."""
    code = """
import sys
from connectors_grpc.cli.main import main
try:
    main(["--help"])
finally:
    assert not {"pydantic", "rich", "connectors_grpc.settings", "sidecar.command"} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell: str) -> None:
    """Each shell's script calls `connectors` back."""
    result = CliRunner().invoke(root, ["completion", shell])
    assert result.exit_code == 0
    assert "_CONNECTORS_COMPLETE" in result.output


def test_completion_completes_commands() -> None:
    """The shell's question is answered by click's own mechanism."""
    environment = {"_CONNECTORS_COMPLETE": "bash_complete", "COMP_WORDS": "connectors ten", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "connectors_grpc"], env=environment, capture_output=True, text=True, check=False
    )
    assert "tenant" in done.stdout


def test_version_is_printed() -> None:
    """`connectors version` says which it is."""
    assert CliRunner().invoke(root, ["version"]).output.startswith("connectors 0.")


def test_the_vault_script_is_printed_as_it_is() -> None:
    """What an operator pipes into a file is the script and nothing else."""
    from connectors_grpc.embedded import operator_setup

    assert CliRunner().invoke(root, ["vault", "policy"]).output == operator_setup()


BARE = """
import sys
for name in ("pydantic", "pydantic_settings", "yaml", "rich", "starlette", "uvicorn", "hvac", "authlib", "httpx2"):
    sys.modules[name] = None
from connectors_grpc.cli.main import main
main(sys.argv[1:])
"""


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line where only what the sidecar needs is installed."""
    return subprocess.run([sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [("up",), ("serve",), ("settings",)])
def test_a_bare_installation_says_what_to_install(arguments: tuple[str, ...]) -> None:
    """In place of a traceback."""
    done = bare(*arguments)
    assert done.returncode == 1
    assert "pip install 'connectors-grpc[all]'" in done.stderr


@pytest.mark.parametrize(
    "path",
    [
        ("tenant",),
        ("integration",),
        ("credential",),
        ("key",),
        ("call",),
        ("doctor",),
        ("sidecar",),
        ("probe", "server"),
    ],
)
def test_a_bare_installation_has_every_client_command(path: tuple[str, ...]) -> None:
    """They need gRPC and no server package."""
    assert bare(*path, "--help").returncode == 0
