"""A Vault that misbehaves, or something else in its place: every call ends in VaultUnavailable, in time and in bounds."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors_grpc.errors import Conflict, KeyMissing, Undecipherable, VaultUnavailable
from connectors_grpc.vault import (
    VaultCiphers,
    VaultClient,
    VaultDocuments,
    VaultMisconfigured,
    VaultSettings,
    connect,
)
from tests.laws.vault_peer import SECRET_ID, TOKEN, Answer, Asked, VaultPeer, reply, usual, vault_peer

if TYPE_CHECKING:
    from tests.openbao import OpenBao

DEEP = b"[" * 200_000
GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{",
    "two lengths": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "an endless head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
    "a page": reply(200, b"<html>Welcome to the proxy</html>"),
    "nothing": reply(200),
    "an empty 204": reply(204),
    "a list": reply(200, [1]),
    "null": reply(200, b"null"),
    "deep nesting": reply(200, DEEP),
    "no UTF-8": reply(200, b'{"data": "\xff\xfe"}'),
    "no data": reply(200, {"data": None}),
    "data of another kind": reply(200, {"data": {"data": "x", "metadata": 7, "keys": "x", "version": "1"}}),
    "names that are no texts": reply(200, {"data": {"keys": [1, None]}}),
    "a version of zero": reply(200, {"data": {"data": {}, "metadata": {"version": 0}, "version": 0}}),
    "a version that is true": reply(200, {"data": {"data": {}, "metadata": {"version": True}, "version": True}}),
    "a plaintext that is no base64": reply(200, {"data": {"plaintext": "*", "ciphertext": "*"}}),
    "compressed": reply(200, b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"),
    "a page that is not found": reply(404, b"<html>404</html>"),
    "another kind of not found": reply(404, {"errors": ["no handler for route"]}),
    "a page for a bad request": reply(400, b"<html>400</html>"),
    "an empty bad request": reply(400, {"errors": []}),
    "an unknown status": reply(299, {"data": {}}),
    "a teapot": reply(418, {"errors": ["teapot"]}),
    "denied": reply(403, {"errors": ["permission denied"]}),
    "throttled": reply(429, {"errors": ["too many requests"]}),
    "broken": reply(500, {"errors": ["internal error"]}),
    "sealed": reply(503, {"errors": ["Vault is sealed"]}),
    "standby": reply(473),
    "hung up": None,
}


@asynccontextmanager
async def client_of(peer: VaultPeer, tmp_path: Path, timeout: float = 5.0) -> AsyncIterator[VaultClient]:
    """A client that is logged in at the peer."""
    secret_id_file = tmp_path / "secret-id"
    secret_id_file.write_text(f"{SECRET_ID}\n")
    settings = VaultSettings(address=peer.address, role_id="role", secret_id_file=secret_id_file, timeout=timeout)
    async with connect(settings) as client:
        yield client


async def every_call_fails(client: VaultClient) -> None:
    """Each method of both ports raises VaultUnavailable, and nothing else."""
    documents, ciphers = VaultDocuments(client), VaultCiphers(client)
    calls = (
        lambda: documents.read("a/b"),
        lambda: documents.write("a/b", {}, cas=0),
        lambda: documents.list("a"),
        lambda: ciphers.encrypt("k", b"c", b"x"),
        lambda: ciphers.decrypt("k", b"c", "vault:v1:AAAA"),
    )
    for call in calls:
        with pytest.raises(VaultUnavailable):
            await call()


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_a_vault_that_is_not_available(answer: Answer, tmp_path: Path) -> None:
    """Whatever answers is not trusted: no crash, no wrong value, no conflict or missing key that is not one."""

    def closing(_: Asked) -> Answer:
        if isinstance(answer, bytes) and b"Content-Type" not in answer and b"close" not in answer:
            return then_close(answer)
        return answer

    async with vault_peer(usual(closing)) as peer, client_of(peer, tmp_path) as client:
        await every_call_fails(client)


@pytest.mark.parametrize(
    "name", ["denied", "throttled", "broken", "sealed", "a teapot", "an empty bad request", "hung up"]
)
async def test_what_was_not_done_is_not_reported_as_done(name: str, tmp_path: Path) -> None:
    """Purging, creating and shredding answer without a body: only 200 and 204 count."""
    async with vault_peer(usual(lambda _: GARBAGE[name])) as peer, client_of(peer, tmp_path) as client:
        documents, ciphers = VaultDocuments(client), VaultCiphers(client)
        for call in (documents.purge("a/b"), ciphers.create_key("k"), ciphers.shred_key("k")):
            with pytest.raises(VaultUnavailable):
                await call


def then_close(content: bytes) -> Answer:
    """Write it and hang up."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        raise ConnectionAbortedError

    return write


async def test_garbage_at_health_is_refused_too(tmp_path: Path) -> None:
    """Health has no token and the same caution; a sealed Vault is an answer there."""
    answers = [reply(200, []), reply(200, {"initialized": 1, "sealed": 0, "version": "x"}), reply(404, {"errors": []})]
    async with vault_peer(usual(lambda _: answers.pop(0))) as peer, client_of(peer, tmp_path) as client:
        while answers:
            with pytest.raises(VaultUnavailable):
                await client.health()
        answers.append(reply(503, {"initialized": True, "sealed": True, "version": "1" * 100}))
        health = await client.health()
        assert (health.initialized, health.sealed, health.version) == (True, True, "1" * 64)


@pytest.mark.parametrize("head", ["Content-Length: 999999999", "Transfer-Encoding: chunked"])
async def test_a_reply_without_end_is_cut_at_a_mebibyte(head: str, tmp_path: Path) -> None:
    """The peer sees us hang up; we never hold more than the bound."""
    sent = 0
    cut = asyncio.Event()

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        chunk = b"x" * 65_536
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        try:
            while True:
                writer.write(b"10000\r\n" + chunk + b"\r\n" if "chunked" in head else chunk)
                await writer.drain()
                sent += len(chunk)
        finally:
            cut.set()

    async with vault_peer(usual(lambda _: flood)) as peer, client_of(peer, tmp_path) as client:
        with pytest.raises(VaultUnavailable):
            await VaultDocuments(client).read("a/b")
        async with asyncio.timeout(60):
            await cut.wait()
    assert sent < 16 << 20


@pytest.mark.parametrize("hold", ["head", "body"])
async def test_a_reply_that_never_comes_ends_at_the_deadline(hold: str, tmp_path: Path) -> None:
    """Silence before the head, and in the middle of the body."""
    asked = asyncio.Event()

    async def silence(writer: asyncio.StreamWriter) -> None:
        asked.set()
        if hold == "body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await asyncio.Event().wait()

    async with vault_peer(usual(lambda _: silence)) as peer, client_of(peer, tmp_path, timeout=1.0) as client:
        with pytest.raises(VaultUnavailable):
            await VaultDocuments(client).read("a/b")
        assert asked.is_set()


async def test_a_caller_may_give_up_sooner_and_its_connection_is_not_lost(tmp_path: Path) -> None:
    """More cancelled calls than the pool has connections, and the next call still works."""
    hanging = asyncio.Semaphore(0)

    async def silence(_writer: asyncio.StreamWriter) -> None:
        hanging.release()
        await asyncio.Event().wait()

    def script(asked: Asked) -> Answer:
        return silence if asked.target.endswith("hang") else reply(404, {"errors": []})

    async with vault_peer(usual(script)) as peer, client_of(peer, tmp_path) as client:
        documents = VaultDocuments(client)
        for _ in range(3):
            calls = [asyncio.create_task(documents.read("a/hang")) for _ in range(40)]
            for _ in range(32):
                await hanging.acquire()
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            hanging = asyncio.Semaphore(0)
        assert await asyncio.gather(*(documents.read("a/b") for _ in range(40))) == [None] * 40


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int, tmp_path: Path) -> None:
    """The token goes to the address in the settings and to no other."""
    async with vault_peer(lambda _: reply(200, {})) as other:
        script = usual(lambda _: reply(status, None, f"Location: {other.address}/v1/secret/data/a/b"))
        async with vault_peer(script) as peer, client_of(peer, tmp_path) as client:
            await every_call_fails(client)
        assert other.asked == []


async def test_the_vaults_own_wish_to_wait_is_passed_on(tmp_path: Path) -> None:
    """Retry-After counts within bounds; nonsense in it does not."""
    waits = {
        "7": 7.0,
        "0": 1.0,
        "99999": 60.0,
        "-3": 1.0,
        "Tue, 01 Jan 2030 00:00:00 GMT": 1.0,
        "٣": 1.0,
        "9" * 5000: 1.0,
    }
    values = list(waits)
    answers = [reply(429, {"errors": []}, f"Retry-After: {value}") for value in values if value.isascii()]
    async with vault_peer(usual(lambda _: answers.pop(0))) as peer, client_of(peer, tmp_path) as client:
        for value in (value for value in values if value.isascii()):
            with pytest.raises(VaultUnavailable) as caught:
                await VaultDocuments(client).read("a/b")
            assert caught.value.retry_after == waits[value]


async def test_a_vault_that_ignores_pages_is_paged_here(tmp_path: Path) -> None:
    """HashiCorp Vault answers a list with everything: `after` and `limit` are applied by us."""
    names = [f"n{number:02}" for number in range(10)]
    everything = reply(200, {"data": {"keys": ["UPPER", "folder/", *names]}})
    async with vault_peer(usual(lambda _: everything)) as peer, client_of(peer, tmp_path) as client:
        documents = VaultDocuments(client)
        page = await documents.list("a", after="n02", limit=4)
        assert (list(page.names), page.more) == (names[3:7], True)
        page = await documents.list("a", after="n07", limit=4)
        assert (list(page.names), page.more) == (names[8:], False)


async def test_no_secret_is_in_a_log_or_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """At DEBUG, whatever goes wrong: no token, secret id, plaintext or document, and no library's own line."""
    caplog.set_level(logging.DEBUG)
    plaintext = b"CANARY-plaintext-4713"
    shown: list[str] = []
    for answer in (*GARBAGE.values(), reply(400, {"errors": [f"bad token {TOKEN}"]})):
        async with vault_peer(usual(lambda _, answer=answer: answer)) as peer, client_of(peer, tmp_path, 1.0) as client:  # type: ignore[misc]
            documents, ciphers = VaultDocuments(client), VaultCiphers(client)
            for call in (
                documents.write("a/b", {"secret": "CANARY-document-4714"}, cas=0),
                documents.read("a/b"),
                ciphers.encrypt("k", b"c", plaintext),
                ciphers.decrypt("k", b"c", "vault:v1:CANARY"),
            ):
                try:
                    await asyncio.wait_for(call, 0.5)
                except (VaultUnavailable, Conflict, KeyMissing, Undecipherable, TimeoutError) as error:
                    shown += [repr(error), str(error), repr(error.__cause__)]
            shown.append(f"{client!r} {client.adapter!r} {vars(documents)!r}")
    out, err = capfd.readouterr()
    everything = "\n".join([*shown, caplog.text, out, err, *(repr(record.__dict__) for record in caplog.records)])
    assert "vault_login" in everything
    assert "CANARY" not in everything
    assert not any(record.name.startswith(("httpx2", "httpcore2")) for record in caplog.records)


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.1:8200", "http://vault.internal", "http://0.0.0.0:8200", "http://[2001:db8::1]:8200", "http://128.0.0.1",
        "http://localhost.example.com", "http://127.0.0.1.example.com", "http://127.0.0.1@example.com", "http://user:pw@127.0.0.1",
        "https://vault.example/path", "https://vault.example?x", "https://vault.example#x", "https://", "ftp://127.0.0.1",
        "vault.example:8200", "https://vault.example:99999", "https://va ult", "unix://host/path", "unix://", "unix:///p?x",
    ],
)  # fmt: skip
def test_an_address_where_secrets_would_be_open_is_refused(address: str, tmp_path: Path) -> None:
    """Not loopback means https; and nothing but an origin."""
    with pytest.raises(VaultMisconfigured):
        VaultSettings(address=address, secret_id_file=tmp_path / "x")


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8200",
        "http://127.9.9.9",
        "http://[::1]:8200/",
        "http://localhost:8200",
        "https://vault.example",
        "unix:///p",
    ],
)
def test_an_address_on_this_machine_or_encrypted_is_taken(address: str, tmp_path: Path) -> None:
    """Loopback may be plain."""
    VaultSettings(address=address, secret_id_file=tmp_path / "x")


@pytest.mark.parametrize(
    "change",
    [
        {"address": ""}, {"socket_path": Path("/p")}, {"token_file": Path("/p")}, {"secret_id_file": None}, {"timeout": 0.0},
        {"timeout": 61.0}, {"timeout": float("nan")}, {"namespace": "a b"}, {"namespace": "a\r\nX: y"}, {"role_id": "a\nb"},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    """Two of what there may be one of, none, and values out of bounds."""
    fields: dict[str, object] = {"address": "https://vault.example", "secret_id_file": tmp_path / "x"}
    with pytest.raises(VaultMisconfigured):
        VaultSettings(**(fields | change))  # type: ignore[arg-type]


def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that is its own authority, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    authority = tmp_path / "ca.pem"
    authority.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*formats))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, tmp_path / "key.pem")
    return authority, context


async def test_tls_is_checked_against_the_given_authority(tmp_path: Path) -> None:
    """With its CA file the Vault is trusted; without, it never sees our secret id."""
    authority, context = certificate(tmp_path)
    (tmp_path / "secret-id").write_text(SECRET_ID)
    async with vault_peer(usual(lambda _: reply(404, {"errors": []})), context) as peer:
        fields = VaultSettings(address=peer.address, role_id="role", secret_id_file=tmp_path / "secret-id", timeout=2.0)
        async with connect(fields) as client:
            with pytest.raises(VaultUnavailable):
                await VaultDocuments(client).read("a/b")
        assert peer.asked == []
        trusting = VaultSettings(
            address=peer.address,
            role_id="role",
            secret_id_file=tmp_path / "secret-id",
            ca_file=authority,
            namespace="team/a",
        )
        async with connect(trusting) as client:
            assert await VaultDocuments(client).read("a/b") is None
        assert {asked.headers["x-vault-namespace"] for asked in peer.asked} == {"team/a"}
        missing = VaultSettings(address=peer.address, secret_id_file=tmp_path / "secret-id", ca_file=tmp_path / "none")
        with pytest.raises(VaultMisconfigured, match="CA file"):
            async with connect(missing):
                pass


def stop(pid: int) -> None:
    """Stop a process, and be sure of it: a signal takes its time to reach every thread."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while not all(
        (task / "stat").read_text().rpartition(")")[2].split()[0] in "Tt"
        for task in Path(f"/proc/{pid}/task").iterdir()
    ):
        assert time.monotonic() < deadline, "the process does not stop"


async def test_killed_in_the_middle_of_a_call_and_back_again(private_openbao: OpenBao) -> None:
    """Calls under way end with VaultUnavailable, those after too, and the same client works once the Vault is back."""
    vault = private_openbao.vault
    settings = VaultSettings(socket_path=vault.socket_path, secret_id_file=vault.secret_id_file)
    async with connect(settings) as client:
        documents = VaultDocuments(client)
        await documents.write("acme/github", {"n": 1}, cas=0)
        assert vault.pid is not None
        stop(vault.pid)
        calls = [asyncio.create_task(documents.read("acme/github")) for _ in range(10)]
        await asyncio.wait(calls, timeout=0.05)
        os.kill(vault.pid, signal.SIGKILL)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {VaultUnavailable}
        await vault.wait_exit()
        with pytest.raises(VaultUnavailable):
            await documents.read("acme/github")
        with pytest.raises(VaultUnavailable):
            await client.health()
        await vault.start()
        found = await documents.read("acme/github")
        assert found is not None
        assert found.data == {"n": 1}


async def test_a_vault_that_hangs_ends_at_the_deadline(private_openbao: OpenBao) -> None:
    """A stopped process accepts connections and never answers."""
    vault = private_openbao.vault
    settings = VaultSettings(socket_path=vault.socket_path, secret_id_file=vault.secret_id_file, timeout=2.0)
    async with connect(settings) as client:
        documents = VaultDocuments(client)
        assert vault.pid is not None
        stop(vault.pid)
        try:
            with pytest.raises(VaultUnavailable):
                await documents.read("acme/github")
        finally:
            os.kill(vault.pid, signal.SIGCONT)
        assert await documents.read("acme/github") is None
