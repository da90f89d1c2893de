"""What only a terminal sees: tables, colours, questions, Ctrl-C. A pseudo-terminal plays the person."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from tests.cli.conftest import Cli

HEARS_CTRL_C = ("env", "--default-signal=INT")
"""As under a shell at a terminal: who runs the tests in the background ignores it, and children inherit that."""


class Terminal:
    """A command under a pseudo-terminal."""

    def __init__(self, cli: Cli, *arguments: str, **environment: str) -> None:
        here, there = pty.openpty()
        before = ["--server", cli.script.address, "--key-file", str(cli.key_file)]
        clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
        self._fd = here
        self.process = subprocess.Popen(
            [*HEARS_CTRL_C, sys.executable, "-m", "connectors_grpc", *before, *arguments],
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
            env={**clean, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
        )
        os.close(there)
        self.seen = ""

    def until(self, text: str, seconds: float = 60.0) -> None:
        """Read until `text` has been shown."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if not self._read():
                assert text in self.seen, self.seen
                return

    def type(self, text: str) -> None:
        """What the person types."""
        os.write(self._fd, text.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        os.close(self._fd)
        return self.process.wait(60)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], 60)
        if not ready:
            return False
        try:
            chunk = os.read(self._fd, 4096)
        except OSError:  # the other end is closed
            return False
        self.seen += chunk.decode("utf-8", "replace")
        return bool(chunk)


def two_tenants(cli: Cli) -> None:
    """Something to list."""
    found = [tenants.Tenant(id="acme", state=tenants.Tenant.STATE_ACTIVE, display_name="[bold]A[/bold]")]
    cli.script.answers["ListTenants"] = lambda _: tenants.ListTenantsResponse(tenants=found)


def test_a_terminal_gets_a_table_in_colour(cli: Cli) -> None:
    """Good states are green; what looks like markup in a name is only text."""
    two_tenants(cli)
    terminal = Terminal(cli, "tenant", "list")
    assert terminal.end() == 0
    assert "\x1b[32mactive" in terminal.seen
    assert "[bold]A[/bold]" in terminal.seen
    assert "\t" not in terminal.seen


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(cli: Cli, environment: dict[str, str]) -> None:
    """NO_COLOR and a dumb terminal are honoured."""
    two_tenants(cli)
    terminal = Terminal(cli, "tenant", "list", **environment)
    assert terminal.end() == 0
    assert "\x1b[3" not in terminal.seen


def test_a_secret_is_asked_for_without_echo(cli: Cli) -> None:
    """What is typed is sent, and never seen."""
    cli.script.answers["StoreCredential"] = lambda _: credentials.StoreCredentialResponse()
    terminal = Terminal(cli, "credential", "set", "acme", "stripe")
    terminal.until("API key: ")
    terminal.type("sk_canary\r")
    assert terminal.end() == 0
    assert "sk_canary" not in terminal.seen
    assert cli.script.asked[0][1].api_key.api_key == "sk_canary"


def test_no_is_an_answer(cli: Cli) -> None:
    """Nothing is done, and the exit code says so."""
    terminal = Terminal(cli, "key", "revoke", "billing")
    terminal.until("[y/N]")
    terminal.type("n\r")
    assert terminal.end() == 1
    assert "Nothing was changed" in terminal.seen
    assert not cli.script.asked


def test_yes_is_an_answer_too(cli: Cli) -> None:
    """Then it is done."""
    cli.script.answers["RevokeApiKey"] = lambda _: access.RevokeApiKeyResponse()
    terminal = Terminal(cli, "key", "revoke", "billing")
    terminal.until("[y/N]")
    terminal.type("y\r")
    assert terminal.end() == 0
    assert "Revoked the key billing." in terminal.seen


def test_ctrl_c_at_a_question_is_130(cli: Cli) -> None:
    """Without a traceback."""
    terminal = Terminal(cli, "key", "revoke", "billing")
    terminal.until("[y/N]")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.seen


def test_ctrl_c_while_waiting_for_the_server_is_130(cli: Cli) -> None:
    """The call is given up at once."""
    asked, leave = threading.Event(), threading.Event()

    def hang(_: object) -> tenants.ListTenantsResponse:
        asked.set()
        leave.wait(20)
        return tenants.ListTenantsResponse()

    cli.script.answers["ListTenants"] = hang
    terminal = Terminal(cli, "tenant", "list")
    try:
        assert asked.wait(20)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    finally:
        leave.set()
    assert "Traceback" not in terminal.seen


def test_a_reader_that_has_seen_enough_is_no_error(cli: Cli) -> None:
    """`connectors tenant list | head -1`."""
    many = [tenants.Tenant(id=f"t{number}", display_name="x" * 190) for number in range(5_000)]
    cli.script.answers["ListTenants"] = lambda _: tenants.ListTenantsResponse(tenants=many)
    command = f"{sys.executable} -m connectors_grpc --server {cli.script.address} --key-file {cli.key_file} tenant list"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} | head -1"], capture_output=True, text=True, check=False
    )
    assert (done.stdout[:6], done.stderr) == ("TENANT", "")
