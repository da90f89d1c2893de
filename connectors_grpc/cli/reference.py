"""What is printed and asks nobody: settings, completion, version."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import asdict

import click
from click.shell_completion import get_completion_class

from connectors_grpc.cli.base import ExampleCommand, json_option, missing_package
from connectors_grpc.cli.output import Output


@click.command(cls=ExampleCommand, examples=("connectors version",))
def version() -> None:
    """Print the version."""
    click.echo(f"connectors {importlib.metadata.version('connectors-grpc')}")


@click.command(
    cls=ExampleCommand,
    examples=(
        'eval "$(connectors completion bash)"                                  # in ~/.bashrc',
        'eval "$(connectors completion zsh)"                                   # in ~/.zshrc',
        "connectors completion fish > ~/.config/fish/completions/connectors.fish",
    ),
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion script."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "connectors", "_CONNECTORS_COMPLETE")
    # Not source(): bash's asks a bash on the PATH for its version first.
    click.echo(script.source_template % script.source_vars())


ELSEWHERE = (
    {
        "name": "config",
        "process": "serve, up",
        "flag": "--config",
        "variable": "CONNECTORS_CONFIG",
        "default": "",
        "description": "A TOML or YAML file with settings, by their names.",
    },
    {
        "name": "client_secret",
        "process": "commands",
        "flag": "--client-secret-file",
        "variable": "CONNECTORS_CLIENT_SECRET",
        "default": "",
        "description": "The OAuth client's secret, for `integration create` and `set-client`.",
    },
)
"""What no model and no option's own variable says."""


@click.command(cls=ExampleCommand, examples=("connectors settings", "connectors settings --json"))
@json_option
@click.pass_context
def settings(ctx: click.Context, out: Output) -> None:
    """List every setting: flag, environment variable, default. Flags win over the environment, that over --config."""
    try:
        from connectors_grpc.settings import describe
        from sidecar.command import command as sidecar
    except ModuleNotFoundError as error:
        raise click.ClickException(missing_package("settings", error)) from None
    client = options_of(ctx.find_root().command, "commands")
    rows = [*ELSEWHERE, *(asdict(item) for item in describe()), *client, *options_of(sidecar, "sidecar")]
    if out.json:
        out.value(rows)
        return
    columns = ("process", "flag", "variable", "default", "description")
    out.table(tuple(name.upper() for name in columns), ([row[name] for name in columns] for row in rows), "")


def options_of(command: click.Command, process: str) -> Iterator[dict[str, str]]:
    """A command's options that the environment may set, in the shape of settings.Described."""
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or not parameter.envvar:
            continue
        default = parameter.default if isinstance(parameter.default, str | int | float) else ""
        yield {
            "name": parameter.name or "",
            "process": process,
            "flag": parameter.opts[0],
            "variable": str(parameter.envvar),
            "default": str(default).lower() if isinstance(default, bool) else str(default),
            "description": parameter.help or "",
        }
