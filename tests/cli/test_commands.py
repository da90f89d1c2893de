"""Commands against a scripted server: what they ask, what they print, how refusals look and which code they end with."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details

from connectors_grpc.cli import connecting
from connectors_grpc.cli.doctor import judge
from connectors_grpc.cli.main import root
from connectors_grpc.cli.output import clean, when
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import error_reason_pb2, proxy_service_pb2
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from tests.cli.conftest import KEY, Cli, Refused, clean_environment

S = grpc.StatusCode
Credential = credentials.Credential


def refusal(code: grpc.StatusCode, reason: str, *more: object, **metadata: str) -> Refused:
    """A refusal as the server makes them."""
    info = details.ErrorInfo(reason=reason, domain="connectors", metadata=metadata)
    return Refused(code, "What to do next.", info, *more)  # type: ignore[arg-type]


class TestErrors:
    """One place shows every refusal."""

    @pytest.mark.parametrize(
        ("code", "reason", "exit_code"),
        [
            (S.NOT_FOUND, "TENANT_NOT_FOUND", 5),
            (S.PERMISSION_DENIED, "PERMISSION_DENIED", 4),
            (S.UNAUTHENTICATED, "API_KEY_INVALID", 4),
            (S.FAILED_PRECONDITION, "NEEDS_REAUTH", 1),
            (S.UNAVAILABLE, "VAULT_UNAVAILABLE", 1),
            (S.ALREADY_EXISTS, "ALREADY_EXISTS", 1),
            (S.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 1),
            (S.INTERNAL, "INTERNAL", 1),
        ],
    )
    def test_reason_message_and_exit_code_follow_the_status(
        self, cli: Cli, code: grpc.StatusCode, reason: str, exit_code: int
    ) -> None:
        """The reason is the contract's, the text says what to do, the code is the documented one."""

        def refuse(_: object) -> tenants.GetTenantResponse:
            raise refusal(code, reason)

        cli.script.answers["GetTenant"] = refuse
        result = cli("tenant", "get", "acme")
        assert result.exit_code == exit_code
        assert result.stderr.splitlines()[0] == f"Error: {reason}: What to do next."
        assert result.stdout == ""

    def test_fields_metadata_and_waiting_are_shown(self, cli: Cli) -> None:
        """Each violation on a line; what varies; when to come again."""
        bad = details.BadRequest(
            field_violations=[details.BadRequest.FieldViolation(field="tenant_id", description="a label")]
        )
        retry = details.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))

        def refuse(_: object) -> tenants.CreateTenantResponse:
            raise refusal(S.INVALID_ARGUMENT, "INVALID_FIELD", bad, retry, limit_bytes="7", field="tenant_id")

        cli.script.answers["CreateTenant"] = refuse
        lines = cli("tenant", "create", "Acme Inc").stderr.splitlines()
        assert lines[1:] == ["  tenant_id: a label", "  limit_bytes = 7", "  Retry in 1.5 s."]

    def test_a_server_that_is_not_there_is_code_3(self, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """And the message says what to check."""
        clean_environment(monkeypatch)
        arguments = ["--server", "127.0.0.1:1", "--key-file", str(key_file), "tenant", "list"]
        result = CliRunner().invoke(root, arguments)
        assert result.exit_code == 3
        assert "connectors up" in result.stderr

    def test_a_server_that_hangs_is_code_3(self, cli: Cli) -> None:
        """The deadline is the client's."""
        import threading

        gone = threading.Event()

        def hang(_: object) -> tenants.GetTenantResponse:
            gone.wait(20)
            return tenants.GetTenantResponse()

        cli.script.answers["GetTenant"] = hang
        try:
            result = cli("--timeout", "0.2", "tenant", "get", "acme")
        finally:
            gone.set()
        assert result.exit_code == 3
        assert "--timeout" in result.stderr

    def test_a_hostile_text_cannot_steer_the_terminal(self, cli: Cli) -> None:
        """Escape sequences in an answer are shown, not sent."""
        named = tenants.Tenant(id="acme", display_name="\x1b[2J\u202eevil\r\n")
        cli.script.answers["GetTenant"] = lambda _: tenants.GetTenantResponse(tenant=named)
        shown = cli("tenant", "get", "acme").stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "\\x1b[2J\\u202eevil" in shown

    def test_another_machine_in_the_clear_is_refused_before_anything_is_sent(self, cli: Cli) -> None:
        """A key never crosses the network without TLS."""
        result = cli("--server", "http://192.0.2.1:50051", "tenant", "list")
        assert result.exit_code == 2
        assert "TLS" in result.stderr
        assert not cli.script.asked


class TestKeys:
    """Where the key comes from and where it never goes."""

    def test_the_key_is_sent_as_bearer_and_never_shown(self, cli: Cli) -> None:
        """Not even when it is refused."""

        def refuse(_: object) -> tenants.ListTenantsResponse:
            raise refusal(S.UNAUTHENTICATED, "API_KEY_INVALID")

        cli.script.answers["ListTenants"] = refuse
        result = cli("tenant", "list")
        assert cli.script.keys == [f"Bearer {KEY}"]
        assert KEY not in result.output

    def test_without_a_key_the_way_to_one_is_said(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Exit code 4."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        result = CliRunner().invoke(root, ["--server", cli.script.address, "tenant", "list"])
        assert result.exit_code == 4
        assert "--key-file" in result.stderr

    def test_the_local_admin_key_is_the_default(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """What `up` left in the state directory is found."""
        monkeypatch.setenv("CONNECTORS_STATE_DIR", str(tmp_path))
        (tmp_path / "keys").mkdir()
        (tmp_path / "keys" / "admin.key").write_text("cnk_admin_1\n")
        cli.script.answers["ListTenants"] = lambda _: tenants.ListTenantsResponse()
        assert CliRunner().invoke(root, ["--server", cli.script.address, "tenant", "list"]).exit_code == 0
        assert cli.script.keys == ["Bearer cnk_admin_1"]

    @pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\nb", b"\xff\xfe", b"x" * 5000])
    def test_a_file_that_holds_no_key_is_refused_unseen(self, cli: Cli, content: bytes) -> None:
        """Its content is not repeated."""
        cli.key_file.write_bytes(content)
        result = cli("tenant", "list")
        assert result.exit_code == 4
        assert not cli.script.asked

    def test_a_new_key_goes_to_stdout_alone(self, cli: Cli) -> None:
        """So that it can be piped; the remark is on stderr."""
        made = access.CreateApiKeyResponse(api_key=access.ApiKey(id="a"), secret="cnk_a_secret")
        cli.script.answers["CreateApiKey"] = lambda _: made
        result = cli("key", "create", "a", "--role", "token-reader", "--tenant", "acme", "--expires-in", "90d")
        assert result.stdout == "cnk_a_secret\n"
        request = cli.script.asked[0][1]
        assert list(request.api_key.roles) == [access.ROLE_TOKEN_READER]
        left = request.api_key.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
        assert timedelta(days=89) < left <= timedelta(days=90)

    @pytest.mark.parametrize("extra", [(), ("--json",)])
    def test_a_new_key_goes_to_a_private_file(self, cli: Cli, tmp_path: Path, extra: tuple[str, ...]) -> None:
        """0600, and nowhere else."""
        path = tmp_path / "new.key"
        made = access.CreateApiKeyResponse(api_key=access.ApiKey(id="a"), secret="cnk_a_secret")
        cli.script.answers["CreateApiKey"] = lambda _: made
        result = cli("key", "create", "--role", "app", "--tenant", "acme", "--out", str(path), *extra)
        assert path.read_text() == "cnk_a_secret\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "cnk_a_secret" not in result.output

    def test_a_key_is_not_made_where_its_file_cannot_be(self, cli: Cli, tmp_path: Path) -> None:
        """An existing file is never overwritten, and no key is made that nobody holds."""
        path = tmp_path / "old.key"
        path.write_text("old")
        assert cli("key", "create", "--role", "app", "--tenant", "a", "--out", str(path)).exit_code == 2
        assert path.read_text() == "old"
        assert not cli.script.asked

    def test_a_refused_key_leaves_no_file(self, cli: Cli, tmp_path: Path) -> None:
        """The file that was made first is removed again."""

        def refuse(_: object) -> access.CreateApiKeyResponse:
            raise refusal(S.PERMISSION_DENIED, "PERMISSION_DENIED")

        cli.script.answers["CreateApiKey"] = refuse
        assert cli("key", "create", "--role", "app", "--tenant", "a", "--out", str(tmp_path / "k")).exit_code == 4
        assert not (tmp_path / "k").exists()


class TestOutput:
    """Tables, tab-separated values, JSON."""

    def test_a_pipe_gets_tab_separated_values(self, cli: Cli) -> None:
        """With a heading, without colour."""
        found = [
            tenants.Tenant(id="a", state=tenants.Tenant.STATE_ACTIVE, labels={"plan": "pro"}),
            tenants.Tenant(id="b"),
        ]
        cli.script.answers["ListTenants"] = lambda _: tenants.ListTenantsResponse(tenants=found)
        lines = cli("tenant", "list").stdout.splitlines()
        assert lines[0].split("\t") == ["TENANT", "NAME", "STATE", "CREATED", "LABELS"]
        assert lines[1].split("\t") == ["a", "", "active", "", "plan=pro"]

    def test_json_is_the_protobuf_mapping_and_nothing_else(self, cli: Cli) -> None:
        """It parses, with defaults spelt out."""
        cli.script.answers["ListTenants"] = lambda _: tenants.ListTenantsResponse(tenants=[tenants.Tenant(id="a")])
        found = json.loads(cli("tenant", "list", "--json").output)
        assert found["tenants"][0]["id"] == "a"
        assert found["tenants"][0]["displayName"] == ""
        cli.script.answers["ListTenants"] = lambda _: tenants.ListTenantsResponse()
        assert json.loads(cli("tenant", "list", "--json").output) == {"tenants": [], "nextPageToken": ""}

    def test_the_place_of_a_secret_is_not_printed(self, cli: Cli) -> None:
        """An input-only field that is never answered does not look like an empty secret."""
        found = integrations.Integration(id="a", oauth_client=integrations.OAuthClient(client_id="c"))
        cli.script.answers["ListIntegrations"] = lambda _: integrations.ListIntegrationsResponse(integrations=[found])
        output = cli("integration", "list", "--json").output
        assert 'clientSecret"' not in output
        assert "clientId" in output

    def test_lists_follow_page_tokens_up_to_the_limit(self, cli: Cli) -> None:
        """Each item once; a server that repeats its token is not followed for ever."""
        pages = {"": (["a", "b"], "b"), "b": (["c", "d"], "d"), "d": (["e"], "d")}

        def answer(request: tenants.ListTenantsRequest) -> tenants.ListTenantsResponse:
            names, after = pages[request.page_token]
            return tenants.ListTenantsResponse(
                tenants=[tenants.Tenant(id=name) for name in names], next_page_token=after
            )

        cli.script.answers["ListTenants"] = answer
        rows = [line.split("\t")[0] for line in cli("tenant", "list").stdout.splitlines()[1:]]
        assert rows == ["a", "b", "c", "d", "e"]
        assert len(cli("tenant", "list", "--limit", "3").stdout.splitlines()) == 4

    def test_an_empty_list_says_what_to_do_on_stderr(self, cli: Cli) -> None:
        """Stdout stays empty for scripts."""
        cli.script.answers["ListTenants"] = lambda _: tenants.ListTenantsResponse()
        result = cli("tenant", "list")
        assert (result.stdout, "tenant create" in result.stderr) == ("", True)

    def test_times_say_how_far_away_they_are(self) -> None:
        """In UTC, with a distance."""
        credential = Credential()
        now = datetime(2026, 1, 1, tzinfo=UTC)
        credential.expire_time.FromDatetime(now + timedelta(hours=3))
        assert when(credential.expire_time, now=now) == "2026-01-01 03:00:00Z (in 3 h)"
        assert when(credential.refresh_time) == ""

    @pytest.mark.parametrize("text", ["plain", "Zürich 東京", "a b"])
    def test_printable_text_stays_as_it_is(self, text: str) -> None:
        """Only control and formatting characters are escaped."""
        assert clean(text) == text


class TestAsking:
    """What can't be undone is asked for."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ("tenant", "delete", "a"),
            ("integration", "delete", "a"),
            ("credential", "revoke", "a", "b"),
            ("key", "revoke", "a"),
        ],
    )
    def test_a_script_must_say_yes(self, cli: Cli, arguments: tuple[str, ...]) -> None:
        """Without a terminal nothing is asked and nothing is done."""
        result = cli(*arguments)
        assert result.exit_code == 2
        assert "--yes" in result.stderr
        assert not cli.script.asked

    def test_a_deletion_is_followed_to_its_end(self, cli: Cli) -> None:
        """The operation is asked for until it is done; the receipt is shown."""
        receipt = tenants.DeleteTenantReceipt(tenant="a", credentials_purged=2, key_shredded=True)
        cli.script.answers["DeleteTenant"] = lambda _: tenants.DeleteTenantResponse(
            operation=tenants.Operation(id="op")
        )
        done = tenants.Operation(id="op", tenant="a", done=True, delete_tenant=receipt)
        cli.script.answers["GetOperation"] = lambda _: tenants.GetOperationResponse(operation=done)
        result = cli("tenant", "delete", "a", "--force", "--yes")
        assert result.exit_code == 0
        assert "credentials purged\t2" in result.stdout
        assert cli.script.asked[0][1].force

    def test_a_deletion_that_failed_is_code_1(self, cli: Cli) -> None:
        """And names the reason."""
        failed = tenants.Operation(id="op", done=True, error_reason=error_reason_pb2.ERROR_REASON_VAULT_UNAVAILABLE)
        cli.script.answers["DeleteTenant"] = lambda _: tenants.DeleteTenantResponse(operation=failed)
        result = cli("tenant", "delete", "a", "--yes")
        assert result.exit_code == 1
        assert "VAULT_UNAVAILABLE" in result.stdout


class TestSecretsIn:
    """Secrets come from files, stdin or the environment; never as an argument."""

    def test_an_api_key_comes_from_stdin(self, cli: Cli) -> None:
        """One line's end is dropped."""
        cli.script.answers["StoreCredential"] = lambda _: credentials.StoreCredentialResponse()
        assert cli("credential", "set", "a", "stripe", "--secret-file", "-", stdin="sk_canary\n").exit_code == 0
        assert cli.script.asked[0][1].api_key.api_key == "sk_canary"

    def test_a_password_and_further_fields_come_from_files(self, cli: Cli, tmp_path: Path) -> None:
        """By kind."""
        secret = tmp_path / "s"
        secret.write_text("pw")
        cli.script.answers["StoreCredential"] = lambda _: credentials.StoreCredentialResponse()
        cli("credential", "set", "a", "jira", "--kind", "basic", "--username", "me", "--secret-file", str(secret))
        cli("credential", "set", "a", "dd", "--secret-file", str(secret), "--field", f"application_key={secret}")
        basic, keyed = (request for _, request in cli.script.asked)
        assert (basic.basic.username, basic.basic.password) == ("me", "pw")
        assert dict(keyed.api_key.fields) == {"application_key": "pw"}

    def test_an_option_of_another_kind_is_refused(self, cli: Cli) -> None:
        """`--username` for an API key is a mistake, not a default."""
        result = cli("credential", "set", "a", "b", "--username", "me", "--secret-file", "-", stdin="x")
        assert (result.exit_code, "--kind basic" in result.stderr) == (2, True)

    def test_a_secret_written_for_its_file_is_not_repeated(self, cli: Cli) -> None:
        """Who mistakes `--secret-file` for the secret does not find it in a log."""
        result = cli("credential", "set", "a", "b", "--secret-file", "sk_live_canary")
        assert result.exit_code == 2
        assert "sk_live_canary" not in result.output

    def test_without_a_terminal_the_ways_in_are_said(self, cli: Cli) -> None:
        """Nothing hangs on a prompt that nobody sees."""
        result = cli("credential", "set", "a", "b")
        assert (result.exit_code, "--secret-file" in result.stderr) == (2, True)

    def test_a_client_secret_comes_from_the_environment(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        """For machines that have no file."""
        monkeypatch.setenv("CONNECTORS_CLIENT_SECRET", "cs_canary")
        cli.script.answers["UpdateIntegration"] = lambda _: integrations.UpdateIntegrationResponse()
        assert cli("integration", "set-client", "notion", "--client-id", "abc", "--tenant", "acme").exit_code == 0
        request = cli.script.asked[0][1]
        assert (request.integration.oauth_client.client_secret, request.tenant) == ("cs_canary", "acme")
        assert list(request.update_mask.paths) == ["oauth_client"]


YAML = """
displayName: Wiki
api: {baseUrl: https://wiki.example/api, default_headers: {X-A: b}}
oauth:
  authorization_endpoint: https://wiki.example/authorize
  token_endpoint: https://wiki.example/token
  default_access_token_ttl: 3600s
"""


class TestDefinitions:
    """Integrations from files and flags."""

    def test_a_yaml_definition_is_sent_as_it_is_written(self, cli: Cli, tmp_path: Path) -> None:
        """Proto names and JSON names both; flags come on top."""
        path = tmp_path / "wiki.yaml"
        path.write_text(YAML)
        cli.script.answers["CreateIntegration"] = lambda _: integrations.CreateIntegrationResponse()
        result = cli(
            "integration", "create", "wiki", "--file", str(path), "--scope", "read", "--base-url", "https://w.example"
        )
        assert result.exit_code == 0, result.output
        sent = cli.script.asked[0][1].integration
        assert (sent.display_name, sent.api.base_url, list(sent.oauth.scopes)) == (
            "Wiki",
            "https://w.example",
            ["read"],
        )
        assert sent.oauth.default_access_token_ttl.seconds == 3600

    @pytest.mark.parametrize("content", ["api: {basUrl: x}", "api: {baseUrl: [1]}", "- a", "{", "\x00", "a: b"])
    def test_a_wrong_definition_is_refused_here(self, cli: Cli, content: str) -> None:
        """Unknown names, other types, no object: before anything is sent."""
        assert cli("integration", "create", "wiki", "--file", "-", stdin=content).exit_code == 2
        assert not cli.script.asked

    def test_an_update_by_flags_keeps_the_rest(self, cli: Cli) -> None:
        """Read, change, write with the etag."""
        api = integrations.Api(base_url="https://a.example", identity_path="/me")
        current = integrations.Integration(id="wiki", etag="7", api=api)
        cli.script.answers["GetIntegration"] = lambda _: integrations.GetIntegrationResponse(integration=current)
        cli.script.answers["UpdateIntegration"] = lambda _: integrations.UpdateIntegrationResponse()
        assert cli("integration", "update", "wiki", "--base-url", "https://b.example").exit_code == 0
        sent = cli.script.asked[1][1]
        assert list(sent.update_mask.paths) == ["api"]
        assert (sent.integration.etag, sent.integration.api.identity_path) == ("7", "/me")


class TestCall:
    """`connectors call` is a plain pipe."""

    def test_the_body_comes_out_byte_for_byte(self, cli: Cli) -> None:
        """Binary too; a status of 400 is an answer unless --fail."""
        answer = proxy_service_pb2.CallResponse(http_status=404, body=b"\x00\xff")
        cli.script.answers["Call"] = lambda _: answer
        result = cli("call", "a", "b", "/v1/x", "-d", "@-", "-H", "X-A: b:c", stdin=b"\x01")
        assert (result.exit_code, result.stdout_bytes) == (0, b"\x00\xff")
        sent = cli.script.asked[0][1]
        assert (sent.method, sent.body, sent.headers[0].name, sent.headers[0].value) == ("POST", b"\x01", "X-A", "b:c")
        assert cli("call", "a", "b", "/v1/x", "--fail").exit_code == 1


class TestConnect:
    """Waiting for a person."""

    def test_the_link_is_printed_and_waited_for(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until the credential is active anew: an old connection does not count."""
        monkeypatch.setattr(connecting, "POLL", 0)
        old = Credential(id="notion", state=Credential.STATE_ACTIVE, generation=3)
        new = Credential(id="notion", state=Credential.STATE_ACTIVE, generation=4)
        link = credentials.StartAuthorizationResponse(connect_url="http://x/connect/h", credential="notion")
        link.expire_time.FromDatetime(datetime.now(UTC) + timedelta(minutes=10))
        seen = iter([old, old, new])
        cli.script.answers |= {
            "ListCredentials": lambda _: credentials.ListCredentialsResponse(credentials=[old]),
            "StartAuthorization": lambda _: link,
            "GetCredential": lambda _: credentials.GetCredentialResponse(credential=next(seen)),
        }
        result = cli("credential", "connect", "acme", "notion", "--wait")
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[0] == "http://x/connect/h"
        assert "generation\t4" in result.stdout

    def test_a_link_that_expires_is_code_1(self, cli: Cli) -> None:
        """Nobody came."""
        link = credentials.StartAuthorizationResponse(connect_url="http://x/connect/h", credential="notion")
        link.expire_time.FromDatetime(datetime.now(UTC) - timedelta(minutes=1))
        cli.script.answers |= {
            "ListCredentials": lambda _: credentials.ListCredentialsResponse(),
            "StartAuthorization": lambda _: link,
            "GetCredential": lambda _: credentials.GetCredentialResponse(credential=Credential(id="notion")),
        }
        assert cli("credential", "connect", "acme", "notion", "--wait").exit_code == 1

    def test_in_a_pipe_nothing_is_waited_for(self, cli: Cli) -> None:
        """The link alone is what a script wants."""
        link = credentials.StartAuthorizationResponse(connect_url="http://x/connect/h")
        cli.script.answers |= {
            "ListCredentials": lambda _: credentials.ListCredentialsResponse(),
            "StartAuthorization": lambda _: link,
        }
        assert cli("credential", "connect", "acme", "notion").stdout == "http://x/connect/h\n"


class TestDoctor:
    """What is wrong, and how to mend it."""

    @pytest.mark.parametrize(
        ("credential", "fix"),
        [
            (Credential(state=Credential.STATE_ACTIVE), ""),
            (Credential(state=Credential.STATE_REVOKED), ""),
            (
                Credential(state=Credential.STATE_NEEDS_REAUTH, kind=Credential.KIND_OAUTH),
                "connectors credential connect t i --credential c",
            ),
            (
                Credential(state=Credential.STATE_NEEDS_REAUTH, kind=Credential.KIND_API_KEY),
                "connectors credential set t i --credential c",
            ),
            (
                Credential(state=Credential.STATE_EXPIRED, kind=Credential.KIND_BASIC),
                "connectors credential set t i --credential c --kind basic",
            ),
            (Credential(state=1, state_reason=20), "connectors integration set-client i --client-id ID"),  # type: ignore[arg-type]
        ],
    )
    def test_each_state_has_its_cure(self, credential: Credential, fix: str) -> None:
        """A command that can be copied."""
        credential.tenant, credential.id, credential.integration = "t", "c", "i"
        assert judge(credential).fix == fix

    def test_problems_are_code_1_and_json_says_them(self, cli: Cli) -> None:
        """A server without health, and a sidecar that is not there."""
        result = cli("doctor", "--sidecar", "127.0.0.1:1", "--json")
        found = json.loads(result.stdout)
        assert (result.exit_code, found["ok"]) == (1, False)
        assert {item["what"]: bool(item["problem"]) for item in found["findings"]} == {
            "API key": False,
            f"server {cli.script.address}": True,
            "sidecar 127.0.0.1:1": True,
        }


def test_a_bug_ends_without_a_traceback(tmp_path: Path) -> None:
    """Whatever goes wrong inside: one line, no value in it, code 1."""
    import subprocess
    import sys

    code = (
        "from connectors_grpc.cli import main, connection\n"
        "def boom(*a): raise ValueError('canary-secret')\n"
        "connection.open_channel = boom\n"
        "main.main(['--key-file', '/dev/null', 'tenant', 'list'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "canary-secret" not in done.stderr
    assert done.stderr.count("\n") == 1
