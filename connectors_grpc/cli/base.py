"""What every command is made of: help with examples, commands that load when they are called, options that many share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.output import Output

pass_session = click.make_pass_decorator(Session)


class ExampleCommand(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are, each on its own line."""
        write_verbatim(formatter, "Examples", self.examples)
        super().format_epilog(ctx, formatter)


class ExampleGroup(ExampleCommand, click.Group):
    """A group whose help ends with examples."""

    command_class = ExampleCommand


class Lazy(NamedTuple):
    """A command that is imported when it is called, and what the list of commands says of it."""

    module: str
    attribute: str
    help: str


class LazyGroup(ExampleGroup):
    """A group that imports a command's module only to run or explain it: a start costs what the one command costs."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the table."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now.  Raises: ClickException where a package that it needs is not installed."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        entry = self._lazy[cmd_name]
        try:
            command = getattr(importlib.import_module(entry.module), entry.attribute)
        except ModuleNotFoundError as error:
            raise click.ClickException(missing_package(cmd_name, error)) from None
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._lazy.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands without importing them."""
        found = [
            CompletionItem(name, help=entry.help) for name, entry in self._lazy.items() if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


def missing_package(command: str, error: ModuleNotFoundError) -> str:
    """What to install so that `command` runs."""
    return f"`connectors {command}` needs {error.name}. Run: pip install 'connectors-grpc[all]'"


def write_verbatim(formatter: click.HelpFormatter, title: str, lines: Sequence[str]) -> None:
    """A titled block whose lines are not wrapped, so that they can be copied."""
    if lines:
        with formatter.section(title):
            formatter.write("".join(f"{'':>{formatter.current_indent}}{line}\n" for line in lines))


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`; the command gets an `out`, which knows how to say things."""
    option = click.option(
        "--json",
        "out",
        is_flag=True,
        help="Print JSON (the protobuf JSON mapping) and nothing else.",
        callback=lambda _ctx, _parameter, value: Output(json=value),
    )
    return option(function)


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True, help="List at most so many."
)


class Declined(click.ClickException):
    """The person said no."""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what can't be undone.  Raises: UsageError where nobody can be asked, Declined for no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("This can't be undone, and nobody can be asked here: say --yes.")
    if not click.confirm(question, err=True):
        raise Declined("Nothing was changed.")


def pairs(_ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Options of the form NAME=VALUE, as a mapping."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter("NAME=VALUE is wanted", param=parameter)
        found[name] = text
    return found


label_option = click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", callback=pairs, help="A label; may be repeated."
)
