"""`connectors up --demo` as a person runs it: real processes, a real OpenBao, a genuine connection; then everything is killed."""

from __future__ import annotations

import asyncio
import http.client
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.openbao import OpenBao
from tests.ports import free_ports

LISTENERS = ("grpc-listen", "http-listen", "sidecar-listen", "simulator-listen")
CHILDREN = {"server": "serve", "sidecar": "sidecar", "simulator": "simulate", "OpenBao": "bao"}


def until(fact: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a fact of another process, however soon it comes."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def command_line(pid: int) -> list[str]:
    """What a process was started with."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


@dataclass
class Up:
    """One state directory and the supervisor on it."""

    root: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None
    demo: bool = True
    more: tuple[str, ...] = ()

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.root / "state"

    def arguments(self) -> list[str]:
        """The command."""
        listen = [text for name, port in self.ports.items() for text in (f"--{name}", f"127.0.0.1:{port}")]
        demo = ("--demo",) if self.demo else ()
        command = [sys.executable, "-m", "connectors_grpc", "up", *demo, "--state-dir", str(self.state)]
        return [*command, *listen, *self.more]

    def environment(self) -> dict[str, str]:
        """No setting of whoever runs the tests."""
        return {name: value for name, value in os.environ.items() if not name.startswith("CONNECTORS_")}

    def start(self) -> None:
        """Start it and wait until it says that it is up."""
        with (self.root / "out").open("wb") as out, (self.root / "err").open("wb") as err:
            self.process = subprocess.Popen(
                self.arguments(), stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=self.environment()
            )
        until(lambda: "Ctrl-C ends it." in self.out() or self.ended(), 120)
        assert not self.ended(), self.err()

    def ensure(self) -> Up:
        """Running, whatever the test before did."""
        if self.ended():
            self.start()
        return self

    def ended(self) -> bool:
        """Whether the supervisor has ended, or never ran."""
        return self.process is None or self.process.poll() is not None

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def out(self) -> str:
        """What it said on stdout."""
        return (self.root / "out").read_text()

    def err(self) -> str:
        """What it said on stderr."""
        return (self.root / "err").read_text()

    def curl_line(self) -> list[str]:
        """The line that it told us to try."""
        return next(shlex.split(line) for line in self.out().splitlines() if line.strip().startswith("curl "))

    def works(self) -> bool:
        """Whether that line works: the app's header from its file, through the sidecar, to the provider and back."""
        _, _, header, url = self.curl_line()
        name, _, value = Path(header.removeprefix("@")).read_text().strip().partition(": ")
        host, _, path = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=10)
        try:
            connection.request("GET", f"/{path}", headers={name: value})
            answer = connection.getresponse()
            return answer.status == 200 and b'"account":"alice"' in answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def children(self) -> dict[str, int]:
        """The pid of each child, by name."""
        assert self.process is not None
        pid = self.process.pid
        pids = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        found = {}
        for child in pids:
            words = command_line(child)
            for name, word in CHILDREN.items():
                if word in words or (words and words[0].endswith(f"/{word}")):
                    found[name] = child
        return found

    def generation(self) -> str:
        """Which material the demo's credential holds."""
        done = self.cli("credential", "show", "demo", "demo")
        return next(line for line in done.stdout.splitlines() if line.startswith("generation"))

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command against this server."""
        before = [sys.executable, "-m", "connectors_grpc", "--server", f"127.0.0.1:{self.ports['grpc-listen']}"]
        key = ["--key-file", str(self.state / "keys" / "admin.key")]
        return subprocess.run(
            [*before, *key, *arguments], capture_output=True, text=True, check=True, env=self.environment(), timeout=60
        )


@pytest.fixture(scope="module")
def shared() -> Iterator[Up]:
    """One supervisor for the module; its path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="up-") as path:
        up = Up(Path(path), dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True)))
        try:
            yield up
        finally:
            if not up.ended():
                up.end(signal.SIGTERM)


@pytest.fixture
def up(shared: Up) -> Up:
    """It, running."""
    return shared.ensure()


def test_the_curl_line_works_at_once(up: Up) -> None:
    """Copied from the summary and run as it stands."""
    done = subprocess.run([*up.curl_line(), "-sS"], capture_output=True, text=True, check=False, timeout=60)
    assert '"account":"alice"' in done.stdout, done.stderr


def test_the_doctor_finds_nothing_wrong(up: Up) -> None:
    """A fresh start is well by its own account."""
    assert "problem" not in up.cli("doctor", "--sidecar", f"127.0.0.1:{up.ports['sidecar-listen']}").stdout


def test_a_second_start_is_refused_with_the_pid(up: Up) -> None:
    """Before anything else is looked at, and the first goes on."""
    assert up.process is not None
    done = subprocess.run(up.arguments(), capture_output=True, text=True, check=False, timeout=60, env=up.environment())
    assert done.returncode == 1
    assert f"in use by process {up.process.pid}" in done.stderr
    assert up.works()


@pytest.mark.parametrize("name", CHILDREN)
def test_a_killed_child_comes_back(up: Up, name: str) -> None:
    """Kill -9, and the curl line works again without anybody's help."""
    before = up.children()
    assert set(before) == set(CHILDREN)
    os.kill(before[name], signal.SIGKILL)
    until(lambda: up.children().get(name, before[name]) != before[name])
    until(up.works)
    assert {n: pid for n, pid in up.children().items() if n != name} == {n: p for n, p in before.items() if n != name}


def test_a_killed_supervisor_leaves_no_orphan_and_loses_nothing(up: Up) -> None:
    """Kill -9 takes everything along; the next start finds it all, without connecting again."""
    generation, children = up.generation(), up.children()
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: all(gone(pid) for pid in children.values()))
    up.start()
    assert up.works()
    assert up.generation() == generation


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_everything_in_order(up: Up, number: signal.Signals, code: int) -> None:
    """Sidecar, server, simulator, Vault; nothing is left, no port is held."""
    children = up.children()
    assert up.end(number) == code
    assert all(gone(pid) for pid in children.values())
    stopped = [line.split()[0] for line in up.err().splitlines() if line.endswith("stopped")]
    assert stopped == ["sidecar", "server", "simulator", "OpenBao"]
    for port in up.ports.values():
        socket.create_server(("127.0.0.1", port)).close()


def test_state_and_keys_survive_an_orderly_end(up: Up) -> None:
    """The same admin key, the same credential, notes and all."""
    key, generation = (up.state / "keys" / "admin.key").read_bytes(), up.generation()
    up.end(signal.SIGTERM)
    up.start()
    assert (up.state / "keys" / "admin.key").read_bytes() == key
    assert up.generation() == generation
    assert up.works()


def test_a_lost_app_key_is_made_anew(up: Up) -> None:
    """The demo mends itself: its key's file was removed."""
    up.end(signal.SIGTERM)
    (up.state / "keys" / "demo-app.key").unlink()
    up.start()
    assert up.works()


def test_a_provider_that_forgot_everything_is_connected_again(up: Up) -> None:
    """The simulator's state was removed: the tokens that we hold are worth nothing now."""
    generation = up.generation()
    up.end(signal.SIGTERM)
    (up.state / "demo" / "simulator.json").unlink()
    up.start()
    assert up.works()
    assert up.generation() != generation


def test_a_port_in_use_is_named_before_anything_starts(up: Up) -> None:
    """Port, setting, and who holds it."""
    up.end(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", up.ports["http-listen"])):
        done = subprocess.run(
            up.arguments(), capture_output=True, text=True, check=False, timeout=60, env=up.environment()
        )
    assert done.returncode == 1
    assert f"Port {up.ports['http-listen']}" in done.stderr
    assert "http_listen" in done.stderr
    assert f"process {os.getpid()}" in done.stderr
    assert "--http-listen" in done.stderr
    assert "ready" not in done.stderr


def test_no_secret_leaves_its_file(up: Up) -> None:
    """Not in any log, on the terminal, or in a process' arguments; and every file is private."""
    keys = [path.read_text().strip() for path in (up.state / "keys").glob("*.key")]
    secrets = [*keys, (up.state / "demo" / "client.secret").read_text().strip()]
    assert len(secrets) == 4
    told = up.out() + up.err() + "".join(path.read_text("utf-8", "replace") for path in (up.state / "logs").iterdir())
    assert up.process is not None
    told += " ".join(word for pid in (up.process.pid, *up.children().values()) for word in command_line(pid))
    for secret in secrets:
        assert secret not in told
    for path in up.state.rglob("*"):
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


async def test_with_a_vault_of_ones_own_none_is_brought_along(private_openbao: OpenBao, short_tmp: Path) -> None:
    """`--vault-addr`: server and sidecar only, on the operator's Vault, and keys where they belong."""
    root = Path(tempfile.mkdtemp(prefix="own-up-", dir=short_tmp))
    up = Up(root, dict(zip(LISTENERS[:3], free_ports(3), strict=True)), demo=False)
    up.more = ("--vault-addr", private_openbao.address, "--vault-secret-id-file", str(private_openbao.layout.approle))
    try:
        await asyncio.to_thread(up.start)
        assert set(up.children()) == {"server", "sidecar"}
        assert "acme" in (await asyncio.to_thread(up.cli, "tenant", "create", "acme")).stdout
        assert private_openbao.address in up.out()
    finally:
        assert await asyncio.to_thread(up.end, signal.SIGTERM) == 0


def test_a_server_that_cannot_start_is_explained(short_tmp: Path) -> None:
    """Its last words are shown, nothing is left running, and the exit code is 1."""
    root = Path(tempfile.mkdtemp(prefix="bad-up-", dir=short_tmp))
    up = Up(root, dict(zip(LISTENERS[:3], free_ports(3), strict=True)), demo=False)
    up.more = ("--vault-addr", "http://127.0.0.1:1", "--vault-secret-id-file", str(root / "missing"))
    done = subprocess.run(up.arguments(), capture_output=True, text=True, check=False, timeout=90, env=up.environment())
    assert done.returncode == 1
    assert "server did not come up" in done.stderr
    assert str(up.state / "logs" / "server.log") in done.stderr
