"""How an integration is shown: where it is from, what it takes, its OAuth client without secrets."""

from __future__ import annotations

from connectors_grpc.cli.inputs import show_inputs
from connectors_grpc.cli.output import Output, when, word
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as pb


def show_one(out: Output, item: pb.Integration) -> None:
    """One integration."""
    if out.json:
        out.message(item)
        return
    out.record(
        (
            ("integration", item.id),
            ("name", item.display_name),
            ("source", source_of(item)),
            ("takes", takes_of(item)),
            ("base URL", item.api.base_url),
            ("further hosts", ", ".join(item.api.allowed_hosts)),
            ("grant", _grant(item)),
            ("authorization endpoint", item.oauth.authorization_endpoint),
            ("device authorization endpoint", item.oauth.device_authorization_endpoint),
            ("token endpoint", item.oauth.token_endpoint),
            ("revocation endpoint", item.oauth.revocation_endpoint),
            ("scopes", " ".join(item.oauth.scopes)),
            ("client", client_of(item)),
            ("client's secrets", _secrets(item)),
            ("client's key id", item.oauth_client.key_id),
            ("private addresses", "allowed" if item.allow_private_addresses else ""),
            ("created", when(item.create_time)),
            ("changed", when(item.update_time)),
        )
    )
    show_inputs(out, item)


def source_of(item: pb.Integration) -> str:
    """Where its definition is from, in a word."""
    return word(pb.Integration.Source.Name(item.source), "SOURCE_")


def takes_of(item: pb.Integration) -> str:
    """What a tenant gives for it."""
    return "OAuth" if item.HasField("oauth") else "API keys"


def _grant(item: pb.Integration) -> str:
    """How tokens come, where no person grants them."""
    by_person = (pb.GRANT_UNSPECIFIED, pb.GRANT_AUTHORIZATION_CODE)
    return "" if item.oauth.grant in by_person else word(pb.Grant.Name(item.oauth.grant), "GRANT_")


def _secrets(item: pb.Integration) -> str:
    """How many, where that is worth a line: while one is being rotated."""
    count = item.oauth_client.client_secret_count
    return str(count) if count > 1 else ""


def client_of(item: pb.Integration) -> str:
    """The OAuth client's id; empty where there is none."""
    client = item.oauth_client
    if not client.client_id:
        return ""
    return client.client_id if client.client_secret_set else f"{client.client_id} (no secret)"
