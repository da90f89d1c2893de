"""How a refusal is shown: reason, what to do next, fields; and the exit code. The only place that reads gRPC errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import click
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from connectors_grpc.cli.output import clean

FAILED, USAGE, UNREACHABLE, NOT_AUTHORISED, NOT_FOUND, INTERRUPTED = 1, 2, 3, 4, 5, 130

EXIT_CODES: tuple[tuple[int, str], ...] = (
    (0, "done"),
    (FAILED, "the server refused or failed"),
    (USAGE, "the command line or a setting is wrong"),
    (UNREACHABLE, "the server can't be reached, or did not answer in time"),
    (NOT_AUTHORISED, "no key, or one that does not allow this"),
    (NOT_FOUND, "there is no such thing"),
    (INTERRUPTED, "Ctrl-C"),
)

_BY_CODE: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.UNAUTHENTICATED: NOT_AUTHORISED,
    grpc.StatusCode.PERMISSION_DENIED: NOT_AUTHORISED,
    grpc.StatusCode.NOT_FOUND: NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: FAILED,
}
# Without an ErrorInfo the answer is the channel's, not the server's.
_BY_CHANNEL: Mapping[grpc.StatusCode, tuple[int, str]] = {
    grpc.StatusCode.UNAVAILABLE: (
        UNREACHABLE,
        "The server can't be reached. Is it running (`connectors up`), and is --server (CONNECTORS_SERVER) right?",
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        UNREACHABLE,
        "The server did not answer in time: retry, or give a longer --timeout.",
    ),
    grpc.StatusCode.CANCELLED: (INTERRUPTED, "Cancelled."),
    grpc.StatusCode.UNIMPLEMENTED: (FAILED, "This server does not know that call: it is older than this command."),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (FAILED, "The answer is too large for this command: use the sidecar."),
}


_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One failed call, ready to be shown.  Units: `retry_after` in seconds."""

    exit_code: int
    reason: str
    message: str
    fields: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    retry_after: float | None = None

    def lines(self) -> list[str]:
        """The text for a person."""
        shown = [f"Error: {self.reason}: {self.message}" if self.reason else f"Error: {self.message}"]
        shown += [f"  {name}: {text}" for name, text in self.fields]
        known = {"field", *(name for name, _ in self.fields)}
        shown += [f"  {name} = {value}" for name, value in self.metadata if name not in known]
        if self.retry_after is not None:
            shown.append(f"  Retry in {self.retry_after:g} s.")
        return [clean(line) for line in shown]


class CallFailed(click.ClickException):
    """A call that failed, for click to show."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.__dict__["exit_code"] = refusal.exit_code  # click types it as the class's

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it to stderr."""
        for number, line in enumerate(self.refusal.lines()):
            click.secho(line, file=file, err=True, fg="red" if number == 0 else None)


def read(error: grpc.Call) -> Refusal:
    """What a gRPC error says.  Source: google.rpc.Status, AIP-193."""
    code = error.code()
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # a status whose code or text is not the call's own
        status = None
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        for kind in (info, bad, retry):
            detail.Unpack(kind)
    if not info.reason and code in _BY_CHANNEL:
        exit_code, message = _BY_CHANNEL[code]
        if _UNTRUSTED in (error.details() or ""):
            message = "The server's certificate is not trusted: give its CA by --ca-file (CONNECTORS_CA_FILE)."
        return Refusal(exit_code, code.name, message)
    return Refusal(
        exit_code=_BY_CODE.get(code, FAILED),
        reason=info.reason or code.name,
        message=(error.details() or "The server gave no reason.").strip(),
        fields=tuple((item.field, item.description) for item in bad.field_violations),
        metadata=tuple(sorted(info.metadata.items())),
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
    )
