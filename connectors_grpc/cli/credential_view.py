"""How a credential is shown: its state in a word, and what to do next."""

from __future__ import annotations

import click

from connectors_grpc.cli.output import Output, labels, when, word
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.error_reason_pb2 import ErrorReason


def show_link(out: Output, link: pb.StartAuthorizationResponse) -> None:
    """What a person must open, and what they must type there; on stdout, the rest on stderr.

    `state` of a device is shown under --json alone: it stands for the person's consent.
    """
    if out.json:
        out.message(link)
        return
    if not link.HasField("device"):
        click.echo(link.connect_url)
        out.note(f"Open this link in a browser. It works once, until {when(link.expire_time)}.")
        return
    out.record(
        (
            ("user code", link.device.user_code),
            ("verification URI", link.device.verification_uri),
            ("with the code in it", link.device.verification_uri_complete),
        )
    )
    out.note(f"Open the URI on any device and type the code. It works once, until {when(link.expire_time)}.")


def show_one(out: Output, item: pb.Credential) -> None:
    """One credential."""
    if out.json:
        out.message(item)
        return
    out.record(
        (
            ("credential", item.id),
            ("tenant", item.tenant),
            ("integration", item.integration),
            ("kind", kind_of(item)),
            ("state", state_of(item)),
            ("state detail", item.state_detail),
            ("next step", item.next_step),
            ("account", item.account),
            ("given and found", ", ".join(f"{name}={value}" for name, value in sorted(item.values.items()))),
            ("scopes", " ".join(item.granted_scopes)),
            ("scopes not granted", " ".join(item.missing_scopes)),
            ("expires", when(item.expire_time)),
            ("refreshable", "yes" if item.refreshable else "no"),
            ("minted", "yes" if item.minted else ""),
            ("last refreshed", when(item.refresh_time)),
            ("generation", str(item.generation)),
            ("goes to", ", ".join(item.allowed_hosts)),
            ("labels", labels(item.labels)),
            ("created", when(item.create_time)),
            ("changed", when(item.update_time)),
        )
    )


def state_of(item: pb.Credential) -> str:
    """The state in a word, with the reason where there is one."""
    state = word(pb.Credential.State.Name(item.state), "STATE_")
    if not item.enabled and item.state == pb.Credential.STATE_ACTIVE:
        return "staged" if item.state_detail == "staged" else "disabled"
    reason = ErrorReason.Name(item.state_reason).removeprefix("ERROR_REASON_") if item.state_reason else ""
    return f"{state} ({reason})" if reason and reason.lower() != state else state


def kind_of(item: pb.Credential) -> str:
    """What is stored, in a word."""
    return word(pb.Credential.Kind.Name(item.kind), "KIND_") if item.kind else ""
