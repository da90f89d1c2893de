"""The page on disaster recovery, typed as it stands: backup, all is lost, restore, and a tenant's call works again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.test_up import LISTENERS, Up
from tests.ports import free_ports
from tests.project.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "disaster-recovery.md"
SECRET = "sk_kept_through_the_disaster"
DEFINITION = """
display_name: Keyed
api:
  base_url: http://127.0.0.1:{port}
  placement: {{headers: {{X-Api-Key: "{{api_key}}"}}}}
allow_private_addresses: true
"""


class Keyed(BaseHTTPRequestHandler):
    """An API that answers only who shows the stored key."""

    def do_GET(self) -> None:
        """204, or 401."""
        self.send_response(204 if self.headers["X-Api-Key"] == SECRET else 401)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[int]:
    """Its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Keyed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Drill:
    """The page's commands, at places of this test's own."""

    def __init__(self, root: Path) -> None:
        self.up = Up(root, dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True)), demo=False)
        self.places = {
            "/mnt/backup": root / "backup",
            "/media/usb": root / "usb",
            "$HOME/.local/state/connectors": self.up.state,
        }
        for name in ("backup", "usb"):
            (root / name).mkdir(mode=0o700)

    def here(self, text: str) -> str:
        """The text with this test's places."""
        for written, place in self.places.items():
            text = text.replace(written, str(place))
        return text

    def type(self, mark: str) -> str:
        """Run the page's blocks with that mark; what they printed."""
        script = self.here("\n".join(blocks(PAGE, "sh", mark)))
        return self.shell(script)

    def shell(self, script: str) -> str:
        """Run a script; what it printed."""
        assert script
        environment = self.up.environment() | {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "CONNECTORS_STATE_DIR": str(self.up.state),
            "CONNECTORS_SERVER": f"127.0.0.1:{self.up.ports['grpc-listen']}",
            "CONNECTORS_SIDECAR_LISTEN": f"127.0.0.1:{self.up.ports['sidecar-listen']}",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True, text=True, env=environment, cwd=self.up.root, stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def drill() -> Iterator[Drill]:
    """A platform that is ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="dr-") as directory:
        drill = Drill(Path(directory))
        try:
            yield drill
        finally:
            if not drill.up.ended():
                drill.up.end(signal.SIGTERM)


def test_what_the_page_says_brings_a_lost_platform_back(drill: Drill, api: int) -> None:
    """An app's key and a tenant's stored credential of before are good for a call afterwards; the admin's key is a new one."""
    up = drill.up
    up.start()
    (up.root / "keyed.yaml").write_text(DEFINITION.format(port=api))
    (up.root / "secret").write_text(SECRET)
    call = "connectors --key-file app.key call acme keyed /v1/whoami"
    drill.shell(
        "connectors integration create keyed --file keyed.yaml && connectors tenant create acme && "
        "connectors credential set acme keyed --secret-file secret && "
        f"connectors key create --role app --tenant acme --out app.key && {call}"
    )
    drill.type("drill-before")
    admin = (up.state / "keys" / "admin.key").read_text()
    assert up.end(signal.SIGTERM) == 0
    shutil.rmtree(up.state)

    assert "is whole" in drill.type("drill-after")
    (start,) = blocks(PAGE, "sh", "drill-up")
    command = drill.here(start).split()
    assert command[:2] == ["connectors", "up"]
    up.more = tuple(command[2:])
    up.start()
    assert "acme" in drill.type("drill-then")
    drill.shell(call)
    assert (up.state / "keys" / "admin.key").read_text() != admin
    assert not list(up.state.rglob("seal.key"))
