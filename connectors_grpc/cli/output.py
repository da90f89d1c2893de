"""How answers are shown: a table on a terminal, tab-separated values in a pipe, JSON where it is asked for.

Text that others chose (names, labels) can't move the cursor or change colours: control characters are shown, not sent.
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

GOOD = frozenset({"active", "enabled", "yes", "ok", "done"})
BAD = frozenset({"needs_reauth", "revoked", "expired", "suspended", "deleting", "disabled", "failed", "problem"})


class Output:
    """Where and how one command speaks: stdout for answers, stderr for what is only for a person."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.terminal = sys.stdout.isatty()

    @property
    def colour(self) -> bool:
        """Whether colours are wanted.  Source: no-color.org."""
        return self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def message(self, message: Message) -> None:
        """Print a message as JSON."""
        self.value(as_json(message))

    def value(self, value: object) -> None:
        """Print a value as JSON; one line in a pipe."""
        click.echo(jsonlib.dumps(value, indent=2 if self.terminal else None, ensure_ascii=False))

    def record(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values, one pair a line; empty ones are left out."""
        shown = [(name, clean(value)) for name, value in pairs if value]
        if not self.terminal:
            for name, value in shown:
                click.echo(f"{name}\t{value}")
            return
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            click.echo(f"{name:<{width}}  {self.tint(value)}")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> None:
        """Rows under headings; `nothing` is said on stderr where there are none."""
        cleaned = [[clean(cell) for cell in row] for row in rows]
        if not cleaned:
            self.note(nothing)
        elif not self.terminal:
            click.echo("\t".join(columns))
            for row in cleaned:
                click.echo("\t".join(row))
        else:
            self._rich_table(columns, cleaned)

    def _rich_table(self, columns: Sequence[str], rows: list[list[str]]) -> None:
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ModuleNotFoundError:
            self._aligned(columns, rows)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
        Console(no_color=not self.colour, highlight=False, markup=False).print(table)

    def _aligned(self, columns: Sequence[str], rows: list[list[str]]) -> None:
        widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
        for row in (columns, *rows):
            click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())

    def tint(self, text: str) -> str:
        """The text, coloured where its meaning is known and colours are wanted."""
        style = _style(text)
        return click.style(text, fg=style) if style and self.colour else text

    def said(self, text: str) -> None:
        """One line that a command ends with; nothing under --json."""
        if not self.json:
            click.echo(clean(text))

    def note(self, text: str) -> None:
        """A remark for a person, on stderr; nothing under --json."""
        if not self.json:
            click.echo(clean(text), err=True)


def _style(text: str) -> str:
    word = text.partition(" ")[0]
    return "green" if word in GOOD else "red" if word in BAD else ""


def clean(text: str) -> str:
    """The text on one line, with control and formatting characters as visible escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )


def when(moment: Timestamp, *, now: datetime | None = None) -> str:
    """A time as UTC, and how far away it is; empty for a time that is not set."""
    if not moment.seconds:
        return ""
    value = moment.ToDatetime(tzinfo=UTC)
    seconds = int((value - (now or datetime.now(UTC))).total_seconds())
    distance = _distance(abs(seconds))
    return f"{value:%Y-%m-%d %H:%M:%S}Z ({f'in {distance}' if seconds >= 0 else f'{distance} ago'})"


def _distance(seconds: int) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def word(name: str, prefix: str) -> str:
    """An enum's name for people: STATE_NEEDS_REAUTH is needs_reauth."""
    return name.removeprefix(prefix).lower()


def labels(mapping: Any) -> str:
    """Labels as `a=b, c=d`."""
    return ", ".join(f"{name}={value}" for name, value in sorted(mapping.items()))


def as_json(message: Message) -> dict[str, Any]:
    """The protobuf JSON mapping, with fields at their default too, but never an input-only secret's empty place.

    Source: protobuf.dev, ProtoJSON.
    """
    found: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    _drop_empty_secrets(message, found)
    return found


def _drop_empty_secrets(message: Message, found: dict[str, Any]) -> None:
    for field in message.DESCRIPTOR.fields:
        name = field.json_name
        if name not in found:
            continue
        if field.GetOptions().debug_redact and not found[name]:
            del found[name]
        elif field.type == FieldDescriptor.TYPE_MESSAGE and isinstance(found[name], dict):
            value = getattr(message, field.name)
            if isinstance(value, Message):
                _drop_empty_secrets(value, found[name])
        elif field.type == FieldDescriptor.TYPE_MESSAGE and isinstance(found[name], list):
            for item, shown in zip(getattr(message, field.name), found[name], strict=True):
                if isinstance(shown, dict):
                    _drop_empty_secrets(item, shown)
