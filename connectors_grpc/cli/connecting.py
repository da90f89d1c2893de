"""Waiting for a person to use a connect link or a device's code, with a sign that something is being waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import cast

import grpc

from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.errors import read
from connectors_grpc.cli.output import Output
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb

POLL = 1.0
DEVICE_POLL = 5.0
"""Source: RFC 8628 section 3.2: what to wait where the provider does not say."""
SHOWN_EVERY = 1.0
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

WAITING = "Waiting until it is connected"
STOP = "Ctrl-C to stop waiting"

Say = Callable[[str], None]


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
    with _spinner(out) as say:
        while True:
            found = _get(session, request)
            if found is not None and is_new(found, before):
                return found
            if time.time() > link.expire_time.seconds:
                return None
            _wait(poll, link, say, time.sleep)


def wait_for_device(
    session: Session,
    tenant: str,
    link: pb.StartAuthorizationResponse,
    before: pb.Credential | None,
    out: Output,
    sleep: Callable[[float], None] = time.sleep,
) -> pb.Credential | None:
    """The credential once the person has typed the code and consented; None once the code has expired.

    Asks no sooner than it was told to, which the provider may make longer (RFC 8628 section 3.5). A server or provider that
    is away is waited for. If an answer was lost, the code is used up: then the credential itself says whether it is connected.
    Raises: grpc.RpcError for whatever waiting does not mend.
    """
    pause = link.device.poll_interval.ToNanoseconds() / 1e9 or DEVICE_POLL
    wait = pause
    with _spinner(out) as say:
        while True:
            _wait(wait, link, say, sleep)
            if time.time() > link.expire_time.seconds:
                return None
            try:
                return session.credentials.CompleteAuthorization(
                    pb.CompleteAuthorizationRequest(state=link.state)
                ).credential
            except grpc.RpcError as error:
                refusal = read(cast(grpc.Call, error))
                if refusal.reason == "FLOW_NOT_FOUND":
                    found = _get(session, pb.GetCredentialRequest(tenant=tenant, credential=link.credential))
                    if found is not None and is_new(found, before):
                        return found
                if refusal.reason != "AUTHORIZATION_PENDING" and error.code() not in AWAY:
                    raise
                wait = refusal.retry_after or pause


def _wait(seconds: float, link: pb.StartAuthorizationResponse, say: Say, sleep: Callable[[float], None]) -> None:
    """Wait so long, in steps that keep the time left on the screen current; never much past the link's end."""
    left = max(link.expire_time.seconds + 1 - time.time(), 0)
    seconds = min(seconds, left)
    while seconds > 0:
        say(_left(left))
        step = min(seconds, SHOWN_EVERY)
        sleep(step)
        seconds, left = seconds - step, left - step


def _left(seconds: float) -> str:
    """How long the link or code still works, for a person."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02} left"


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
def _spinner(out: Output) -> Iterator[Say]:
    """A turning sign on a terminal, with what is said last behind it; one line where there is none."""
    if not out.terminal or out.json:
        out.note(f"{WAITING} ...")
        yield _silent
        return
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        out.note(f"{WAITING} ...")
        yield _silent
        return
    with Console(stderr=True, no_color=not out.colour).status(f"{WAITING} ({STOP})") as status:
        yield lambda text: status.update(f"{WAITING}, {text} ({STOP})")


def _silent(_text: str) -> None:
    """Where nothing is to be seen."""
