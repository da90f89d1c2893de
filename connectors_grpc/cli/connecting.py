"""Waiting for a person to use a connect link, with a sign that something is being waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import grpc

from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.output import Output
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb

POLL = 1.0


def wait_until_connected(
    session: Session,
    tenant: str,
    link: pb.StartAuthorizationResponse,
    before: pb.Credential | None,
    out: Output,
    poll: float = POLL,
) -> pb.Credential | None:
    """The credential once it is connected anew; None once the link has expired.

    A server that is away for a moment is waited for, as the link outlives that.
    Raises: grpc.RpcError for whatever waiting does not mend.
    """
    request = pb.GetCredentialRequest(tenant=tenant, credential=link.credential)
    with _spinner(out):
        while True:
            found = _get(session, request)
            if found is not None and is_new(found, before):
                return found
            if time.time() > link.expire_time.seconds:
                return None
            time.sleep(poll)


def is_new(found: pb.Credential, before: pb.Credential | None) -> bool:
    """Whether this is a connection that was not there before."""
    if found.state != pb.Credential.STATE_ACTIVE:
        return False
    return before is None or found.generation > before.generation or before.state != pb.Credential.STATE_ACTIVE


def _get(session: Session, request: pb.GetCredentialRequest) -> pb.Credential | None:
    try:
        return session.credentials.GetCredential(request).credential
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
            return None
        raise


@contextlib.contextmanager
def _spinner(out: Output) -> Iterator[Any]:
    """A turning sign on a terminal; one line where there is none."""
    if not out.terminal or out.json:
        out.note("Waiting until it is connected ...")
        yield
        return
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        out.note("Waiting until it is connected ...")
        yield
        return
    with Console(stderr=True, no_color=not out.colour).status("Waiting until it is connected (Ctrl-C to stop waiting)"):
        yield
