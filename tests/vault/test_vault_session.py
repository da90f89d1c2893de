"""Our token: had by AppRole or file, renewed in time, replaced once when refused, never root's, ended when we leave."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from connectors_grpc.embedded.process import EmbeddedSettings, find_binary
from connectors_grpc.embedded.setup import ROLE, access_steps, mount_steps
from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.vault import VaultClient, VaultDocuments, VaultMisconfigured, VaultSettings, connect
from tests.laws.vault_peer import (
    LOGIN,
    LOOKUP,
    RENEW,
    REVOKE,
    SECRET_ID,
    Answer,
    Asked,
    VaultPeer,
    granted,
    reply,
    usual,
    vault_peer,
)
from tests.ports import free_port

EMPTY = reply(404, {"errors": []})
DENIED = reply(403, {"errors": ["permission denied"]})


@dataclass(slots=True)
class DevBao:
    """An OpenBao in memory whose root token the tests have: to seal it, revoke, and shorten lives."""

    address: str
    root: str
    http: httpx2.AsyncClient

    async def call(self, method: str, path: str, body: object = None, token: str | None = None) -> Any:
        """One call, by root unless told otherwise; its status and body."""
        headers = {"X-Vault-Token": token or self.root}
        answer = await self.http.request(method, f"/v1/{path}", json=body, headers=headers)
        return answer.json() if answer.content else {}

    async def secret_id(self, directory: Path, **role: object) -> VaultSettings:
        """The settings of a server whose tokens are as `role` says."""
        await self.call("POST", f"auth/approle/role/{ROLE}", {"token_policies": [ROLE], **role})
        role_id = (await self.call("GET", f"auth/approle/role/{ROLE}/role-id"))["data"]["role_id"]
        secret_id = (await self.call("POST", f"auth/approle/role/{ROLE}/secret-id"))["data"]["secret_id"]
        (directory / "secret-id").write_text(secret_id)
        return VaultSettings(address=self.address, role_id=role_id, secret_id_file=directory / "secret-id")


@asynccontextmanager
async def dev_bao(home: Path) -> AsyncIterator[DevBao]:
    """Start one and wait until it answers."""
    port = free_port()
    root = f"root-{secrets.token_hex(8)}"
    listen = ("-dev-no-store-token", f"-dev-root-token-id={root}", f"-dev-listen-address=127.0.0.1:{port}")
    environment = {"PATH": os.defpath, "HOME": str(home)}
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        find_binary(EmbeddedSettings()),
        "server",
        "-dev",
        *listen,
        stdout=quiet,
        stderr=quiet,
        env=environment,
        cwd=home,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60), httpx2.AsyncClient(base_url=address, trust_env=False) as http:
            while not await answers(http):  # noqa: ASYNC110  (another process's doing)
                await asyncio.sleep(0.05)
            bao = DevBao(address, root, http)
            for step in (*mount_steps(), *access_steps()):
                await bao.call("POST", step.path, step.data)
            yield bao
    finally:
        process.kill()
        await process.wait()


async def answers(http: httpx2.AsyncClient) -> bool:
    """Whether the server is up, unsealed, and has its root token."""
    try:
        return (await http.get("/v1/sys/health")).status_code == 200
    except httpx2.TransportError:
        return False


@pytest_asyncio.fixture(loop_scope="session")
async def bao(tmp_path: Path) -> AsyncIterator[DevBao]:
    """A dev server of this test's own."""
    async with dev_bao(tmp_path) as server:
        yield server


def settings_of(peer: VaultPeer, tmp_path: Path, timeout: float = 5.0) -> VaultSettings:
    """AppRole settings for a scripted peer."""
    (tmp_path / "secret-id").write_text(SECRET_ID)
    return VaultSettings(address=peer.address, role_id="role", secret_id_file=tmp_path / "secret-id", timeout=timeout)


async def reads(client: VaultClient) -> bool:
    """Whether a read answers."""
    return await VaultDocuments(client).read("a/b") is None


async def test_a_revoked_token_is_replaced_within_the_call(bao: DevBao, tmp_path: Path) -> None:
    """Thirty callers at once see nothing of it, and a policy's own refusal does not cost the token."""
    async with connect(await bao.secret_id(tmp_path, token_ttl="1h")) as client:
        assert await reads(client)
        old = client.adapter.token
        await bao.call("POST", "auth/token/revoke", {"token": old})
        assert all(await asyncio.gather(*(reads(client) for _ in range(30))))
        fresh = client.adapter.token
        assert fresh != old
        with pytest.raises(VaultUnavailable):
            await VaultDocuments(client, "elsewhere").read("a/b")
        assert client.adapter.token == fresh


async def test_an_expired_token_is_replaced(bao: DevBao, tmp_path: Path) -> None:
    """A token that can't be renewed any more (its longest life is 1 s) is replaced in the background or by a call."""
    async with connect(await bao.secret_id(tmp_path, token_period=0, token_ttl="1s", token_max_ttl="1s")) as client:
        old = client.adapter.token
        async with asyncio.timeout(60):
            while (await bao.call("POST", "auth/token/lookup", {"token": old})).get("data"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await reads(client)
        assert client.adapter.token != old


async def test_a_secret_id_that_was_destroyed_fails_calls_and_recovers_with_a_new_one(
    bao: DevBao, tmp_path: Path
) -> None:
    """The file is read again at each login."""
    settings = await bao.secret_id(tmp_path)
    async with connect(settings) as client:
        used = (tmp_path / "secret-id").read_text()
        await bao.call("POST", f"auth/approle/role/{ROLE}/secret-id/destroy", {"secret_id": used})
        await bao.call("POST", "auth/token/revoke", {"token": client.adapter.token})
        with pytest.raises(VaultUnavailable):
            await reads(client)
        assert not client.authenticated
        await bao.secret_id(tmp_path)
        async with asyncio.timeout(60):
            while not client.authenticated:
                try:
                    await reads(client)
                except VaultUnavailable:
                    await asyncio.sleep(0.05)


async def test_a_sealed_vault_is_not_available(bao: DevBao, tmp_path: Path) -> None:
    """Calls say so, and health still answers; connecting to it waits and does not fail."""
    settings = await bao.secret_id(tmp_path)
    async with connect(settings) as client:
        assert await reads(client)
        await bao.call("POST", "sys/seal")
        with pytest.raises(VaultUnavailable):
            await reads(client)
        health = await client.health()
        assert (health.initialized, health.sealed) == (True, True)
    async with connect(settings) as client:
        assert not client.authenticated
        with pytest.raises(VaultUnavailable):
            await reads(client)


async def test_a_root_token_is_refused(bao: DevBao, tmp_path: Path) -> None:
    """By its policies, whatever it looks like; and its text is not in the error."""
    (tmp_path / "token").write_text(bao.root)
    with pytest.raises(VaultMisconfigured, match="root") as caught:
        async with connect(VaultSettings(address=bao.address, token_file=tmp_path / "token")):
            pass
    assert bao.root not in str(caught.value)


async def test_a_token_from_a_file_is_used_and_left_alive(bao: DevBao, tmp_path: Path) -> None:
    """It is not ours to end; when it is refused the file is read again."""
    made = [
        (await bao.call("POST", "auth/token/create", {"policies": [ROLE]}))["auth"]["client_token"] for _ in range(2)
    ]
    (tmp_path / "token").write_text(made[0] + "\n")
    settings = VaultSettings(address=bao.address, token_file=tmp_path / "token")
    async with connect(settings) as client:
        assert await reads(client)
        (tmp_path / "token").write_text(made[1])
        await bao.call("POST", "auth/token/revoke", {"token": made[0]})
        assert await reads(client)
        assert client.adapter.token == made[1]
    assert (await bao.call("GET", "auth/token/lookup-self", token=made[1]))["data"]["id"] == made[1]


async def test_our_own_token_is_ended_when_we_leave(bao: DevBao, tmp_path: Path) -> None:
    """Nothing that opens the store outlives us."""
    async with connect(await bao.secret_id(tmp_path)) as client:
        token = client.adapter.token
    assert "data" not in await bao.call("POST", "auth/token/lookup", {"token": token})


@pytest.mark.parametrize("content", ["", "two words", "x" * 10_000, "{}", '{"role_id": 1}', "{" * 60_000, "sécret"])
async def test_a_file_that_holds_no_secret_id_is_refused(content: str, tmp_path: Path) -> None:
    """With a reason that says which file, and without what stands in it."""
    async with vault_peer(usual(lambda _: EMPTY)) as peer:
        settings = settings_of(peer, tmp_path)
        (tmp_path / "secret-id").write_text(content)
        with pytest.raises(VaultMisconfigured, match="file") as caught:
            async with connect(settings):
                pass
        (tmp_path / "secret-id").unlink()
        with pytest.raises(VaultMisconfigured, match="file"):
            async with connect(settings):
                pass
    assert peer.asked == []
    assert not content or content not in str(caught.value)


async def test_a_refused_login_says_so_at_once(tmp_path: Path) -> None:
    """A wrong secret id is an operator's matter: starting fails."""
    async with vault_peer(lambda _: reply(400, {"errors": ["invalid role or secret ID"]})) as peer:
        with pytest.raises(VaultMisconfigured, match="refuses"):
            async with connect(settings_of(peer, tmp_path)):
                pass


async def test_a_root_token_by_approle_is_refused_too(tmp_path: Path) -> None:
    """Whatever the way to it."""
    async with vault_peer(lambda _: granted(policies=("connectors-server", "root"))) as peer:
        with pytest.raises(VaultMisconfigured, match="root"):
            async with connect(settings_of(peer, tmp_path)):
                pass


async def test_a_refused_token_is_replaced_once_a_call_however_many_callers(tmp_path: Path) -> None:
    """One look-up and one login for forty callers; a Vault that refuses every token does not make us loop."""
    good = {"token-2"}

    def script(asked: Asked) -> Answer:
        if asked.target == LOGIN:
            return granted(f"token-{peer.count(LOGIN)}")
        if asked.target == REVOKE:
            return reply(204)
        if asked.headers.get("x-vault-token") not in good:
            return DENIED
        return reply(200, {"data": {"policies": [], "ttl": 60}}) if asked.target == LOOKUP else EMPTY

    async with vault_peer(script) as peer, connect(settings_of(peer, tmp_path)) as client:
        assert all(await asyncio.gather(*(reads(client) for _ in range(40))))
        assert (peer.count(LOGIN), peer.count(LOOKUP)) == (2, 1)
        good.clear()
        with pytest.raises(VaultUnavailable):
            await reads(client)
        assert peer.count(LOGIN) == 3
        assert peer.count("/v1/secret/data/a/b") <= 82


async def test_a_token_is_renewed_before_it_ends(tmp_path: Path) -> None:
    """At two thirds of its time, again and again, without a new login."""

    def script(asked: Asked) -> Answer:
        return granted(ttl=0.5) if asked.target in (LOGIN, RENEW) else reply(204)

    async with vault_peer(script) as peer, connect(settings_of(peer, tmp_path)):
        await peer.until(RENEW, 2)
        assert peer.count(LOGIN) == 1


@pytest.mark.parametrize("answer", [DENIED, reply(400, {"errors": ["lease is not renewable"]}), granted(ttl=0)])
async def test_when_renewal_is_refused_or_runs_out_we_log_in_again(answer: bytes, tmp_path: Path) -> None:
    """In the background, before a call has to."""

    def script(asked: Asked) -> Answer:
        if asked.target == LOGIN:
            return granted(ttl=0.5)
        return answer if asked.target == RENEW else reply(204)

    async with vault_peer(script) as peer, connect(settings_of(peer, tmp_path)):
        await peer.until(LOGIN, 2)
        assert peer.count(RENEW) == 1


@pytest.mark.parametrize("answer", [reply(500), reply(429), reply(200, b"nonsense"), reply(200, {"auth": None}), None])
async def test_a_renewal_that_fails_is_tried_again(answer: Answer, tmp_path: Path) -> None:
    """The token is kept meanwhile: it may still be good."""

    def script(asked: Asked) -> Answer:
        if asked.target == RENEW:
            return answer if peer.count(RENEW) == 1 else granted(ttl=3600)
        return granted(ttl=0.5) if asked.target == LOGIN else EMPTY

    async with vault_peer(script) as peer, connect(settings_of(peer, tmp_path)) as client:
        await peer.until(RENEW, 1)
        assert await reads(client)
        await peer.until(RENEW, 2)
        assert peer.count(LOGIN) == 1


async def test_a_vault_that_comes_up_later_is_logged_in_to_without_a_call(tmp_path: Path) -> None:
    """Starting does not wait for it; readiness says when."""

    def script(asked: Asked) -> Answer:
        if asked.target == LOGIN:
            return reply(503, {"errors": ["Vault is sealed"]}) if peer.count(LOGIN) == 1 else granted()
        return EMPTY

    async with vault_peer(script) as peer, connect(settings_of(peer, tmp_path)) as client:
        assert not client.authenticated
        await peer.until(LOGIN, 2)
        assert await reads(client)


async def test_a_caller_that_gives_up_does_not_end_the_login_of_the_rest(tmp_path: Path) -> None:
    """The flight is shielded, and its result shared."""
    release = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(granted())
        await writer.drain()

    def script(asked: Asked) -> Answer:
        if asked.target == LOGIN:
            return reply(503) if peer.count(LOGIN) == 1 else late
        return EMPTY

    async with vault_peer(script) as peer, connect(settings_of(peer, tmp_path)) as client:
        impatient, patient = (asyncio.create_task(reads(client)) for _ in range(2))
        await peer.until(LOGIN, 2)
        impatient.cancel()
        await asyncio.wait([impatient])
        release.set()
        assert await patient
        assert peer.count(LOGIN) == 2


async def test_leaving_does_not_wait_for_a_vault_that_hangs(tmp_path: Path) -> None:
    """Ending the token is tried within the deadline, and no task is left."""

    async def silence(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    async with vault_peer(lambda asked: granted() if asked.target == LOGIN else silence) as peer:
        async with connect(settings_of(peer, tmp_path, timeout=1.0)):
            ours = {task.get_name() for task in asyncio.all_tasks() - before}
        assert "vault-token" in ours
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not left & {"vault-token", "vault-login"}
        assert peer.count(REVOKE) == 1


async def test_an_error_in_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    """No exception group around it."""
    async with vault_peer(usual(lambda _: EMPTY)) as peer:
        with pytest.raises(KeyError):
            async with connect(settings_of(peer, tmp_path)):
                raise KeyError("mine")


@pytest.mark.parametrize("answer", [None, reply(503), reply(200, {"data": {}})])
async def test_when_it_can_not_be_told_whether_the_token_is_good_it_is_kept(answer: Answer, tmp_path: Path) -> None:
    """A 403 and then no answer to the look-up: the call fails, nobody logs in, the token stays."""

    def script(asked: Asked) -> Answer:
        if asked.target in (LOGIN, REVOKE):
            return granted()
        return answer if asked.target == LOOKUP else DENIED

    async with vault_peer(script) as peer, connect(settings_of(peer, tmp_path)) as client:
        with pytest.raises(VaultUnavailable):
            await reads(client)
        assert client.authenticated
        assert peer.count(LOGIN) == 1


@pytest.mark.parametrize("status", [400, 403, 503])
async def test_a_token_file_whose_token_is_refused_says_so(status: int, tmp_path: Path) -> None:
    """Refused is an operator's matter; not being served is waited for."""
    (tmp_path / "token").write_text("s.token")
    async with vault_peer(lambda _: reply(status, {"errors": ["x"]})) as peer:
        settings = VaultSettings(address=peer.address, token_file=tmp_path / "token")
        if status == 503:
            async with connect(settings) as client:
                assert not client.authenticated
        else:
            with pytest.raises(VaultMisconfigured, match="token file"):
                async with connect(settings):
                    pass
