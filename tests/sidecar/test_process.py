"""The sidecar as it is run: its settings, its process on uvloop, TLS to the provider."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connectors_grpc.gen.connectors.v1 import error_reason_pb2
from sidecar.command import command
from sidecar.engine.upstream import Upstream
from sidecar.problem import TEXT, Problem, answer
from sidecar.refused import SettingsRefused
from sidecar.settings import Tcp, Unix, parse
from tests.sidecar.harness import SIDECAR_KEY, SOON, App, World, process, world


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"listen": "0.0.0.0:15001"}, "--listen"),
        ({"listen": "192.168.1.1:15001"}, "--listen"),
        ({"listen": "example.com:1"}, "--listen"),
        ({"listen": "127.0.0.1"}, "--listen"),
        ({"listen": "127.0.0.1:99999"}, "--listen"),
        ({"listen": "unix:relative.sock"}, "--listen"),
        ({"server": "connectors.example.com:50051"}, "--server"),
        ({"server": "http://10.0.0.1:50051"}, "--server"),
        ({"server": "nonsense"}, "--server"),
        ({"key_file": "/nowhere"}, "--key-file"),
        ({"ca_file": "/nowhere"}, "--ca-file"),
        ({"maps": ["127.0.0.1:1"]}, "--map"),
        ({"maps": ["127.0.0.1:1=Acme/notes"]}, "--map"),
        ({"maps": ["0.0.0.0:1=acme/notes"]}, "--map"),
        ({"host_names": ["a/b"]}, "--host-name"),
        ({"metrics_listen": "unix:/x"}, "--metrics-listen"),
        ({"metrics_listen": "0.0.0.0:1"}, "--metrics-listen"),
    ],
)
def test_a_setting_that_can_not_be_used_names_its_field(settings: dict[str, Any], field: str) -> None:
    """What is not loopback is refused without TLS."""
    with pytest.raises(SettingsRefused) as refused:
        parse(**settings)
    assert refused.value.field == field


def test_settings_are_parsed(tmp_path: Path) -> None:
    """Every form that is documented."""
    key = tmp_path / "key"
    key.write_text(SIDECAR_KEY + "\n")
    got = parse(
        listen="localhost:0", server="https://connectors.example.com:443", key_file=str(key), maps=["[::1]:15010=acme/stripe"],
        host_names=["Sidecar.internal:15001"],
    )  # fmt: skip
    assert got.listen == Tcp("127.0.0.1", 0)
    assert (got.server.target, got.server.tls) == ("connectors.example.com:443", True)
    assert got.server.key is not None
    assert got.server.key.reveal() == SIDECAR_KEY
    assert SIDECAR_KEY not in repr(got)
    assert got.dedicated[0].listen == Tcp("::1", 15010)
    assert got.host_names == {"sidecar.internal:15001"}
    assert parse(listen="unix:/run/x.sock").listen == Unix(Path("/run/x.sock"))


def test_a_key_file_that_holds_no_key_is_refused_without_quoting_it(tmp_path: Path) -> None:
    """A secret in the wrong file stays out of the error."""
    key = tmp_path / "key"
    key.write_text("hunter2 hunter2\nhunter2")
    result = CliRunner().invoke(command, ["--key-file", str(key)])
    assert result.exit_code == 2
    assert "--key-file" in result.output
    assert "hunter2" not in result.output


def test_help_explains_itself() -> None:
    """With examples."""
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    for word in ("--listen", "--key-file", "--map", "curl", "--open"):
        assert word in result.output


def test_every_reason_is_the_contracts() -> None:
    """No word of our own."""
    known = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 - not a dict
    assert set(TEXT) <= known


@pytest.mark.parametrize("reason", [*TEXT, "SOMETHING_NEW"])
def test_every_problem_is_a_whole_answer(reason: str) -> None:
    """A reason that a newer server gives is a 503, not a crash; what varies is escaped JSON."""
    text = answer(Problem(reason, 'with "quotes"\r\n', metadata={"tenant": 'a"\r\nX: y', "token": "secret"}))
    head, _, body = text.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"\r\nX: y" not in text
    assert b"secret" not in text


# --- TLS


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for a name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1)).add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


@pytest_asyncio.fixture
async def tls_world(tmp_path: Path) -> AsyncIterator[World]:
    """A provider with TLS for `localhost`, whose CA the sidecar trusts."""
    cert, key = certificate(tmp_path, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with world(tls=context, upstream_ca=cert) as w:
        yield w


async def test_tls_to_the_provider_is_verified_and_its_connections_are_used_again(tls_world: World) -> None:
    """HTTP/1.1 by ALPN; big bodies both ways."""
    w = tls_world
    authority = f"localhost:{w.provider.port}"
    w.connect(base_url=f"https://{authority}", allowed_hosts=[authority])
    chosen: list[str | None] = []

    async def echo(got: Any, writer: asyncio.StreamWriter) -> bytes:
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(got.body), got.body)

    w.provider.reply = echo
    app = await w.app(limit=1 << 22)
    body = bytes(range(256)) * 8192
    for _ in range(3):
        assert (await app.ask(w.request(method="POST", body=body))).body == body
    assert chosen == ["http/1.1"] * 3
    assert w.provider.connections == 1


async def test_a_connection_that_ended_is_freed_without_the_collector(tls_world: World) -> None:
    """With TLS it holds buffers of a good part of a MiB: they must not wait for the collector's next full run."""
    w = tls_world
    authority = f"localhost:{w.provider.port}"
    w.connect(base_url=f"https://{authority}", allowed_hosts=[authority])
    w.provider.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    app = await w.app()
    gc.collect()
    before = sum(isinstance(each, Upstream) for each in gc.get_objects())
    gc.disable()
    try:
        for _ in range(5):
            assert (await app.ask(w.request())).status == 200
        async with asyncio.timeout(SOON):
            while sum(isinstance(each, Upstream) for each in gc.get_objects()) > before:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_a_certificate_for_another_name_is_refused(tls_world: World) -> None:
    """502, and the credential was not sent."""
    w = tls_world
    authority = f"127.0.0.2:{w.provider.port}"
    w.connect(base_url=f"https://{authority}", allowed_hosts=[authority])
    answer = await w.ask()
    assert (answer.status, answer.reason) == (502, "UPSTREAM_UNREACHABLE")
    assert w.provider.got == []


# --- the process


async def test_the_process_serves_on_uvloop_and_ends_by_sigterm_after_what_is_in_flight(tmp_path: Path) -> None:
    """As an operator runs it; nothing of any secret stands in its output."""
    async with process(tmp_path, stderr=asyncio.subprocess.PIPE) as (w, running):
        gate = asyncio.Event()

        async def wait(got: Any, writer: asyncio.StreamWriter) -> bytes:
            await gate.wait()
            return b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"

        app = await w.app()
        assert (await app.ask(w.request())).body == b"ok"
        w.provider.reply = wait
        await app.send(w.request())
        await w.until(lambda: len(w.provider.got) > 1)
        running.send_signal(signal.SIGTERM)
        gate.set()
        answer = await app.answer()
        assert (answer.body, answer.all(b"connection")) in ((b"late", [b"close"]), (b"late", []))
        _, err = await asyncio.wait_for(running.communicate(), SOON)
        assert running.returncode == 0
        for secret in (SIDECAR_KEY, w.key.text, w.token().decode().removeprefix("Bearer ")):
            assert secret.encode() not in err


async def test_a_taken_port_is_said_in_one_line(w: World, tmp_path: Path) -> None:
    """Exit code 2, no traceback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "--listen", w.address, "--server", "127.0.0.1:1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), SOON)
    assert process.returncode == 2
    assert b"can't be listened on" in err
    assert b"Traceback" not in err


async def test_a_unix_socket_of_a_process_that_died_is_taken_over(tmp_path: Path) -> None:
    """One of a living process is not."""
    path = tmp_path / "s.sock"
    async with world(unix=path) as first:
        with pytest.raises(SettingsRefused):
            async with world(unix=path):
                pass
        reader, writer = await asyncio.open_unix_connection(str(path))
        app = App(reader, writer)
        first.connect()
        assert (await app.ask(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
        writer.close()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with world(unix=path):
        assert path.is_socket()
