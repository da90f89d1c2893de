"""What an integration asks a tenant for, on the command line: plain values as they are, secret ones from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from connectors_grpc.cli.output import Output
from connectors_grpc.cli.secrets import read_secret
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as pb


def input_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--input NAME=VALUE`."""
    return click.option(
        "--input", "inputs", multiple=True, metavar="NAME=VALUE",
        help="What the integration asks for (`connectors integration show` lists it); may be repeated.",
    )(function)  # fmt: skip


def input_file_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--input-file NAME=FILE`."""
    return click.option(
        "--input-file", "input_file", multiple=True, metavar="NAME=FILE",
        help="An input that is secret, in a file (- for stdin); may be repeated.",
    )(function)  # fmt: skip


def inputs_of(plain: Iterable[str], secret: Iterable[str] = ()) -> dict[str, str]:
    """The inputs by name.  Raises: UsageError, without any value."""
    found = dict(_pair("--input", "VALUE", text) for text in plain)
    for text in secret:
        name, path = _pair("--input-file", "FILE", text)
        found[name] = read_secret(path, prompt="", option="--input-file").reveal()
    return found


def _pair(option: str, value: str, text: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not equals or not name or not rest:
        raise click.UsageError(f"{option}: NAME={value} is wanted.")
    return name, rest


def show_inputs(out: Output, item: pb.Integration) -> None:
    """What an integration asks for, a line each."""
    for one in item.inputs:
        wanted = ", ".join(sorted(one.choices)) or (f"as {one.example}" if one.example else "")
        marks = [mark for mark, holds in (("secret", one.secret), ("optional", one.optional)) if holds]
        marks += [f"default {one.default}"] if one.default else []
        about = "; ".join(text for text in (one.title, wanted, *marks) if text)
        out.said(f"asks for {one.id}: {about}")
