"""Backup, restore and a new seal key, each on a real OpenBao: what comes back, what is refused, what a thief has of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from connectors_grpc.cli.main import root
from connectors_grpc.embedded import EmbeddedVault, EmbeddedVaultError, StateLayout, read_approle
from connectors_grpc.embedded.api import login
from connectors_grpc.embedded.backup import MANIFEST, ROLES, SNAPSHOT, Backup, Manifest, back_up, read_backup
from connectors_grpc.embedded.boot import seal_key_id
from connectors_grpc.embedded.files import write_private
from connectors_grpc.embedded.lock import StateLock
from connectors_grpc.embedded.reseal import rotate_seal
from connectors_grpc.embedded.restore import restore
from connectors_grpc.embedded.setup import SERVER
from tests.openbao import SETTINGS, OpenBao, copy_state, opened

CONTEXT = base64.b64encode(b"uid/notion").decode()


@pytest.fixture
def place(short_tmp: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory of the test's own, with a short path."""
    own = short_tmp / tmp_path.name[-12:].strip("_0")
    own.mkdir(mode=0o700)
    yield own
    shutil.rmtree(own)


async def write(bao: OpenBao, text: str) -> str:
    """A record, and a ciphertext under the platform's key."""
    token = await bao.login()
    assert (await bao.call("POST", "connectors/data/n/x", {"data": {"v": text}}, token)).status == 200
    body = {"plaintext": base64.b64encode(text.encode()).decode(), "context": CONTEXT}
    sealed = await bao.call("POST", "connectors-transit/encrypt/platform", body, token)
    return str(sealed.body["data"]["ciphertext"])


async def read(bao: OpenBao, ciphertext: str) -> tuple[str, str]:
    """What the record says, and what the ciphertext opens to."""
    token = await bao.login()
    record = await bao.call("GET", "connectors/data/n/x", token=token)
    body = {"ciphertext": ciphertext, "context": CONTEXT}
    plain = await bao.call("POST", "connectors-transit/decrypt/platform", body, token)
    return record.body["data"]["data"]["v"], base64.b64decode(plain.body["data"]["plaintext"]).decode()


class TestBackup:
    """What the file is, and what it is not."""

    async def test_a_lost_directory_comes_back_from_backup_and_seal_key(
        self, private_openbao: OpenBao, place: Path
    ) -> None:
        """Records and keys are as they were then, but for what must not come back; the ways in are new ones.

        The backup's own open neither the Vault that it was taken of nor the restored one. A first restore, of a snapshot that
        OpenBao refuses, leaves a directory that nobody starts on, and does not stand in the way of the second.
        """
        bao = private_openbao
        ciphertext = await write(bao, "then")
        token = await bao.login()
        lost = {"data": {"v": "1"}}
        assert (await bao.call("POST", "connectors/data/keys/admin", lost, token)).status == 200
        taken = await asyncio.to_thread(back_up, bao.layout, place / "b", "0.1.0")
        await write(bao, "later")
        backup = read_backup(place / "b")
        assert set(backup.ways) == {"server", "upkeep"}
        for way in backup.ways.values():
            assert await asyncio.to_thread(login, bao.socket_path, way) is None

        layout = StateLayout.at(place / "s", place / "key")
        write_private(layout.seal_key, bao.layout.seal_key.read_bytes())
        with pytest.raises(EmbeddedVaultError, match="does not take the snapshot"):
            await restore(layout, rewritten(place / "b", place / "bad", b"not a snapshot"), settings=SETTINGS)
        with pytest.raises(EmbeddedVaultError, match="cut short"):
            await EmbeddedVault(layout, SETTINGS).start()
        forget = ["connectors/metadata/keys/admin", "connectors/metadata/keys/never-was"]
        assert await restore(layout, backup, replace=True, forget=forget, settings=SETTINGS) is None
        assert taken.seal_key_id == seal_key_id(layout.seal_key)
        assert not layout.restoring.exists()
        assert not layout.way_in("restore").exists()
        async with EmbeddedVault(layout, SETTINGS) as vault:
            restored = opened(vault)
            assert await read(restored, ciphertext) == ("then", "then")
            token = await restored.login()
            assert (await restored.call("GET", "connectors/data/keys/admin", token=token)).status == 404
            for role in ROLES:
                assert await asyncio.to_thread(login, layout.socket, backup.ways[role.label]) is None
                assert await asyncio.to_thread(login, layout.socket, read_approle(layout.way_in(role.label)))
            again = await asyncio.to_thread(back_up, layout, place / "b2", "0.1.0")
            assert again.seal_key_id == taken.seal_key_id

    async def test_it_is_private_holds_no_seal_key_and_overwrites_nothing(self, openbao: OpenBao, place: Path) -> None:
        """0600, nowhere the key, in no form; a second one to the same name is refused, and leaves no draft."""
        output = place / "b"
        await asyncio.to_thread(back_up, openbao.layout, output, "0.1.0")
        content = output.read_bytes()
        key = openbao.layout.seal_key.read_text()
        assert output.stat().st_mode & 0o777 == 0o600
        assert key.encode() not in content
        assert bytes.fromhex(key) not in content
        assert openbao.secret_id.encode() not in content
        with pytest.raises(EmbeddedVaultError, match="there already"):
            await asyncio.to_thread(back_up, openbao.layout, output, "0.1.0")
        assert output.read_bytes() == content
        assert [path.name for path in place.iterdir()] == ["b"]

    async def test_a_directory_of_before_the_role_says_what_to_do(self, private_openbao: OpenBao, place: Path) -> None:
        """Stop and copy it: no file is left."""
        private_openbao.layout.way_in("upkeep").unlink()
        with pytest.raises(EmbeddedVaultError, match="copy the whole directory"):
            await asyncio.to_thread(back_up, private_openbao.layout, place / "b", "0.1.0")
        assert not list(place.iterdir())

    async def test_a_stopped_openbao_is_said_to_be_so(self, openbao_template: Path, place: Path) -> None:
        """The command starts it; the function does not."""
        layout = copy_state(openbao_template, place / "s")
        with pytest.raises(EmbeddedVaultError, match="No OpenBao serves"):
            back_up(layout, place / "b", "0.1.0")


class TestUpkeepRole:
    """What backup and rotation run under: nothing of the tenants', and the server nothing of it."""

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "secret/data/a/b"),
            ("GET", "connectors/data/keys/admin"),
            ("POST", "transit/decrypt/a"),
            ("POST", "connectors-transit/decrypt/platform"),
            ("POST", "sys/storage/raft/snapshot"),
            ("POST", "sys/storage/raft/snapshot-force"),
            ("POST", "sys/seal"),
            ("POST", "sys/policies/acl/another"),
            ("DELETE", "sys/policies/acl/connectors-server"),
            ("POST", "auth/approle/role/connectors-server"),
            ("POST", "auth/approle/role/connectors-server/secret-id"),
            ("POST", "auth/token/create"),
        ],
    )
    async def test_it_may_do_nothing_else(self, openbao: OpenBao, method: str, path: str) -> None:
        """403 for whatever would read a secret, take the server's place, or put a snapshot in."""
        way = read_approle(openbao.layout.way_in("upkeep"))
        token = await asyncio.to_thread(login, openbao.socket_path, way)
        assert token is not None
        body: object = {} if method == "POST" else None
        assert (await openbao.call(method, path, body, token)).status == 403


class TestPolicies:
    """A directory that an older version made, under a newer one."""

    async def test_a_start_brings_the_policies_of_this_version(self, openbao_template: Path, place: Path) -> None:
        """An older server's policy lacks a right; after the next start its role has it, and nothing was asked of anybody."""
        layout = copy_state(openbao_template, place / "s")
        older = SERVER.policy.replace('path "sys/capabilities-self"', 'path "sys/capabilities-selves"')
        async with EmbeddedVault(layout, SETTINGS) as vault:
            bao = opened(vault)
            upkeep = await asyncio.to_thread(login, layout.socket, read_approle(layout.way_in("upkeep")))
            written = await bao.call("POST", "sys/policies/acl/connectors-server", {"policy": older}, upkeep or "")
            assert written.status == 204
            asked = {"paths": ["sys/mounts"]}
            assert (await bao.call("POST", "sys/capabilities-self", asked, await bao.login())).status == 403
            await vault.stop()
            await vault.start()
            assert (await bao.call("POST", "sys/capabilities-self", asked, await bao.login())).status == 200

    async def test_a_directory_of_before_the_role_goes_on_as_it_is(self, openbao_template: Path, place: Path) -> None:
        """Its policies can't be renewed; what they allow, it does."""
        layout = copy_state(openbao_template, place / "s")
        layout.way_in("upkeep").unlink()
        async with EmbeddedVault(layout, SETTINGS) as vault:
            assert await opened(vault).login()


class TestRestore:
    """Into which directory, and by which key."""

    @pytest.fixture
    async def backup(self, openbao: OpenBao, place: Path) -> Path:
        """One of the session's OpenBao."""
        await asyncio.to_thread(back_up, openbao.layout, place / "backup", "0.1.0")
        return place / "backup"

    async def test_what_is_in_use_is_kept_and_moved_aside_by_replace_alone(
        self, openbao: OpenBao, openbao_template: Path, place: Path, backup: Path
    ) -> None:
        """Whatever comes of the restore, the old directory still starts from where it was moved to."""
        layout = copy_state(openbao_template, place / "s")
        write_private(layout.seal_key, openbao.layout.seal_key.read_bytes())
        with pytest.raises(EmbeddedVaultError, match="--replace"):
            await restore(layout, read_backup(backup), settings=SETTINGS)
        async with EmbeddedVault(layout, SETTINGS) as vault:
            kept = await write(opened(vault), "old")
        bad = rewritten(backup, place / "bad", b"not a snapshot")
        with pytest.raises(EmbeddedVaultError, match="does not take the snapshot"):
            await restore(layout, bad, replace=True, settings=SETTINGS)
        (aside,) = layout.root.glob("vault.*")
        layout.vault.rename(place / "half")
        aside.rename(layout.vault)
        async with EmbeddedVault(layout, SETTINGS) as vault:
            assert await read(opened(vault), kept) == ("old", "old")

    async def test_one_that_runs_is_refused(self, openbao: OpenBao, backup: Path) -> None:
        """By the lock, naming the process."""
        with pytest.raises(EmbeddedVaultError, match="in use by process"):
            await restore(openbao.layout, read_backup(backup), replace=True, settings=SETTINGS)
        assert await openbao.login()

    async def test_without_its_seal_key_or_with_another_it_is_refused_at_once(
        self, openbao: OpenBao, place: Path, backup: Path
    ) -> None:
        """The error names the key that is wanted, and nothing is begun."""
        layout = StateLayout.at(place / "s")
        wanted = seal_key_id(openbao.layout.seal_key)
        with pytest.raises(EmbeddedVaultError, match=f"Put the key {wanted} there"):
            await restore(layout, read_backup(backup), settings=SETTINGS)
        write_private(layout.seal_key, b"00" * 32)
        with pytest.raises(EmbeddedVaultError, match=f"sealed with the key {wanted}"):
            await restore(layout, read_backup(backup), settings=SETTINGS)
        assert not layout.restoring.exists()


def rewritten(backup: Path, path: Path, snapshot: bytes) -> Backup:
    """The backup with another snapshot, and a manifest that fits it."""
    with tarfile.open(backup) as archive, tarfile.open(path, "w") as changed:
        for member in archive.getmembers():
            stream = archive.extractfile(member)
            assert stream is not None
            content = stream.read()
            if member.name == SNAPSHOT:
                content = snapshot
            elif member.name == MANIFEST:
                fields = json.loads(content)
                fields |= {"snapshot_sha256": hashlib.sha256(snapshot).hexdigest(), "snapshot_bytes": len(snapshot)}
                content = json.dumps(fields).encode()
            member.size = len(content)
            changed.addfile(member, io.BytesIO(content))
    return read_backup(path)


class TestFile:
    """Files that are not what they should be."""

    @pytest.fixture
    def whole(self, place: Path) -> Path:
        """A backup by its form."""
        path = place / "whole"
        digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
        manifest = Manifest(1, "0.1.0", "2026-01-01T00:00:00+00:00", "seal-0", digest, 4)
        way = b'{"role_id": "r", "secret_id": "s"}'
        members = {
            MANIFEST: json.dumps({name: getattr(manifest, name) for name in Manifest.__slots__}).encode(),
            "server.json": way,
            "upkeep.json": way,
            SNAPSHOT: b"test",
        }
        with tarfile.open(path, "w") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return path

    def test_a_whole_one_is_read(self, whole: Path) -> None:
        """The other tests of this class mean something."""
        assert read_backup(whole).ways["upkeep"].secret_id == "s"

    def test_one_of_a_later_format_names_the_version_that_wrote_it(self, whole: Path) -> None:
        """It is not guessed at."""
        whole.write_bytes(whole.read_bytes().replace(b'"format": 1', b'"format": 2'))
        with pytest.raises(EmbeddedVaultError, match=r"Restore it with version 0\.1\.0"):
            read_backup(whole)

    def test_a_changed_snapshot_is_noticed(self, whole: Path) -> None:
        """By the digest of the manifest."""
        whole.write_bytes(whole.read_bytes().replace(b"test\0", b"tesT\0"))
        with pytest.raises(EmbeddedVaultError, match="damaged"):
            read_backup(whole)

    @pytest.mark.parametrize("keep", [0, 100, 700, 1600, 2100, 3600])
    def test_one_cut_off_is_refused_wherever_it_ends(self, whole: Path, keep: int) -> None:
        """No traceback, and no half restore."""
        whole.write_bytes(whole.read_bytes()[:keep])
        with pytest.raises(EmbeddedVaultError, match="no backup of ours"):
            read_backup(whole)

    def test_a_missing_file_is_said_to_be_missing(self, place: Path) -> None:
        """With the system's word for it."""
        with pytest.raises(EmbeddedVaultError, match="No such file"):
            read_backup(place / "nothing")


class TestSealRotation:
    """A new seal key, and the old one worth nothing."""

    async def test_the_state_survives_under_the_new_key_and_the_old_is_for_older_backups(
        self, openbao_template: Path, place: Path
    ) -> None:
        """Before and after by the same records; the old key is refused by OpenBao itself, not by our mark alone."""
        layout = copy_state(openbao_template, place / "s")
        async with EmbeddedVault(layout, SETTINGS) as vault:
            ciphertext = await write(opened(vault), "kept")
            await asyncio.to_thread(back_up, layout, place / "b", "0.1.0")
        old = layout.seal_key.read_bytes()
        rotated = await rotate_seal(layout, SETTINGS)
        kept = layout.old_seal_key(rotated.old)
        assert kept.read_bytes() == old
        assert not layout.next_seal_key.exists()
        async with EmbeddedVault(layout, SETTINGS) as vault:
            assert await read(opened(vault), ciphertext) == ("kept", "kept")
        assert f"unknown key id for data: `{rotated.new}`" in await refused_by_openbao(layout, rotated.old)

        with pytest.raises(EmbeddedVaultError, match=f"--seal-key {kept}"):
            await restore(layout, read_backup(place / "b"), replace=True, settings=SETTINGS)

    async def test_wherever_it_is_cut_short_nobody_else_starts_and_a_second_run_finishes(
        self, openbao_template: Path, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the first start, and after the mark."""
        layout = copy_state(openbao_template, place / "s")
        async with EmbeddedVault(layout, SETTINGS) as vault:
            ciphertext = await write(opened(vault), "kept")
        for step in ("served_mark", "_prove"):
            with monkeypatch.context() as patch:
                patch.setattr(f"connectors_grpc.embedded.reseal.{step}", cut)
                with pytest.raises(Cut):
                    await rotate_seal(layout, SETTINGS)
            with pytest.raises(EmbeddedVaultError, match="seal rotate"):
                await EmbeddedVault(layout, SETTINGS).start()
        await rotate_seal(layout, SETTINGS)
        async with EmbeddedVault(layout, SETTINGS) as vault:
            assert await read(opened(vault), ciphertext) == ("kept", "kept")

    async def test_what_runs_is_refused_and_keeps_its_key(self, private_openbao: OpenBao) -> None:
        """By the lock, before anything is written."""
        layout = private_openbao.layout
        with pytest.raises(EmbeddedVaultError, match="in use"):
            await rotate_seal(layout, SETTINGS)
        assert not layout.next_seal_key.exists()
        assert await private_openbao.login()

    async def test_an_empty_directory_is_refused(self, place: Path) -> None:
        """There is nothing that is sealed."""
        with pytest.raises(EmbeddedVaultError, match="nothing sealed"):
            await rotate_seal(StateLayout.at(place / "s"), SETTINGS)


class Cut(Exception):
    """The power went."""


def cut(*_arguments: object) -> None:
    """In place of a step."""
    raise Cut


async def refused_by_openbao(layout: StateLayout, old_id: str) -> str:
    """Start OpenBao itself with the old key alone; what it logs once it has tried to unseal."""
    from connectors_grpc.embedded import process
    from connectors_grpc.embedded.config import SealKey, render
    from connectors_grpc.embedded.files import size_of

    since = size_of(layout.log)
    write_private(layout.config, render(layout, [SealKey(old_id, layout.old_seal_key(old_id))]).encode())
    lock = StateLock.take(layout.lock)
    running = await process.spawn(layout, process.find_binary(SETTINGS), (lock.fd,))
    try:
        async with asyncio.timeout(60):
            while "failed to unseal" not in (said := layout.log.read_text()[since:]):
                assert running.returncode is None
                await asyncio.sleep(0.02)
        return said
    finally:
        await process.terminate(running, 10)
        lock.release()


class TestCommands:
    """What a person types, on a directory that nobody uses: OpenBao is started for it, and ended."""

    def run(self, layout: StateLayout, *arguments: str) -> Any:
        """The command for that directory."""
        return CliRunner().invoke(root, arguments, env={"CONNECTORS_STATE_DIR": str(layout.root)})

    def test_backup_rotation_and_check_of_a_stopped_directory(self, openbao_template: Path, place: Path) -> None:
        """The manifest's key is the directory's; after a rotation the check says which key the backup needs."""
        layout = copy_state(openbao_template, place / "s")
        before = layout.seal_key.read_text()
        taken = self.run(layout, "backup", "--output", str(place / "b"), "--json")
        assert taken.exit_code == 0, taken.output
        manifest = json.loads(taken.stdout)
        assert manifest["seal_key_id"] == seal_key_id(layout.seal_key)
        checked = self.run(layout, "restore", str(place / "b"), "--check")
        assert (checked.exit_code, "is whole" in checked.stdout) == (0, True), checked.output

        asked = self.run(layout, "seal", "rotate")
        assert (asked.exit_code, layout.seal_key.read_text()) == (2, before)
        rotated = self.run(layout, "seal", "rotate", "--yes", "--json")
        assert rotated.exit_code == 0, rotated.output
        said = json.loads(rotated.stdout)
        assert (said["old"], said["new"]) == (manifest["seal_key_id"], seal_key_id(layout.seal_key))
        checked = self.run(layout, "restore", str(place / "b"), "--check")
        assert checked.exit_code == 1
        assert f"--seal-key {said['kept']}" in checked.stderr
        key = layout.seal_key.read_text()
        for shown in (taken, checked, rotated):
            assert before not in shown.output
            assert key not in shown.output

    def test_what_can_not_be_is_said_in_one_line_and_one_of_advice(self, place: Path) -> None:
        """No state, no backup, no traceback."""
        layout = StateLayout.at(place / "s")
        for arguments in (("backup",), ("seal", "rotate", "--yes")):
            done = self.run(layout, *arguments)
            assert (done.exit_code, done.stderr.count("\n")) == (1, 2), done.output
        (place / "b").write_text("nothing")
        assert "no backup of ours" in self.run(layout, "restore", str(place / "b")).stderr
