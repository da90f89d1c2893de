"""The embedded OpenBao: what it does to its state directory, to its process, and what its one role may and may not do."""

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors_grpc.embedded import EmbeddedSettings, EmbeddedVault, EmbeddedVaultError, StateLayout, operator_setup
from connectors_grpc.embedded.api import AppRole, call, is_serving, login
from connectors_grpc.embedded.boot import Boot, Found, decide
from connectors_grpc.embedded.config import FirstBoot, SealKey, literal, render
from connectors_grpc.embedded.files import copy_and_truncate, shift, write_private
from connectors_grpc.embedded.layout import prepare
from connectors_grpc.embedded.lock import StateLock
from connectors_grpc.embedded.process import find_binary
from connectors_grpc.embedded.setup import SERVER, access_steps, mount_steps, server_policy
from tests.openbao import OpenBao, copy_state, opened
from tests.ports import free_port

REPOSITORY = Path(__file__).parent.parent.parent
KEY = SealKey("k", Path("/keys/k"))


async def until(fact: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a fact, however soon it comes."""
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def process_file(pid: int, name: str) -> bytes:
    """What anyone with this user's rights may read of a process."""
    return Path(f"/proc/{pid}/{name}").read_bytes()


def files_with(needle: bytes, root: Path) -> list[Path]:
    """Every file below `root` that contains the bytes."""
    return [path for path in root.rglob("*") if path.is_file() and needle in path.read_bytes()]


def b64(text: str) -> str:
    """Transit takes its bytes in base64."""
    return base64.b64encode(text.encode()).decode()


class TestFirstBoot:
    """From an empty directory to a Vault that serves."""

    async def test_it_leaves_private_files_and_a_way_in_that_works(self, short_tmp: Path) -> None:
        """After the first boot every file is 0600, every directory 0700, and the AppRole logs in."""
        layout = StateLayout.at(short_tmp / "first")
        async with EmbeddedVault(layout) as vault:
            approle = opened(vault)
            assert await approle.login()
            assert vault.role_id == approle.role_id
            for path in layout.root.rglob("*"):
                mode = path.lstat().st_mode & 0o777
                assert mode == (0o700 if path.is_dir() else 0o600), path
            assert not layout.initialising.exists()
            assert "initialize" not in layout.config.read_text()

    async def test_the_secret_of_the_first_boot_is_dead_and_was_in_no_environment(
        self, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Attack 39: the boot secret logs nobody in, is in no environment, argument or file, nor is anything of ours."""
        minted: list[str] = []

        def token_hex(size: int) -> str:
            minted.append(os.urandom(size).hex())
            return minted[-1]

        monkeypatch.setattr("connectors_grpc.embedded.vault.secrets.token_hex", token_hex)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-our-own-environment")
        layout = StateLayout.at(short_tmp / "boot-secret")
        async with EmbeddedVault(layout) as vault:
            _seal_key, *ways = minted
            assert vault.role_id == ways[0]
            secrets = ways[1::2]
            assert len(secrets) == 2
            for role_id, secret in zip(ways[::2], secrets, strict=True):
                assert await asyncio.to_thread(login, layout.socket, AppRole(role_id, secret)) is None
            for name in ("environ", "cmdline"):
                shown = process_file(vault.pid or 0, name)
                assert not any(secret.encode() in shown for secret in secrets)
                assert b"canary" not in shown
            assert not any(files_with(secret.encode(), layout.root) for secret in secrets)

    async def test_one_that_was_cut_short_is_begun_anew(self, short_tmp: Path) -> None:
        """A data directory half written by a first boot that was killed is wiped, for it has never served."""
        layout = StateLayout.at(short_tmp / "half")
        vault = EmbeddedVault(layout)
        starting = asyncio.create_task(vault.start())
        await until(lambda: (layout.data / "vault.db").exists())
        assert vault.pid is not None
        os.kill(vault.pid, signal.SIGKILL)
        with pytest.raises(EmbeddedVaultError):
            await starting
        assert layout.initialising.exists()
        async with vault:
            assert await opened(vault).login()

    async def test_a_cancelled_start_leaves_no_process_and_no_lock(self, short_tmp: Path) -> None:
        """Cancellation ends OpenBao before it is passed on."""
        layout = StateLayout.at(short_tmp / "cancelled")
        vault = EmbeddedVault(layout)
        starting = asyncio.create_task(vault.start())
        await until(lambda: vault.pid is not None)
        pid = vault.pid
        assert pid is not None
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert gone(pid)
        StateLock.take(layout.lock).release()


class TestLaterStarts:
    """A directory that has served."""

    async def test_data_is_there_after_a_restart(self, private_openbao: OpenBao) -> None:
        """What was written before a stop is read after a start."""
        bao = private_openbao
        token = await bao.login()
        written = await bao.call("POST", "connectors/data/tenants/acme", {"data": {"uid": "u1"}}, token)
        assert written.status == 200
        await bao.vault.stop()
        await bao.vault.start()
        read = await bao.call("GET", "connectors/data/tenants/acme", token=token)
        assert read.body["data"]["data"] == {"uid": "u1"}

    async def test_a_killed_openbao_is_noticed_and_started_again_by_the_same_object(
        self, private_openbao: OpenBao
    ) -> None:
        """wait_exit gives the signal, a second start works on the remains, and the old token is still good."""
        bao = private_openbao
        token = await bao.login()
        assert bao.vault.pid is not None
        os.kill(bao.vault.pid, signal.SIGKILL)
        assert await asyncio.wait_for(bao.vault.wait_exit(), 60) == -signal.SIGKILL
        assert bao.vault.pid is None
        await bao.vault.start()
        assert (await bao.call("GET", "auth/token/lookup-self", token=token)).status == 200

    async def test_a_seal_key_elsewhere_is_used_and_not_copied(self, short_tmp: Path) -> None:
        """With the key outside, a copy of the state directory holds no key and does not open without it."""
        elsewhere = short_tmp / "elsewhere"
        elsewhere.mkdir(0o700)
        layout = StateLayout.at(short_tmp / "sealed", elsewhere / "k")
        async with EmbeddedVault(layout):
            pass
        key = layout.seal_key.read_bytes()
        assert not (layout.vault / "seal.key").exists()
        assert not files_with(key, layout.root)
        with pytest.raises(EmbeddedVaultError, match=r"seal key .* is missing.*--seal-key"):
            await EmbeddedVault(StateLayout.at(layout.root)).start()
        async with EmbeddedVault(layout) as vault:
            assert await opened(vault).login()

    async def test_another_seal_key_is_refused_before_openbao_is_tried(
        self, short_tmp: Path, openbao_template: Path
    ) -> None:
        """The mark of the first boot says which key the data belongs to."""
        layout = copy_state(openbao_template, short_tmp / "wrong-key")
        write_private(layout.seal_key, b"00" * 32)
        with pytest.raises(EmbeddedVaultError, match="another one"):
            await EmbeddedVault(layout).start()

    async def test_a_seal_key_that_others_can_read_is_refused(self, short_tmp: Path, openbao_template: Path) -> None:
        """The error says which chmod."""
        layout = copy_state(openbao_template, short_tmp / "open-key")
        layout.seal_key.chmod(0o644)
        with pytest.raises(EmbeddedVaultError, match="chmod 600"):
            await EmbeddedVault(layout).start()

    async def test_an_audit_log_that_cannot_be_written_is_told_at_once(
        self, short_tmp: Path, openbao_template: Path
    ) -> None:
        """OpenBao would try for ever; we say what stands in the way, and leave nothing running."""
        layout = copy_state(openbao_template, short_tmp / "audit-dir")
        layout.audit.unlink()
        layout.audit.mkdir(0o700)
        vault = EmbeddedVault(layout, EmbeddedSettings(start_deadline=120))
        begun = time.monotonic()
        with pytest.raises(EmbeddedVaultError, match="audit log"):
            await vault.start()
        assert time.monotonic() - begun < vault.settings.start_deadline / 2
        assert vault.pid is None
        layout.audit.rmdir()
        async with vault:
            assert await opened(vault).login()


class TestOneOwner:
    """The lock, and what dies with whom."""

    async def test_a_second_start_on_the_directory_names_the_first(self, openbao: OpenBao) -> None:
        """The error has the pid of the process that holds the lock."""
        with pytest.raises(EmbeddedVaultError, match=f"in use by process {os.getpid()}"):
            await EmbeddedVault(openbao.layout).start()
        assert await openbao.login()

    async def test_starting_what_runs_is_an_error_and_harms_nothing(self, openbao: OpenBao) -> None:
        """A second start on the same object neither spawns nor stops anything."""
        pid = openbao.vault.pid
        with pytest.raises(EmbeddedVaultError, match="runs already"):
            await openbao.vault.start()
        assert openbao.vault.pid == pid

    async def test_a_killed_parent_leaves_no_orphan_and_no_lock(self, short_tmp: Path, openbao_template: Path) -> None:
        """Attack 39: kill -9 of the supervisor takes OpenBao with it, and the next start works at once."""
        layout = copy_state(openbao_template, short_tmp / "orphan")
        program = (
            "import asyncio, pathlib, sys\n"
            "from connectors_grpc.embedded import EmbeddedVault, StateLayout\n"
            "async def main():\n"
            "    async with EmbeddedVault(StateLayout.at(pathlib.Path(sys.argv[1]))) as vault:\n"
            "        print(vault.pid, flush=True)\n"
            "        await vault.wait_exit()\n"
            "asyncio.run(main())\n"
        )
        parent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(layout.root)), stdout=subprocess.PIPE, cwd=REPOSITORY
        )
        assert parent.stdout is not None
        pid = int(await asyncio.wait_for(parent.stdout.readline(), 60))
        assert not gone(pid)
        parent.kill()
        await parent.wait()
        async with EmbeddedVault(layout) as vault:
            assert gone(pid)
            assert await opened(vault).login()

    async def test_ctrl_c_in_the_terminal_does_not_reach_openbao(self, openbao: OpenBao) -> None:
        """It is in a session of its own, so that the server can finish what it has before the Vault goes."""
        assert openbao.vault.pid is not None
        assert os.getsid(openbao.vault.pid) != os.getsid(0)


class TestDirectory:
    """Which directories are refused, before anything is written."""

    def test_one_that_others_may_write_is_refused(self, short_tmp: Path) -> None:
        """The error says which chmod."""
        root = short_tmp / "too-open"
        root.mkdir()
        root.chmod(0o770)
        with pytest.raises(EmbeddedVaultError, match="chmod 700"):
            prepare(StateLayout.at(root))
        assert not list(root.iterdir())

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_one_of_somebody_else_is_refused(self, short_tmp: Path) -> None:
        """Even root does not use another user's directory."""
        root = short_tmp / "foreign"
        root.mkdir(0o700)
        os.chown(root, 12345, 12345)
        with pytest.raises(EmbeddedVaultError, match="belongs to user 12345"):
            prepare(StateLayout.at(root))

    def test_one_below_a_directory_that_anyone_may_write_is_refused(self, short_tmp: Path) -> None:
        """Whoever may rename it away could put another in its place."""
        parent = short_tmp / "public"
        parent.mkdir()
        parent.chmod(0o777)
        with pytest.raises(EmbeddedVaultError, match="chmod o-w"):
            prepare(StateLayout.at(parent / "state"))

    def test_a_link_in_place_of_a_part_of_it_is_refused(self, short_tmp: Path) -> None:
        """`vault` is a directory or nothing."""
        root = short_tmp / "linked"
        root.mkdir(0o700)
        (root / "vault").symlink_to(short_tmp)
        with pytest.raises(EmbeddedVaultError, match="not a directory"):
            prepare(StateLayout.at(root))

    def test_a_path_too_long_for_a_socket_is_refused(self, short_tmp: Path) -> None:
        """unix(7) allows 108 bytes; the error says how many are left for us."""
        with pytest.raises(EmbeddedVaultError, match="too long"):
            prepare(StateLayout.at(short_tmp / ("x" * 100)))

    def test_a_missing_openbao_is_an_error_that_says_what_to_do(self, short_tmp: Path) -> None:
        """No traceback of an exec that failed."""
        with pytest.raises(EmbeddedVaultError, match="Install"):
            find_binary(EmbeddedSettings(binary=short_tmp / "no-bao"))


class TestWhichBoot:
    """decide(): what may be wiped, and what never."""

    LAYOUT = StateLayout.at(Path("/nowhere"))

    @pytest.mark.parametrize(
        ("found", "boot"),
        [
            (Found(False, False, None, False, None), Boot.FIRST),
            (Found(False, False, None, False, "k"), Boot.FIRST),
            (Found(True, True, None, False, "k"), Boot.WIPE_THEN_FIRST),
            (Found(True, True, None, True, "k"), Boot.WIPE_THEN_FIRST),
            (Found(True, False, "k", True, "k"), Boot.AGAIN),
            (Found(True, True, "k", True, "k"), Boot.AGAIN),
        ],
    )
    def test_each_sound_state_has_its_boot(self, found: Found, boot: Boot) -> None:
        """A mark of having served outweighs one of having begun."""
        assert decide(found, self.LAYOUT) is boot

    @pytest.mark.parametrize(
        "found",
        [
            Found(True, False, None, True, "k"),
            Found(True, False, None, False, None),
            Found(False, False, "k", True, "k"),
            Found(True, False, "k", True, None),
            Found(True, False, "k", True, "other"),
            Found(True, False, "k", False, "k"),
        ],
    )
    def test_each_doubtful_state_is_refused(self, found: Found) -> None:
        """What may have served is never wiped, and the error says what to do."""
        with pytest.raises(EmbeddedVaultError) as caught:
            decide(found, self.LAYOUT)
        assert caught.value.fix


class TestNetwork:
    """There is no way in but the socket."""

    async def test_the_tcp_listener_that_raft_wants_answers_nobody(self, private_openbao: OpenBao) -> None:
        """Attack 39: on loopback only, every TCP caller is cut off without an answer, and the socket goes on serving."""
        ports = listening_ports(private_openbao.vault.pid or 0)
        assert ports
        for address, port in ports:
            assert address == "127.0.0.1"
            assert http_over_tcp(port) == b""
        assert (await private_openbao.call("GET", "sys/health")).status == 200
        assert await private_openbao.login()

    async def test_two_run_side_by_side_and_neither_names_a_port(
        self, openbao: OpenBao, private_openbao: OpenBao
    ) -> None:
        """No port is fixed, so none can be in use, and none can be taken beforehand."""
        assert openbao.vault.pid != private_openbao.vault.pid
        assert ":0" in private_openbao.layout.config.read_text()

    async def test_a_listener_in_place_of_the_socket_is_replaced(self, short_tmp: Path, openbao_template: Path) -> None:
        """What an earlier run left at the socket's path, alive or not, is not taken for OpenBao."""
        layout = copy_state(openbao_template, short_tmp / "stale")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(layout.socket))
            stale.listen()
            async with EmbeddedVault(layout) as vault:
                assert await opened(vault).login()


def listening_ports(pid: int) -> list[tuple[str, int]]:
    """The TCP addresses on which a process listens, from /proc."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = str(entry.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                address = socket.inet_ntoa(bytes.fromhex(host)[::-1]) if len(host) == 8 else host
                found.append((address, int(port, 16)))
    return found


def http_over_tcp(port: int) -> bytes:
    """What a plain HTTP request gets as an answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(b"GET /v1/sys/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return peer.recv(1000)
    except ConnectionError:
        return b""


class TestLogs:
    """What is written without end is bounded."""

    async def test_the_audit_log_rotates_while_requests_go_on_and_no_line_is_lost(
        self, short_tmp: Path, openbao_template: Path
    ) -> None:
        """Over its bound it is put aside, OpenBao begins another, and every request stands in one of them, once."""
        layout = copy_state(openbao_template, short_tmp / "audit")
        settings = EmbeddedSettings(tend_every=0.05, audit_max_bytes=20_000, audit_keep=50)
        async with EmbeddedVault(layout, settings) as vault:
            bao = opened(vault)
            token = await bao.login()
            for number in range(60):
                answer = await bao.call("POST", "connectors/data/n/x", {"data": {"n": str(number)}}, token)
                assert answer.status == 200
            await until(lambda: layout.audit.with_name("audit.log.2").exists())
            await until(lambda: layout.audit.exists() and layout.audit.stat().st_mode & 0o777 == 0o600)
            assert (await bao.call("GET", "connectors/data/n/x", token=token)).body["data"]["data"] == {"n": "59"}
        lines = [line for path in layout.logs.glob("audit.log*") for line in path.read_text().splitlines()]
        responses = [entry for entry in map(json.loads, lines) if entry["type"] == "response"]
        writes = [entry for entry in responses if entry["request"]["path"] == "connectors/data/n/x"]
        assert len([entry for entry in writes if entry["request"]["operation"] in {"create", "update"}]) == 60

    async def test_the_secret_ids_and_tokens_are_not_readable_in_any_log(self, private_openbao: OpenBao) -> None:
        """Audit devices hash strings, and OpenBao's own log is below DEBUG."""
        token = await private_openbao.login()
        await private_openbao.call("GET", "auth/token/lookup-self", token=token)
        text = "".join(path.read_text() for path in private_openbao.layout.logs.iterdir())
        assert "auth/token/lookup-self" in text
        assert token not in text
        assert private_openbao.secret_id not in text

    def test_shift_keeps_as_many_as_it_is_told(self, short_tmp: Path) -> None:
        """The oldest is dropped."""
        path = short_tmp / "shift.log"
        for number in range(5):
            path.write_text(str(number))
            shift(path, keep=2)
        assert sorted(item.name for item in short_tmp.glob("shift.log*")) == ["shift.log.1", "shift.log.2"]
        assert path.with_name("shift.log.1").read_text() == "4"
        assert path.with_name("shift.log.2").read_text() == "3"

    def test_copy_and_truncate_leaves_the_writer_its_file(self, short_tmp: Path) -> None:
        """A writer in append mode goes on at the start of the emptied file."""
        path = short_tmp / "append.log"
        with path.open("a") as writer:
            for number in range(3):
                writer.write(str(number))
                writer.flush()
                copy_and_truncate(path, keep=2)
            writer.write("on")
        assert path.read_text() == "on"
        assert path.with_name("append.log.1").read_text() == "2"
        assert path.with_name("append.log.2").read_text() == "1"


class TestPolicy:
    """The server's role, on the real thing: all that it needs, and nothing that it must not."""

    async def test_a_tenants_key_lives_its_whole_life(self, openbao: OpenBao) -> None:
        """Create derived, encrypt, decrypt, datakey, rotate, rewrap, raise, trim, shred."""
        token = await openbao.login()

        async def done(method: str, path: str, body: object = None) -> dict[str, object]:
            answer = await openbao.call(method, f"transit/{path}", body, token)
            assert answer.status in {200, 204}, (path, answer.status)
            data = answer.body.get("data")
            return data if isinstance(data, dict) else {}

        context = b64("uid-1/notion")
        await done("POST", "keys/life", {"type": "aes256-gcm96", "derived": True})
        sealed = await done("POST", "encrypt/life", {"plaintext": b64("x"), "context": context})
        opened_again = {"ciphertext": sealed["ciphertext"], "context": context}
        assert (await done("POST", "decrypt/life", opened_again))["plaintext"] == b64("x")
        moved = {"ciphertext": sealed["ciphertext"], "context": b64("uid-2/notion")}
        assert (await openbao.call("POST", "transit/decrypt/life", moved, token)).status == 400
        assert "plaintext" in await done("POST", "datakey/plaintext/life", {"context": context})
        await done("POST", "keys/life/rotate")
        assert str((await done("POST", "rewrap/life", opened_again))["ciphertext"]).startswith("vault:v2:")
        await done("POST", "keys/life/config", {"min_decryption_version": 2, "min_encryption_version": 2})
        await done("POST", "keys/life/trim", {"min_available_version": 2})
        assert (await done("GET", "keys/life"))["derived"] is True
        await done("POST", "keys/life/config", {"deletion_allowed": True})
        await done("DELETE", "keys/life")

    @pytest.mark.parametrize("mount", ["secret", "connectors"])
    async def test_a_record_lives_its_whole_life(self, openbao: OpenBao, mount: str) -> None:
        """Create and update by cas, refuse a stale writer, metadata with its own cas, list, page, delete for good."""
        token = await openbao.login()

        async def status(method: str, path: str, body: object = None) -> int:
            return (await openbao.call(method, f"{mount}/{path}", body, token)).status

        def write(cas: int) -> dict[str, object]:
            return {"options": {"cas": cas}, "data": {"v": "1"}}

        assert await status("POST", "data/life/notion", write(0)) == 200
        assert await status("POST", "data/life/notion", write(0)) == 400
        assert await status("POST", "data/life/notion", write(1)) == 200
        lease = {"metadata_cas": 0, "custom_metadata": {"owner": "r1"}}
        assert await status("POST", "metadata/life/notion", lease) == 204
        assert await status("GET", "data/life/notion") == 200
        assert await status("GET", "metadata/life/notion") == 200
        for listed in ("metadata/", "metadata/life", "detailed-metadata/life?limit=1&after=a"):
            assert await status("GET", listed + ("&" if "?" in listed else "?") + "list=true") == 200, listed
        assert await status("DELETE", "data/life/notion") == 204
        assert await status("DELETE", "metadata/life/notion") == 204
        assert await status("GET", "data/life/notion") == 404

    async def test_the_platforms_key_can_be_used_and_rotated(self, openbao: OpenBao) -> None:
        """Encrypt, decrypt, datakey, read, config, rotate, rewrap, trim."""
        token = await openbao.login()
        context = b64("integrations/notion")

        async def done(method: str, path: str, body: object = None) -> dict[str, object]:
            answer = await openbao.call(method, f"connectors-transit/{path}", body, token)
            assert answer.status in {200, 204}, (path, answer.status)
            data = answer.body.get("data")
            return data if isinstance(data, dict) else {}

        sealed = await done("POST", "encrypt/platform", {"plaintext": b64("x"), "context": context})
        body = {"ciphertext": sealed["ciphertext"], "context": context}
        assert (await done("POST", "decrypt/platform", body))["plaintext"] == b64("x")
        await done("POST", "datakey/plaintext/platform", {"context": context})
        await done("POST", "keys/platform/rotate")
        version = (await done("GET", "keys/platform"))["latest_version"]
        await done("POST", "rewrap/platform", body)
        await done(
            "POST", "keys/platform/config", {"min_decryption_version": version, "min_encryption_version": version}
        )
        await done("POST", "keys/platform/trim", {"min_available_version": version})

    async def test_a_token_is_renewed_past_its_period_and_has_one_policy(self, openbao: OpenBao) -> None:
        """Periodic and renewable, no use counter, and not even the default policy."""
        token = await openbao.login()
        data = (await openbao.call("GET", "auth/token/lookup-self", token=token)).body["data"]
        assert data["policies"] == ["connectors-server"]
        assert (data["period"], data["renewable"], data["num_uses"]) == (3600, True, 0)
        assert (await openbao.call("POST", "auth/token/renew-self", {}, token)).status == 200
        assert (await openbao.call("POST", "auth/token/revoke-self", {}, token)).status == 204
        assert (await openbao.call("GET", "auth/token/lookup-self", token=token)).status == 403

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "transit/export/encryption-key/t"),
            ("GET", "transit/backup/t"),
            ("GET", "connectors-transit/export/encryption-key/platform"),
            ("GET", "connectors-transit/backup/platform"),
            ("DELETE", "connectors-transit/keys/platform"),
            ("POST", "connectors-transit/keys/platform"),
            ("POST", "connectors-transit/keys/another"),
            ("POST", "connectors-transit/encrypt/another"),
            ("POST", "transit/config/keys"),
            ("POST", "transit/restore/t"),
            ("GET", "secret/data/one-segment"),
            ("GET", "secret/data/a/b/c"),
            ("POST", "secret/config"),
            ("GET", "sys/mounts"),
            ("POST", "sys/mounts/other"),
            ("GET", "sys/policies/acl/connectors-server"),
            ("POST", "sys/policies/acl/connectors-server"),
            ("GET", "sys/auth"),
            ("GET", "sys/audit"),
            ("POST", "sys/seal"),
            ("POST", "sys/step-down"),
            ("GET", "sys/storage/raft/snapshot"),
            ("GET", "sys/raw/core"),
            ("POST", "sys/rotate/root"),
            ("GET", "sys/leases/lookup"),
            ("POST", "auth/token/create"),
            ("GET", "auth/approle/role/connectors-server"),
            ("POST", "auth/approle/role/connectors-server"),
            ("POST", "auth/approle/role/other"),
            ("POST", "identity/entity"),
        ],
    )
    async def test_everything_else_is_refused(self, openbao: OpenBao, method: str, path: str) -> None:
        """403 for what would take key material out, delete the platform's key, or change who may do what."""
        token = await openbao.login()
        body: object = {} if method == "POST" else None
        assert (await openbao.call(method, path, body, token)).status == 403

    async def test_a_wrong_key_name_does_not_make_a_key(self, openbao: OpenBao) -> None:
        """Encrypting under a missing key is refused, for upsert is off and the policy has no create."""
        token = await openbao.login()
        body = {"plaintext": b64("x"), "context": b64("c")}
        assert (await openbao.call("POST", "transit/encrypt/no-such", body, token)).status == 403


class TestConfiguration:
    """Rendering, without a process."""

    def test_a_path_with_quotes_stays_one_value(self) -> None:
        """A directory's name can't add a stanza."""
        text = render(StateLayout.at(Path('/x/a"\\b')), [KEY])
        assert '"/x/a\\"\\\\b/vault/data"' in text
        assert text.count("storage") == 1

    def test_a_control_character_is_refused(self) -> None:
        """HCL has no way to carry it."""
        with pytest.raises(ValueError, match="control"):
            literal("a\x00b")

    def test_no_secret_is_in_the_configuration(self) -> None:
        """It says where the secret id is read from, and no more."""
        text = render(StateLayout.at(Path("/x")), [KEY], [FirstBoot(SERVER, "role", "/dev/fd/9")])
        assert "/dev/fd/9" in text
        assert "env" not in text.lower().replace("environ", "")

    def test_names_of_steps_are_such_as_hcl_takes(self) -> None:
        """Labels of request blocks take underscores, not dashes."""
        assert all(step.name.replace("_", "").isalnum() for step in (*mount_steps(), *access_steps()))

    def test_deploy_has_the_policy_itself_and_no_copy(self) -> None:
        """deploy/vault/server-policy.hcl is the file that the package ships."""
        assert (REPOSITORY / "deploy/vault/server-policy.hcl").read_text() == server_policy()
        assert (REPOSITORY / "deploy/vault/server-policy.hcl").is_symlink()


async def test_what_an_operator_is_told_to_run_prepares_an_existing_vault(short_tmp: Path) -> None:
    """On an OpenBao with a `secret/` of its own it leaves that, adds the rest, and the AppRole has the server's rights."""
    home = short_tmp / "operator"
    home.mkdir(0o700)
    binary = find_binary(EmbeddedSettings())
    port = free_port()
    environment = {
        "PATH": os.defpath,
        "HOME": str(home),
        "BAO_ADDR": f"http://127.0.0.1:{port}",
        "BAO_TOKEN": "dev-root",
    }
    listener = home / "bao.hcl"
    listener.write_text(f'listener "unix" {{\n address = "{home}/s"\n}}\n')
    with (home / "log").open("w") as log:
        server = await asyncio.create_subprocess_exec(
            *(str(binary), "server", "-dev", "-dev-root-token-id=dev-root"),
            *(f"-dev-listen-address=127.0.0.1:{port}", "-config", str(listener)),
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        await until(lambda: is_serving(home / "s"))
        for _ in range(2):  # what is there already does not stop a second run
            script = await asyncio.create_subprocess_exec(
                "sh", env={**environment, "BAO": str(binary)}, stdin=-1, stdout=-1, stderr=-1
            )
            out, err = await asyncio.wait_for(script.communicate(operator_setup().encode()), 60)
            assert script.returncode == 0, err
            assert b"wrapping_token" in out
        made = call(home / "s", "POST", "auth/approle/role/connectors-server/secret-id", {}, "dev-root")
        role = call(home / "s", "GET", "auth/approle/role/connectors-server/role-id", token="dev-root")
        token = login(home / "s", AppRole(role.body["data"]["role_id"], made.body["data"]["secret_id"]))
        assert token is not None
        sealed = {"plaintext": b64("x"), "context": b64("c")}
        assert call(home / "s", "POST", "connectors-transit/encrypt/platform", sealed, token).status == 200
        assert call(home / "s", "GET", "sys/mounts", token=token).status == 403
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
        shutil.rmtree(home)
