"""Inputs on the command line, files of the catalogue's shape, and a folder of an operator's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from connectors_grpc.catalogue import CatalogueError, catalogue
from connectors_grpc.cli.main import root
from connectors_grpc.domain.definition import Source
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from tests.cli.conftest import Cli, clean_environment

OWN = "display_name: Own\nverified: false\napi:\n  base_url: https://api.own.example\n"


def test_inputs_are_sent_by_name(cli: Cli, tmp_path: Path) -> None:
    """Plain ones from arguments, secret ones from files, which never stand in the process list."""
    cli.script.answers["ListCredentials"] = lambda _: pb.ListCredentialsResponse()
    cli.script.answers["StartAuthorization"] = lambda _: pb.StartAuthorizationResponse(
        connect_url="https://x/connect/y"
    )
    assert cli("credential", "connect", "acme", "zendesk", "--input", "subdomain=acme", "--no-wait").exit_code == 0
    assert dict(cli.script.asked[-1][1].inputs) == {"subdomain": "acme"}
    (tmp_path / "app.key").write_text("app-s3cret\n")
    (tmp_path / "api.key").write_text("k-1\n")
    cli.script.answers["StoreCredential"] = lambda _: pb.StoreCredentialResponse(
        credential=pb.Credential(id="datadog", values={"site": "eu1"})
    )
    result = cli(
        "credential", "set", "acme", "datadog", "--input", "site=eu1",
        "--input-file", f"application_key={tmp_path}/app.key", "--secret-file", f"{tmp_path}/api.key",
    )  # fmt: skip
    assert result.exit_code == 0
    assert dict(cli.script.asked[-1][1].inputs) == {"site": "eu1", "application_key": "app-s3cret"}
    assert "given and found\tsite=eu1" in result.output
    assert "app-s3cret" not in result.output


@pytest.mark.parametrize("pair", ["subdomain", "=x", "subdomain="])
def test_an_input_without_name_or_value_is_refused(cli: Cli, pair: str) -> None:
    """Before anything is asked."""
    result = cli("credential", "connect", "acme", "zendesk", "--input", pair)
    assert result.exit_code == 2
    assert "NAME=VALUE" in result.output


def test_an_integration_shows_what_it_asks_for(cli: Cli) -> None:
    """Titles, choices, examples and defaults."""
    asked = [
        integrations.Input(id="region", title="Region", choices={"us": "", "eu": ".eu"}, default="us"),
        integrations.Input(id="key", example="abc", secret=True),
    ]
    answer = integrations.GetIntegrationResponse(integration=integrations.Integration(id="x", inputs=asked))
    cli.script.answers["GetIntegration"] = lambda _: answer
    output = cli("integration", "show", "x").output
    assert "asks for region: Region; eu, us; default us" in output
    assert "asks for key: as abc; secret" in output


def test_create_takes_a_file_of_the_catalogues_shape(cli: Cli, tmp_path: Path) -> None:
    """The same file may lie in a folder, or be sent."""
    (tmp_path / "own.yaml").write_text(OWN + "inputs: [{id: site, pattern: '[a-z]+'}]\n")
    cli.script.answers["CreateIntegration"] = lambda _: integrations.CreateIntegrationResponse()
    assert cli("integration", "create", "own", "--file", str(tmp_path / "own.yaml")).exit_code == 0
    sent = cli.script.asked[-1][1].integration
    assert (sent.api.base_url, sent.inputs[0].id, sent.id) == ("https://api.own.example", "site", "")
    (tmp_path / "own.yaml").write_text(OWN + "colour: red\n")
    refused = cli("integration", "create", "own", "--file", str(tmp_path / "own.yaml"))
    assert refused.exit_code == 2
    assert "own.yaml: colour: no such field" in refused.output


def test_a_folder_of_ones_own_adds_and_overrides(tmp_path: Path) -> None:
    """An entry of the same name stands in for the one that ships."""
    (tmp_path / "own.yaml").write_text(OWN)
    (tmp_path / "notion.yaml").write_text(OWN)
    found = catalogue(tmp_path)
    assert found[IntegrationId("own")].source is Source.CATALOGUE
    assert found[IntegrationId("notion")].display_name == "Own"
    assert len(found) == len(catalogue()) + 1


def test_a_folder_that_is_none_or_has_faults_stops_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file and the field, before anything listens."""
    with pytest.raises(CatalogueError):
        catalogue(tmp_path / "none")
    clean_environment(monkeypatch)
    (tmp_path / "own.yaml").write_text(OWN + "colour: red\n")
    token = tmp_path / "token"
    token.write_text("t")
    arguments = ["serve", "--catalogue-dir", str(tmp_path), "--state-dir", str(tmp_path / "state")]
    arguments += ["--vault-addr", "http://127.0.0.1:9", "--vault-token-file", str(token)]
    result = CliRunner().invoke(root, [*arguments, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
    assert result.exit_code == 2
    assert "own.yaml: colour: no such field" in result.output
