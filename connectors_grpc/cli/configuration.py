"""`connectors config`: tenants from a file, as it says they are to be."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import IO, Any

import click

from connectors_grpc.cli.base import Declined, ExampleGroup, json_option, pass_session
from connectors_grpc.cli.config_view import Progress, explain, reason, show_outcomes, show_plan
from connectors_grpc.cli.config_watch import Watching
from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.errors import FAILED, USAGE
from connectors_grpc.cli.output import Output, clean
from connectors_grpc.configuration.applying import Applying
from connectors_grpc.configuration.asking import ask
from connectors_grpc.configuration.loading import Loaded, files_of, load
from connectors_grpc.configuration.plan import plan
from connectors_grpc.configuration.steps import Plan
from connectors_grpc.configuration.tree import Invalid

DIFFERS = 1
SHOWN = 100
"""Problems that a person is shown at once."""
PACKAGE = "connectors_grpc.configuration"


class ConfigurationRefused(click.ClickException):
    """A file with problems: each on a line of its own."""

    exit_code = USAGE

    def __init__(self, invalid: Invalid, out: Output) -> None:
        super().__init__(str(invalid))
        self.invalid = invalid
        self.out = out

    def show(self, file: IO[Any] | None = None) -> None:
        """Write them to stderr; as JSON to stdout where that is asked for."""
        problems = self.invalid.problems
        if self.out.json:
            said = [
                {
                    "file": one.at.file,
                    "line": one.at.line,
                    "column": one.at.column,
                    "field": one.field,
                    "text": one.text,
                }
                for one in problems
            ]
            self.out.value({"problems": said})
            return
        for one in problems[:SHOWN]:
            click.echo(clean(str(one)), file=file, err=True)
        if len(problems) > SHOWN:
            click.echo(f"and {len(problems) - SHOWN} more: --json shows all", file=file, err=True)
        click.secho(f"Error: {len(problems)} to mend; nothing was changed.", file=file, err=True, fg="red")


def file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Which file, which environment; the command gets `file`, `env` and `allow_literal_secrets`."""
    function = click.option(
        "--allow-literal-secrets", is_flag=True, help="Take secrets that stand in the file itself. For development."
    )(function)
    function = click.option(
        "--env", "env", default="", metavar="NAME", help="Lay tenants.NAME.json over it (RFC 7396: null takes out)."
    )(function)
    return click.argument(
        "file", metavar="[FILE]", type=click.Path(path_type=Path), default="tenants.json", required=False
    )(function)


prune_option = click.option(
    "--prune", is_flag=True, help="Delete what carries the file's owner mark and is no longer in it."
)
adopt_option = click.option("--adopt", is_flag=True, help="Take over tenants that another file manages.")


def loaded(file: Path, env: str, allow_literal_secrets: bool, out: Output) -> Loaded:
    """The configuration, its warnings on stderr.  Raises: ConfigurationRefused."""
    try:
        found = load(file, environment=os.environ, overlay=env, literal_secrets=allow_literal_secrets)
    except Invalid as error:
        raise ConfigurationRefused(error, out) from None
    for warning in found.warnings:
        out.note(f"Warning: {warning}")
    return found


@click.group(
    cls=ExampleGroup,
    examples=(
        "connectors config example > tenants.json",
        "connectors config validate && connectors config diff",
        "connectors config apply --env staging",
    ),
)
def config() -> None:
    """Tenants from a file: what they are to be, compared with what is there, and brought about."""


@config.command(examples=("connectors config validate", "connectors config validate tenants.yaml --env staging --json"))
@file_options
@json_option
def validate(file: Path, env: str, allow_literal_secrets: bool, out: Output) -> None:
    """Check the file, without a server. Exit code 2 with every problem's line and column if it can't be used."""
    found = loaded(file, env, allow_literal_secrets, out).configuration
    tenants = found.tenants.values()
    counts = {
        "tenants": len(tenants),
        "integrations": sum(len(one.integrations or {}) for one in tenants),
        "credentials": sum(len(part.credentials) for one in tenants for part in (one.integrations or {}).values()),
    }
    if out.json:
        out.value(counts)
    else:
        out.said(f"{file}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


@config.command(examples=("connectors config diff", "connectors config diff --prune --json | jq .steps"))
@file_options
@prune_option
@adopt_option
@json_option
@pass_session
@click.pass_context
def diff(
    ctx: click.Context,
    session: Session,
    file: Path,
    env: str,
    allow_literal_secrets: bool,
    prune: bool,
    adopt: bool,
    out: Output,
) -> None:
    """Say what apply would do. Exit code 0: nothing; 1: something, or something is refused. Any other is an error."""
    found = loaded(file, env, allow_literal_secrets, out)
    made = planned(session, found, prune=prune, adopt=adopt)
    show_plan(out, made, most=None)
    if made.steps or made.refusals:
        ctx.exit(DIFFERS)


@config.command(
    examples=(
        "connectors config apply",
        "connectors config apply --env production --yes",
        "connectors config apply --prune        # shows what it would delete, and asks",
    )
)
@file_options
@prune_option
@adopt_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@pass_session
@click.pass_context
def apply(
    ctx: click.Context,
    session: Session,
    file: Path,
    env: str,
    allow_literal_secrets: bool,
    prune: bool,
    adopt: bool,
    yes: bool,
    out: Output,
) -> None:
    """Bring about what the file says: show the plan, ask, do it. What is there already is not touched.

    What is refused stops nothing else; exit code 1 then. Apply again to do the rest.
    """
    found = loaded(file, env, allow_literal_secrets, out)
    made = planned(session, found, prune=prune, adopt=adopt)
    if not out.json:
        show_plan(out, made)
    if made.steps:
        _agree(yes=yes)
    with Progress(out, len(made.steps)) as progress:
        done = Applying(session, found.configuration, explain, progress.tell).apply(made)
    show_outcomes(out, made, done)
    if done.failed or made.refusals:
        ctx.exit(FAILED)


def planned(session: Session, found: Loaded, *, prune: bool, adopt: bool) -> Plan:
    """The plan against the server.  Raises: UsageError for a file that would delete everything."""
    wanted = found.configuration
    if prune and not wanted.tenants:
        raise click.UsageError(
            "The file names no tenant: --prune would delete all that it manages. Delete them by name."
        )
    return plan(wanted, ask(session, wanted, reason, prune=prune), prune=prune, adopt=adopt)


def _agree(*, yes: bool) -> None:
    """Raises: UsageError where nobody can be asked, Declined for no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody can be asked here: say --yes.")
    if not click.confirm("Do it?", err=True):
        raise Declined("Nothing was changed.")


@config.command(
    examples=(
        "connectors config watch",
        "connectors config watch --env staging --prune --every 600     # what others changed is set right too",
    )
)
@file_options
@prune_option
@adopt_option
@click.option(
    "--every", type=click.FloatRange(1, 86_400), default=None, metavar="SECONDS",
    help="Compare again after so long without a change of the files. Default: never.",
)  # fmt: skip
@pass_session
def watch(
    session: Session,
    file: Path,
    env: str,
    allow_literal_secrets: bool,
    prune: bool,
    adopt: bool,
    every: float | None,
) -> None:
    """Apply now, and again whenever the file, its overlay or a secret's file changes. Asks nobody; logs what it did.

    A file with problems changes nothing: what was applied last stays. SIGTERM ends it.
    """

    def read() -> Loaded:
        return load(file, environment=os.environ, overlay=env, literal_secrets=allow_literal_secrets)

    def make(found: Loaded) -> Plan:
        return planned(session, found, prune=prune, adopt=adopt)

    raise click.exceptions.Exit(Watching(session, files_of(file, env), read, make, every).run())


@config.command(examples=("connectors config schema > tenants.schema.json",))
def schema() -> None:
    """Print the file's JSON Schema, for editors: name it in the file as "$schema"."""
    click.echo(shipped("tenants.schema.json"), nl=False)


@config.command(examples=("connectors config example > tenants.json",))
def example() -> None:
    """Print an example of three tenants."""
    click.echo(shipped("tenants.example.json"), nl=False)


def shipped(name: str) -> str:
    """A file that comes with the package."""
    text = resources.files(PACKAGE).joinpath(name).read_text(encoding="utf-8")
    json.loads(text)
    return text
