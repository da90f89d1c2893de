"""What may meet: a newer server and older records, an older server and newer ones, a server and sidecars of other versions."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc import codec
from connectors_grpc.credentials.keeping import parse_material
from connectors_grpc.embedded.api import call
from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.memory import MemoryDocuments
from connectors_grpc.ports import Documents
from connectors_grpc.schema import PATH, SCHEMA, Guarded, SchemaNewer
from sidecar.held import NARROWING, TooNew, grant, hold
from tests.laws.documents import DocumentsLaws
from tests.openbao import OpenBao
from tests.running import running_server
from tests.sidecar.harness import world

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
STORED = sorted((FIXTURES / "stored").glob("*.json"))
WALL, NOW = 1_790_000_100.0, 1000.0
_folders = itertools.count(1)


def kinds() -> dict[str, Any]:
    """Every type that is read by `codec.load`, by its name, found in the source."""
    found = {}
    for path in (ROOT / "connectors_grpc").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "codec.load":
                name = ast.unparse(node.args[0])
                found[name] = getattr(importlib.import_module(module), name)
    return found


class TestStoredRecords:
    """Documents of the Vault, as an older version wrote them."""

    def test_every_kind_of_record_has_its_fixture(self) -> None:
        """A new kind needs one, from the version that brings it; none is ever taken away."""
        assert {path.stem for path in STORED} == set(kinds())

    @pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
    def test_what_was_written_is_read_with_every_value(self, path: Path) -> None:
        """What comes back of it holds all that was in it: no field was renamed, dropped or given another meaning."""
        written = json.loads(path.read_text())["written"]
        again = codec.dump(codec.load(kinds()[path.stem], written))
        assert covers(again, written)

    @pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
    def test_fields_that_came_later_may_be_missing(self, path: Path) -> None:
        """Each has a default; a new field without one fails here."""
        fixture = json.loads(path.read_text())
        kind = kinds()[path.stem]
        found = codec.load(kind, fixture["barest"])
        needed = {
            each.name
            for each in dataclasses.fields(kind)
            if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        }
        assert needed <= fixture["barest"].keys()
        assert covers(codec.dump(found), fixture["barest"])

    @pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
    def test_a_field_of_a_newer_version_is_passed_over(self, path: Path) -> None:
        """It may be lost when we write: so whatever must not be lost raises the schema."""
        written = json.loads(path.read_text())["written"]
        kind = kinds()[path.stem]
        assert codec.load(kind, {**written, "of_a_newer_version": {"a": [1]}}) == codec.load(kind, written)

    def test_sealed_material_of_the_first_version_is_read(self) -> None:
        """Without `inputs`, which came later; and with a field that is not known yet."""
        first = {
            "integration": "notes",
            "fields": {"access_token": "at-of-a-fixture"},
            "hosts": ["api.notes.example"],
            "refresh_token": "rt-of-a-fixture",
            "token_type": "Bearer",
        }
        for data in (first, {**first, "of_a_newer_version": 1}):
            material = parse_material(json.dumps(data).encode())
            assert material.hosts == ("api.notes.example",)
            assert material.refresh_token is not None
            assert material.inputs is None


def covers(found: Any, wanted: Any) -> bool:
    """Whether all of `wanted` is in `found`, in which there may be more fields. Sets come back in any order."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            name in found and covers(found[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(any(covers(each, item) for each in found) for item in wanted)
    return bool(found == wanted)


class TestGuarded(DocumentsLaws):
    """The guard is the store that it guards."""

    @pytest.fixture
    def documents(self) -> Documents:
        """A guarded store in memory."""
        return Guarded(MemoryDocuments())

    @pytest.fixture
    def folder(self) -> str:
        """One of this test's own."""
        return f"guarded{next(_folders)}"


class TestSchema:
    """The mark of what a server must know."""

    async def test_an_unmarked_store_is_marked_once_and_found_marked(self) -> None:
        """By whichever replica is first."""
        store = MemoryDocuments()
        first, second = Guarded(store), Guarded(store)
        await first.check()
        await second.check()
        found = await store.read(PATH)
        assert found is not None
        assert (found.data["schema"], found.version) == (SCHEMA, 1)
        assert first.understood
        assert second.understood

    async def test_an_older_mark_is_raised(self) -> None:
        """From then on an older server keeps away."""
        store = MemoryDocuments()
        await store.write(PATH, {"schema": 0, "version": "0.0.9"}, cas=0)
        await Guarded(store).check()
        found = await store.read(PATH)
        assert found is not None
        assert found.data["schema"] == SCHEMA

    @pytest.mark.parametrize("mark", [SCHEMA + 1, "two", None])
    async def test_a_newer_store_is_neither_read_nor_written(self, mark: Any) -> None:
        """Also one that became so while we ran; and a mark that can't be read is one of the future."""
        store = MemoryDocuments()
        guarded = Guarded(store)
        await guarded.write("a/b", {"v": 1}, cas=0)
        await store.write(PATH, {"schema": mark, "version": "9.1.0"}, cas=1)
        with pytest.raises(SchemaNewer, match=r"version 9\.1\.0; this server knows schema 1\. Start that version"):
            await guarded.check()
        assert not guarded.understood
        for attempt in (
            guarded.read("a/b"),
            guarded.write("a/b", {"v": 2}, cas=1),
            guarded.replace("a/b", {"v": 2}, cas=1),
            guarded.purge("a/b"),
            guarded.list("a"),
        ):
            with pytest.raises(VaultUnavailable):
                await attempt
        kept = await store.read("a/b")
        assert kept is not None
        assert kept.data == {"v": 1}

    async def test_a_server_refuses_to_start_on_a_newer_vault(self, private_openbao: OpenBao, tmp_path: Path) -> None:
        """With the version to start instead; it has touched nothing."""
        token = await private_openbao.login()
        mark = {"data": {"schema": SCHEMA + 1, "version": "9.1.0"}}
        assert (await private_openbao.call("POST", f"connectors/data/{PATH}", mark, token)).status == 200
        with pytest.raises(SchemaNewer, match=r"9\.1\.0"):
            async with running_server(private_openbao, tmp_path / "keys"):
                pass
        listed = call(private_openbao.socket_path, "GET", "connectors/metadata/?list=true", token=token)
        assert listed.body["data"]["keys"] == ["schema/"]
        assert not (tmp_path / "keys").exists()


class TestSidecarAndServer:
    """Leases, grants and events between versions."""

    @staticmethod
    def sent(name: str) -> bytes:
        """A message as a version sent it."""
        return (FIXTURES / "wire" / name).read_bytes()

    def test_a_lease_of_the_first_server_is_held_as_it_was_meant(self) -> None:
        """Hosts, headers, life, and the key's rules."""
        response = pb.LeaseResponse.FromString(self.sent("lease-response-0.1.0.bin"))
        held = hold(response.lease, wall=WALL, now=NOW)
        granted = grant(response.app_grant, b"", wall=WALL, now=NOW, grace=0)
        assert (held.tenant, held.credential, held.generation) == ("acme", "notes", 3)
        assert (held.origin.host, held.origin.tls, held.origin.private) == ("api.notes.example", True, False)
        assert held.refreshable
        assert granted.rules is not None
        assert granted.covers("acme", "notes")

    def test_a_request_of_the_first_sidecar_is_read_whole(self) -> None:
        """No field has moved."""
        request = pb.LeaseRequest.FromString(self.sent("lease-request-0.1.0.bin"))
        assert (request.tenant, request.credential, request.rejected_generation) == ("acme", "notes", 2)
        assert (request.app_key.key_id, request.app_key.sha256) == ("k1", b"\x01" * 32)

    @pytest.mark.parametrize("path", sorted((FIXTURES / "wire").glob("watch-*.bin")), ids=lambda path: path.stem)
    def test_every_event_of_the_first_server_is_still_an_event(self, path: Path) -> None:
        """By its name."""
        event = pb.WatchLeasesResponse.FromString(path.read_bytes()).WhichOneof("event")
        assert path.stem == f"watch-{(event or '').replace('_', '-')}-0.1.0"

    def test_what_a_lease_lacks_is_taken_for_the_narrowest(self) -> None:
        """From a server that knows fewer fields: no private addresses, no refresh on 401, a second, and no grace."""
        bare = pb.Lease(
            tenant="acme", credential="notes", base_url="https://api.example", allowed_hosts=["api.example"]
        )
        held = hold(bare, wall=WALL, now=NOW)
        assert not held.origin.private
        assert not held.refreshable
        assert (held.refresh_at, held.grace_until) == (NOW + 1, NOW + 1)

    def test_what_a_grant_lacks_is_taken_for_nothing_allowed(self) -> None:
        """No tenants named is none, and not all."""
        granted = grant(pb.AppGrant(key_id="k1"), b"", wall=WALL, now=NOW, grace=0)
        assert not granted.covers("acme", "notes")
        assert granted.only_tenant() is None

    def test_only_a_field_that_narrows_is_refused_by_who_does_not_know_it(self) -> None:
        """Fields below 1000 are passed over, as protobuf does; from there on not."""
        lease = pb.LeaseResponse.FromString(self.sent("lease-response-0.1.0.bin")).lease.SerializeToString()
        hold(pb.Lease.FromString(lease + field(NARROWING - 1)), wall=WALL, now=NOW)
        with pytest.raises(TooNew):
            hold(pb.Lease.FromString(lease + field(NARROWING)), wall=WALL, now=NOW)
        with pytest.raises(TooNew):
            grant(pb.AppGrant.FromString(field(NARROWING + 7)), b"", wall=WALL, now=NOW, grace=0)

    @pytest.fixture
    async def sidecar(self) -> AsyncIterator[Any]:
        """A sidecar before a server that hands out leases."""
        async with world() as running:
            yield running

    async def test_a_sidecar_too_old_for_a_lease_says_so_and_calls_nobody(self, sidecar: Any) -> None:
        """Through the door, with the reason and what to do."""
        sidecar.connect("acme", "notes").MergeFromString(field(NARROWING))
        answer = await sidecar.ask()
        assert (answer.status, answer.reason) == (403, "PERMISSION_DENIED")
        assert "update the sidecar" in answer.problem["detail"]
        assert not sidecar.provider.got

    async def test_an_event_that_is_not_known_makes_everything_be_asked_again(self, sidecar: Any) -> None:
        """Whatever a newer server means by it."""
        assert (await sidecar.ask()).status == 200
        asked = len(sidecar.server.asked)
        sidecar.server.tell(pb.WatchLeasesResponse.FromString(field(NARROWING)))
        async with asyncio.timeout(60):
            while len(sidecar.server.asked) == asked:
                assert (await sidecar.ask()).status == 200


def field(number: int) -> bytes:
    """A field of that number with the value 1, as it goes over the wire."""
    tag, out = number << 3, b""
    while tag > 0x7F:
        out += bytes((tag & 0x7F | 0x80,))
        tag >>= 7
    return out + bytes((tag, 1))
