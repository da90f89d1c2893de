"""Credentials from a file: JSON, one object a line, each sent as it is read; secrets come from there and nowhere else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import IO, Any, Self

import click
import grpc
from google.protobuf.json_format import ParseDict, ParseError

from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.output import Output, clean
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.error_reason_pb2 import ERROR_REASON_MALFORMED_REQUEST, ErrorReason

LONGEST_LINE = 256 * 1024
LONGEST = 6 * 3600.0
SHORT = {"api_key": "api_key", "apiKey": "apiKey"}
"""A text in place of an object, for the commonest material."""

Line = tuple[int, pb.ImportCredentialsResponse]


class NotMessage(Exception):
    """A line that is no credential; the text says why, and holds nothing of the line."""


class Progress:
    """Counts answers on stderr: on a terminal as they come, elsewhere at the end; nothing under --json."""

    def __init__(self, out: Output) -> None:
        self._json = out.json
        self._shown = sys.stderr.isatty() and not out.json
        self.stored = self.unchanged = self.refused = 0

    def count(self, answer: pb.ImportCredentialsResponse) -> None:
        """One more."""
        if answer.HasField("refusal"):
            self.refused += 1
        elif answer.unchanged:
            self.unchanged += 1
        else:
            self.stored += 1
        if self._shown:
            click.echo(f"\r\x1b[K{self}", err=True, nl=False)

    def say(self, line: str) -> None:
        """A line that stays."""
        click.echo(("\r\x1b[K" if self._shown else "") + clean(line), err=True)

    def __str__(self) -> str:
        return f"{self.stored} stored, {self.unchanged} unchanged, {self.refused} refused"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Say the sum, even where the stream broke off."""
        if not self._json:
            self.say(f"{self}.")


def send_all(session: Session, stream: IO[bytes]) -> Iterator[Line]:
    """Each line's number with its answer, as they come. A line that can't be sent is answered here, as the server would.

    Raises: grpc.RpcError where the stream ends early.
    """
    bad: list[Line] = []

    def requests() -> Iterator[pb.ImportCredentialsRequest]:
        for number, line in _lines(stream):
            try:
                yield pb.ImportCredentialsRequest(item=str(number), credential=parse_line(line))
            except NotMessage as error:
                bad.append((number, _refused(number, str(error))))

    try:
        for answer in session.credentials.ImportCredentials(requests(), timeout=LONGEST):
            while bad:
                yield bad.pop(0)
            yield int(answer.item), answer
    except grpc.RpcError:
        yield from bad
        raise
    yield from bad


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty, with their numbers; of a longer one, so much that parsing refuses it."""
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        rest = line
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE + 1)
        if line.strip():
            yield number, line


def parse_line(line: bytes) -> pb.StoreCredentialRequest:
    """One line's credential.  Bounds: 256 KiB.  Raises: NotMessage, without any of the line."""
    if len(line) > LONGEST_LINE:
        raise NotMessage("At most 256 KiB are taken.")
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise NotMessage("It is not JSON.") from None
    if not isinstance(document, dict):
        raise NotMessage("An object is wanted, in the shape of connectors.v1.StoreCredentialRequest.")
    for name, inner in SHORT.items():
        if isinstance(document.get(name), str):
            document[name] = {inner: document[name]}
    unknown = _unknown(document)
    if unknown:
        raise NotMessage(f"connectors.v1.StoreCredentialRequest has no field {unknown}.")
    try:
        return ParseDict(document, pb.StoreCredentialRequest())
    except (ParseError, RecursionError):
        raise NotMessage("A field has another type than connectors.v1.StoreCredentialRequest says.") from None


def _unknown(document: dict[str, Any]) -> str:
    """The first name that is no field, if it looks like a name; a secret in its place is not repeated."""
    known = {name for field in pb.StoreCredentialRequest.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    for name in document:
        if name not in known:
            return name if name.isidentifier() and len(name) <= 32 else "of that name"
    return ""


def _refused(number: int, text: str) -> pb.ImportCredentialsResponse:
    refusal = pb.ImportRefusal(reason=ERROR_REASON_MALFORMED_REQUEST, message=text)
    return pb.ImportCredentialsResponse(item=str(number), refusal=refusal)


def said(number: int, refusal: pb.ImportRefusal) -> str:
    """One line's refusal, for a person."""
    reason = ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_")
    fields = "".join(f" {each.field}: {each.description}." for each in refusal.field_violations)
    again = f" Retry in {refusal.retry_delay.ToMilliseconds() / 1000:g} s." if refusal.HasField("retry_delay") else ""
    return f"line {number}: {reason}: {refusal.message}{fields}{again}"
