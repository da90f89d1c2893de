"""Grants by the command line: what is asked of a scripted server, and what a person sees of it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details

from connectors_grpc.cli import connecting
from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.definition import read_definition
from connectors_grpc.cli.main import root
from connectors_grpc.cli.output import Output
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import error_reason_pb2
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.rpc import definitions
from connectors_grpc.rules.definition import validate_definition
from tests.cli.conftest import Cli, Refused
from tests.oauth.test_grants_flows import raw
from tests.providers import recording_upstream
from tests.running import Server, fresh_id

S = grpc.StatusCode
PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "grants.md"
DEFINITIONS = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
PEM = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n"
STATE = "state-canary"


def refusal(code: grpc.StatusCode, reason: str, retry: float = 0) -> Refused:
    """A refusal as the server makes them."""
    more = [details.RetryInfo(retry_delay=Duration(nanos=int(retry * 1e9)))] if retry else []
    return Refused(code, "What to do next.", details.ErrorInfo(reason=reason, domain="connectors"), *more)


def device(left: float = 60, poll: float = 0.001) -> pb.StartAuthorizationResponse:
    """What StartAuthorization says with `device`."""
    link = pb.StartAuthorizationResponse(connect_url="https://p.example/d?c=AB-CD", credential="notes", state=STATE)
    link.device.user_code = "AB-CD"
    link.device.verification_uri = "https://p.example/d"
    link.device.verification_uri_complete = "https://p.example/d?c=AB-CD"
    link.device.poll_interval.FromNanoseconds(int(poll * 1e9))
    link.expire_time.seconds = int(time.time() + left)
    return link


def active(generation: int = 1) -> pb.Credential:
    """A credential that works."""
    return pb.Credential(
        tenant="a",
        id="notes",
        integration="notes",
        state=pb.Credential.STATE_ACTIVE,
        generation=generation,
        enabled=True,
    )


def begins(cli: Cli, link: pb.StartAuthorizationResponse, *completions: Message | Refused) -> None:
    """A server at which a connection begins, and that answers these completions in turn."""
    left = list(completions)

    def complete(_: object) -> Message:
        answer = left.pop(0)
        if isinstance(answer, Refused):
            raise answer
        return answer

    cli.script.answers["ListCredentials"] = lambda _: pb.ListCredentialsResponse()
    cli.script.answers["StartAuthorization"] = lambda _: link
    cli.script.answers["CompleteAuthorization"] = complete


def completed() -> pb.CompleteAuthorizationResponse:
    """The end of a connection."""
    return pb.CompleteAuthorizationResponse(credential=active())


PENDING = refusal(S.FAILED_PRECONDITION, "AUTHORIZATION_PENDING", 0.001)


class TestDevices:
    """A code is shown; then the server is asked until it is used, refused or expired."""

    def test_code_and_uri_are_shown_and_the_server_is_asked_until_it_is_connected(self, cli: Cli) -> None:
        """Pending, away and then there; `state` is sent and not shown."""
        away = refusal(S.UNAVAILABLE, "PROVIDER_UNAVAILABLE", 0.001)
        begins(cli, device(), PENDING, away, PENDING, completed())
        result = cli("credential", "connect", "a", "notes", "--device")
        assert result.exit_code == 0, result.output
        lines = dict(line.split("\t") for line in result.stdout.splitlines())
        assert (lines["user code"], lines["verification URI"]) == ("AB-CD", "https://p.example/d")
        assert lines["with the code in it"] == "https://p.example/d?c=AB-CD"
        assert lines["state"] == "active"
        assert [name for name, _ in cli.script.asked].count("CompleteAuthorization") == 4
        assert {request.state for name, request in cli.script.asked if name == "CompleteAuthorization"} == {STATE}
        assert STATE not in result.output

    def test_the_interval_is_kept_and_a_longer_one_is_followed(self, cli: Cli) -> None:
        """The first question waits too; `slow_down` comes as a longer RetryInfo."""
        begins(cli, device(poll=2), refusal(S.FAILED_PRECONDITION, "AUTHORIZATION_PENDING", 0.5), PENDING, completed())
        session = Session(cli.script.address, cli.key_file, None, 5)
        waited: list[float] = []
        asked_at: list[float] = []
        complete = cli.script.answers["CompleteAuthorization"]

        def noted(request: object) -> Message:
            asked_at.append(sum(waited))
            return complete(request)

        cli.script.answers["CompleteAuthorization"] = noted
        try:
            found = connecting.wait_for_device(session, "a", device(poll=2), None, Output(), sleep=waited.append)
        finally:
            session.close()
        assert found == active()
        assert asked_at == pytest.approx([2, 2.5, 2.501])

    def test_a_code_that_expires_is_said_and_is_code_1(self, cli: Cli) -> None:
        """Without another question."""
        begins(cli, device(left=-2))
        result = cli("credential", "connect", "a", "notes", "--device")
        assert result.exit_code == 1
        assert "The code has expired" in result.stderr
        assert "CompleteAuthorization" not in [name for name, _ in cli.script.asked]

    def test_a_refusal_ends_the_waiting(self, cli: Cli) -> None:
        """The person said no."""
        begins(cli, device(), PENDING, refusal(S.FAILED_PRECONDITION, "AUTHORIZATION_REFUSED"))
        result = cli("credential", "connect", "a", "notes", "--device")
        assert (result.exit_code, "AUTHORIZATION_REFUSED" in result.stderr) == (1, True)

    def test_an_answer_that_was_lost_is_looked_up(self, cli: Cli) -> None:
        """The code is used up then, and the credential is new."""
        begins(
            cli, device(), refusal(S.UNAVAILABLE, "VAULT_UNAVAILABLE", 0.001), refusal(S.NOT_FOUND, "FLOW_NOT_FOUND")
        )
        cli.script.answers["GetCredential"] = lambda _: pb.GetCredentialResponse(credential=active())
        assert "state\tactive" in cli("credential", "connect", "a", "notes", "--device").stdout

    def test_a_lost_flow_does_not_pass_for_an_older_connection(self, cli: Cli) -> None:
        """The credential is as it was before."""
        begins(cli, device(), refusal(S.NOT_FOUND, "FLOW_NOT_FOUND"))
        cli.script.answers["ListCredentials"] = lambda _: pb.ListCredentialsResponse(credentials=[active()])
        cli.script.answers["GetCredential"] = lambda _: pb.GetCredentialResponse(credential=active())
        result = cli("credential", "connect", "a", "notes", "--device")
        assert (result.exit_code, "FLOW_NOT_FOUND" in result.stderr) == (5, True)

    def test_json_has_the_state_that_a_program_completes_it_with(self, cli: Cli) -> None:
        """And does not wait; without it, nobody could complete what is not waited for."""
        begins(cli, device())
        found = json.loads(cli("credential", "connect", "a", "notes", "--device", "--json").stdout)
        assert (found["state"], found["device"]["userCode"]) == (STATE, "AB-CD")
        assert cli("credential", "connect", "a", "notes", "--device", "--no-wait").exit_code == 2

    def test_scopes_and_another_account_are_asked_for(self, cli: Cli) -> None:
        """As the contract names them."""
        begins(cli, device())
        cli(
            "credential", "connect", "a", "notes", "--scope", "x", "--scope", "y", "--allow-account-change", "--no-wait"
        )
        request = cli.script.asked[-1][1]
        assert (list(request.scopes), request.allow_account_change, request.device) == (["x", "y"], True, False)


class TestMaterial:
    """What tokens are minted from."""

    @pytest.fixture(autouse=True)
    def server(self, cli: Cli) -> None:
        """It stores what comes, for an integration that exchanges tokens."""
        exchanging = integrations.Integration(oauth=integrations.OAuth(grant=integrations.GRANT_TOKEN_EXCHANGE))
        cli.script.answers["StoreCredential"] = lambda _: pb.StoreCredentialResponse(credential=active())
        cli.script.answers["GetIntegration"] = lambda _: integrations.GetIntegrationResponse(integration=exchanging)

    def stored(self, cli: Cli, *arguments: str, stdin: str | None = None) -> pb.GrantMaterial:
        """What was sent to be stored."""
        result = cli("credential", "set", "a", "notes", "--kind", "grant", *arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        name, request = cli.script.asked[-1]
        assert (name, request.WhichOneof("material")) == ("StoreCredential", "grant")
        return request.grant  # type: ignore[no-any-return]

    def test_fields_that_are_no_secret_are_arguments(self, cli: Cli) -> None:
        """And nothing is asked for besides."""
        assert self.stored(cli, "--field", "installation_id=123") == pb.GrantMaterial(installation_id="123")
        subject = self.stored(cli, "--field", "subject=ann@corp.example", "--scope", "mail")
        assert subject == pb.GrantMaterial(subject="ann@corp.example", scopes=["mail"])
        assert "GetIntegration" not in [name for name, _ in cli.script.asked]

    def test_a_subject_token_comes_from_a_file(self, cli: Cli) -> None:
        """Or from stdin."""
        assert self.stored(cli, "--secret-file", "-", stdin="tok-canary\n").subject_token == "tok-canary"

    def test_client_credentials_need_nothing(self, cli: Cli) -> None:
        """No file, no question."""
        machine = integrations.Integration(oauth=integrations.OAuth(grant=integrations.GRANT_CLIENT_CREDENTIALS))
        cli.script.answers["GetIntegration"] = lambda _: integrations.GetIntegrationResponse(integration=machine)
        assert self.stored(cli) == pb.GrantMaterial()

    def test_a_token_exchange_without_its_token_says_what_is_wanted(self, cli: Cli) -> None:
        """Nothing is stored."""
        result = cli("credential", "set", "a", "notes", "--kind", "grant")
        assert (result.exit_code, "--secret-file" in result.stderr) == (2, True)

    @pytest.mark.parametrize("field", ["subject_token=tok-canary", "tok-canary=1", "tok-canary", "=tok-canary"])
    def test_a_secret_among_the_fields_is_refused_and_not_repeated(self, cli: Cli, field: str) -> None:
        """Arguments can be read by others."""
        result = cli("credential", "set", "a", "notes", "--kind", "grant", "--field", field)
        assert result.exit_code == 2
        assert "canary" not in result.output
        assert not cli.script.asked

    def test_options_of_other_kinds_are_refused(self, cli: Cli) -> None:
        """By the kinds that they go with."""
        result = cli("credential", "set", "a", "notes", "--kind", "basic", "--scope", "x")
        assert (result.exit_code, "--kind oauth or grant" in result.stderr) == (2, True)


class TestClients:
    """Several secrets, and keys that sign."""

    @pytest.fixture(autouse=True)
    def server(self, cli: Cli) -> None:
        """It takes what comes."""
        cli.script.answers["UpdateIntegration"] = lambda _: integrations.UpdateIntegrationResponse()

    def test_further_secrets_go_in_their_order(self, cli: Cli, tmp_path: Path) -> None:
        """The new one first, to rotate without downtime."""
        for name in ("new", "old", "older"):
            (tmp_path / name).write_text(f"{name}-canary\n")
        further = [text for name in ("old", "older") for text in ("--further-secret-file", str(tmp_path / name))]
        arguments = ("--client-id", "abc", "--client-secret-file", str(tmp_path / "new"), *further)
        result = cli("integration", "set-client", "notes", *arguments)
        assert result.exit_code == 0, result.output
        client = cli.script.asked[0][1].integration.oauth_client
        assert (client.client_secret, list(client.client_secrets)) == ("new-canary", ["old-canary", "older-canary"])
        assert "canary" not in result.output

    def test_a_key_comes_from_its_file_with_its_id(self, cli: Cli, tmp_path: Path) -> None:
        """Line by line as it is, but for the last line's end."""
        key = tmp_path / "app.pem"
        key.write_text(PEM)
        arguments = ("--client-id", "12345", "--client-secret-file", str(key), "--key-id", "k1")
        assert cli("integration", "set-client", "github-app", *arguments).exit_code == 0
        client = cli.script.asked[0][1].integration.oauth_client
        assert (client.client_secret, client.key_id) == (PEM.rstrip("\n"), "k1")

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--client-id", "a", "--client-secret-file", "-", "--further-secret-file", "-"),
            ("--client-id", "a", "--public-client", "--further-secret-file", "-"),
            ("--further-secret-file", "-"),
            ("--key-id", "k"),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, cli: Cli, arguments: tuple[str, ...]) -> None:
        """Before anything is sent."""
        assert cli("integration", "set-client", "notes", *arguments, stdin="secret").exit_code == 2
        assert not cli.script.asked

    def test_grant_device_endpoint_and_count_of_secrets_are_shown(self, cli: Cli) -> None:
        """Where there is something to say."""
        found = integrations.Integration(
            id="notes",
            oauth=integrations.OAuth(
                grant=integrations.GRANT_JWT_BEARER, device_authorization_endpoint="https://p.example/dev"
            ),
            oauth_client=integrations.OAuthClient(
                client_id="abc", client_secret_set=True, client_secret_count=2, key_id="k1"
            ),
        )
        cli.script.answers["GetIntegration"] = lambda _: integrations.GetIntegrationResponse(integration=found)
        lines = cli("integration", "show", "notes").stdout.splitlines()
        for line in ("grant\tjwt_bearer", "client's secrets\t2", "client's key id\tk1", "client\tabc"):
            assert line in lines
        assert "device authorization endpoint\thttps://p.example/dev" in lines


def test_a_credential_shows_whose_it_is_and_why_it_is_not_active(cli: Cli) -> None:
    """Account, reason with its detail, scopes that were granted and that were not."""
    found = active()
    found.state = pb.Credential.STATE_NEEDS_REAUTH
    found.state_reason = error_reason_pb2.ERROR_REASON_NEEDS_REAUTH
    found.state_detail, found.account, found.minted = "invalid_grant", "alice\x1b[2J", True
    found.granted_scopes.extend(("r", "w"))
    found.missing_scopes.append("admin")
    cli.script.answers["GetCredential"] = lambda _: pb.GetCredentialResponse(credential=found)
    shown = dict(line.split("\t") for line in cli("credential", "show", "a", "notes").stdout.splitlines())
    assert (shown["state"], shown["state detail"], shown["minted"]) == ("needs_reauth", "invalid_grant", "yes")
    assert shown["account"] == "alice\\x1b[2J"
    assert (shown["scopes"], shown["scopes not granted"]) == ("r w", "admin")


@pytest.mark.parametrize("text", DEFINITIONS, ids=range(len(DEFINITIONS)))
def test_each_definition_of_the_page_is_taken(text: str, tmp_path: Path) -> None:
    """Read as the command reads it, held to the server's rules."""
    path = tmp_path / "definition.yaml"
    path.write_text(text)
    assert not validate_definition(definitions.definition(IntegrationId("notes"), read_definition(path)))


async def test_a_device_connects_at_a_real_server(server: Server, tmp_path: Path) -> None:
    """Over gRPC: code shown, provider asked until the person has consented, credential stored."""
    tenant, integration = (await server.admin.create_tenant()).id, fresh_id("device")

    async def cli(*arguments: str) -> Result:
        before = ["--server", server.grpc_address, "--key-file", str(server.keys / "admin.key")]
        return await asyncio.to_thread(CliRunner().invoke, root, [*before, *arguments])

    code = {"device_code": "dc", "user_code": "AB-CD", "verification_uri": "https://p.example", "interval": 1}
    token = {"access_token": "at-canary", "token_type": "Bearer", "expires_in": 600}
    async with recording_upstream() as provider:
        provider.replies = [raw({**code, "expires_in": 60}), raw({"error": "authorization_pending"}, 400), raw(token)]
        definition = tmp_path / "definition.json"
        endpoints = {"token_endpoint": f"{provider.url}/t", "device_authorization_endpoint": f"{provider.url}/d"}
        document = {"oauth": endpoints, "api": {"base_url": provider.url}, "allow_private_addresses": True}
        definition.write_text(json.dumps(document))
        client = ("--client-id", "me", "--public-client")
        created = await cli("integration", "create", integration, "--file", str(definition), *client)
        assert created.exit_code == 0, created.output
        result = await cli("credential", "connect", tenant, integration, "--device")
        assert result.exit_code == 0, result.output
        assert {"user code\tAB-CD", "state\tactive"} <= set(result.stdout.splitlines())
        assert "canary" not in result.output
        assert len(provider.requests) == 3
