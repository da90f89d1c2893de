"""What the Vault could not take, on our own disk: sealed, whole, and picked up by the next start."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from connectors_grpc.credentials.answer import Answer
from connectors_grpc.credentials.keeping import MaterialLost
from connectors_grpc.credentials.sealing import open_envelope, read_envelope, seal
from connectors_grpc.domain.ids import IntegrationId, TenantId, TenantUid
from connectors_grpc.domain.records import Material
from connectors_grpc.ports import DataKey
from connectors_grpc.secret import Secret
from connectors_grpc.spill import SpillDirectory
from tests.refresh.records import NOTION

KEY = DataKey(bytes(range(32)), "vault:v1:wrapped")
ANSWER = Answer(
    tenant=TenantId("acme"),
    tenant_uid=TenantUid("u1"),
    record=replace(NOTION, generation=5),
    material=Material(
        IntegrationId("notion"), {"access_token": Secret("at-canary")}, ("api.notion.com",), Secret("rt-canary")
    ),
    base_generation=4,
)


def test_an_answer_comes_back_whole() -> None:
    """By the data key, and no part of it stands in the bytes."""
    sealed = seal(ANSWER, KEY)
    assert b"canary" not in sealed
    answer = open_envelope(read_envelope(sealed), KEY.plaintext)
    assert (answer.record, answer.base_generation) == (ANSWER.record, 4)
    assert answer.material.refresh_token == Secret("rt-canary")


@pytest.mark.parametrize("field", ["tenant", "tenant_uid", "credential", "nonce", "sealed"])
def test_what_was_tampered_with_does_not_open(field: str) -> None:
    """Renamed to another tenant or credential, or damaged."""
    envelope = json.loads(seal(ANSWER, KEY))
    envelope[field] = "AAAA" if field in ("nonce", "sealed") else "other"
    with pytest.raises(MaterialLost):
        open_envelope(read_envelope(json.dumps(envelope).encode()), KEY.plaintext)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"version":1}'])
def test_garbage_on_the_disk_is_refused(content: bytes) -> None:
    """A file that is not ours is an error of its own, not a crash."""
    with pytest.raises(MaterialLost):
        read_envelope(content)


def test_files_are_private_and_survive_the_process(tmp_path: Path) -> None:
    """0600, found again by the next life, which has the same replica id."""
    first = SpillDirectory(tmp_path / "spill")
    assert first.put("acme.notion.5.sealed", b"sealed")
    mode = stat.S_IMODE((tmp_path / "spill" / "acme.notion.5.sealed").stat().st_mode)
    assert mode == 0o600
    first.close()
    second = SpillDirectory(tmp_path / "spill")
    assert second.replica == first.replica
    assert second.names() == ["acme.notion.5.sealed"]
    assert second.read("acme.notion.5.sealed") == b"sealed"
    second.remove("acme.notion.5.sealed")
    assert second.names() == []
    second.close()


def test_two_processes_never_share_a_directory_or_an_id(tmp_path: Path) -> None:
    """The second spills nowhere and calls itself anew."""
    first, second = SpillDirectory(tmp_path), SpillDirectory(tmp_path)
    assert second.replica != first.replica
    assert not second.durable
    assert not second.put("a.b.1.sealed", b"x")
    first.close()


@pytest.mark.parametrize("name", ["../x.sealed", "a/b.sealed", "x", ".sealed/..", "A.sealed"])
def test_a_name_that_is_not_ours_is_refused(tmp_path: Path, name: str) -> None:
    """Names come from identifiers; nothing else becomes a path."""
    spill = SpillDirectory(tmp_path)
    assert not spill.put(name, b"x")
    spill.close()


def test_a_directory_that_cannot_be_written_spills_nowhere(tmp_path: Path) -> None:
    """And says so."""
    (tmp_path / "file").write_text("")
    spill = SpillDirectory(tmp_path / "file" / "below")
    assert not spill.durable
    assert not spill.put("a.b.1.sealed", b"x")
