"""`connectors integration check`: a definition linted, and run against the simulator in the shape that it describes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from connectors_grpc.cli.base import ExampleCommand, json_option, missing_package
from connectors_grpc.cli.definition import read_definition
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.output import Output

if TYPE_CHECKING:
    from connectors_grpc.checking.rehearsal import Step
    from connectors_grpc.domain.definition import Integration


@click.command(
    cls=ExampleCommand,
    examples=(
        "connectors integration check wiki.yaml",
        "connectors integration check wiki.yaml --lint-only",
        "connectors integration check notion --catalogue      # one that ships",
    ),
)
@click.argument("file", metavar="FILE")
@click.option("--lint-only", is_flag=True, help="Hold it to the rules, and run nothing.")
@click.option("--catalogue", "of_catalogue", is_flag=True, help="FILE is the name of an entry that ships.")
@json_option
@click.pass_context
def check(ctx: click.Context, file: str, lint_only: bool, of_catalogue: bool, out: Output) -> None:
    """Check a definition: its rules first, then connect, call, refresh and revoke against a simulated provider of its shape.

    Needs no server and no network. It shows that a definition hangs together, not that it is true of the vendor: for that,
    compare each fact with the vendor's documentation. Exit code 1 if a step fails.
    """
    try:
        from connectors_grpc.checking.rehearsal import Step, lint, rehearse
    except ModuleNotFoundError as error:
        raise click.ClickException(missing_package("integration check", error)) from None
    try:
        wanted = _entry(file) if of_catalogue else _read(file)
    except _Faulty as error:
        found = [Step("definition", False, fault) for fault in error.args]
    else:
        found = lint(wanted) if lint_only else asyncio.run(_all(rehearse, wanted))
    if out.json:
        out.value({"good": all(step.good for step in found), "steps": [asdict(step) for step in found]})
    else:
        for step in found:
            out.said(f"{'ok  ' if step.good else 'FAIL'}  {step.name:<16}{step.text}")
    if not all(step.good for step in found):
        ctx.exit(FAILED)


class _Faulty(Exception):
    """What is wrong with a file, a fault each."""


async def _all(rehearse: Callable[[Integration], AsyncIterator[Step]], wanted: Integration) -> list[Step]:
    return [step async for step in rehearse(wanted)]


def _read(file: str) -> Integration:
    """The definition in a file.  Raises: _Faulty for one that can't be read as a definition; UsageError where there is none."""
    from connectors_grpc.domain.ids import IntegrationId
    from connectors_grpc.errors import ConnectorsError
    from connectors_grpc.rpc.definitions import definition

    if file != "-" and not Path(file).expanduser().is_file():
        raise click.UsageError(f"There is no file {file}.")
    try:
        message = read_definition(Path(file))
    except click.UsageError as error:
        raise _Faulty(
            *(line.strip() for line in error.message.removeprefix("--file:").splitlines() if line.strip())
        ) from None
    try:
        return replace(definition(IntegrationId("checked"), message), client=None)
    except ConnectorsError as error:
        raise _Faulty(
            *(f"{one.field.removeprefix('integration.')}: {one.description}" for one in error.fields)
        ) from None


def _entry(name: str) -> Integration:
    from connectors_grpc.catalogue import load_catalogue

    found = {str(key): value for key, value in load_catalogue().items()}.get(name)
    if found is None:
        raise click.UsageError(f"The catalogue has no entry {name}: `connectors integration list` shows them.")
    return replace(found, client=None)
