"""The Vault adapters obey the laws on a real OpenBao, under the server's real policy, on all four mounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio

from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.ports import Ciphers, Documents
from connectors_grpc.vault import VaultCiphers, VaultClient, VaultDocuments, VaultHealth, VaultSettings, connect
from tests.laws.ciphers import HERE, CiphersLaws
from tests.laws.documents import DocumentsLaws

if TYPE_CHECKING:
    from tests.openbao import OpenBao


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(openbao: OpenBao) -> AsyncIterator[VaultClient]:
    """The server's client, as the composition root makes it."""
    settings = VaultSettings(socket_path=openbao.socket_path, secret_id_file=openbao.vault.secret_id_file)
    async with connect(settings) as connected:
        yield connected


@pytest.fixture
def key() -> str:
    """A key's name of this test's own."""
    return f"t-{uuid4().hex[:12]}"


class TestTenantsDocuments(DocumentsLaws):
    @pytest.fixture
    def documents(self, client: VaultClient) -> Documents:
        return VaultDocuments(client)

    @pytest.fixture
    def folder(self) -> str:
        return f"t-{uuid4().hex[:12]}"


class TestPlatformDocuments(DocumentsLaws):
    @pytest.fixture
    def documents(self, client: VaultClient) -> Documents:
        return VaultDocuments(client, "connectors")

    @pytest.fixture
    def folder(self) -> str:
        return f"records/{uuid4().hex[:12]}"


class TestTenantsCiphers(CiphersLaws):
    @pytest.fixture
    def ciphers(self, client: VaultClient) -> Ciphers:
        return VaultCiphers(client)


async def test_the_platforms_key_is_there_to_use_and_not_to_shred(client: VaultClient) -> None:
    """Asking for it to be created is fine, as an operator made it; deleting it is refused and it goes on."""
    ciphers = VaultCiphers(client, "connectors-transit")
    await ciphers.create_key("platform")
    sealed = await ciphers.encrypt("platform", HERE, b"secret")
    with pytest.raises(VaultUnavailable):
        await ciphers.shred_key("platform")
    assert await ciphers.decrypt("platform", HERE, sealed) == b"secret"


async def test_a_mount_that_is_not_ours_is_an_error_and_not_an_empty_one(client: VaultClient) -> None:
    """A wrong mount must not look like one where nothing is stored."""
    documents, ciphers = VaultDocuments(client, "nowhere"), VaultCiphers(client, "nowhere")
    with pytest.raises(VaultUnavailable):
        await documents.read("a/b")
    with pytest.raises(VaultUnavailable):
        await documents.list("a")
    with pytest.raises(VaultUnavailable):
        await ciphers.encrypt("k", HERE, b"x")
    with pytest.raises(VaultUnavailable):
        await ciphers.decrypt("k", HERE, "vault:v1:" + "A" * 64)


async def test_a_document_that_others_deleted_softly_reads_as_none(
    client: VaultClient, openbao: OpenBao, key: str
) -> None:
    """It still counts as a version until it is purged: cas=0 fails before and works after."""
    documents = VaultDocuments(client)
    path = f"{key}/github"
    await documents.write(path, {"n": 1}, cas=0)
    reply = await openbao.call("DELETE", f"secret/data/{path}", token=await openbao.login())
    assert reply.status == 204
    assert await documents.read(path) is None
    assert await documents.write(path, {"n": 2}, cas=1) == 2
    await documents.purge(path)
    assert await documents.write(path, {"n": 3}, cas=0) == 1


async def test_names_of_others_and_subfolders_are_not_listed(client: VaultClient, openbao: OpenBao, key: str) -> None:
    """They fill the Vault's pages and still hide none of ours."""
    documents = VaultDocuments(client, "connectors")
    token = await openbao.login()
    for name in ("b/deep", "b.x/deep", "Big", "b,c", "b"):
        await openbao.call("POST", f"connectors/data/{key}/{name}", {"data": {}}, token)
    for name in ("a", "c"):
        await documents.write(f"{key}/{name}", {}, cas=0)
    pages = [await documents.list(key, limit=1)]
    while pages[-1].more:
        pages.append(await documents.list(key, after=pages[-1].names[-1], limit=1))
    assert [name for page in pages for name in page.names] == ["a", "b", "c"]


async def test_health_needs_no_token(client: VaultClient) -> None:
    """It says what the Vault says of itself."""
    health = await client.health()
    assert (health.initialized, health.sealed) == (True, False)
    assert health == VaultHealth(True, False, health.version)
    assert health.version.startswith("2.")
