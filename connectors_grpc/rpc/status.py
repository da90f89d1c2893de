"""Our errors as google.rpc.Status: exactly one ErrorInfo, BadRequest for fields, RetryInfo where waiting helps (AIP-193)."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from connectors_grpc.errors import DOMAIN, ConnectorsError

STATUS_TRAILER = "grpc-status-details-bin"


def status_of(error: ConnectorsError) -> status_pb2.Status:
    """The Status. What varies stands in metadata; the message is a constant."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.fields:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description
                    )
                    for violation in error.fields
                ]
            )
        )
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=code_of(error).value[0], message=error.meaning.text, details=[_pack(d) for d in details]
    )


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def code_of(error: ConnectorsError) -> grpc.StatusCode:
    """The gRPC status code."""
    return grpc.StatusCode[error.meaning.code.value]


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: ConnectorsError) -> None:
    """End the call with the Status."""
    trailer = (STATUS_TRAILER, status_of(error).SerializeToString())
    await context.abort(code_of(error), error.meaning.text, trailing_metadata=(trailer,))
