"""A real OpenBao for the tests, under the server's real policy. Use it by `pytest_plugins = ["tests.openbao"]`.

`openbao` is one for the whole session: keep to names of your own in it (a tenant id per test). `private_openbao` is the
test's own, to be killed or filled; it starts in 0.2 s, from a copy of a state directory that was booted once.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from connectors_grpc.embedded import EmbeddedSettings, EmbeddedVault, StateLayout, read_approle
from connectors_grpc.embedded.api import AppRole, Reply, call, login

SETTINGS = EmbeddedSettings(start_deadline=60)


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A running OpenBao and how to get in."""

    vault: EmbeddedVault
    role_id: str
    secret_id: str = field(repr=False)

    @property
    def layout(self) -> StateLayout:
        """Where its files lie."""
        return self.vault.layout

    @property
    def socket_path(self) -> Path:
        """The Unix socket of its API; there is no other way in."""
        return self.vault.socket_path

    @property
    def address(self) -> str:
        """The socket as a URL, `unix:///path`."""
        return f"unix://{self.socket_path}"

    async def login(self) -> str:
        """A new token of the server's role."""
        token = await asyncio.to_thread(login, self.socket_path, AppRole(self.role_id, self.secret_id))
        assert token is not None
        return token

    async def kill(self) -> None:
        """As if its machine died; `vault.start` brings it back."""
        assert self.vault.pid is not None
        os.kill(self.vault.pid, signal.SIGKILL)
        await self.vault.wait_exit()
        await self.vault.stop()

    async def call(self, method: str, path: str, body: object = None, token: str = "") -> Reply:
        """One raw API call, `path` without `/v1/`."""
        return await asyncio.to_thread(call, self.socket_path, method, path, body, token)


def opened(vault: EmbeddedVault) -> OpenBao:
    """A started vault, with its way in read from its file."""
    approle = read_approle(vault.secret_id_file)
    return OpenBao(vault, approle.role_id, approle.secret_id)


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets, which pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="bao-") as path:
        yield Path(path)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def openbao_template(short_tmp: Path) -> Path:
    """A state directory after its first boot, not in use: to be copied."""
    layout = StateLayout.at(short_tmp / "template")
    async with EmbeddedVault(layout, SETTINGS):
        pass
    return layout.root


def copy_state(template: Path, root: Path) -> StateLayout:
    """A state directory of its own, as the template was when it was stopped."""
    shutil.copytree(template, root)
    return StateLayout.at(root)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def openbao(short_tmp: Path, openbao_template: Path) -> AsyncIterator[OpenBao]:
    """The session's OpenBao."""
    async with EmbeddedVault(copy_state(openbao_template, short_tmp / "shared"), SETTINGS) as vault:
        yield opened(vault)


@pytest_asyncio.fixture(loop_scope="session")
async def private_openbao(short_tmp: Path, openbao_template: Path) -> AsyncIterator[OpenBao]:
    """An OpenBao of this test's own."""
    root = Path(tempfile.mkdtemp(prefix="own-", dir=short_tmp)) / "s"
    async with EmbeddedVault(copy_state(openbao_template, root), SETTINGS) as vault:
        yield opened(vault)
    shutil.rmtree(root.parent)
