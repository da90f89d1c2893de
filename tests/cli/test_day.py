"""A platform engineer's day by the command line alone, against a real server, Vault and provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors_grpc.addresses import Address
from connectors_grpc.cli.health import http_status
from tests.cli.test_up import LISTENERS, Up, until
from tests.ports import free_ports

DEFINITION = """
display_name: Keyed notes
api:
  base_url: {provider}
  identity_path: /keyed/whoami
  placement: {{headers: {{X-Api-Key: "{{api_key}}"}}}}
allow_private_addresses: true
"""


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """A platform with the demo, for the module."""
    with tempfile.TemporaryDirectory(prefix="day-") as path:
        up = Up(Path(path), dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True)))
        up.start()
        yield up
        up.end(signal.SIGTERM)


def said(up: Up, *arguments: str) -> dict[str, str]:
    """A command's record, by name."""
    return dict(line.split("\t", 1) for line in up.cli(*arguments).stdout.splitlines() if "\t" in line)


def refused(up: Up, *arguments: str, key: Path | None = None) -> tuple[int, str]:
    """A refusal's exit code and reason."""
    before = [sys.executable, "-m", "connectors_grpc", "--server", f"127.0.0.1:{up.ports['grpc-listen']}"]
    key_file = ["--key-file", str(key or up.state / "keys" / "admin.key")]
    done = subprocess.run(
        [*before, *key_file, *arguments], capture_output=True, text=True, check=False, env=up.environment(), timeout=60
    )
    return done.returncode, done.stderr.removeprefix("Error: ").partition(":")[0]


def test_a_tenant_through_its_life(up: Up) -> None:
    """Created, changed, frozen, thawed, looked at, deleted; and then it is not there."""
    assert said(up, "tenant", "create", "acme", "--label", "plan=pro", "--label", "trial=yes")["state"] == "active"
    changed = said(
        up, "tenant", "update", "acme", "--display-name", "Acme", "--remove-label", "trial", "--label", "a=b"
    )
    assert (changed["name"], changed["labels"]) == ("Acme", "a=b, plan=pro")
    assert said(up, "tenant", "suspend", "acme")["state"] == "suspended"
    assert refused(up, "credential", "connect", "acme", "demo") == (1, "TENANT_SUSPENDED")
    assert said(up, "tenant", "resume", "acme")["state"] == "active"
    assert said(up, "tenant", "status", "acme")["tenant"] == "acme"
    assert refused(up, "tenant", "create", "acme") == (1, "ALREADY_EXISTS")
    gone = said(up, "tenant", "delete", "acme", "--yes")
    assert (gone["state"], gone["key shredded"]) == ("done", "yes")
    assert refused(up, "tenant", "get", "acme") == (5, "TENANT_NOT_FOUND")


def test_an_integration_and_an_api_key_through_their_lives(up: Up, tmp_path: Path) -> None:
    """Defined by a file, changed by a flag, used with a stored key, switched off and on, revoked, deleted."""
    definition, secret = tmp_path / "keyed.yaml", tmp_path / "secret"
    definition.write_text(DEFINITION.format(provider=f"http://127.0.0.1:{up.ports['simulator-listen']}"))
    secret.write_text("sk_canary_of_the_day\n")
    assert said(up, "integration", "create", "keyed", "--file", str(definition))["takes"] == "API keys"
    assert said(up, "integration", "update", "keyed", "--display-name", "Keyed")["name"] == "Keyed"
    shown = json.loads(up.cli("integration", "show", "keyed", "--json").stdout)
    assert shown["api"]["identityPath"] == "/keyed/whoami"
    up.cli("tenant", "create", "keys")
    assert said(up, "credential", "set", "keys", "keyed", "--secret-file", str(secret))["state"] == "active"
    assert up.cli("credential", "list", "keys").stdout.count("keyed") == 2
    assert said(up, "credential", "disable", "keys", "keyed")["state"] == "disabled"
    assert said(up, "credential", "enable", "keys", "keyed")["state"] == "active"
    assert refused(up, "credential", "verify", "keys", "keyed")[0] == 1  # the simulator knows no such key
    assert refused(up, "tenant", "delete", "keys", "--yes") == (1, "NOT_EMPTY")
    assert said(up, "credential", "revoke", "keys", "keyed", "--yes")["state"].startswith("revoked")
    assert said(up, "tenant", "delete", "keys", "--yes", "--force")["state"] == "done"
    assert "Deleted" in up.cli("integration", "delete", "keyed", "--yes").stdout
    assert refused(up, "integration", "show", "keyed") == (5, "INTEGRATION_NOT_FOUND")
    logs = "".join(path.read_text("utf-8", "replace") for path in (up.state / "logs").iterdir())
    assert "sk_canary_of_the_day" not in logs


def test_a_catalogue_entry_is_taken_into_use_and_given_back(up: Up, tmp_path: Path) -> None:
    """With the platform's own OAuth client, whose secret is never shown."""
    secret = tmp_path / "secret"
    secret.write_text("client_canary\n")
    up.cli("integration", "create", "notion", "--client-id", "abc", "--client-secret-file", str(secret))
    assert said(up, "integration", "show", "notion")["client"] == "abc"
    up.cli("integration", "set-client", "notion", "--client-id", "def", "--client-secret-file", str(secret))
    shown = up.cli("integration", "show", "notion", "--json").stdout
    client = json.loads(shown)["oauthClient"]
    assert (client["clientId"], client["clientSecretSet"]) == ("def", True)
    assert "client_canary" not in shown
    up.cli("integration", "delete", "notion", "--yes")
    assert "client" not in said(up, "integration", "show", "notion")


def test_keys_open_what_they_are_for_until_they_are_revoked(up: Up, tmp_path: Path) -> None:
    """An app key calls, a token-reader reads tokens, neither does the other's work."""
    app, reader = tmp_path / "app.key", tmp_path / "reader.key"
    up.cli("key", "create", "day-app", "--role", "app", "--tenant", "demo", "--out", str(app))
    up.cli(
        "key",
        "create",
        "day-reader",
        "--role",
        "token-reader",
        "--tenant",
        "demo",
        "--expires-in",
        "1h",
        "--out",
        str(reader),
    )
    assert '"account":"alice"' in up.cli("--key-file", str(app), "call", "demo", "demo", "/v1/whoami").stdout
    note = ("-d", '{"title":"from the command line"}', "-H", "Content-Type: application/json", "-i")
    assert up.cli("--key-file", str(app), "call", "demo", "demo", "/v1/notes", *note).stdout.startswith("HTTP 201")
    assert len(up.cli("--key-file", str(reader), "credential", "token", "demo", "demo").stdout.strip()) > 20
    assert refused(up, "credential", "token", "demo", "demo", key=app) == (4, "PERMISSION_DENIED")
    assert refused(up, "call", "demo", "demo", "/v1/whoami", key=reader) == (4, "PERMISSION_DENIED")
    up.cli("key", "revoke", "day-app", "--yes")
    assert refused(up, "call", "demo", "demo", "/v1/whoami", key=app) == (4, "API_KEY_INVALID")
    rows = {line.split("\t")[0]: line.split("\t")[2] for line in up.cli("key", "list").stdout.splitlines()[1:]}
    assert (rows["day-app"], rows["day-reader"]) == ("revoked", "active")


def test_a_refresh_makes_a_new_generation(up: Up) -> None:
    """And the provider takes it."""
    before = int(said(up, "credential", "show", "demo", "demo")["generation"])
    assert int(said(up, "credential", "refresh", "demo", "demo")["generation"]) == before + 1
    assert said(up, "credential", "verify", "demo", "demo")["accepted"] == "yes"


def test_the_doctor_names_the_cure_of_a_credential_that_the_provider_ended(up: Up) -> None:
    """The grant is gone at the provider: a refresh finds out, the doctor says what to do, and that helps."""
    provider = Address("127.0.0.1", up.ports["simulator-listen"])
    before = up.children()["simulator"]
    (up.state / "demo" / "simulator.json").unlink()
    os.kill(before, signal.SIGKILL)
    until(lambda: up.children().get("simulator", before) != before and http_status(provider, "/", 1.0) == 200)
    assert refused(up, "credential", "refresh", "demo", "demo") == (1, "NEEDS_REAUTH")
    sidecar = f"127.0.0.1:{up.ports['sidecar-listen']}"
    options = ["--server", f"127.0.0.1:{up.ports['grpc-listen']}", "--key-file", str(up.state / "keys" / "admin.key")]
    command = [sys.executable, "-m", "connectors_grpc", *options, "doctor", "--sidecar", sidecar, "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=up.environment(), timeout=60)
    problems = [item for item in json.loads(found.stdout)["findings"] if item["problem"]]
    assert found.returncode == 1
    assert [item["fix"] for item in problems] == ["connectors credential connect demo demo"]
    up.end(signal.SIGTERM)
    up.start()  # the demo connects itself again
    assert up.works()
